//! `[services]`: a registry that declares frontends and backends, a service each, as ProxyMgr's
//! `service_config` does.
//!
//! [`service`] reads a service's text, [`options`] and [`keywords`] what it says to HAProxy in
//! HAProxy's words, and [`overlay`] puts the services over the settings of the file. All of it is
//! pure. A registry is trusted with less than an operator: it opens no file and names none but in
//! one folder, sends no credentials anywhere, and takes no name or port that the file has.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::frontend::Mode;
use super::keys::section;
use super::{Haproxy, Selector, Settings, Source, WhenEmpty};

pub(super) mod base;
pub(super) mod choose;
mod keywords;
mod options;
mod overlay;
mod service;
#[cfg(test)]
mod tests;

pub use overlay::{Listener, Overlay, Refusals, overlay};

/// The most services that a registry may be allowed.
const MOST_SERVICES: usize = 10_000;

section! {
    /// A registry that declares services, as ProxyMgr's `service_config` does: each is a port with
    /// the servers behind it, a frontend `NAME-listen` and a backend `NAME` beside those of this
    /// file ([services.md](services.md)). Needs `[haproxy]` with `managed`. A change of a service
    /// is in force within about a second, and a service that can't be used keeps its last good
    /// form.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Services {
        /// The source that declares them. `zookeeper`: `{ source = "zk", path =
        /// "/service_config" }`, whose children are services. `file`: its name; its `path` is a
        /// folder with a file `NAME.json` for each service.
        #[unset(required)]
        pub from: Selector,
        /// The address that services listen on, each on its own port.
        #[unset("127.0.0.1")]
        #[serde(default = "loopback")]
        pub address: IpAddr,
        /// The mode of services whose `listen_options` name none: `http` or `tcp`.
        #[unset(says "`tcp`, HAProxy's own")]
        #[serde(default = "tcp")]
        pub mode: Mode,
        /// The folder below which services of type `file` may have their lists, and options may
        /// name files. An absolute path. A list that is a link must lead to a file below it.
        #[unset(says "they may name no file")]
        pub files: Option<PathBuf>,
        /// The most services, 1 to 10000; further ones are rejected, in the order of their names.
        #[unset("1000")]
        #[serde(default = "most")]
        pub max: usize,
        /// An answer without a service: `keep` holds it, and the services in force stay until it is
        /// approved; `accept` takes it. How many may go at once, and within `guard.window`, is up
        /// to `guard.max_removed` and `guard.small`.
        #[unset("keep")]
        #[serde(default)]
        pub empty: WhenEmpty,
    }
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn tcp() -> Mode {
    Mode::Tcp
}

fn most() -> usize {
    1000
}

impl Services {
    /// The file that a service names, if it may.
    fn file(&self, name: &str) -> Result<PathBuf, String> {
        let Some(folder) = &self.files else {
            return Err("set services.files to the folder that services may name files of".into());
        };
        if name.contains(char::is_control) {
            return Err(format!("{name:?} has a control character"));
        }
        let path = folder.join(name);
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        match path.strip_prefix(folder) {
            Ok(below) if below.components().all(is_plain) && below != Path::new("") => Ok(path),
            _ => Err(format!("{name:?} is not below services.files, {}", folder.display())),
        }
    }

    pub(super) fn problems(
        &self,
        haproxy: Option<&Haproxy>,
        sources: &[Source],
        problems: &mut Vec<String>,
    ) {
        let mut problem = |text: String| problems.push(format!("services.{text}"));
        if !haproxy.is_some_and(Haproxy::is_supervised) {
            problem(
                "from: needs [haproxy] with managed = true or \"attached\", so that Mapsmith \
                    writes HAProxy's configuration"
                    .to_owned(),
            );
        }
        self.from.problems(&mut problem);
        match sources.iter().find(|source| source.name == self.from.source) {
            None => problem(format!("from: there is no source of the name {:?}", self.from.source)),
            Some(source) if source.shadow => problem(format!(
                "from: source {:?} is a shadow, which is never applied; remove shadow from it",
                source.name
            )),
            Some(source) => source.kind.services_problems(&self.from, &mut problem),
        }
        if !(1..=MOST_SERVICES).contains(&self.max) {
            problem(format!("max: must be 1 to {MOST_SERVICES}"));
        }
        if self.files.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            problem("files: must be an absolute path".to_owned());
        }
    }
}

impl Settings {
    /// The source that declares services, by `[services]` or `[portmap]`, if there is one.
    pub fn services_source(&self) -> Option<(&Source, Selector)> {
        let of_services = self.services.as_ref().map(|services| services.from.clone());
        let from = of_services.or_else(|| Some(self.portmap.as_ref()?.from()))?;
        Some((self.sources.iter().find(|source| source.name == from.source)?, from))
    }
}
