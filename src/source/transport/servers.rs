//! The keys of registries that several servers answer for.

use std::net::{IpAddr, SocketAddr};

use mapsmith_core::server::list::{Host, parse_address};

use crate::settings::keys::kind_keys;
use crate::source::SourceKind;

/// The most servers of a source: each is waited for in its turn.
const MOST_SERVERS: usize = 16;
/// DNS's port (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

kind_keys! {
    /// Keys of sources that several servers answer for.
    #[derive(Debug, Clone, Default)]
    pub struct ServersKeys {
        /// The servers, at most 16. `zookeeper`: those of the ensemble: `["zk1.example.com:2181",
        /// "[fe80::1]:2181"]`; one that answers is enough. `dns`: addresses, with a port unless it
        /// is 53: `["10.0.0.53", "127.0.0.1:5353", "[fe80::1]:53"]`; the one that answered last is
        /// asked first; `full_poll` later, and at a reload, that is the first of them again.
        #[unset(says "`zookeeper`: required; `dns`: those of `/etc/resolv.conf` at each poll")]
        pub servers: Vec<String>,
    }
}

impl ServersKeys {
    /// Each as `host:port`, an IPv6 address in brackets. (Checked with the settings: all are.)
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers.iter().filter_map(|server| address(server).ok()).collect()
    }

    /// Those that are name servers. (Checked with the settings: all are.)
    pub(crate) fn name_servers(&self) -> Vec<SocketAddr> {
        self.servers.iter().filter_map(|server| name_server(server)).collect()
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let wrong: fn(&str) -> Option<String> = match kind {
            SourceKind::Zookeeper => |server| address(server).err(),
            SourceKind::Dns => |server: &str| {
                name_server(server).is_none().then(|| {
                    format!(
                        "{server:?} is not a name server's address (examples: 10.0.0.53, \
                            127.0.0.1:5353, [fe80::1]:53)"
                    )
                })
            },
            SourceKind::Puppetdb
            | SourceKind::Consul
            | SourceKind::Etcd
            | SourceKind::HttpJson
            | SourceKind::File
            | SourceKind::Metadata
            | SourceKind::Registrations => {
                if !self.servers.is_empty() {
                    problem(format!("servers: a {kind} source has none"));
                }
                return;
            }
        };
        if kind == SourceKind::Zookeeper && self.servers.is_empty() {
            problem("servers is missing".to_owned());
        }
        if self.servers.len() > MOST_SERVERS {
            problem(format!("servers: at most {MOST_SERVERS}"));
        }
        for (index, server) in self.servers.iter().enumerate() {
            match wrong(server) {
                Some(_) if has_user(server) => problem(format!(
                    "servers: {} has a user name or password in it; give host and port alone{}",
                    quoted(index, server),
                    match kind {
                        SourceKind::Zookeeper => ", and user:password in auth_file",
                        _ => "",
                    }
                )),
                Some(why) => problem(format!("servers: {why}")),
                None => {}
            }
        }
    }
}

/// A server as a message may show it: none that may have a password in it.
pub(in crate::source) fn quoted(index: usize, server: &str) -> String {
    match has_user(server) {
        true => format!("number {}", index + 1),
        false => format!("{server:?}"),
    }
}

fn has_user(server: &str) -> bool {
    server.contains('@')
}

/// `host:port`, an IPv6 address in brackets.
fn address(server: &str) -> Result<String, String> {
    let (host, port) = parse_address(server, None)?;
    Ok(match host {
        Host::Address(ip) => SocketAddr::new(ip, port).to_string(),
        // A final dot is right in DNS, and wrong in a certificate.
        Host::Name(name) => format!("{}:{port}", name.trim_end_matches('.')),
    })
}

fn name_server(text: &str) -> Option<SocketAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, DNS_PORT),
        Err(_) => text.parse().ok()?,
    };
    (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(servers: &[&str]) -> ServersKeys {
        ServersKeys { servers: servers.iter().map(|server| (*server).to_owned()).collect() }
    }

    fn problems(kind: SourceKind, servers: &[&str]) -> String {
        let mut problems = Vec::new();
        keys(servers).problems(kind, |problem| problems.push(problem));
        problems.join("; ")
    }

    #[test]
    fn a_name_server_is_an_address_with_or_without_a_port() {
        for (text, address) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("127.0.0.1:5353", Some("127.0.0.1:5353")),
            ("fe80::1", Some("[fe80::1]:53")),
            ("[fe80::1]:54", Some("[fe80::1]:54")),
            ("dns.example.com", None),
            ("10.0.0.53:0", None),
            ("0.0.0.0", None),
            ("", None),
        ] {
            let found = name_server(text).map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{text:?}");
        }
    }

    #[test]
    fn a_password_among_the_servers_is_never_shown() {
        for kind in [SourceKind::Zookeeper, SourceKind::Dns] {
            let found = problems(kind, &["10.0.0.1:2181", "user:hunter2@10.0.0.2:2181"]);
            assert!(found.contains("number 2 has a user name or password"), "{found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn an_ensemble_is_hosts_each_with_a_port() {
        let good = ["zk1.Example.:2181", "[fe80::0:1]:2181", "10.0.0.1:1"];
        assert_eq!(problems(SourceKind::Zookeeper, &good), "");
        assert_eq!(keys(&good).addresses(), ["zk1.example:2181", "[fe80::1]:2181", "10.0.0.1:1"]);
        for (servers, part) in [
            (&[][..], "servers is missing"),
            (&["zk1"][..], "servers: \"zk1\" has no port"),
            (&["zk1:2181,zk2:2181"][..], "is not an address"),
            (&["zk1:2181/chroot"][..], "is not an address"),
        ] {
            let found = problems(SourceKind::Zookeeper, servers);
            assert!(found.contains(part), "{part:?} is not in {found:?}");
        }
    }

    #[test]
    fn servers_are_few_and_for_a_kind_that_has_them() {
        for kind in [SourceKind::Zookeeper, SourceKind::Dns] {
            assert_eq!(problems(kind, &["10.0.0.1:1"; 16]), "", "{kind}");
            assert_eq!(problems(kind, &["10.0.0.1:1"; 17]), "servers: at most 16", "{kind}");
        }
        assert_eq!(
            problems(SourceKind::Consul, &["10.0.0.1:1"]),
            "servers: a consul source has none"
        );
    }
}
