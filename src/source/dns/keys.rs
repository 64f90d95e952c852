//! The keys of DNS, and of a backend's `from` that names a source of it.

use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use serde::Deserialize;

use crate::settings::keys::{SelectorKeys, kind_keys, section};
use crate::settings::units::duration;
use crate::source::SourceKind;

/// Beyond these nobody waits for an answer, or looks for a change.
const LONGEST_QUERY: Duration = Duration::from_secs(60);
const MOST_ATTEMPTS: u32 = 10;

kind_keys! {
    /// Keys of DNS. A poll asks the name servers, and none but those: nothing is kept from one poll
    /// to the next, and no search domain and no hosts file is looked at. An answer that is cut off
    /// is asked for again over TCP. Names that can't be resolved are told apart; of each kind
    /// `keep` has the last good list stay, and `empty` takes it for a list without a server, which
    /// then is up to `backend.empty`. What a server refuses (REFUSED, FORMERR, ...) is a failure
    /// always.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DnsKeys {
        /// How long one name server is waited for, at most 1m.
        #[unset("2s")]
        #[serde(deserialize_with = "duration")]
        pub query_timeout: Duration,
        /// How often each name server is asked before a poll fails, 1 to 10.
        #[unset("2")]
        pub attempts: u32,
        /// The next poll comes when the smallest TTL of an answer has run out, but not sooner than
        /// this. 1s or longer.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub min_ttl: Duration,
        /// And not later than this.
        #[unset("5m")]
        #[serde(deserialize_with = "duration")]
        pub max_ttl: Duration,
        /// The name does not exist (NXDOMAIN): `keep` or `empty`.
        #[unset("keep")]
        pub nxdomain: Unresolved,
        /// The name exists and has no such record (an empty answer), or the SRV record says that
        /// there is no service (target `.`): `keep` or `empty`.
        #[unset("keep")]
        pub nodata: Unresolved,
        /// No name server answers but with SERVFAIL: `keep` or `empty`.
        #[unset("keep")]
        pub servfail: Unresolved,
        /// No name server answers in time, or none can be reached: `keep` or `empty`.
        #[unset("keep")]
        pub no_answer: Unresolved,
    }
}

/// What becomes of a name that can't be resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unresolved {
    /// It is a failure: the last good list stays.
    #[default]
    Keep,
    /// It has no servers.
    Empty,
}

impl Default for DnsKeys {
    fn default() -> Self {
        Self {
            query_timeout: Duration::from_secs(2),
            attempts: 2,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(300),
            nxdomain: Unresolved::Keep,
            nodata: Unresolved::Keep,
            servfail: Unresolved::Keep,
            no_answer: Unresolved::Keep,
        }
    }
}

impl DnsKeys {
    /// When an answer of this TTL, in seconds, is asked for again; one that gives none as soon as
    /// any.
    pub(super) fn interval(&self, ttl: Option<u32>) -> Duration {
        let ttl = ttl.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
        ttl.min(self.max_ttl).max(self.min_ttl)
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        if kind != SourceKind::Dns {
            if *self != Self::default() {
                problem(format!(
                    "query_timeout, attempts, min_ttl, max_ttl, nxdomain, nodata, servfail, \
                        no_answer: a {kind} source has none"
                ));
            }
            return;
        }
        if self.query_timeout.is_zero() || self.query_timeout > LONGEST_QUERY {
            problem("query_timeout: not 0, and at most 1m".to_owned());
        }
        if !(1..=MOST_ATTEMPTS).contains(&self.attempts) {
            problem(format!("attempts: 1 to {MOST_ATTEMPTS}"));
        }
        if self.min_ttl < Duration::from_secs(1) || self.max_ttl < self.min_ttl {
            problem("min_ttl must be 1s or longer, and max_ttl no less than it".to_owned());
        }
    }
}

section! {
    /// Exactly one of `name`, `hosts` and `srv`. Upper and lower case are the same, and names are
    /// whole: a final dot changes nothing. A server of `name` or `hosts` is called by its address
    /// and port (`10.0.0.1:8080`). One of `srv` is called by the record's target and port
    /// (`web1.example.com:8080`), so that it keeps its name when its address changes; of a target
    /// with several addresses each server has its address behind that
    /// (`web1.example.com:8080:10.0.0.1`). Of `srv` the records with the lowest priority number are
    /// servers, all others backup servers. Weights up to 256 are HAProxy's; larger ones, and those
    /// beside a weight of 0, are scaled so that the largest of the same priority is 256 and none is
    /// 0. Where all are 0, all are 1.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct DnsSelector {
        /// A host name: a server for each of its addresses.
        pub name: Option<String>,
        /// Their port; goes with `name`.
        pub port: Option<u16>,
        /// Several host names, each with its port: `["a.example.com:80", "b.example.com:80"]`. One
        /// that can't be resolved is a failure, or has no server, as the source says.
        #[unset(says "`name`")]
        #[serde(default)]
        pub hosts: Vec<String>,
        /// A service: `_web._tcp.example.com`. Its SRV records give targets, ports, priorities and
        /// weights. A target without an address is rejected, and what is in force for it stays; one
        /// that no name server resolves is a failure. Where the source says `empty` of either, that
        /// target has no server.
        pub srv: Option<String>,
        /// Which addresses: `ipv4` (A), `ipv6` (AAAA) or `both`.
        #[unset(says "`both`")]
        #[serde(default)]
        pub family: Family,
    }
}

/// Which addresses of a host are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4,
    Ipv6,
    #[default]
    Both,
}

impl Family {
    /// The records that have them.
    pub(super) fn types(self) -> &'static [RecordType] {
        match self {
            Self::Ipv4 => &[RecordType::A],
            Self::Ipv6 => &[RecordType::AAAA],
            Self::Both => &[RecordType::A, RecordType::AAAA],
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The addresses of hosts, each with its port.
    Hosts(Vec<(Name, u16)>),
    /// The SRV records of a service.
    Service { name: Name },
}

impl DnsSelector {
    /// What it asks for.
    ///
    /// # Errors
    /// What is wrong with it, with its key.
    pub(super) fn wanted(&self) -> Result<Wanted, String> {
        if !self.hosts.is_empty() {
            if self.name.is_some() || self.port.is_some() || self.srv.is_some() {
                return Err("hosts: give exactly one of name, hosts and srv".to_owned());
            }
            let host = |text: &String| {
                let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
                let port = port.parse().ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| format!("hosts: {text:?} must be HOST:PORT"))?;
                Ok((whole_name("hosts", name)?, port))
            };
            return self.hosts.iter().map(host).collect::<Result<_, String>>().map(Wanted::Hosts);
        }
        match (&self.name, self.port, &self.srv) {
            (Some(name), Some(port), None) if port > 0 => {
                Ok(Wanted::Hosts(vec![(whole_name("name", name)?, port)]))
            }
            (Some(_), Some(_), None) => Err("port: 1 to 65535".to_owned()),
            (Some(_), None, None) => Err("port: is missing; it goes with name".to_owned()),
            (None, None, Some(srv)) => Ok(Wanted::Service { name: whole_name("srv", srv)? }),
            (None, Some(_), Some(_)) => Err("port: an SRV record has its own".to_owned()),
            _ => Err("name: give exactly one of name, hosts and srv".to_owned()),
        }
    }
}

impl SelectorKeys for DnsSelector {
    fn problems(&self, mut problem: impl FnMut(String)) {
        if let Err(text) = self.wanted() {
            problem(text);
        }
    }
}

/// A name, in lower case and absolute: no search domain is ever put behind it.
fn whole_name(key: &str, text: &str) -> Result<Name, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("{key}: {text:?} is an address; write it into backend.servers"));
    }
    match Name::from_ascii(text) {
        Ok(mut name) if plain && name.num_labels() > 0 => {
            name.set_fqdn(true);
            Ok(name.to_lowercase())
        }
        _ => Err(format!(
            "{key}: {text:?} is not a name in DNS: letters, digits, - and _ between dots, at most \
                63 bytes each and 253 together; others in their xn-- form"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> DnsSelector {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_selector_asks_for_a_host_with_a_port_or_a_service() {
        let wanted = |text: &str| selector(text).wanted();
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let host = Ok(Wanted::Hosts(vec![(name("web.example.test."), 80)]));
        for text in ["web.example.test", "WEB.Example.test."] {
            assert_eq!(wanted(&format!(r#"{{"name": {text:?}, "port": 80}}"#)), host);
        }
        let hosts = Ok(Wanted::Hosts(vec![(name("a.test."), 80), (name("b.test."), 81)]));
        assert_eq!(wanted(r#"{"hosts": ["a.test:80", "B.test:81"]}"#), hosts);
        let service = Ok(Wanted::Service { name: name("_web._tcp.example.test.") });
        assert_eq!(wanted(r#"{"srv": "_Web._tcp.example.test"}"#), service);
        let long = format!(r#"{{"srv": "{}.test"}}"#, "x".repeat(64));
        for (text, part) in [
            (r#"{}"#, "exactly one of name, hosts and srv"),
            (r#"{"name": "a", "port": 1, "srv": "b"}"#, "exactly one of name, hosts and srv"),
            (r#"{"name": "a", "port": 1, "hosts": ["b:1"]}"#, "exactly one of name, hosts and srv"),
            (r#"{"hosts": ["a"]}"#, "hosts: \"a\" must be HOST:PORT"),
            (r#"{"hosts": ["a:0"]}"#, "must be HOST:PORT"),
            (r#"{"hosts": ["10.0.0.1:80"]}"#, "is an address"),
            (r#"{"name": "a"}"#, "port: is missing"),
            (r#"{"name": "a", "port": 0}"#, "port: 1 to 65535"),
            (r#"{"srv": "a", "port": 80}"#, "port: an SRV record has its own"),
            (r#"{"name": "10.0.0.1", "port": 80}"#, "is an address"),
            (r#"{"name": "", "port": 80}"#, "not a name in DNS"),
            (r#"{"name": ".", "port": 80}"#, "not a name in DNS"),
            (r#"{"name": "a..b", "port": 80}"#, "not a name in DNS"),
            (r#"{"name": "a\\.b", "port": 80}"#, "not a name in DNS"),
            (r#"{"name": "bücher.test", "port": 80}"#, "xn-- form"),
            (&long, "not a name in DNS"),
        ] {
            let error = wanted(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_ttl_is_obeyed_within_bounds() {
        let keys = DnsKeys::default();
        for (ttl, seconds) in [(None, 5), (Some(0), 5), (Some(30), 30), (Some(86_400), 300)] {
            assert_eq!(keys.interval(ttl), Duration::from_secs(seconds), "{ttl:?}");
        }
    }
}
