//! Where an address to listen on leads, however it is written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::values::BindAddress;

/// Where an address leads. Two that are written otherwise and lead to one place are the same here:
/// HAProxy would listen there twice, and requests would go to either of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListensAt {
    /// One of version 4 that is written as one of version 6 is of version 4.
    Internet(SocketAddr),
    /// A unix socket, its path without `.`, `..` and empty parts.
    Path(String),
    /// A descriptor.
    Other(String),
}

impl BindAddress {
    /// Where it leads.
    pub fn listens_at(&self) -> ListensAt {
        let text = self.as_str();
        if let Some(path) = text.strip_prefix("unix@") {
            return ListensAt::Path(plain_path(path));
        }
        if let Some(number) = text.strip_prefix("fd@") {
            return ListensAt::Other(format!("fd@{}", number.trim_start_matches('0')));
        }
        let address = internet(text).map(ListensAt::Internet);
        address.unwrap_or_else(|| ListensAt::Other(text.to_owned()))
    }

    /// The socket's address; none for a unix socket or a descriptor. All of version 4 where no host
    /// is given.
    pub fn internet(&self) -> Option<SocketAddr> {
        match self.listens_at() {
            ListensAt::Internet(address) => Some(address),
            _ => None,
        }
    }
}

fn internet(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host.trim_matches(['[', ']']) {
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => host.parse::<IpAddr>().ok()?.to_canonical(),
    };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

fn plain_path(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> ListensAt {
        BindAddress::try_from(text.to_owned()).unwrap().listens_at()
    }

    #[test]
    fn one_place_is_the_same_however_it_is_written_and_others_are_not() {
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:0080"),
            (":80", "*:80"),
            (":80", "0.0.0.0:080"),
            (":80", "[::ffff:0.0.0.0]:80"),
            ("[::1]:80", "[0::1]:80"),
            ("[FD00::a]:80", "[fd00:0:0::000a]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("127.0.0.1:80", "[::ffff:7f00:1]:80"),
            ("unix@/tmp/d/s.sock", "unix@/tmp/d/../d/s.sock"),
            ("unix@/tmp/d/s.sock", "unix@//tmp/./d//s.sock"),
            ("unix@/s.sock", "unix@/../s.sock"),
            ("fd@7", "fd@007"),
        ] {
            assert_eq!(at(one), at(other), "{one} and {other}");
        }
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:800"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            // The kernel gives those of version 4 to the first one.
            (":80", "[::]:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("unix@/tmp/d/s.sock", "unix@/tmp/s.sock"),
            ("unix@/fd@7", "fd@7"),
            ("fd@7", "fd@70"),
        ] {
            assert_ne!(at(one), at(other), "{one} and {other}");
        }
    }
}
