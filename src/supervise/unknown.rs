//! Backends whose servers nobody knows: services that are new, or whose registry has not answered
//! since the start. They are waited for, all together not for long, and what HAProxy has of them
//! stays: "unknown" is not "empty".

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::read;
use tokio::time::Instant;

/// How long the file waits for the servers of backends: they would be added right after it, and
/// what can't be brought so would take a reload.
pub const FIRST_LISTS: Duration = Duration::from_secs(3);

/// The services whose servers are waited for.
#[derive(Debug, Clone, Default)]
pub struct FirstLists {
    /// Since when, until HAProxy has loaded them: those that come meanwhile are not waited for any
    /// longer, or services that come one after the other would hold everything up.
    since: Option<Instant>,
    services: BTreeSet<String>,
}

impl FirstLists {
    /// These have come.
    pub fn add(&mut self, services: impl IntoIterator<Item = String>, now: Instant) {
        self.services.extend(services);
        if !self.services.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// Those that this does not hold for are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.services.retain(|name| is_there(name));
    }

    /// Whether the servers of this service are waited for.
    pub fn awaits(&self, service: &str, now: Instant) -> bool {
        self.left(now).is_some() && self.services.contains(service)
    }

    /// Whether the wait for any is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.since.is_some() && self.left(now).is_none()
    }

    /// How long any are waited for; none where the wait is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let end = self.since? + FIRST_LISTS;
        Some(end.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

/// The same with the servers that HAProxy has of the backends whose servers are not known: by what
/// it last accepted, or the text of the file in place.
///
/// # Errors
/// A backend whose servers in the file can't be told.
pub(super) fn with_servers_in_place(
    desired: &Arc<DesiredConfig>,
    last_good: Option<&DesiredConfig>,
    in_place: Option<&str>,
) -> Result<Arc<DesiredConfig>, String> {
    if desired.unknown.is_empty() {
        return Ok(Arc::clone(desired));
    }
    let unknown: BTreeSet<&str> = desired.unknown.iter().map(String::as_str).collect();
    let in_file = match last_good {
        None => in_place.map(|text| read::servers(text, &unknown)).unwrap_or_default(),
        Some(_) => Default::default(),
    };
    let mut config = desired.config.clone();
    for backend in &mut config.backends {
        let name = backend.name.as_str();
        if !unknown.contains(name) {
            continue;
        }
        let mut accepted = last_good.into_iter().flat_map(|good| &good.config.backends);
        match (accepted.find(|good| good.name == backend.name), in_file.get(name)) {
            (Some(good), _) => {
                backend.servers.clone_from(&good.servers);
                backend.disabled.clone_from(&good.disabled);
            }
            (None, Some(Some(servers))) => backend.servers.clone_from(servers),
            (None, Some(None)) => return Err(name.to_owned()),
            (None, None) => {}
        }
    }
    Ok(Arc::new(DesiredConfig { config, unknown: desired.unknown.clone() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mapsmith_core::DesiredServers;

    use super::*;
    use crate::settings::Settings;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn services_that_keep_coming_without_servers_are_waited_for_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lists = FirstLists::default();
        assert!(lists.left(start).is_none() && !lists.is_over(start));
        lists.add(names(&["a"]), at(0));
        for come in 1..3 {
            lists.add(names(&["b"]), at(come));
            assert!(lists.awaits("a", at(come)) && lists.awaits("b", at(come)));
            assert!(!lists.awaits("other", at(come)));
        }
        lists.add(names(&["c"]), at(3));
        for name in ["a", "b", "c"] {
            assert!(!lists.awaits(name, at(3)), "{name} is waited for no longer");
        }
        assert!(lists.is_over(at(3)));
        // HAProxy has loaded them: what comes then is waited for anew, and alone.
        lists = FirstLists::default();
        lists.add(names(&["d"]), at(4));
        assert!(lists.awaits("d", at(6)) && !lists.awaits("a", at(6)));
        assert_eq!(lists.left(at(6)), Some(Duration::from_secs(1)));
        lists.retain(|name| name != "d");
        assert!(!lists.awaits("d", at(6)));
    }

    #[test]
    fn what_nobody_knows_keeps_the_servers_that_haproxy_has() {
        let text = "[haproxy]\nmanaged = true\n[[frontend]]\nname = \"own\"\n\
            bind = [\"127.0.0.1:1\"]\ndefault_backend = \"web\"\n\
            [[backend]]\nname = \"web\"\nservers = []\n\
            [[backend]]\nname = \"new\"\nservers = []\n";
        let settings = Settings::of_text(Path::new("/a.toml"), text, []).unwrap();
        let config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        let desired = Arc::new(DesiredConfig::new(&config, None));
        assert_eq!(desired.unknown, ["web", "new"]);
        let servers = |filled: &DesiredConfig| -> Vec<Vec<String>> {
            let of = |servers: &[mapsmith_core::server::Server]| {
                servers.iter().map(|server| server.name.clone()).collect()
            };
            filled.config.backends.iter().map(|backend| of(&backend.servers)).collect()
        };
        let file = "backend web\n    server a 10.0.0.1:80 check\n";
        let filled = with_servers_in_place(&desired, None, Some(file)).unwrap();
        assert_eq!(servers(&filled), [vec!["a"], vec![]]);
        assert_eq!(filled.unknown, desired.unknown);
        // What was accepted since the start goes before the file.
        let again = with_servers_in_place(&desired, Some(&filled), Some("")).unwrap();
        assert_eq!(servers(&again), [vec!["a"], vec![]]);
        let other = "backend web\n    server a web.example.com:80\n";
        let told = with_servers_in_place(&desired, None, Some(other));
        assert_eq!(told.unwrap_err(), "web");
        let first = with_servers_in_place(&desired, None, None).unwrap();
        assert!(!first.has_servers());
    }
}
