//! What `haproxy.cfg` is rendered from: `[haproxy]`, `[[frontend]]` and `[[backend]]` together.

use mapsmith_core::DesiredServers;
use mapsmith_core::config::Config;
use mapsmith_core::config::values::Name;

use super::{Settings, frontend};

impl Settings {
    /// The declared configuration, with the servers that backends have; none without `[haproxy]`.
    pub fn haproxy_config(&self, servers: &DesiredServers) -> Option<Config> {
        let haproxy = self.haproxy.as_ref()?;
        let backends = self.backends.iter().filter_map(|backend| {
            let name = Name::try_from(backend.name.clone()).ok()?;
            let desired = servers.backends.get(&backend.name);
            let servers = desired.map(|desired| desired.servers.values().cloned().collect());
            Some(backend.model(name, servers.unwrap_or_default()))
        });
        let frontends =
            self.frontends.iter().map(|frontend| frontend.model(&self.certificates, &self.map));
        Some(Config {
            process: haproxy.model(),
            frontends: frontends.collect(),
            backends: backends.collect(),
            includes: haproxy.includes.clone(),
        })
    }
}

pub(super) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    frontend::problems(&settings.frontends, &settings.certificates, &settings.map, problems);
    if let Some(config) = settings.haproxy_config(&DesiredServers::default()) {
        problems.extend(config.problems().iter().map(ToString::to_string));
        return;
    }
    if !settings.frontends.is_empty() {
        problems.push(format!("frontend: {NEEDS}"));
    }
    for (index, backend) in settings.backends.iter().enumerate() {
        for key in backend.rendered_keys() {
            problems.push(format!("backend[{index}].{key}: {NEEDS}"));
        }
    }
}

/// Why what is only rendered is not taken.
const NEEDS: &str =
    "needs [haproxy], without which Mapsmith does not write HAProxy's configuration";
