//! Where an instance's runtime API listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest path of a unix socket, in bytes: Linux has room for 108 with the zero at its end.
const LONGEST_PATH: usize = 107;

/// A `stats socket` of HAProxy: `unix@/path` or `tcp@host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RuntimeAddress {
    /// A unix socket's path.
    Unix(PathBuf),
    /// A TCP listener: `host:port`, resolved at each connection.
    Tcp(String),
    /// A worker, by way of the master's socket: also one that a reload has replaced, which has no
    /// socket of its own any more. It can't be written in settings.
    Worker {
        /// The master's socket.
        master: PathBuf,
        /// The worker's process id.
        pid: u32,
    },
}

impl FromStr for RuntimeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write \"unix@/run/haproxy/admin.sock\" or \"tcp@127.0.0.1:9999\"";
        if let Some(path) = text.strip_prefix("unix@") {
            if !path.starts_with('/') {
                return Err(format!("{text:?}: the socket's path must be absolute; {help}"));
            }
            if path.len() > LONGEST_PATH {
                let length = path.len();
                return Err(format!(
                    "the socket's path has {length} bytes, and no socket's path may have more \
                        than {LONGEST_PATH}; shorten it"
                ));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp@") {
            let port = address
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty())
                .map(|(_, port)| port.parse::<u16>());
            return match port {
                Some(Ok(1..)) => Ok(Self::Tcp(address.to_owned())),
                _ => Err(format!("{text:?}: no host and port; {help}")),
            };
        }
        Err(format!("{text:?} is not a runtime address; {help}"))
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
            Self::Worker { master, pid } => write!(out, "unix@{} @!{pid}", master.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_haproxy_writes_them() {
        for text in [
            "unix@/run/haproxy/admin.sock",
            "tcp@127.0.0.1:9999",
            "tcp@[::1]:9999",
            "tcp@gateway.example:1",
        ] {
            assert_eq!(text.parse::<RuntimeAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_socket_path_that_no_socket_can_have_is_refused() {
        let path = |length: usize| format!("unix@/{}", "s".repeat(length - 1));
        assert!(path(107).parse::<RuntimeAddress>().is_ok());
        for length in [108, 109, 4096] {
            let message = path(length).parse::<RuntimeAddress>().unwrap_err();
            assert!(
                message.contains(&format!("has {length} bytes"))
                    && message.contains("more than 107"),
                "{message}"
            );
        }
    }

    #[test]
    fn an_address_that_is_none_says_how_to_write_one() {
        for text in [
            "/run/haproxy.sock",
            "unix@relative",
            "tcp@:80",
            "tcp@host",
            "tcp@host:0",
            "tcp@host:70000",
            "",
        ] {
            let message = text.parse::<RuntimeAddress>().unwrap_err();
            assert!(message.contains("unix@/run/haproxy/admin.sock"), "{text:?}: {message}");
        }
    }
}
