//! Contradictions in a configuration. HAProxy's own check finds some of them and names lines; it
//! accepts the others and does something else than was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::process::Timeouts;
use super::rules::{Action, Condition, Matcher, Rule};
use super::values::{BindAddress, MAX_SOCKET_PATH};
use super::{
    Backend, Balance, BindTls, CommandGateway, Config, Frontend, HttpReuse, HttpVersion, ListensAt,
    Mode, Route, RouteBy,
};
use crate::render;

/// Anything shorter would be 0, which is no limit at all.
const MIN_TIME: Duration = Duration::from_millis(1);
/// The longest time that HAProxy can count, in milliseconds.
const MAX_TIME: Duration = Duration::from_millis(i32::MAX as u64);
/// HAProxy 2.6's limit.
const MAX_THREADS: u16 = 64;
/// With more, a process that HAProxy's check accepts does not get ready.
const MAX_CONNECTIONS: u32 = 5_000_000;
/// Names of what is rendered beside the declared frontends and backends begin with it.
const RESERVED: &str = "mapsmith-";

/// A contradiction, and the setting that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Like `frontend[0].rules[2]`.
    pub place: String,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.text)
    }
}

impl Config {
    /// What HAProxy would refuse, or take for something else, in the order of the settings.
    pub fn problems(&self) -> Vec<Problem> {
        let backends: BTreeMap<&str, &Backend> =
            self.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        let mut found = Found { problems: Vec::new(), backends, addresses: BTreeMap::new() };
        found.process(self);
        let mut names = BTreeSet::new();
        for (index, frontend) in self.frontends.iter().enumerate() {
            let place = format!("frontend[{index}]");
            found.name(&place, frontend.name.as_str(), &mut names);
            if found.backends.contains_key(frontend.name.as_str()) {
                // HAProxy 3.4 refuses it.
                found.add(&place, format!("a backend has the name {} too", frontend.name));
            }
            found.frontend(&place, frontend);
        }
        let mut names = BTreeSet::new();
        for (index, backend) in self.backends.iter().enumerate() {
            let place = format!("backend[{index}]");
            found.name(&place, backend.name.as_str(), &mut names);
            found.backend(&place, backend);
        }
        found.routes(self);
        found.commands(self);
        found.problems
    }
}

struct Found<'a> {
    problems: Vec<Problem>,
    backends: BTreeMap<&'a str, &'a Backend>,
    /// Where somebody listens, and who.
    addresses: BTreeMap<ListensAt, String>,
}

impl<'a> Found<'a> {
    fn add(&mut self, place: &str, text: impl Into<String>) {
        self.problems.push(Problem { place: place.to_owned(), text: text.into() });
    }

    fn name(&mut self, place: &str, name: &'a str, names: &mut BTreeSet<&'a str>) {
        if !names.insert(name) {
            self.add(place, format!("there are two of the name {name}"));
        }
        if name.starts_with(RESERVED) {
            self.add(place, format!("name: {RESERVED}... is reserved; take another name"));
        }
    }

    fn process(&mut self, config: &Config) {
        let process = &config.process;
        self.maxconn("haproxy", process.maxconn);
        if process.threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
            self.add("haproxy.nbthread", format!("must be from 1 to {MAX_THREADS}"));
        }
        let socket = process.socket.as_ref();
        if socket.is_some_and(|socket| socket.as_str().len() > MAX_SOCKET_PATH) {
            self.add("haproxy.socket", format!("is longer than {MAX_SOCKET_PATH} bytes"));
        }
        let Timeouts {
            connect,
            client,
            server,
            queue,
            http_request,
            http_keep_alive,
            tunnel,
            check,
        } = &process.timeouts;
        for (key, time) in [
            ("connect", connect),
            ("client", client),
            ("server", server),
            ("queue", queue),
            ("http_request", http_request),
            ("http_keep_alive", http_keep_alive),
            ("tunnel", tunnel),
            ("check", check),
        ] {
            self.time(&format!("haproxy.timeouts.{key}"), Some(*time));
        }
        self.time("haproxy.hard_stop_after", process.hard_stop_after);
        for (index, line) in process.global.iter().enumerate() {
            let word = line.as_str().split_ascii_whitespace().next();
            if process.server_states.is_some() && word == Some("server-state-file") {
                let place = format!("haproxy.global[{index}]");
                self.add(&place, "Mapsmith gives HAProxy a file of its own; remove the line");
            }
        }
        let stats = process.stats.as_ref().map(|stats| ("haproxy.stats.bind", &stats.bind));
        let metrics =
            process.metrics.as_ref().map(|metrics| ("haproxy.metrics.bind", &metrics.bind));
        let health = process.health.as_ref().map(|health| ("haproxy.health", &health.bind));
        let challenges = process
            .challenges
            .as_ref()
            .and_then(|challenges| challenges.bind.as_ref().map(|bind| ("acme.port_80", bind)));
        let commands = config.command_gateway().map(|it| ("commands.gateway", &it.bind));
        for (place, bind) in [stats, metrics, health, challenges, commands].into_iter().flatten() {
            self.listens(place, place, bind);
        }
    }

    fn maxconn(&mut self, place: &str, maxconn: Option<u32>) {
        if maxconn.is_some_and(|maxconn| !(1..=MAX_CONNECTIONS).contains(&maxconn)) {
            self.add(place, format!("maxconn: must be from 1 to {MAX_CONNECTIONS}"));
        }
    }

    fn time(&mut self, place: &str, time: Option<Duration>) {
        if time.is_some_and(|time| time < MIN_TIME || time > MAX_TIME) {
            self.add(place, "must be at least 1ms and at most 24 days, HAProxy's limits");
        }
    }

    /// HAProxy binds an address twice without an error.
    fn listens(&mut self, place: &str, who: &str, address: &BindAddress) {
        if let Some(other) = self.addresses.insert(address.listens_at(), who.to_owned()) {
            self.add(place, format!("{other} listens at {address} too"));
        }
    }

    fn frontend(&mut self, place: &str, frontend: &'a Frontend) {
        let binds_itself = frontend.natives.iter().any(|native| native.is("bind"));
        if frontend.binds.is_empty() && !binds_itself {
            self.add(place, "bind: give at least one address");
        }
        for (at, bind) in frontend.binds.iter().enumerate() {
            let place = format!("{place}.bind[{at}]");
            self.listens(&place, &format!("the frontend {}", frontend.name), &bind.address);
            if bind.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty()) {
                self.add(&place, "certificate: give at least one");
            }
        }
        self.maxconn(place, frontend.maxconn);
        for (at, rule) in frontend.rules.iter().enumerate() {
            self.rule(&format!("{place}.rules[{at}]"), frontend, rule);
        }
        if let Some(at) = frontend.rules.iter().position(Rule::answers_all)
            && at + 1 < frontend.rules.len()
        {
            let place = format!("{place}.rules[{}]", at + 1);
            self.add(&place, format!("is never reached: rules[{at}] answers every request"));
        }
        match (&frontend.default_backend, &frontend.route) {
            (Some(name), _) => {
                self.goes(&format!("{place}.default_backend"), frontend, name.as_str());
            }
            (None, None) if frontend.rules.is_empty() && frontend.natives.is_empty() => {
                self.add(place, "requests go nowhere: add default_backend");
            }
            (None, _) => {}
        }
    }

    /// A frontend sends requests to a backend.
    fn goes(&mut self, place: &str, frontend: &Frontend, name: &str) {
        match self.backends.get(name) {
            None => self.add(place, format!("there is no backend {name}")),
            Some(backend) if backend.mode != frontend.mode => {
                self.add(place, format!("the backend {name} has another mode"));
            }
            Some(_) => {}
        }
    }

    fn rule(&mut self, place: &str, frontend: &Frontend, rule: &Rule) {
        match &rule.action {
            Action::Backend(name) => self.goes(place, frontend, name.as_str()),
            Action::SetPath(path) if !path.as_str().starts_with('/') => {
                self.add(place, "set_path: must begin with /");
            }
            Action::Return { status, body: Some(_), .. }
                if matches!(u16::from(*status), 204 | 304) =>
            {
                self.add(place, "return: an answer of status 204 or 304 has no body");
            }
            _ => {}
        }
        let Condition { all, none, any } = &rule.condition;
        if all.iter().chain(none).chain(any.iter().flatten()).any(Matcher::is_empty) {
            self.add(place, "a condition without values never matches");
        }
        if any.iter().any(Vec::is_empty) {
            self.add(place, "any: an empty table matches everything");
        }
        if !render::fits(rule) {
            self.add(place, "has more conditions than a line of HAProxy's configuration can have");
        }
        if frontend.mode == Mode::Tcp && needs_http(rule) {
            self.add(place, "a frontend of mode tcp has only src, sni, backend and deny");
        }
    }

    fn backend(&mut self, place: &str, backend: &Backend) {
        if backend.mode == Mode::Tcp {
            let http = [
                ("host", backend.host.is_some()),
                ("cookie", backend.cookie.is_some()),
                ("errors", !backend.errors.is_empty()),
                ("retry_on", !backend.retry_on.is_empty()),
                ("http_reuse", backend.http_reuse.is_some()),
            ];
            for (key, _) in http.into_iter().filter(|(_, given)| *given) {
                self.add(place, format!("{key}: only for mode http"));
            }
            if matches!(backend.balance, Some(Balance::Uri | Balance::Header(_))) {
                self.add(place, "balance: uri and header are only for mode http");
            }
        }
        self.time(&format!("{place}.queue_timeout"), backend.queue_timeout);
        let proxied = |option: &String| option.starts_with("send-proxy");
        let sends_proxy =
            backend.servers.iter().any(|server| server.options.words().iter().any(proxied));
        if sends_proxy
            && matches!(backend.http_reuse, Some(HttpReuse::Aggressive | HttpReuse::Always))
        {
            let text = "http_reuse: with send_proxy a connection belongs to one client: never or \
                safe";
            self.add(place, text);
        }
        let statuses: BTreeSet<_> = backend.errors.iter().map(|error| error.status).collect();
        if statuses.len() < backend.errors.len() {
            self.add(place, "errors: there are two of one status");
        }
        if let Some(check) = &backend.check
            && check.host.is_none()
            && check.version == Some(HttpVersion::Http11)
        {
            self.add(&format!("{place}.check"), "version 1.1 needs host");
        }
    }

    /// The backend of commands has no requests of others, and repeats nothing.
    fn commands(&mut self, config: &Config) {
        let Some(CommandGateway { backend: name, .. }) = config.command_gateway() else { return };
        let known = config.backends.iter().position(|backend| backend.name == *name);
        let Some(index) = known else {
            return self.add("commands.backend", format!("there is no backend {name}"));
        };
        for (index, frontend) in config.frontends.iter().enumerate() {
            let place = format!("frontend[{index}]");
            let of_rules =
                frontend.rules.iter().enumerate().filter_map(|(at, rule)| match &rule.action {
                    Action::Backend(name) => Some((format!("{place}.rules[{at}]"), name)),
                    _ => None,
                });
            let of_route = frontend.route.as_ref().and_then(|route| route.backend.as_ref());
            let of_route = of_route.map(|name| (format!("{place}.route.backend"), name));
            let default = frontend.default_backend.as_ref();
            let default = default.map(|name| (format!("{place}.default_backend"), name));
            for (place, _) in of_rules.chain(of_route).chain(default).filter(|(_, it)| *it == name)
            {
                let text = format!("the backend {name} is for commands alone (commands.backend)");
                self.add(&place, text);
            }
        }
        let backend = &config.backends[index];
        let place = format!("backend[{index}]");
        if backend.mode == Mode::Tcp {
            self.add(&place, "mode: commands need http");
        }
        for (key, given) in [
            ("retries", backend.retries.is_some()),
            ("redispatch", backend.redispatch),
            ("retry_on", !backend.retry_on.is_empty()),
            ("http_reuse", backend.http_reuse.is_some()),
            ("balance", backend.balance.is_some()),
            ("cookie", backend.cookie.is_some()),
            ("errors", !backend.errors.is_empty()),
        ] {
            if given {
                let text = "nothing is repeated, shared or answered otherwise for commands";
                self.add(&place, format!("{key}: {text} (commands.backend); remove it"));
            }
        }
    }

    fn routes(&mut self, config: &'a Config) {
        let mut to: BTreeMap<&str, &Route> = BTreeMap::new();
        for (index, frontend) in config.frontends.iter().enumerate() {
            let Some(route) = &frontend.route else { continue };
            let place = format!("frontend[{index}].route");
            if frontend.mode == Mode::Tcp {
                self.add(&place, "only for mode http");
            }
            if let Some(name) = &route.backend {
                self.goes(&format!("{place}.backend"), frontend, name.as_str());
                let other = to.insert(name.as_str(), route);
                let differs = other.is_some_and(|other| {
                    (&other.by, other.misdirected) != (&route.by, route.misdirected)
                });
                if differs {
                    let text = "backend: another frontend routes to it by another name or status";
                    self.add(&place, text);
                }
                if frontend.default_backend.is_some() {
                    self.add(&place, "default_backend: the route sends all requests to a backend");
                }
            } else if route.misdirected.is_some() {
                self.add(&place, "misdirected: needs `backend`, with all masters as its servers");
            }
            if route.misdirected.is_some_and(|status| !matches!(u16::from(status), 404 | 421)) {
                self.add(&place, "misdirected: must be 404 or 421");
            }
            let clients = |tls: &BindTls| tls.clients.is_some();
            let all_verify =
                frontend.binds.iter().all(|bind| bind.tls.as_ref().is_some_and(clients));
            if route.by == RouteBy::ClientCertificate && !all_verify {
                self.add(&place, "by: each bind needs `certificate` and `client_ca`");
            }
            if route.by != RouteBy::ClientCertificate && !route.open.is_empty() {
                self.add(&place, "open: only by = \"client_certificate\"");
            }
        }
    }
}

fn needs_http(rule: &Rule) -> bool {
    let condition = &rule.condition;
    let groups = condition.any.iter().flatten();
    let is_tcp = |matcher: &Matcher| matches!(matcher, Matcher::Source(_) | Matcher::Sni(_));
    !condition.all.iter().chain(&condition.none).chain(groups).all(is_tcp)
        || !matches!(rule.action, Action::Backend(_) | Action::Deny(_))
}
