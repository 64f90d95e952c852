//! What `haproxy.cfg` is rendered from: `[haproxy]`, `[[frontend]]` and `[[backend]]` together.

use mapsmith_core::DesiredServers;
use mapsmith_core::config::Config;
use mapsmith_core::config::values::Name;

use super::{Settings, frontend};

impl Settings {
    /// The configuration that the settings declare, with the servers that backends have; none
    /// without `[haproxy]`.
    pub fn haproxy_config(&self, servers: &DesiredServers) -> Option<Config> {
        let process = self.haproxy.as_ref()?.model();
        let backends = self.backends.iter().filter_map(|backend| {
            let name = Name::try_from(backend.name.clone()).ok()?;
            let desired = servers.backends.get(&backend.name);
            let servers = desired.map(|desired| desired.servers.values().cloned().collect());
            Some(backend.config.model(name, servers.unwrap_or_default()))
        });
        let frontends = self.frontends.iter().map(frontend::Frontend::model);
        Some(Config { process, frontends: frontends.collect(), backends: backends.collect() })
    }
}

pub(super) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    frontend::problems(&settings.frontends, problems);
    match settings.haproxy_config(&DesiredServers::default()) {
        Some(config) => problems.extend(config.problems().iter().map(ToString::to_string)),
        None if !settings.frontends.is_empty() => {
            problems.push(
                "frontend: needs [haproxy], without which HAProxy's configuration is \
                somebody else's"
                    .to_owned(),
            );
        }
        None => {}
    }
}
