//! Whether a server may be taken out of rotation: somebody has to be left who serves.

use std::collections::BTreeMap;

use crate::plan::servers::homes;
use crate::server::{DesiredBackend, ObservedBackend, ObservedServer};

/// A backend in an instance that could be asked.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub instance: &'a str,
    pub backend: &'a ObservedBackend,
}

/// Why this server should stay in rotation; none where others serve wherever it does. Where no
/// instance can be asked the list has to have another server that nobody has ordered out.
pub fn why_not(
    backend: &str,
    server: &str,
    wanted: &DesiredBackend,
    seen: &[Seen<'_>],
) -> Option<String> {
    let is_left = |name: &str| !wanted.ordered.get(name).is_some_and(|order| order.takes_out());
    if seen.is_empty() {
        let mut others = wanted.servers.keys().filter(|name| *name != server);
        return (!others.any(|name| is_left(name))).then(|| {
            format!(
                "no HAProxy can be asked, and the list of {backend} has no other server that is \
                    left in rotation"
            )
        });
    }
    let serves = |seen: &ObservedServer| seen.admin.ready() && seen.running && seen.weight > 0;
    let is_last = |seen: &&Seen<'_>| {
        let homes = homes(backend, wanted, seen.backend);
        let names: BTreeMap<&str, &str> = homes.iter().map(|(name, home)| (*home, *name)).collect();
        let mut serving = seen
            .backend
            .servers
            .iter()
            .filter(|(_, server)| serves(server))
            .map(|(home, _)| names.get(home.as_str()).copied().unwrap_or(home.as_str()));
        serving.clone().any(|name| name == server)
            && !serving.any(|name| name != server && is_left(name))
    };
    let last = seen.iter().find(is_last)?;
    Some(format!("it is the last server of {backend} that is ready in {}", last.instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overrides::{OrderedState, ServerOrder};
    use crate::plan::servers::replay::added;
    use crate::server::{AdminState, Server, ServerAddress, ServerOptions};

    fn listed(name: &str, host: u8) -> Server {
        Server {
            name: name.to_owned(),
            address: ServerAddress { ip: [10, 0, 0, host].into(), port: 80 },
            weight: None,
            backup: false,
            options: ServerOptions::default(),
        }
    }

    fn wanted() -> DesiredBackend {
        let servers = [listed("a", 1), listed("b", 2)];
        let servers = servers.map(|server| (server.name.clone(), server)).into();
        DesiredBackend { servers, slots: Some("slot".to_owned()), ..DesiredBackend::default() }
    }

    fn ordered(mut wanted: DesiredBackend, server: &str, order: ServerOrder) -> DesiredBackend {
        wanted.ordered.insert(server.to_owned(), order);
        wanted
    }

    fn has(servers: &[(&str, u8, bool)]) -> ObservedBackend {
        let seen = |(name, host, is_ready): &(&str, u8, bool)| {
            let mut seen = added(&listed(name, *host));
            if !is_ready {
                seen.admin = AdminState(AdminState::MAINTENANCE);
            }
            ((*name).to_owned(), seen)
        };
        ObservedBackend { algorithm: None, servers: servers.iter().map(seen).collect() }
    }

    fn refused(wanted: &DesiredBackend, seen: &[&ObservedBackend]) -> bool {
        let seen: Vec<_> = seen.iter().map(|backend| Seen { instance: "edge1", backend }).collect();
        why_not("web", "a", wanted, &seen).is_some()
    }

    #[test]
    fn the_last_server_that_is_ready_in_any_instance_stays() {
        let both = has(&[("a", 1, true), ("b", 2, true)]);
        let alone = has(&[("a", 1, true), ("b", 2, false)]);
        assert!(!refused(&wanted(), &[&both]));
        assert!(refused(&wanted(), &[&both, &alone]));
        let said = why_not("web", "a", &wanted(), &[Seen { instance: "edge1", backend: &alone }]);
        assert_eq!(said.unwrap(), "it is the last server of web that is ready in edge1");
        // One that does not serve is missed by nobody.
        assert!(!refused(&wanted(), &[&has(&[("a", 1, false), ("b", 2, false)])]));
        // Servers that nobody lists serve too, and slots are known by whom they serve.
        assert!(!refused(&wanted(), &[&has(&[("a", 1, true), ("x", 9, true)])]));
        assert!(refused(&wanted(), &[&has(&[("slot1", 1, true)])]));
    }

    #[test]
    fn a_server_that_is_ordered_out_is_nobody_to_count_on() {
        let both = has(&[("a", 1, true), ("b", 2, true)]);
        let order = |state, weight| ServerOrder { state, weight };
        for (order, expected) in [
            (order(Some(OrderedState::Maint), None), true),
            (order(Some(OrderedState::Drain), None), true),
            (order(None, Some(0)), true),
            (order(Some(OrderedState::Ready), Some(5)), false),
        ] {
            let wanted = ordered(wanted(), "b", order);
            assert_eq!(refused(&wanted, &[&both]), expected, "{order}");
            assert_eq!(refused(&wanted, &[]), expected, "{order}");
        }
    }
}
