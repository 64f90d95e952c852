//! The keys of registries that several servers answer for.

use std::net::{IpAddr, SocketAddr};

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
        /// The servers. `dns`: addresses, with a port unless it is 53: `["10.0.0.53",
        /// "127.0.0.1:5353", "[fe80::1]:53"]`. The one that answered last is asked first;
        /// `full_poll` later, and at a reload, that is the first of them again.
        #[unset(says "`dns`: those of `/etc/resolv.conf`, read at each poll")]
        pub servers: Vec<String>,
    }
}

impl ServersKeys {
    /// Those that are name servers. (Checked with the settings: all are.)
    pub(crate) fn name_servers(&self) -> Vec<SocketAddr> {
        self.servers.iter().filter_map(|server| name_server(server)).collect()
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        if kind != SourceKind::Dns {
            if !self.servers.is_empty() {
                problem(format!("servers: a {kind} source has none"));
            }
            return;
        }
        if self.servers.len() > MOST_SERVERS {
            problem(format!("servers: at most {MOST_SERVERS}"));
        }
        for server in self.servers.iter().filter(|server| name_server(server).is_none()) {
            problem(format!(
                "servers: {server:?} is not a name server's address (examples: 10.0.0.53, \
                    127.0.0.1:5353, [fe80::1]:53)"
            ));
        }
    }
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
}
