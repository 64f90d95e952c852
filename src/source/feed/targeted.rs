//! Targeted lookups: nodes whose learned route no registry confirms yet are asked for at once and
//! then at growing intervals, so that the map follows a move within seconds, whatever the schedule.
//!
//! Level-triggered: each instance says which routes it has, as often as it likes; what is asked
//! when is decided here, by every source's poller for itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::LearnedRoute;
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long after each lookup the same route is looked up again, in seconds; the last one counts
/// from there on.
const PAUSES: [u64; 8] = [1, 2, 3, 5, 8, 13, 21, 30];
/// The most nodes that one lookup asks for: a query of some 20 KB.
const NODES_A_LOOKUP: usize = 500;
/// The least time between two lookups of a source.
const REST: Duration = Duration::from_millis(500);
/// A lookup is followed by a rest of so many times its own duration: where a lookup is a poll of
/// everything, it must not become the registry's main work.
const REST_FACTOR: u32 = 10;
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(30);

type Disputed = BTreeMap<String, Arc<[LearnedRoute]>>;

/// The learned routes of all instances that no registry confirms yet.
#[derive(Debug, Clone, Default)]
pub struct TargetedLookups {
    disputed: Arc<watch::Sender<Disputed>>,
}

impl TargetedLookups {
    /// Nothing learned yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These are all the routes that `instance` has learned now.
    pub fn dispute(&self, instance: &str, routes: &Arc<[LearnedRoute]>) {
        self.disputed.send_if_modified(|disputed| {
            let known = disputed.get(instance);
            let same = known.map_or(routes.is_empty(), |known| {
                known.len() == routes.len()
                    && known
                        .iter()
                        .zip(routes.iter())
                        .all(|(a, b)| a.node == b.node && a.master == b.master)
            });
            if !same {
                disputed.insert(instance.to_owned(), Arc::clone(routes));
            }
            !same
        });
    }

    /// For one source.
    pub(super) fn pacer(&self) -> RequestPacer {
        let mut disputed = self.disputed.subscribe();
        disputed.mark_changed();
        RequestPacer { disputed, routes: FxHashMap::default(), rests_until: Instant::now() }
    }
}

/// When a route is looked up next, and how often it was.
#[derive(Debug, Clone, Copy)]
struct Turn {
    next: Instant,
    lookups: usize,
}

/// When one source is asked for which nodes.
#[derive(Debug)]
pub(super) struct RequestPacer {
    disputed: watch::Receiver<Disputed>,
    /// By node and master: a node that moves on is a new case.
    routes: FxHashMap<(String, String), Turn>,
    rests_until: Instant,
}

impl RequestPacer {
    /// Waits for the next lookup and gives its nodes, those that have waited longest first.
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Vec<String> {
        loop {
            let nodes = self.due(Instant::now());
            if !nodes.is_empty() {
                return nodes;
            }
            let turn = self.next_turn();
            let waited = async {
                match turn {
                    Some(turn) => sleep_until(turn).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.disputed.changed() => match changed {
                    Ok(()) => self.disputed.mark_changed(),
                    // Nobody is left to learn anything.
                    Err(_) => std::future::pending().await,
                },
                () = waited => {}
            }
        }
    }

    /// A lookup has ended; it took so long.
    pub(super) fn rest(&mut self, now: Instant, took: Duration) {
        self.rests_until = now + (took * REST_FACTOR).clamp(REST, LONGEST_REST);
    }

    /// The nodes of a lookup that is due now; they count as looked up.
    fn due(&mut self, now: Instant) -> Vec<String> {
        if self.disputed.has_changed().unwrap_or(false) {
            self.refresh(now);
        }
        if self.rests_until <= now { self.take(now) } else { Vec::new() }
    }

    fn next_turn(&self) -> Option<Instant> {
        self.routes.values().map(|turn| turn.next).min().map(|turn| turn.max(self.rests_until))
    }

    fn refresh(&mut self, now: Instant) {
        let disputed = self.disputed.borrow_and_update();
        let routes = disputed.values().flat_map(|routes| routes.iter());
        let mut before = std::mem::take(&mut self.routes);
        self.routes = routes
            .map(|route| {
                let key = (route.node.clone(), route.master.clone());
                let turn = before.remove(&key).unwrap_or(Turn { next: now, lookups: 0 });
                (key, turn)
            })
            .collect();
    }

    fn take(&mut self, now: Instant) -> Vec<String> {
        let mut due: Vec<_> = self.routes.iter_mut().filter(|(_, turn)| turn.next <= now).collect();
        if due.len() > NODES_A_LOOKUP {
            // Neither sorted nor compared by name: of a hundred thousand nearly all are left for
            // later lookups.
            due.select_nth_unstable_by_key(NODES_A_LOOKUP, |(_, turn)| turn.next);
            due.truncate(NODES_A_LOOKUP);
        }
        let mut nodes: Vec<_> = due
            .into_iter()
            .map(|((node, _), turn)| {
                turn.next = now + Duration::from_secs(PAUSES[turn.lookups.min(PAUSES.len() - 1)]);
                turn.lookups += 1;
                node.clone()
            })
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn routes(routes: &[(&str, &str)]) -> Arc<[LearnedRoute]> {
        let now = Timestamp::UNIX_EPOCH;
        let route = |(node, master): &(&str, &str)| LearnedRoute {
            node: (*node).to_owned(),
            master: (*master).to_owned(),
            since: now,
            expires: now,
        };
        routes.iter().map(route).collect()
    }

    /// The seconds from `start` on at which `pacer` is due, up to `until`, where each lookup takes
    /// no time.
    fn times(pacer: &mut RequestPacer, start: Instant, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut now = start;
        while now <= start + Duration::from_secs(until) {
            if !pacer.due(now).is_empty() {
                times.push((now - start).as_secs());
                pacer.rest(now, Duration::ZERO);
            }
            let Some(next) = pacer.next_turn() else { break };
            now = next;
        }
        times
    }

    #[test]
    fn a_disputed_node_is_asked_for_at_once_and_then_at_growing_intervals() {
        let lookups = TargetedLookups::new();
        let mut pacer = lookups.pacer();
        let start = Instant::now();
        lookups.dispute("edge1", &routes(&[("n1", "m2")]));
        assert_eq!(times(&mut pacer, start, 120), [0, 1, 3, 6, 11, 19, 32, 53, 83, 113]);
        // It moved on, and another node moved too: at once again.
        lookups.dispute("edge1", &routes(&[("n1", "m3"), ("n2", "m2")]));
        assert_eq!(pacer.due(start + Duration::from_secs(120)), ["n1", "n2"]);
        lookups.dispute("edge1", &routes(&[]));
        assert!(
            pacer.due(start + Duration::from_secs(3600)).is_empty(),
            "nothing is disputed any more"
        );
        assert_eq!(pacer.next_turn(), None);
    }

    #[test]
    fn what_several_instances_learned_is_asked_for_once() {
        let lookups = TargetedLookups::new();
        let mut pacer = lookups.pacer();
        let start = Instant::now();
        lookups.dispute("edge1", &routes(&[("n1", "m2")]));
        lookups.dispute("edge2", &routes(&[("n1", "m2"), ("n2", "m1")]));
        assert_eq!(pacer.due(start), ["n1", "n2"]);
        // Said again, it is no news.
        lookups.dispute("edge2", &routes(&[("n1", "m2"), ("n2", "m1")]));
        assert!(pacer.due(start + Duration::from_millis(999)).is_empty());
        assert_eq!(pacer.due(start + Duration::from_secs(1)), ["n1", "n2"]);
        // One of the two has settled it; the other still asks.
        lookups.dispute("edge1", &routes(&[]));
        assert_eq!(pacer.due(start + Duration::from_secs(3)), ["n1", "n2"]);
    }

    #[test]
    fn many_nodes_are_asked_for_in_bounded_lookups_and_slow_lookups_are_rare() {
        let names: Vec<_> = (0..NODES_A_LOOKUP + 3).map(|number| format!("n{number:04}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "m2")).collect();
        let lookups = TargetedLookups::new();
        let mut pacer = lookups.pacer();
        let start = Instant::now();
        lookups.dispute("edge1", &routes(&all));
        let first = pacer.due(start);
        assert_eq!(first.len(), NODES_A_LOOKUP);
        pacer.rest(start, Duration::from_secs(2));
        let second = pacer.next_turn().unwrap();
        assert_eq!(second - start, Duration::from_secs(20));
        // The three that have waited come before those whose turn has come again.
        let nodes = pacer.due(second);
        assert_eq!(nodes.len(), NODES_A_LOOKUP);
        let waited: Vec<_> = names.iter().filter(|name| !first.contains(name)).collect();
        assert_eq!(waited.len(), 3);
        assert!(waited.iter().all(|name| nodes.contains(name)), "{waited:?} have waited");
    }
}
