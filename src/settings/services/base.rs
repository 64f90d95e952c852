//! Settings that declarations are added to: what they are not to take from the settings of the
//! file, or from each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use mapsmith_core::services::{RejectedService, ServiceStatus};
use mapsmith_core::{DesiredServers, ServiceForms};

use super::{Listener, Overlay};
use crate::settings::backend::Backend;
use crate::settings::{Settings, Source};
use crate::source::{KeysOfKinds, SourceKind};

/// Settings that declarations are added to.
pub(in crate::settings) struct Base<'a> {
    pub file: &'a Settings,
    pub settings: Settings,
    pub forms: ServiceForms,
    pub shown: Vec<ServiceStatus>,
    /// The backends that are declared, and by which form.
    pub backends: BTreeMap<String, String>,
    /// Other forms, each by its setting.
    pub values: BTreeMap<String, String>,
    /// What listens beside them, each by its section.
    pub listeners: BTreeMap<String, Listener>,
    /// Names of frontends and backends, and whose they are.
    names: BTreeMap<String, String>,
    /// Where somebody listens: the address, none for all, and who.
    ports: BTreeMap<u16, Vec<(Option<IpAddr>, String)>>,
}

impl<'a> Base<'a> {
    pub(in crate::settings) fn new(file: &'a Settings) -> Self {
        let mut base = Self {
            file,
            settings: file.clone(),
            forms: ServiceForms::new(),
            shown: Vec::new(),
            backends: BTreeMap::new(),
            values: BTreeMap::new(),
            listeners: BTreeMap::new(),
            names: BTreeMap::new(),
            ports: BTreeMap::new(),
        };
        for name in file.frontends.iter().map(|frontend| frontend.name.as_str()) {
            base.names.insert(name.to_owned(), format!("the frontend {name} of the settings"));
        }
        for name in file.backends.iter().map(|backend| &backend.name) {
            base.names.insert(name.clone(), format!("the backend {name} of the settings"));
        }
        base.listens(Some(file.api.listen), "api.listen");
        let Some(config) = file.haproxy_config(&DesiredServers::default()) else { return base };
        let process = &config.process;
        let stats = process.stats.as_ref().map(|stats| ("haproxy.stats", &stats.bind));
        let metrics = process.metrics.as_ref().map(|metrics| ("haproxy.metrics", &metrics.bind));
        let health = process.health.as_ref().map(|health| ("haproxy.health", &health.bind));
        for (who, bind) in [stats, metrics, health].into_iter().flatten() {
            base.listens(bind.internet(), who);
        }
        for frontend in &config.frontends {
            for bind in &frontend.binds {
                let who = format!("the frontend {} of the settings", frontend.name);
                base.listens(bind.address.internet(), &who);
            }
        }
        base
    }

    /// Notes that somebody listens there.
    pub(in crate::settings) fn listens(&mut self, address: Option<SocketAddr>, who: &str) {
        let Some(address) = address.filter(|address| address.port() > 0) else { return };
        let ip = Some(address.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        self.ports.entry(address.port()).or_default().push((ip, who.to_owned()));
    }

    /// Who listens there already, or at all addresses of that port.
    pub(in crate::settings) fn who_listens(&self, address: SocketAddr) -> Option<&str> {
        let ip = Some(address.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        let mut there = self.ports.get(&address.port()).into_iter().flatten();
        let clash = there.find(|(other, _)| ip.is_none() || other.is_none() || *other == ip);
        clash.map(|(_, who)| who.as_str())
    }

    /// Whose frontend or backend has this name.
    pub(in crate::settings) fn who_has(&self, name: &str) -> Option<&str> {
        self.names.get(name).map(String::as_str)
    }

    /// Notes whose names these are.
    pub(in crate::settings) fn has_names(&mut self, who: &str, names: &[&str]) {
        self.names.extend(names.iter().map(|name| ((*name).to_owned(), who.to_owned())));
    }

    /// The first of the settings file, or one that asks the name servers of this machine.
    pub(in crate::settings) fn dns(&mut self) -> String {
        let is_dns = |source: &&Source| source.kind == SourceKind::Dns && !source.shadow;
        if let Some(source) = self.file.sources.iter().find(is_dns) {
            return source.name.clone();
        }
        let name = "dns:resolv.conf";
        self.add_source(name, SourceKind::Dns, |_| {});
        name.to_owned()
    }

    /// Adds a source unless it is there.
    pub(in crate::settings) fn add_source(
        &mut self,
        name: &str,
        kind: SourceKind,
        set: impl FnOnce(&mut KeysOfKinds),
    ) {
        if self.settings.sources.iter().any(|source| source.name == name) {
            return;
        }
        let mut of_kind = KeysOfKinds::default();
        set(&mut of_kind);
        self.settings.sources.push(Source::of_services(name, kind, of_kind));
    }

    /// What of the declarations contradicts the rules, or the settings of the file: forms, and why.
    pub(super) fn problems(&self) -> BTreeMap<String, String> {
        let settings = self.settings.clone().with_own_haproxy().with_feeds();
        let of_form = |problem: String| {
            let (section, rest) = problem.split_once('[')?;
            let (index, why) = rest.split_once(']')?;
            let index: usize = index.parse().ok()?;
            let backend = match section {
                "frontend" => settings.frontends.get(index)?.default_backend.as_ref()?.as_str(),
                "backend" => &settings.backends.get(index)?.name,
                "source" => {
                    let source = &settings.sources.get(index)?.name;
                    let of = |backend: &&Backend| {
                        backend.from.as_ref().is_some_and(|from| from.source == *source)
                    };
                    &settings.backends.iter().find(of)?.name
                }
                _ => return None,
            };
            let why = why.trim_start_matches(['.', ':', ' ']);
            Some((self.backends.get(backend)?.clone(), why.to_owned()))
        };
        settings.problems().into_iter().filter_map(of_form).collect()
    }

    pub(super) fn finish(self, rejected: Vec<RejectedService>) -> Overlay {
        let Self { file, mut settings, forms, shown, backends, values, listeners, .. } = self;
        // By name, not by which of them changed: another order would be another file of HAProxy's.
        settings.frontends[file.frontends.len()..].sort_by(|one, other| one.name.cmp(&other.name));
        settings.backends[file.backends.len()..].sort_by(|one, other| one.name.cmp(&other.name));
        settings.sources[file.sources.len()..].sort_by(|one, other| one.name.cmp(&other.name));
        let mut settings = settings.with_own_haproxy().with_feeds();
        let in_force = listeners.iter().filter(|(_, listener)| listener.is_in);
        let in_force = backends.keys().chain(values.keys()).chain(in_force.map(|(name, _)| name));
        settings.services_in_force = Some(in_force.cloned().collect());
        Overlay { settings, forms, backends, shown, values, listeners, rejected }
    }
}
