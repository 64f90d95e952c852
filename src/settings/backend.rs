//! `[[backend]]`, `[damping]` and `[references]`: whose servers are kept, how fast they may change,
//! what the map may name.

use std::collections::BTreeSet;
use std::time::Duration;

use mapsmith_core::desired::damping::DampingPolicy;
use mapsmith_core::desired::guard::Limit;
use mapsmith_core::server::list::{
    RawServer, Repeats, ServerList, ServerListBuilder, parse_address,
};
use mapsmith_core::server::{Manage, ServerOptions, is_valid_name};
use serde::Deserialize;

use super::units::duration;
use super::{FileFormat, Source, SourceKind, thirty_seconds};

/// `[[backend]]`: a backend of HAProxy whose servers are kept right. Exactly one of `servers`,
/// `from` and `masters` says which servers these are; see [`Backend::listing`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its name in HAProxy.
    pub name: String,
    /// The servers, written out.
    pub servers: Option<Vec<DeclaredServer>>,
    /// The name of the source that lists them.
    pub from: Option<String>,
    /// The address of each master that the node map names, with `{producer}` (the registry's name
    /// of it) or `{master}` (HAProxy's): `{producer}:8140`.
    pub masters: Option<String>,
    /// The options of every server that brings none of its own.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whose the servers are that nobody declared.
    #[serde(default)]
    pub manage: Manage,
    /// The prefix of a `server-template`'s names, whose free slots may serve where no server can be
    /// added.
    pub slots: Option<String>,
    /// The `defaults` section that HAProxy 3.4 and later make the backend from where it is missing.
    pub defaults: Option<String>,
    /// How long a server that is to go may keep its sessions.
    #[serde(default = "thirty_seconds", deserialize_with = "duration")]
    pub drain: Duration,
}

/// A server written out in the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredServer {
    /// Its name in HAProxy.
    pub name: String,
    /// Its address or host name, with its port.
    pub address: String,
    /// 0 to 256.
    pub weight: Option<i64>,
    /// Whether it serves only while no other server does.
    #[serde(default)]
    pub backup: bool,
    /// Its options, instead of the backend's.
    pub options: Option<Vec<String>>,
}

/// Where a backend's servers come from.
#[derive(Debug, Clone, Copy)]
pub enum Listing<'a> {
    /// Written out.
    Servers(&'a [DeclaredServer]),
    /// The source of this name lists them.
    From(&'a str),
    /// The masters of the node map, at addresses of this form.
    Masters(&'a str),
}

impl Backend {
    /// Where its servers come from. (Where the settings were checked, exactly one of the keys is
    /// there.)
    pub fn listing(&self) -> Listing<'_> {
        match (&self.from, &self.masters) {
            (Some(source), _) => Listing::From(source),
            (None, Some(address)) => Listing::Masters(address),
            (None, None) => Listing::Servers(self.servers.as_deref().unwrap_or_default()),
        }
    }

    /// Where its servers come from, for a person: `settings` (written out), `node map` (its
    /// masters), or `source NAME`.
    pub fn origin(&self) -> String {
        match self.listing() {
            Listing::Servers(_) => "settings".to_owned(),
            Listing::From(source) => format!("source {source}"),
            Listing::Masters(_) => "node map".to_owned(),
        }
    }

    /// The options of servers that bring none. (Checked with the settings: they are taken.)
    pub fn default_options(&self) -> ServerOptions {
        ServerOptions::parse(&self.options).unwrap_or_default()
    }

    /// The list that is written out, checked row by row. What is wrong with a row fails no start:
    /// it is left out and shown.
    pub fn declared(&self) -> ServerList {
        let mut builder = ServerListBuilder::default();
        for (index, server) in self.servers.iter().flatten().enumerate() {
            let place = format!("servers[{index}] {:?}", server.name);
            let server = server.clone();
            let raw = RawServer {
                name: Some(server.name),
                address: server.address,
                port: None,
                weight: server.weight,
                backup: server.backup,
                options: server.options,
            };
            builder.push(&place, raw);
        }
        builder.finish(Repeats::First).0
    }

    pub(super) fn problems(&self, place: &str, sources: &[Source], problems: &mut Vec<String>) {
        let mut problem = |text: String| problems.push(format!("{place}: {text}"));
        if !is_valid_name(&self.name) {
            problem(
                "name: no backend can have this name: 1 to 255 letters, digits and . _ : -"
                    .to_owned(),
            );
        }
        let given = [self.servers.is_some(), self.from.is_some(), self.masters.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            problem("give exactly one of servers, from and masters".to_owned());
        }
        if let Some(from) = &self.from {
            match sources.iter().find(|source| source.name == *from) {
                None => problem(format!("from: there is no source of the name {from:?}")),
                Some(source) if source.kind == SourceKind::Puppetdb => {
                    problem(format!(
                        "from: {from:?} is of type puppetdb; only file and http_json sources list \
                            servers"
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(Err(error)) = self.masters.as_ref().map(|template| check_template(template)) {
            problem(format!("masters: {error}"));
        }
        if let Err(error) = ServerOptions::parse(&self.options) {
            problem(format!("options: {error}"));
        }
        for (key, value) in [("slots", &self.slots), ("defaults", &self.defaults)] {
            if value.as_ref().is_some_and(|name| !is_valid_name(name)) {
                problem(format!(
                    "{key}: not a name in HAProxy: 1 to 255 letters, digits and . _ : -"
                ));
            }
        }
    }
}

/// A template must name the master, or all of them would be one server, and give a port.
fn check_template(template: &str) -> Result<(), String> {
    if !template.contains("{producer}") && !template.contains("{master}") {
        return Err(format!(
            "{template:?} must contain {{producer}} or {{master}}, for \
                example \"{{producer}}:8140\""
        ));
    }
    parse_address(&template.replace("{producer}", "p").replace("{master}", "m"), None).map(|_| ())
}

/// What is wrong with a source that lists servers: settings of the node map on it would do nothing.
pub(super) fn list_source_problems(source: &Source, place: &str, problems: &mut Vec<String>) {
    if source.node_field.is_some() || source.master_field.is_some() || !source.masters.is_empty() {
        problems.push(format!(
            "{place}: node_field, master_field and masters are for the node map, but a backend \
                takes its servers from this source"
        ));
    }
    if source.format == Some(FileFormat::Map) {
        problems.push(format!("{place}: format: a list of servers is JSON"));
    }
}

/// The names of the sources that list servers.
pub(super) fn list_sources(backends: &[Backend]) -> BTreeSet<&str> {
    backends.iter().filter_map(|backend| backend.from.as_deref()).collect()
}

/// `[damping]`: how fast server lists may change.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Damping {
    /// How long nothing may change before a change counts.
    #[serde(deserialize_with = "duration")]
    pub debounce: Duration,
    /// The longest that a change waits for quiet.
    #[serde(deserialize_with = "duration")]
    pub max_delay: Duration,
    /// How long a server that is no longer listed stays; and how long a node that flaps must be
    /// still before it moves.
    #[serde(deserialize_with = "duration")]
    pub hold: Duration,
    /// How many of a backend's servers may go within one `hold`: a share, rounded down but at least
    /// one, or a number.
    pub max_removed: Limit,
}

impl Default for Damping {
    /// Muppet collects for 15 s, holds for 30 s and removes 20 % (TritonDataCenter/muppet). A
    /// registry that is polled each minute needs a longer hold for one odd answer to do nothing; a
    /// change that comes alone need not wait.
    fn default() -> Self {
        Self {
            debounce: Duration::from_secs(1),
            max_delay: Duration::from_secs(15),
            hold: Duration::from_secs(90),
            max_removed: Limit::Percent(20.0),
        }
    }
}

impl Damping {
    /// The same for the pure core.
    pub fn pace(&self) -> DampingPolicy {
        DampingPolicy {
            debounce: self.debounce,
            max_delay: self.max_delay,
            hold: self.hold,
            max_removed: self.max_removed,
        }
    }

    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if self.max_delay < self.debounce {
            problems.push(
                "damping.max_delay: must not be shorter than damping.debounce, which it bounds"
                    .to_owned(),
            );
        }
    }
}
