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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overrides::{OrderedState, ServerOrder};
    use crate::render::render;
    use crate::render::tests::{backend, server};
    use crate::{DesiredBackend, Server};

    #[test]
    fn haproxy_begins_with_servers_as_an_operator_ordered_them() {
        let servers =
            ["a", "b", "c"].map(|name| Server { weight: None, ..server(name, "[::1]:1") });
        let servers = servers.map(|server| (server.name.clone(), server)).into();
        let mut web = DesiredBackend { servers, ..DesiredBackend::default() };
        let order = |state, weight| ServerOrder { state: Some(state), weight };
        web.ordered.insert("a".to_owned(), order(OrderedState::Maint, None));
        web.ordered.insert("b".to_owned(), order(OrderedState::Drain, Some(7)));
        web.ordered.insert("gone".to_owned(), order(OrderedState::Maint, Some(7)));
        let declared = Config { backends: vec![backend("web")], ..Config::default() };
        let desired = DesiredServers { number: 1, backends: [("web".to_owned(), web)].into() };
        let desired = DesiredConfig::new(&declared, Some(&desired));
        let text = render(&desired.config).text().to_owned();
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with("server "));
        let expected = [
            "server a '[::1]:1' disabled check inter 2s",
            "server b '[::1]:1' weight 7 disabled check inter 2s",
            "server c '[::1]:1' check inter 2s",
        ];
        assert_eq!(lines.collect::<Vec<_>>(), expected);
        assert_eq!(desired.without_servers(), declared, "none of it takes a reload");
    }
}
