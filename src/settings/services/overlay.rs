//! The settings of the file with services over them: what every other part of Mapsmith goes by.
//!
//! One service's fault is its own: it keeps its last good form, or is left out, and the others go
//! on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use mapsmith_core::config::values::{BindAddress, Name};
use mapsmith_core::services::{RejectedService, ServiceStatus};
use mapsmith_core::{ServiceForms, ServiceTexts};

use super::Services;
use super::base::Base;
use super::choose::{Declares, choose};
use super::service::{Ensemble, Service, Watcher, read};
use crate::settings::backend::Backend;
use crate::settings::frontend::{Bind, Frontend};
use crate::settings::{Selector, Settings};
use crate::source::{Confined, FileFormat, SourceKind};

/// What is behind a service's name in its frontend's.
const LISTEN: &str = "-listen";
/// The most ZooKeepers that services may name beside those of the settings file.
const MOST_ENSEMBLES: usize = 16;

/// What HAProxy refuses: of each service the texts, with HAProxy's words.
pub type Refusals = BTreeMap<String, BTreeMap<String, String>>;

/// Settings with services over them.
#[derive(Debug, Clone)]
pub struct Overlay {
    pub settings: Settings,
    /// The services in it.
    pub forms: ServiceForms,
    /// Their backends, and the form of each.
    pub backends: BTreeMap<String, String>,
    /// How they are shown.
    pub shown: Vec<ServiceStatus>,
    /// Other forms that HAProxy may refuse, each by the setting that it has become.
    pub values: BTreeMap<String, String>,
    /// What listens beside them, each by the section of HAProxy's that it is.
    pub listeners: BTreeMap<String, Listener>,
    /// What is not in it as the registry has it.
    pub rejected: Vec<RejectedService>,
}

/// What listens beside services, because a key says so: HAProxy's metrics, say.
#[derive(Debug, Clone)]
pub struct Listener {
    pub key: &'static str,
    pub purpose: &'static str,
    pub address: BindAddress,
    /// Whether it is in the settings: HAProxy does not refuse it.
    pub is_in: bool,
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
        let (shown, rejected) = (Vec::new(), Vec::new());
        let (backends, values) = (BTreeMap::new(), BTreeMap::new());
        let listeners = BTreeMap::new();
        return Overlay { settings, forms, backends, shown, values, listeners, rejected };
    };
    choose(|| Making { base: Base::new(file), services }, texts, good, refused)
}

/// Settings that services are added to.
struct Making<'a> {
    base: Base<'a>,
    services: &'a Services,
}

impl<'a> Declares<'a> for Making<'a> {
    fn take(&mut self, name: &str, text: &str) -> Result<Vec<String>, String> {
        if self.base.forms.len() >= self.services.max {
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
        if let Some(who) = [name, &front].into_iter().find_map(|name| self.base.who_has(name)) {
            return Err(format!("{who} has its name, or that with {LISTEN}; take another one"));
        }
        let address = SocketAddr::new(self.services.address, service.port);
        if let Some(who) = self.base.who_listens(address) {
            return Err(format!("port: {who} listens on {} too; take another one", service.port));
        }
        let bind =
            BindAddress::try_from(address.to_string()).map_err(|error| format!("port: {error}"))?;
        let from = self.selector(name, &service.watcher)?;
        self.base.shown.push(ServiceStatus {
            name: name.to_owned(),
            kind: None,
            bind: address.to_string(),
            servers: from.to_string(),
        });
        let mode = service.listen.mode.unwrap_or(self.services.mode);
        let Service { listen, server_options, .. } = service;
        self.base.settings.frontends.push(Frontend {
            mode,
            maxconn: listen.maxconn,
            keep_alive: listen.keep_alive,
            forwarded_for: listen.forwarded_for,
            natives: listen.front,
            ..Frontend::to(front_name, Bind::plain(bind), back_name)
        });
        let natives = (!listen.back.is_empty()).then_some(listen.back);
        self.base.settings.backends.push(Backend {
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
        self.base.has_names(&who, &[name, &front]);
        self.base.listens(Some(address), &who);
        self.base.backends.insert(name.to_owned(), name.to_owned());
        self.base.forms.insert(name.to_owned(), text.to_owned());
        Ok(Vec::new())
    }

    fn base(&self) -> &Base<'a> {
        &self.base
    }

    fn finish(mut self, _rejected: &mut Vec<RejectedService>) -> Base<'a> {
        self.base.shown.sort_by(|one, other| one.name.cmp(&other.name));
        self.base
    }
}

impl Making<'_> {
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
                let source = self.base.dns();
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
                self.base.add_source(&name, SourceKind::File, |keys| {
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
            .base
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
        let made = self.base.settings.sources[self.base.file.sources.len()..].iter();
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
        self.base.add_source(&name, SourceKind::Zookeeper, |keys| {
            keys.servers.servers.clone_from(servers)
        });
        Ok((name, path.clone()))
    }
}
