//! The configuration that HAProxy should run with: what is declared, with the servers that its
//! backends have.

use crate::DesiredServers;
use crate::config::Config;

/// What `haproxy.cfg` should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredConfig {
    pub config: Config,
    /// The backends whose servers are not known yet: a file without them must not take the place of
    /// one that has them.
    pub unknown: Vec<String>,
}

impl DesiredConfig {
    /// `declared` has no servers.
    pub fn new(declared: &Config, servers: Option<&DesiredServers>) -> Self {
        let mut config = declared.clone();
        let mut unknown = Vec::new();
        for backend in &mut config.backends {
            let name = backend.name.as_str();
            match servers.and_then(|servers| servers.backends.get(name)) {
                Some(desired) => backend.take_servers(desired),
                None => unknown.push(name.to_owned()),
            }
        }
        Self { config, unknown }
    }

    /// Whether any backend has a server.
    pub fn has_servers(&self) -> bool {
        self.config.backends.iter().any(|backend| !backend.servers.is_empty())
    }

    /// The part of it that only a reload of HAProxy can change.
    pub fn without_servers(&self) -> Config {
        let mut config = self.config.clone();
        for backend in &mut config.backends {
            backend.servers.clear();
            backend.disabled.clear();
        }
        config
    }
}
