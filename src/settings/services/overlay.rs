//! The settings of the file with services over them: what every other part of Mapsmith goes by.
//!
//! One service's fault is its own: it keeps its last good form, or is left out, and the others go
//! on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mapsmith_core::config::values::{BindAddress, Name};
use mapsmith_core::services::{RejectedService, ServiceStatus};
use mapsmith_core::{DesiredServers, ServiceForms, ServiceTexts};

use super::Services;
use super::service::{Ensemble, Service, Watcher, read};
use crate::settings::backend::Backend;
use crate::settings::frontend::{Bind, Frontend};
use crate::settings::{Selector, Settings, Source};
use crate::source::{Confined, FileFormat, KeysOfKinds, SourceKind};

/// What is behind a service's name in its frontend's.
const LISTEN: &str = "-listen";
/// The most ZooKeepers that services may name beside those of the settings file.
const MOST_ENSEMBLES: usize = 16;
/// How often all is put together for services that can't keep their last good form, each time with
/// more of them as they were, before everything that changes stays so.
const MOST_ROUNDS: usize = 8;

/// What HAProxy refuses: of each service the texts, with HAProxy's words.
pub type Refusals = BTreeMap<String, BTreeMap<String, String>>;

/// Settings with services over them.
#[derive(Debug, Clone)]
pub struct Overlay {
    pub settings: Settings,
    /// The services in it.
    pub forms: ServiceForms,
    /// How they are shown.
    pub shown: Vec<ServiceStatus>,
    /// What is not in it as the registry has it.
    pub rejected: Vec<RejectedService>,
}

/// Puts the services of a registry over the settings of the file. `good` are their last good forms,
/// `refused` what HAProxy does not take.
pub fn overlay(
    file: &Settings,
    texts: &ServiceTexts,
    good: &ServiceForms,
    refused: &Refusals,
) -> Overlay {
    let Some(services) = &file.services else {
        let (settings, forms) = (file.clone(), ServiceForms::new());
        return Overlay { settings, forms, shown: Vec::new(), rejected: Vec::new() };
    };
    // What contradicts the rest of the settings shows once all is put together.
    let mut contradicting = Refusals::new();
    // So does what one service takes from another that has to stay as it was.
    let mut staying = BTreeMap::new();
    let mut rounds = 0;
    loop {
        let mut made = Making::new(file, services);
        let left_out = made.take_all(texts, good, [refused, &contradicting], &staying);
        if !left_out.is_empty() {
            rounds += 1;
            if rounds == MOST_ROUNDS {
                stay_all(&mut staying, texts, good);
            }
            staying.extend(left_out);
            continue;
        }
        let problems = made.problems();
        if problems.is_empty() {
            return made.finish();
        }
        for (name, why) in problems {
            let Some(text) = made.forms.get(&name).cloned() else { continue };
            contradicting.entry(name).or_default().insert(text, why);
        }
    }
}

/// Has every service that changes stay as it was.
fn stay_all(staying: &mut BTreeMap<String, Wrong>, texts: &ServiceTexts, good: &ServiceForms) {
    for (name, text) in &texts.texts {
        if good.get(name).is_some_and(|known| text.as_ref() != Ok(known)) {
            let reason = "it takes what others have that stay as they were; change them one after \
                the other";
            staying.entry(name.clone()).or_insert_with(|| reason.to_owned().into());
        }
    }
}

/// Why a form of a service is not used.
#[derive(Debug, Clone)]
struct Wrong {
    reason: String,
    by_haproxy: bool,
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self { reason, by_haproxy: false }
    }
}

/// Settings that services are added to.
struct Making<'a> {
    file: &'a Settings,
    services: &'a Services,
    settings: Settings,
    forms: ServiceForms,
    shown: Vec<ServiceStatus>,
    rejected: Vec<RejectedService>,
    /// Names of frontends and backends, and whose they are.
    names: BTreeMap<String, String>,
    /// Where somebody listens: the address, none for all, and who.
    ports: BTreeMap<u16, Vec<(Option<IpAddr>, String)>>,
}

impl<'a> Making<'a> {
    fn new(file: &'a Settings, services: &'a Services) -> Self {
        let mut made = Self {
            file,
            services,
            settings: file.clone(),
            forms: ServiceForms::new(),
            shown: Vec::new(),
            rejected: Vec::new(),
            names: BTreeMap::new(),
            ports: BTreeMap::new(),
        };
        for name in file.frontends.iter().map(|frontend| frontend.name.as_str()) {
            made.names.insert(name.to_owned(), format!("the frontend {name} of the settings"));
        }
        for name in file.backends.iter().map(|backend| &backend.name) {
            made.names.insert(name.clone(), format!("the backend {name} of the settings"));
        }
        made.listens(Some(file.api.listen), "api.listen");
        let Some(config) = file.haproxy_config(&DesiredServers::default()) else { return made };
        let process = &config.process;
        let stats = process.stats.as_ref().map(|stats| ("haproxy.stats", &stats.bind));
        let metrics = process.metrics.as_ref().map(|metrics| ("haproxy.metrics", &metrics.bind));
        let health = process.health.as_ref().map(|health| ("haproxy.health", &health.bind));
        for (who, bind) in [stats, metrics, health].into_iter().flatten() {
            made.listens(socket_address(bind), who);
        }
        for frontend in &config.frontends {
            for bind in &frontend.binds {
                let who = format!("the frontend {} of the settings", frontend.name);
                made.listens(socket_address(&bind.address), &who);
            }
        }
        made
    }

    fn listens(&mut self, address: Option<SocketAddr>, who: &str) {
        let Some(address) = address.filter(|address| address.port() > 0) else { return };
        let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        self.ports.entry(address.port()).or_default().push((ip, who.to_owned()));
    }

    /// Takes each service in the first of its forms that can be used; those that are `staying` as
    /// they were. Which have a last good form and can't keep it, for another one that changes has
    /// taken something of it, and why they need it.
    fn take_all(
        &mut self,
        texts: &ServiceTexts,
        good: &ServiceForms,
        refusals: [&Refusals; 2],
        staying: &BTreeMap<String, Wrong>,
    ) -> BTreeMap<String, Wrong> {
        // What is in force has its names and ports before what changes, and that before what is
        // new.
        let rank = |name: &String, text: &Result<String, String>| match good.get(name) {
            Some(known) if text.as_ref() == Ok(known) || staying.contains_key(name) => 0,
            Some(_) => 1,
            None => 2,
        };
        let mut ranked: Vec<_> = texts.texts.iter().collect();
        ranked.sort_by_key(|(name, text)| rank(name, text));
        let mut left_out = BTreeMap::new();
        for (name, text) in ranked {
            let text = text.as_ref().map_err(String::as_str);
            let outcome = match staying.get(name) {
                Some(why) => Err(why.clone()),
                None => self.try_form(name, text, refusals),
            };
            let Err(wrong) = outcome else { continue };
            let known = good.get(name).filter(|known| text.ok() != Some(known));
            let kept = known.map(|known| self.try_form(name, Ok(known), refusals));
            if matches!(kept, Some(Err(_))) && !staying.contains_key(name) {
                left_out.insert(name.clone(), wrong.clone());
            }
            let keeps_last_good = matches!(kept, Some(Ok(())));
            let (name, Wrong { reason, by_haproxy }) = (name.clone(), wrong);
            self.rejected.push(RejectedService { name, reason, by_haproxy, keeps_last_good });
        }
        self.rejected.sort_by(|one, other| one.name.cmp(&other.name));
        left_out
    }

    /// Where nobody refuses it: HAProxy, or the rest of the settings.
    fn try_form(
        &mut self,
        name: &str,
        text: Result<&String, &str>,
        [by_haproxy, by_settings]: [&Refusals; 2],
    ) -> Result<(), Wrong> {
        let text = text.map_err(str::to_owned)?;
        let refusal = |refusals: &Refusals| refusals.get(name)?.get(text).cloned();
        if let Some(reason) = refusal(by_haproxy) {
            return Err(Wrong { reason, by_haproxy: true });
        }
        if let Some(reason) = refusal(by_settings) {
            return Err(reason.into());
        }
        Ok(self.take(name, text)?)
    }

    /// Adds a service of this form.
    fn take(&mut self, name: &str, text: &str) -> Result<(), String> {
        if self.forms.len() >= self.services.max {
            return Err(format!("there are more than {} (services.max)", self.services.max));
        }
        let service = read(text, self.services)?;
        let front = format!("{name}{LISTEN}");
        let names = [name, &front].map(|name| Name::try_from(name.to_owned()));
        let [Ok(back_name), Ok(front_name)] = names else {
            return Err("its name can be none in HAProxy: letters, digits and . _ : -, at most \
                248 of them"
                .to_owned());
        };
        if let Some(who) = [name, &front].into_iter().find_map(|name| self.names.get(name)) {
            return Err(format!("{who} has its name, or that with {LISTEN}; take another one"));
        }
        let address = SocketAddr::new(self.services.address, service.port);
        let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        let there = self.ports.get(&service.port).into_iter().flatten();
        let mut there = there.filter(|(other, _)| ip.is_none() || other.is_none() || *other == ip);
        if let Some((_, who)) = there.next() {
            return Err(format!("port: {who} listens on {} too; take another one", service.port));
        }
        let bind =
            BindAddress::try_from(address.to_string()).map_err(|error| format!("port: {error}"))?;
        let from = self.selector(name, &service.watcher)?;
        self.shown.push(ServiceStatus {
            name: name.to_owned(),
            bind: address.to_string(),
            servers: from.to_string(),
        });
        let mode = service.listen.mode.unwrap_or(self.services.mode);
        let Service { listen, server_options, .. } = service;
        self.settings.frontends.push(Frontend {
            mode,
            maxconn: listen.maxconn,
            keep_alive: listen.keep_alive,
            forwarded_for: listen.forwarded_for,
            natives: listen.front,
            ..Frontend::to(front_name, Bind::plain(bind), back_name)
        });
        let natives = (!listen.back.is_empty()).then_some(listen.back);
        self.settings.backends.push(Backend {
            from: Some(from),
            options: server_options,
            mode: Some(mode),
            balance: listen.balance,
            check: listen.check,
            retries: listen.retries,
            redispatch: listen.redispatch,
            queue_timeout: listen.queue_timeout,
            http_reuse: listen.http_reuse,
            natives,
            ..Backend::named(name)
        });
        let who = format!("the service {name}");
        self.names.extend([(name.to_owned(), who.clone()), (front, who.clone())]);
        self.listens(Some(address), &who);
        self.forms.insert(name.to_owned(), text.to_owned());
        Ok(())
    }

    /// What of which source the servers of a service are.
    fn selector(&mut self, service: &str, watcher: &Watcher) -> Result<Selector, String> {
        let text = |key: &str, value: &str| (key.to_owned(), vec![value.to_owned()]);
        Ok(match watcher {
            Watcher::ZooKeeper(ensemble) => {
                let (source, path) = self.zookeeper(ensemble)?;
                Selector::of(&source, [text("format", "proxymgr"), text("path", &path)])
            }
            Watcher::CampanjaZk(ensemble, port) => {
                let (source, path) = self.zookeeper(ensemble)?;
                let port = text("port", &port.to_string());
                Selector::of(&source, [text("format", "campanjazk"), text("path", &path), port])
            }
            Watcher::Dns(names) => {
                let source = self.dns();
                match &names[..] {
                    [(name, port)] => {
                        let port = text("port", &port.to_string());
                        Selector::of(&source, [text("name", name), port])
                    }
                    names => {
                        let hosts = names.iter().map(|(name, port)| format!("{name}:{port}"));
                        Selector::of(&source, [("hosts".to_owned(), hosts.collect())])
                    }
                }
            }
            Watcher::File(path) => {
                let name = format!("file:{}", path.display());
                let of = |folder: &PathBuf| Confined {
                    service: service.to_owned(),
                    folder: folder.clone(),
                };
                let confined = self.services.files.as_ref().map(of);
                self.add_source(&name, SourceKind::File, |keys| {
                    keys.file.path = Some(path.clone());
                    keys.file.format = Some(FileFormat::Lines);
                    keys.confined = confined;
                });
                Selector::all_of(&name)
            }
        })
    }

    /// The source for these servers, and the path in it. Credentials go nowhere but where the
    /// settings file sends them: to a source of its own with the very same servers.
    fn zookeeper(
        &mut self,
        Ensemble { servers, path }: &Ensemble,
    ) -> Result<(String, String), String> {
        let declared = self
            .file
            .sources
            .iter()
            .filter(|source| source.kind == SourceKind::Zookeeper && !source.shadow);
        for source in declared {
            let mut own = source.of_kind.servers.servers.clone();
            own.sort_unstable();
            own.dedup();
            if own != *servers {
                continue;
            }
            let below = match &source.of_kind.zookeeper.chroot {
                None => Some(path.as_str()),
                Some(chroot) => {
                    path.strip_prefix(chroot.as_str()).filter(|below| below.starts_with('/'))
                }
            };
            if let Some(below) = below {
                return Ok((source.name.clone(), below.to_owned()));
            }
        }
        let name = format!("zookeeper:{}", servers.join(","));
        let made = self.settings.sources[self.file.sources.len()..].iter();
        let made: BTreeSet<_> = made
            .filter(|source| source.kind == SourceKind::Zookeeper)
            .map(|source| source.name.as_str())
            .collect();
        if made.len() >= MOST_ENSEMBLES && !made.contains(name.as_str()) {
            return Err(format!(
                "server: services name more than {MOST_ENSEMBLES} ZooKeepers that are no \
                    [[source]] of the settings; add one for {}",
                servers.join(",")
            ));
        }
        self.add_source(&name, SourceKind::Zookeeper, |keys| {
            keys.servers.servers.clone_from(servers)
        });
        Ok((name, path.clone()))
    }

    /// The first of the settings file, or one that asks the name servers of this machine.
    fn dns(&mut self) -> String {
        let is_dns = |source: &&Source| source.kind == SourceKind::Dns && !source.shadow;
        if let Some(source) = self.file.sources.iter().find(is_dns) {
            return source.name.clone();
        }
        let name = "dns:resolv.conf";
        self.add_source(name, SourceKind::Dns, |_| {});
        name.to_owned()
    }

    /// Adds a source unless it is there.
    fn add_source(&mut self, name: &str, kind: SourceKind, set: impl FnOnce(&mut KeysOfKinds)) {
        if self.settings.sources.iter().any(|source| source.name == name) {
            return;
        }
        let mut of_kind = KeysOfKinds::default();
        set(&mut of_kind);
        self.settings.sources.push(Source::of_services(name, kind, of_kind));
    }

    /// What of the services contradicts the rules, or the settings of the file: services, and why.
    fn problems(&self) -> BTreeMap<String, String> {
        let settings = self.settings.clone().with_own_haproxy().with_feeds();
        let of_service = |problem: String| {
            let (section, rest) = problem.split_once('[')?;
            let (index, why) = rest.split_once(']')?;
            let index: usize = index.parse().ok()?;
            let name = match section {
                "frontend" => {
                    let name = settings.frontends.get(index)?.name.as_str();
                    name.strip_suffix(LISTEN)?
                }
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
            self.forms.contains_key(name).then(|| (name.to_owned(), why.to_owned()))
        };
        settings.problems().into_iter().filter_map(of_service).collect()
    }

    fn finish(self) -> Overlay {
        let Self { settings, forms, mut shown, rejected, .. } = self;
        let mut settings = settings.with_own_haproxy().with_feeds();
        settings.services_in_force = Some(forms.keys().cloned().collect());
        shown.sort_by(|one, other| one.name.cmp(&other.name));
        Overlay { settings, forms, shown, rejected }
    }
}

/// Where it listens, if that is an address of IP: all of them for one without.
fn socket_address(bind: &BindAddress) -> Option<SocketAddr> {
    let (host, port) = bind.as_str().rsplit_once(':')?;
    let ip = match host.trim_start_matches("ipv4@").trim_start_matches("ipv6@") {
        "" | "*" => IpAddr::from([0, 0, 0, 0]),
        host => host.trim_matches(['[', ']']).parse().ok()?,
    };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}
