//! The settings of the file with what metadata declares over them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mapsmith_core::config::values::{BindAddress, Name};
use mapsmith_core::portmap::texts::{ORDER, is_service};
use mapsmith_core::portmap::{self, Declaration, DeclaredService, ServersFrom, Service};
use mapsmith_core::services::{RejectedService, ServiceStatus};
use mapsmith_core::{ServiceForms, ServiceTexts};

use super::declared::{Terms, redirect, sections};
use super::values::Values;
use super::{Portmap, certificate};
use crate::settings::services::base::Base;
use crate::settings::services::choose::{Declares, choose};
use crate::settings::services::{Overlay, Refusals};
use crate::settings::{Certificate, Settings};

/// The ports of HTTP and HTTPS.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;
/// What the frontend is called that redirects to HTTPS.
const REDIRECT: &str = "fe-redirect";

/// Puts what metadata declares over the settings of the file. `good` are the last good forms,
/// `refused` what HAProxy does not take.
pub fn overlay(
    file: &Settings,
    portmap: &Portmap,
    texts: &ServiceTexts,
    good: &ServiceForms,
    refused: &Refusals,
) -> Overlay {
    let (values, forms, rejected) = Values::choose(texts, good);
    let order = texts.texts.get(ORDER).and_then(|order| order.as_ref().ok());
    let places = places(order.map(String::as_str), texts);
    let of_services = texts.texts.iter().filter(|(name, _)| !Values::has(name) && *name != ORDER);
    let services = ServiceTexts {
        texts: of_services.map(|(name, text)| (name.clone(), text.clone())).collect(),
    };
    let make = || Making::new(file, portmap, &values, &places);
    let mut overlay = choose(make, &services, good, refused);
    overlay.forms.extend(forms);
    overlay.forms.extend(order.map(|order| (ORDER.to_owned(), order.clone())));
    overlay.rejected.extend(rejected);
    overlay
}

/// The place of each service among the others, from 0: in their order as far as one is given, then
/// by port.
fn places(order: Option<&str>, texts: &ServiceTexts) -> BTreeMap<String, usize> {
    let ordered = order.unwrap_or_default().split(' ').filter(|name| is_service(name));
    let mut all: Vec<&str> = ordered.collect();
    let mut others: Vec<_> = texts.texts.keys().map(String::as_str).collect();
    others.retain(|name| is_service(name) && !all.contains(name));
    others.sort_by_key(|name| name.parse::<u16>().unwrap_or_default());
    all.extend(others);
    all.into_iter().enumerate().map(|(place, name)| (name.to_owned(), place)).collect()
}

/// Settings that services are added to.
struct Making<'a> {
    base: Base<'a>,
    portmap: &'a Portmap,
    values: &'a Values,
    places: &'a BTreeMap<String, usize>,
    declaration: Option<Declaration>,
    dns: Option<String>,
    /// What clients see, where the settings name no certificate.
    own_certificate: Option<Certificate>,
    /// Whether a service with a certificate listens on port 443.
    has_https: bool,
}

impl<'a> Making<'a> {
    fn new(
        file: &'a Settings,
        portmap: &'a Portmap,
        values: &'a Values,
        places: &'a BTreeMap<String, usize>,
    ) -> Self {
        let mut base = Base::new(file);
        if let Some(haproxy) = &mut base.settings.haproxy {
            values.apply(haproxy);
        }
        let is_shown = |it: &&Certificate| Some(&it.name) == portmap.certificate.as_ref();
        let given = file.certificates.iter().find(is_shown);
        let own = || certificate::self_signed(file, &values.certificate);
        let own_certificate = portmap.certificate.is_none().then(own).flatten();
        let shown = given.or(own_certificate.as_ref());
        let declaration = portmap.ca().map(|ca| Declaration {
            naming: portmap.names.into(),
            listen: portmap.address.into_iter().collect(),
            certificate: shown.and_then(|certificate| certificate.path.clone()),
            alpn: Vec::new(),
            ca,
            max_servers: values.max_servers,
        });
        let (dns, has_https) = (None, false);
        Self { base, portmap, values, places, declaration, dns, own_certificate, has_https }
    }

    /// Where services listen on a port.
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.portmap.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port)
    }

    fn bind(&self, port: u16) -> Option<BindAddress> {
        let text = match self.portmap.address {
            Some(_) => self.address(port).to_string(),
            None => format!("*:{port}"),
        };
        BindAddress::try_from(text).ok()
    }

    fn declare(&self, name: &str, service: &Service) -> Result<DeclaredService, String> {
        let declaration = self.declaration.as_ref().ok_or("portmap.ca: is not a path")?;
        let place = self.places.get(name).copied().unwrap_or_default();
        declaration.declare_at(place, service).map_err(|_| {
            "there is no certificate for clients; name a [[certificate]] in portmap.certificate"
                .to_owned()
        })
    }

    /// Adds the certificate that a service shows, unless it is there.
    fn add_certificate(&mut self) {
        let settings = &mut self.base.settings;
        if let Some(own) = &self.own_certificate
            && !settings.certificates.iter().any(|other| other.name == own.name)
        {
            settings.add_certificate(own.clone());
        }
    }

    /// Adds HAProxy's metrics, where somebody may read them.
    fn add_metrics(&mut self, rejected: &mut Vec<RejectedService>) {
        let port = self.values.metrics_port.get();
        if !self.values.has_metrics() {
            return;
        }
        let (address, bind) = (self.address(port), self.bind(port));
        if let Some(who) = self.base.who_listens(address).filter(|who| *who != "haproxy.metrics") {
            let reason = format!(
                "metrics_port: {who} listens on {port} too, so HAProxy's metrics are nowhere; set \
                    another port"
            );
            rejected.push(rejection("metrics_port", reason));
            return;
        }
        if let (Some(haproxy), Some(bind)) = (&mut self.base.settings.haproxy, bind) {
            haproxy.metrics = self.values.metrics(bind);
            self.base.listens(Some(address), "the metrics of the metadata");
        }
    }

    /// Adds the frontend that redirects to HTTPS, where nobody else listens on its port.
    fn add_redirect(&mut self) {
        let wanted = self.portmap.redirect_http && self.has_https;
        let is_free = self.base.who_listens(self.address(HTTP)).is_none()
            && self.base.who_has(REDIRECT).is_none();
        let name = Name::try_from(REDIRECT.to_owned()).ok();
        if let (true, Some((name, bind))) = (wanted && is_free, name.zip(self.bind(HTTP))) {
            self.base.settings.frontends.push(redirect(name, bind));
        }
    }
}

impl<'a> Declares<'a> for Making<'a> {
    fn take(&mut self, name: &str, text: &str) -> Result<Vec<String>, String> {
        let mut parsed = portmap::Portmap::parse(text);
        let (1, Some(service)) = (parsed.services.len(), parsed.services.pop()) else {
            let why = parsed.rejected.first().map(ToString::to_string);
            return Err(why.unwrap_or_else(|| "it is not one service".to_owned()));
        };
        let port = service.listen_port.get();
        if port.to_string() != name {
            return Err(format!("it listens on {port}"));
        }
        let declared = self.declare(name, &service)?;
        let fronts = (declared.frontend.name.to_string(), declared.backend.name.to_string());
        let names = [fronts.0.as_str(), fronts.1.as_str()];
        if let Some(who) = names.into_iter().find_map(|name| self.base.who_has(name)) {
            return Err(format!("{who} has the name {} or {}; rename it", names[0], names[1]));
        }
        let address = self.address(port);
        if let Some(who) = self.base.who_listens(address) {
            return Err(format!("{who} listens on {port} too; take another port"));
        }
        let shown = ServiceStatus {
            name: name.to_owned(),
            kind: Some(service.service_type.to_string()),
            bind: declared.frontend.binds.iter().map(|bind| bind.address.to_string()).collect(),
            servers: declared.servers.to_string(),
        };
        let asks = !matches!(declared.servers, ServersFrom::Address(_));
        if asks && self.dns.is_none() {
            self.dns = Some(self.base.dns());
        }
        let own = self.own_certificate.as_ref().map(|own| &own.name);
        let certificate = self.portmap.certificate.as_ref().or(own).cloned();
        let terms = Terms {
            certificate: certificate.as_ref(),
            hsts: self.portmap.hsts,
            dns: self.dns.as_deref().unwrap_or_default(),
        };
        let (front, back) = sections(&service, declared, terms)?;
        self.base.settings.frontends.push(front);
        self.base.settings.backends.push(back);
        if service.service_type.has_certificate() {
            self.add_certificate();
        }
        let who = format!("the service on port {name}");
        self.base.has_names(&who, &names);
        self.base.listens(Some(address), &who);
        self.base.backends.insert(fronts.1, name.to_owned());
        self.base.forms.insert(name.to_owned(), text.to_owned());
        self.base.shown.push(shown);
        self.has_https |= port == HTTPS && service.service_type.has_certificate();
        Ok(Vec::new())
    }

    fn base(&self) -> &Base<'a> {
        &self.base
    }

    fn finish(mut self, rejected: &mut Vec<RejectedService>) -> Base<'a> {
        self.add_metrics(rejected);
        self.add_redirect();
        if self.own_certificate.is_some() {
            let problems = certificate::ask_authority(&mut self.base, &self.values.certificate);
            let problem = |why| rejection("certificate_name", why);
            rejected.extend(problems.into_iter().map(problem));
        }
        self.base.shown.sort_by_key(|shown| shown.name.parse::<u16>().unwrap_or_default());
        self.base
    }
}

/// What is wrong with a value that keeps no last good form.
pub(super) fn rejection(name: &str, reason: String) -> RejectedService {
    RejectedService { name: name.to_owned(), reason, by_haproxy: false, keeps_last_good: false }
}
