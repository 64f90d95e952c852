//! Where an instance's runtime API listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A `stats socket` of HAProxy: `unix@/path` or `tcp@host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeAddress {
    /// A unix socket's path.
    Unix(PathBuf),
    /// A TCP listener: `host:port`, resolved at each connection.
    Tcp(String),
}

impl FromStr for RuntimeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write \"unix@/run/haproxy/admin.sock\" or \"tcp@127.0.0.1:9999\"";
        if let Some(path) = text.strip_prefix("unix@") {
            if !path.starts_with('/') {
                return Err(format!("{text:?}: the socket's path must be absolute; {help}"));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp@") {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            return match port {
                Some(Ok(1..)) => Ok(Self::Tcp(address.to_owned())),
                _ => Err(format!("{text:?}: no host and port; {help}")),
            };
        }
        Err(format!("{text:?} is no runtime address; {help}"))
    }
}

impl TryFrom<String> for RuntimeAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RuntimeAddress> for String {
    fn from(address: RuntimeAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for RuntimeAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix@{}", path.display()),
            Self::Tcp(address) => write!(out, "tcp@{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_haproxy_writes_them() {
        for text in ["unix@/run/haproxy/admin.sock", "tcp@127.0.0.1:9999", "tcp@[::1]:9999", "tcp@gateway.example:1"] {
            assert_eq!(text.parse::<RuntimeAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_address_that_is_none_says_how_to_write_one() {
        for text in ["/run/haproxy.sock", "unix@relative", "tcp@:80", "tcp@host", "tcp@host:0", "tcp@host:70000", ""] {
            let message = text.parse::<RuntimeAddress>().unwrap_err();
            assert!(message.contains("unix@/run/haproxy/admin.sock"), "{text:?}: {message}");
        }
    }
}
