//! Where HAProxy's log goes beside the machine's own (`syslog`).

use std::net::Ipv6Addr;

use super::{Reading, shown};
use crate::config::{Native, Process};
use crate::portmap::BackendName;

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog(String);

impl Syslog {
    /// None where the text is empty, or, with a problem, where nothing can be sent there.
    pub fn parse(text: &str) -> Reading<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Reading::good(None);
        }
        if is_endpoint(text) {
            return Reading::good(Some(Self(text.to_owned())));
        }
        let problem = format!(
            "syslog: {} is not HOST:PORT, like logs.example.com:514 or [2001:db8::1]:514; logs \
                are kept on this machine only",
            shown(text)
        );
        Reading::instead(None, problem)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Process {
    /// Logs to the machine's own syslog, and to another one if there is one, which is told the
    /// machine's name.
    pub fn log_to_syslog(&mut self, other: Option<&Syslog>) {
        let local = "127.0.0.1 len 4096 local0".to_owned();
        let other_line = other.map(|Syslog(endpoint)| format!("{endpoint} len 4096 local0"));
        let native = |line: String| Native::try_from(line).ok();
        self.log = [Some(local), other_line].into_iter().flatten().filter_map(native).collect();
        if other.is_some() {
            self.global.extend(native("log-send-hostname".to_owned()));
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse().is_ok_and(|port: u16| port > 0)
    };
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port && address.parse::<Ipv6Addr>().is_ok();
    }
    // To HAProxy these are no hosts.
    if ["stdout", "stderr"].contains(&text) {
        return false;
    }
    let (host, port) = text.split_once(':').unzip();
    BackendName::parse(host.unwrap_or(text)).is_ok() && port.is_none_or(is_port)
}
