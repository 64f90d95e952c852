//! `[[frontend]]`: where HAProxy listens, and where each request goes.

use std::fmt;

use mapsmith_core::config::values::{
    Alpn, BindAddress, ErrorStatus, FilePath, HeaderName, Name, Text,
};
use mapsmith_core::config::{self, Native};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::section;
use super::{Certificate, Map};

mod rules;

pub use rules::{Redirection, Rule};

section! {
    /// A frontend of HAProxy: where it listens, and where requests go. Needs `[haproxy]`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Frontend {
        /// Its name in HAProxy: 1 to 255 letters, digits and `.` `_` `:` `-`.
        #[unset(required)]
        pub name: Name,
        /// Where it listens: addresses like `"127.0.0.1:8080"`, `":443"`, `"unix@/run/a.sock"`, or
        /// tables with the keys of `frontend.bind`.
        #[unset(required)]
        #[serde(deserialize_with = "binds")]
        pub bind: Vec<Bind>,
        /// `http` or `tcp`.
        #[unset("http")]
        #[serde(default)]
        pub mode: Mode,
        /// The most concurrent connections, 1 to 5000000.
        #[unset(says "as many as the process has")]
        pub maxconn: Option<u32>,
        /// Which connections are kept open for further requests: `both`, `client` (the server's is
        /// closed after each answer) or `none`.
        #[unset("both")]
        #[serde(default)]
        pub keep_alive: KeepAlive,
        /// Whether servers get the client's address in `X-Forwarded-For`. What the client sent
        /// there is replaced, and headers whose names have characters other than letters, digits
        /// and `-` are dropped, as servers may take them for it.
        #[unset("true")]
        #[serde(default = "yes")]
        pub forwarded_for: bool,
        /// The node map decides where requests go that no rule sends elsewhere.
        pub route: Option<Route>,
        /// What is done with which request, in this order.
        #[unset(says "none")]
        #[serde(default)]
        pub rules: Vec<Rule>,
        /// The backend of requests that no rule sends elsewhere.
        pub default_backend: Option<Name>,
        /// Native lines, after the rendered ones.
        #[unset(says "none")]
        #[serde(default)]
        pub natives: Vec<Native>,
    }
}

fn yes() -> bool {
    true
}

/// What a frontend or backend reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

impl From<Mode> for config::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Http => Self::Http,
            Mode::Tcp => Self::Tcp,
        }
    }
}

/// Which connections are kept open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepAlive {
    #[default]
    Both,
    Client,
    None,
}

section! {
    /// An address that a frontend listens on.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Bind {
        /// The address.
        #[unset(required)]
        pub address: BindAddress,
        /// The names of certificates (`[[certificate]]`): clients connect by TLS. The first is
        /// shown to clients that ask for no name, or for one that none of them has.
        #[unset(says "no TLS")]
        pub certificate: Option<Vec<Name>>,
        /// The protocols that are offered to TLS clients, the preferred one first.
        #[unset(says "mode http: `[\"h2\", \"http/1.1\"]`")]
        pub alpn: Option<Vec<Alpn>>,
        /// The file with the CAs whose certificates clients may show (PEM). An absolute path.
        #[unset(says "clients are not asked for a certificate")]
        pub client_ca: Option<FilePath>,
        /// `required`, or `optional`: a client may come without a certificate.
        #[unset(says "`required`")]
        pub verify: Option<Verify>,
        /// The file with the revoked client certificates (PEM). With it no TLS session is resumed,
        /// as HAProxy reads the list in full handshakes only.
        pub crl: Option<FilePath>,
        /// Whether connections begin with a PROXY protocol header, which says who the client is.
        #[unset("false")]
        #[serde(default)]
        pub accept_proxy: bool,
    }
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    Required,
    Optional,
}

section! {
    /// Routing by the node map: the request names its node, the map has the node's master, and that
    /// master's server gets the request. [gateway.md](gateway.md) describes the shapes.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Route {
        /// The map's name: the name of the file `map.path` without its ending.
        #[unset(says "the map of `[map]`")]
        pub map: Option<Name>,
        /// What names the node: `{ header = "X-Node-Name" }`, or `"client_certificate"` for its
        /// common name. With a certificate, masters get `X-Client-Verify`, `X-Client-DN` and
        /// `X-Client-Cert`, as Puppet Server reads them. Requests with header names that have
        /// characters other than letters, digits and `-` are refused (403).
        #[unset(required)]
        pub by: RouteBy,
        /// The backend whose servers are the masters, each by its name in the map.
        #[unset(says "each master is a backend, by its name in the map")]
        pub backend: Option<Name>,
        /// The status with which a master refuses nodes that are not its own, 404 or 421 (HAProxy
        /// 3.2 and later). The request is repeated on the other masters, and the one that answers
        /// is remembered for 10 minutes (a learned route). Needs `backend`.
        #[unset(says "any master can serve any node")]
        pub misdirected: Option<ErrorStatus>,
        /// With `misdirected`: what the paths begin with that belong to no node. There every answer
        /// counts, and none is learned from.
        #[unset(says "none")]
        #[serde(default)]
        pub shared: Vec<Text>,
        /// With a certificate: what the paths begin with that clients without one may ask for.
        #[unset(says "none")]
        #[serde(default)]
        pub open: Vec<Text>,
    }
}

/// What names the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteBy {
    Header(HeaderName),
    ClientCertificate,
}

/// Each element is an address, or a table with more.
fn binds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bind>, D::Error> {
    let entries = Vec::<BindEntry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|BindEntry(bind)| bind).collect())
}

struct BindEntry(Bind);

impl<'de> Deserialize<'de> for BindEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Bind;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an address like \"127.0.0.1:8080\", or a table with `address`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bind, E> {
                BindAddress::try_from(text.to_owned()).map(Bind::plain).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bind, A::Error> {
                Bind::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either).map(Self)
    }
}

impl Frontend {
    /// One that listens there and sends all requests to a backend, as they are.
    pub(super) fn to(name: Name, bind: Bind, backend: Name) -> Self {
        Self {
            name,
            bind: vec![bind],
            mode: Mode::default(),
            maxconn: None,
            keep_alive: KeepAlive::default(),
            forwarded_for: false,
            route: None,
            rules: Vec::new(),
            default_backend: Some(backend),
            natives: Vec::new(),
        }
    }

    /// As the core has it. What [`Frontend::problems`] names is left out.
    pub fn model(&self, certificates: &[Certificate], map: &Map) -> config::Frontend {
        let mode = config::Mode::from(self.mode);
        config::Frontend {
            name: self.name.clone(),
            mode,
            binds: self.bind.iter().map(|bind| bind.model(mode, certificates)).collect(),
            maxconn: self.maxconn,
            keep_alive: match self.keep_alive {
                KeepAlive::Both => config::KeepAlive::Both,
                KeepAlive::Client => config::KeepAlive::Client,
                KeepAlive::None => config::KeepAlive::None,
            },
            forwarded_for: self.forwarded_for,
            route: self.route.as_ref().and_then(|route| route.model(map)),
            rules: self.rules.iter().filter_map(|rule| rule.model().ok()).collect(),
            default_backend: self.default_backend.clone(),
            natives: self.natives.clone(),
        }
    }

    fn problems(
        &self,
        place: &str,
        certificates: &[Certificate],
        map: &Map,
        problems: &mut Vec<String>,
    ) {
        for (index, bind) in self.bind.iter().enumerate() {
            let place = format!("{place}.bind[{index}]");
            bind.problems(certificates, |text| problems.push(format!("{place}.{text}")));
        }
        if let Some(route) = &self.route {
            route.problems(map, |text| problems.push(format!("{place}.route.{text}")));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if let Err(problem) = rule.model() {
                problems.push(format!("{place}.rules[{index}]: {problem}"));
            }
        }
    }
}

impl Bind {
    /// An address, without TLS.
    pub(super) fn plain(address: BindAddress) -> Self {
        Self {
            address,
            certificate: None,
            alpn: None,
            client_ca: None,
            verify: None,
            crl: None,
            accept_proxy: false,
        }
    }

    /// What clients' certificates are verified by.
    pub(super) fn files_of_clients(&self) -> impl Iterator<Item = &FilePath> {
        [&self.client_ca, &self.crl].into_iter().filter_map(Option::as_ref)
    }

    fn model(&self, mode: config::Mode, certificates: &[Certificate]) -> config::Bind {
        let usual = || -> Vec<Alpn> {
            let names = ["h2", "http/1.1"].map(|name| Alpn::try_from(name.to_owned()));
            names.into_iter().flatten().filter(|_| mode == config::Mode::Http).collect()
        };
        let files = |names: &Vec<Name>| {
            let file = |name: &Name| certificates.iter().find(|it| it.name == *name);
            names.iter().filter_map(file).filter_map(|it| it.path.clone()).collect()
        };
        config::Bind {
            address: self.address.clone(),
            tls: self.certificate.as_ref().map(|names| config::BindTls {
                certificates: files(names),
                alpn: self.alpn.clone().unwrap_or_else(usual),
                clients: self.client_ca.clone().map(|ca| config::ClientCertificates {
                    ca,
                    crl: self.crl.clone(),
                    verify: match self.verify {
                        None | Some(Verify::Required) => config::Verify::Required,
                        Some(Verify::Optional) => config::Verify::Optional,
                    },
                }),
            }),
            accept_proxy: self.accept_proxy,
        }
    }

    fn problems(&self, certificates: &[Certificate], mut problem: impl FnMut(String)) {
        for name in self.certificate.iter().flatten() {
            if certificates.iter().all(|certificate| certificate.name != *name) {
                problem(format!("certificate: there is no [[certificate]] of the name {name}"));
            }
        }
        let tls = [("alpn", self.alpn.is_some()), ("client_ca", self.client_ca.is_some())];
        for (key, _) in tls.into_iter().filter(|(_, given)| *given && self.certificate.is_none()) {
            problem(format!("{key}: needs certificate"));
        }
        let client = [("verify", self.verify.is_some()), ("crl", self.crl.is_some())];
        for (key, _) in client.into_iter().filter(|(_, given)| *given && self.client_ca.is_none()) {
            problem(format!("{key}: needs client_ca"));
        }
    }
}

impl Route {
    fn model(&self, map: &Map) -> Option<config::Route> {
        Some(config::Route {
            by: match &self.by {
                RouteBy::Header(name) => config::RouteBy::Header(name.clone()),
                RouteBy::ClientCertificate => config::RouteBy::ClientCertificate,
            },
            map: FilePath::try_from(map.path.to_str()?.to_owned()).ok()?,
            backend: self.backend.clone(),
            misdirected: self.misdirected,
            shared: self.shared.clone(),
            open: self.open.clone(),
        })
    }

    fn problems(&self, map: &Map, mut problem: impl FnMut(String)) {
        let name = map.path.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(given) = self.map.as_ref().filter(|given| given.as_str() != name) {
            problem(format!(
                "map: there is no map of the name {given}; map.path is that of {name}"
            ));
        }
        let path = map.path.to_string_lossy().into_owned();
        if let Err(error) = FilePath::try_from(path) {
            problem(format!("map: map.path {error}"));
        }
    }
}

pub(super) fn problems(
    frontends: &[Frontend],
    certificates: &[Certificate],
    map: &Map,
    problems: &mut Vec<String>,
) {
    for (index, frontend) in frontends.iter().enumerate() {
        frontend.problems(&format!("frontend[{index}]"), certificates, map, problems);
    }
}

#[cfg(test)]
mod tests;
