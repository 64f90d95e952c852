//! Whether a master can be stopped: what a person in a maintenance window wants to know.

use haproxy_runtime::Traffic;

/// How long no session may have begun before a master counts as left alone, in seconds.
pub const QUIET_SECONDS: u64 = 10;

/// What one instance has of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The instance.
    pub name: &'a str,
    /// Whether it holds the map in force.
    pub in_sync: bool,
    /// Routes that it learned, and that lead to the master whatever the map says.
    pub learned: usize,
    /// What comes to the master there, asked for after that; none where it has no such backend or
    /// server. Or why it is not known.
    pub traffic: Result<Option<Traffic>, String>,
}

/// Why a master can't be stopped, in one sentence; none where it can. `nodes` are those that the
/// map in force sends there.
pub fn why_not(nodes: usize, instances: &[Seen<'_>]) -> Option<String> {
    if nodes > 0 {
        let what = if nodes == 1 { "node is" } else { "nodes are" };
        return Some(format!("{nodes} {what} routed to it; drain it first"));
    }
    if instances.is_empty() {
        return Some("unknown: no instance is declared".to_owned());
    }
    instances.iter().find_map(unknown).or_else(|| instances.iter().find_map(in_use))
}

/// An instance of which nothing is known may send requests still.
fn unknown(seen: &Seen<'_>) -> Option<String> {
    let name = seen.name;
    match &seen.traffic {
        Err(error) => Some(format!("unknown: {name} has not been seen ({error})")),
        Ok(_) if !seen.in_sync => Some(format!("{name} does not hold the map in force yet")),
        Ok(_) => None,
    }
}

fn in_use(seen: &Seen<'_>) -> Option<String> {
    let name = seen.name;
    let counted = |count: u64, what: &str| {
        format!("{count} {what}{} on {name}", if count == 1 { "" } else { "s" })
    };
    let traffic = seen.traffic.as_ref().ok().copied().flatten().unwrap_or_default();
    match (traffic, seen.learned) {
        (Traffic { queue: queue @ 1.., .. }, _) => Some(counted(queue, "waiting request")),
        (Traffic { sessions: sessions @ 1.., .. }, _) => Some(counted(sessions, "session")),
        (_, learned @ 1..) => Some(counted(learned as u64, "learned route")),
        (Traffic { last_session_s: Some(ago), .. }, _) if ago < QUIET_SECONDS => Some(format!(
            "the last session on {name} began {ago} s ago; {QUIET_SECONDS} s without one are \
                waited for"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Traffic {
        Traffic { last_session_s: Some(QUIET_SECONDS), ..Traffic::default() }
    }

    fn seen(name: &str, traffic: Traffic) -> Seen<'_> {
        Seen { name, in_sync: true, learned: 0, traffic: Ok(Some(traffic)) }
    }

    #[test]
    fn a_master_can_be_stopped_once_every_instance_is_known_to_leave_it_alone() {
        let edge1 = seen("edge1", quiet());
        let with = |other: Seen<'_>| why_not(0, &[edge1.clone(), other]);
        assert_eq!(with(seen("edge2", Traffic::default())), None, "it never had a session");
        assert_eq!(with(Seen { traffic: Ok(None), ..seen("edge2", quiet()) }), None);
        for (other, why) in [
            (seen("edge2", Traffic { sessions: 3, ..quiet() }), "3 sessions on edge2"),
            (seen("edge2", Traffic { queue: 1, ..quiet() }), "1 waiting request on edge2"),
            (Seen { learned: 1, ..seen("edge2", quiet()) }, "1 learned route on edge2"),
            (
                seen("edge2", Traffic { last_session_s: Some(4), ..quiet() }),
                "the last session on edge2 began 4 s ago; 10 s without one are waited for",
            ),
            (
                Seen { in_sync: false, ..seen("edge2", quiet()) },
                "edge2 does not hold the map in force yet",
            ),
            (
                Seen { traffic: Err("refused".to_owned()), ..seen("edge2", quiet()) },
                "unknown: edge2 has not been seen (refused)",
            ),
        ] {
            assert_eq!(with(other).as_deref(), Some(why));
        }
    }

    #[test]
    fn nodes_that_are_routed_there_come_first_and_no_instance_is_no_proof() {
        let why = |nodes, instances: &[Seen<'_>]| why_not(nodes, instances).unwrap_or_default();
        assert_eq!(why(1, &[seen("edge1", quiet())]), "1 node is routed to it; drain it first");
        assert_eq!(why(2, &[]), "2 nodes are routed to it; drain it first");
        assert_eq!(why(0, &[]), "unknown: no instance is declared");
    }
}
