//! `[[backend]]`: whose servers are kept, and how requests are shared out among them.

use std::collections::BTreeSet;
use std::time::Duration;

use mapsmith_core::config::values::HostValue;
use mapsmith_core::config::{HttpReuse, Native, RetryOn};
use mapsmith_core::desired::servers::names_its_master;
use mapsmith_core::server::list::{
    RawServer, Repeats, ServerList, ServerListBuilder, parse_address,
};
use mapsmith_core::server::shown::shown_words;
use mapsmith_core::server::{MOST_SERVERS, Manage, ServerOptions, is_valid_name};
use serde::Deserialize;

mod rendered;
mod selector;
mod server_options;

pub use rendered::{Balance, Check, Cookie, ErrorBody, Expect, Tls};
pub use selector::Selector;

use super::Source;
use super::frontend::Mode;
use super::keys::section;
use super::source::BUILT_IN;
use super::units::{duration, optional_duration};
use crate::source::SourceKind;

section! {
    /// A backend of HAProxy whose servers Mapsmith manages. Exactly one of `servers`, `from` and
    /// `masters` says which servers these are.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Backend {
        /// Its name in HAProxy: 1 to 255 letters, digits and `.` `_` `:` `-`.
        #[unset(required)]
        pub name: String,
        /// The servers, written out in the settings. An invalid one is rejected and reported, and
        /// does not keep Mapsmith from starting.
        pub servers: Option<Vec<DeclaredServer>>,
        /// The source that lists the servers. `file` and `http_json`: its name; it holds JSON
        /// objects `{name?, address, port?, weight?, backup?, options?}` and is no part of the node
        /// map. Other kinds: a table that says which of its servers, `{ source, .. }`.
        pub from: Option<Selector>,
        /// A second list of servers, named like one of `from`, that is polled and compared with the
        /// servers in force, and never applied
        /// ([operations.md](operations.md#from-one-registry-to-another)).
        pub shadow_from: Option<Selector>,
        /// The address of each master that the node map names, or has named while it is drained or
        /// owns nodes (`[ownership]`), as a template with `{producer}` (the registry's name of the
        /// master) or `{master}` (HAProxy's name): `{producer}:8140`. A drained master's server has
        /// weight 0 while another is ready; after the drain it has its configured weight again.
        pub masters: Option<String>,
        /// The options of every server that has none of its own: `["check", "maxconn 1000"]`. With
        /// `masters` also `{producer}` and `{master}`: `"verifyhost {producer}"`.
        #[unset(says "none")]
        #[serde(default)]
        pub options: Vec<String>,
        /// A list without a server: `keep` holds it, and the servers in force stay; `accept` takes it,
        /// and requests are answered 503. A list whose rows are all invalid is no empty one.
        #[unset("keep")]
        #[serde(default)]
        pub empty: WhenEmpty,
        /// The most servers, 1 to 10000, of those that are listed. Those in force stay before others
        /// do, then those with the lowest addresses are taken; `status` says how many are left out.
        #[unset(says "all that are listed")]
        pub max_servers: Option<usize>,
        /// Which servers may be changed. `own`: only those that are or were listed. `all`: every
        /// server of the backend.
        #[unset(says "`own`; `all` where all its servers are written by Mapsmith, too")]
        pub manage: Option<Manage>,
        /// The prefix of a `server-template`, whose free slots are used where no server can be
        /// added.
        pub slots: Option<String>,
        /// The `defaults` section from which HAProxy 3.4 and later create the backend if it is
        /// missing.
        pub defaults: Option<String>,
        /// How long a server that is being removed may keep its sessions.
        #[unset("30s")]
        #[serde(default = "drain", deserialize_with = "duration")]
        pub drain: Duration,
        /// Like all keys from here on it needs `[haproxy]`. `http` or `tcp`.
        #[unset(says "`http`")]
        pub mode: Option<Mode>,
        /// How requests are shared out: `roundrobin`, `leastconn`, `random`, or a consistent hash:
        /// `source` (of the client's address), `uri` (of the path) or `{ header = "X-Name" }`.
        #[unset(says "`roundrobin`; of all masters that can serve any node, a hash of the node")]
        pub balance: Option<Balance>,
        /// The health check of its servers.
        #[unset(says "`options` alone")]
        pub check: Option<Check>,
        /// TLS to its servers.
        #[unset(says "`options` alone")]
        pub tls: Option<Tls>,
        /// Whether connections to its servers begin with a PROXY protocol header (version 2), which
        /// says who the client is.
        #[unset(says "`false`")]
        pub send_proxy: Option<bool>,
        /// The most concurrent requests (mode tcp: connections) of each server. Further ones wait.
        #[unset(says "`options` alone")]
        pub maxconn: Option<u32>,
        /// How many may wait, for any server or, where the node map routes, for each; further ones
        /// are answered 503.
        #[unset(says "no limit")]
        pub maxqueue: Option<u32>,
        /// How long one may wait; then it is answered 503.
        #[unset(says "`haproxy.timeouts.queue`")]
        #[serde(default, deserialize_with = "optional_duration")]
        pub queue_timeout: Option<Duration>,
        /// The `Host` header that servers get, in place of the client's.
        pub host: Option<HostValue>,
        /// Clients come back to their server by this cookie, `{ name, key }`. The key is a secret
        /// of your own, the same at each gateway. HAProxy 2.6 gives no cookie to a server that was
        /// added at runtime, until a reload.
        pub cookie: Option<Cookie>,
        /// How often a failed attempt is repeated.
        #[unset(says "`3`; with `route.misdirected` `28`")]
        pub retries: Option<u16>,
        /// Whether a repeated attempt goes to another server.
        #[unset(says "`false`; where the node map routes `true`")]
        pub redispatch: Option<bool>,
        /// What is repeated: `conn-failure`, `empty-response`, `junk-response`, `response-timeout`
        /// and statuses of an answer, like `"503"`. All but the first may repeat what has run.
        #[unset(says "`[\"conn-failure\"]`; `route`: see [gateway.md](gateway.md)")]
        pub retry_on: Option<Vec<RetryOn>>,
        /// Whether requests of several clients share a connection to a server: `never`, `safe`,
        /// `aggressive` or `always`.
        #[unset(says "`safe`")]
        pub http_reuse: Option<HttpReuse>,
        /// HAProxy's own answers: `{ status, content_type, body, retry_after }`, `retry_after` in
        /// seconds.
        #[unset(says "HAProxy's pages; `route`: texts that name node and master")]
        pub errors: Option<Vec<ErrorBody>>,
        /// Native lines, after the rendered ones.
        #[unset(says "none")]
        pub natives: Option<Vec<Native>>,
    }
}

/// The name of the source of registrations that is written out.
fn of_registrations(sources: &[Source]) -> Option<&str> {
    let own = sources.iter().find(|source| source.kind == SourceKind::Registrations);
    own.map(|source| source.name.as_str())
}

/// What becomes of a list without a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    #[default]
    Keep,
    Accept,
}

fn drain() -> Duration {
    Duration::from_secs(30)
}

section! {
    /// A server of `backend.servers`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct DeclaredServer {
        /// Its name in HAProxy.
        #[unset(required)]
        pub name: String,
        /// Its address or host name, with its port.
        #[unset(required)]
        pub address: String,
        /// Its weight, 0 to 256.
        #[unset(says "HAProxy's")]
        pub weight: Option<i64>,
        /// Whether it is used only while no other server is available.
        #[unset("false")]
        #[serde(default)]
        pub backup: bool,
        /// Its options, instead of the backend's.
        #[unset(says "`backend.options`")]
        pub options: Option<Vec<String>>,
    }
}

/// Where a backend's servers come from.
#[derive(Debug, Clone, Copy)]
pub enum Listing<'a> {
    /// Written out.
    Servers(&'a [DeclaredServer]),
    /// A source lists them.
    From(&'a Selector),
    /// The masters of the node map, at addresses of this form.
    Masters(&'a str),
}

impl Backend {
    /// One of this name, of which nothing else is said.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            servers: None,
            from: None,
            shadow_from: None,
            masters: None,
            options: Vec::new(),
            empty: WhenEmpty::default(),
            max_servers: None,
            manage: None,
            slots: None,
            defaults: None,
            drain: drain(),
            mode: None,
            balance: None,
            check: None,
            tls: None,
            send_proxy: None,
            maxconn: None,
            maxqueue: None,
            queue_timeout: None,
            host: None,
            cookie: None,
            retries: None,
            redispatch: None,
            retry_on: None,
            http_reuse: None,
            errors: None,
            natives: None,
        }
    }

    /// Where its servers come from. (Where the settings were checked, exactly one of the keys is
    /// there.)
    pub fn listing(&self) -> Listing<'_> {
        match (&self.from, &self.masters) {
            (Some(selector), _) => Listing::From(selector),
            (None, Some(address)) => Listing::Masters(address),
            (None, None) => Listing::Servers(self.servers.as_deref().unwrap_or_default()),
        }
    }

    /// Where its servers come from, for a person: `settings` (written out), `node map` (its
    /// masters), or `source NAME`, with the selector's keys.
    pub fn origin(&self) -> String {
        match self.listing() {
            Listing::Servers(_) => "settings".to_owned(),
            Listing::From(selector) => format!("source {selector}"),
            Listing::Masters(_) => "node map".to_owned(),
        }
    }

    /// Whether Mapsmith writes the lines of all its servers, where it writes HAProxy's file.
    pub(super) fn has_all_servers(&self) -> bool {
        let natives = self.natives.iter().flatten();
        let mut of_servers = natives.filter(|native| native.as_str().starts_with("server"));
        self.slots.is_none() && of_servers.next().is_none()
    }

    /// The options of servers that bring none. (Checked with the settings: they are taken.)
    pub fn default_options(&self) -> ServerOptions {
        ServerOptions::parse(&self.all_options()).unwrap_or_default()
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

    /// `applied` are the sources that some backend's `from` names.
    fn problems_of_lists(
        &self,
        sources: &[Source],
        applied: &BTreeSet<&str>,
        mut problem: impl FnMut(String),
    ) {
        for (key, from) in [("from", &self.from), ("shadow_from", &self.shadow_from)] {
            let Some(from) = from else { continue };
            // They name the key that most lists stand in.
            let mut of_key = |text: String| match text.strip_prefix("from") {
                Some(rest) => problem(format!("{key}{rest}")),
                None => problem(text),
            };
            from.problems(&mut of_key);
            match sources.iter().find(|source| source.name == from.source) {
                None if from.source == BUILT_IN => of_key(match of_registrations(sources) {
                    Some(own) => {
                        format!("from: the source of registrations is called {own:?} here")
                    }
                    None => "from: what is registered is kept in the store; set `path` in \
                        `[store]` (like /var/lib/mapsmith/mapsmith.db)"
                        .to_owned(),
                }),
                None => of_key(format!("from: there is no source of the name {:?}", from.source)),
                Some(source) if source.shadow && key == "from" => of_key(format!(
                    "from: source {:?} is a shadow, which is never applied; name it in \
                        shadow_from, or remove shadow from the source",
                    from.source
                )),
                // To compare it would take its nodes out of the map.
                Some(source)
                    if source.kind.is_one_document()
                        && !source.shadow
                        && !applied.contains(&*source.name) =>
                {
                    of_key(format!(
                        "from: source {:?} is one document, which is part of the node map while \
                            no from names it; set shadow = true in that source",
                        from.source
                    ));
                }
                Some(source) => source.kind.selector_problems(from, of_key),
            }
        }
        if self.from.is_some() && self.from == self.shadow_from {
            problem("shadow_from: names the very list of from; name the other one".to_owned());
        }
    }

    fn problems(
        &self,
        place: &str,
        sources: &[Source],
        applied: &BTreeSet<&str>,
        problems: &mut Vec<String>,
    ) {
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
        self.problems_of_lists(sources, applied, &mut problem);
        if let Some(Err(error)) = self.masters.as_ref().map(|template| check_template(template)) {
            problem(format!("masters: {error}"));
        }
        if let Err(error) = ServerOptions::parse(&self.options) {
            problem(format!("options: {}", shown_words(error.to_string())));
        }
        if self.masters.is_none() && self.options.iter().any(|option| names_its_master(option)) {
            problem("options: {producer} and {master} need `masters`".to_owned());
        }
        if self.max_servers.is_some_and(|most| !(1..=MOST_SERVERS).contains(&most)) {
            problem(format!("max_servers: must be 1 to {MOST_SERVERS}"));
        }
        self.option_problems(&mut problem);
        for (key, value) in [("slots", &self.slots), ("defaults", &self.defaults)] {
            if value.as_ref().is_some_and(|name| !is_valid_name(name)) {
                problem(format!(
                    "{key}: not a name in HAProxy: 1 to 255 letters, digits and . _ : -"
                ));
            }
        }
    }
}

pub(super) fn problems(backends: &[Backend], sources: &[Source], problems: &mut Vec<String>) {
    let applied = backends.iter().filter_map(|backend| Some(&*backend.from.as_ref()?.source));
    let applied = applied.collect();
    for (index, backend) in backends.iter().enumerate() {
        if backends[..index].iter().any(|other| other.name == backend.name) {
            problems.push(format!("backend: there are two of the name {:?}", backend.name));
        }
        let place = format!("backend[{index}] {:?}", backend.name);
        backend.problems(&place, sources, &applied, problems);
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

/// The names of the sources that list servers.
pub(super) fn list_sources(backends: &[Backend]) -> BTreeSet<&str> {
    let lists = backends.iter().flat_map(|backend| [&backend.from, &backend.shadow_from]);
    lists.flatten().map(|list| list.source.as_str()).collect()
}

#[cfg(test)]
mod tests;
