//! Nodes that vanished from the sources' answers and stay in the map for a while
//! (`map.remove_after`): a node that is only rebuilt keeps its route. Pure; both clocks are
//! arguments.
//!
//! They lie under what the sources say: whatever a source names is the source's.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::overlay;
use crate::map_file::{GoneEntry, Said};
use crate::{EntryMap, EntryMapBuilder};

/// A node that no source names any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneNode {
    /// The master that the sources named last.
    pub master: String,
    /// When they stopped, for people and for the map file.
    pub since: Timestamp,
    /// The same on the steady clock, so that a clock that is set loses no node.
    at: SignedDuration,
}

/// The nodes that are gone and stay, by name. As many as a map may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoneNodes(BTreeMap<String, GoneNode>);

/// The time on both clocks: a steady one, and the machine's.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub steady: SignedDuration,
    pub wall: Timestamp,
}

impl GoneNodes {
    /// What the map file says of them: node, master, and since when.
    pub fn from_file(found: Vec<GoneEntry>, now: Moment) -> Self {
        let node = |GoneEntry { node, since, master }: GoneEntry| {
            // One from the future vanished just now.
            let age = now.wall.duration_since(since).max(SignedDuration::ZERO);
            (node, GoneNode { master, since, at: now.steady.saturating_sub(age) })
        };
        Self(found.into_iter().map(node).collect())
    }

    /// Takes an answer that passed by itself: what it lacks of the last one is gone from now on,
    /// and what it names is not.
    pub fn note(&mut self, before: &EntryMap, after: &EntryMap, now: Moment) {
        for (node, master) in before.iter().filter(|(node, _)| after.get(node).is_none()) {
            // As the map file has it.
            let since = Timestamp::from_second(now.wall.as_second()).unwrap_or(now.wall);
            let gone = GoneNode { master: master.to_owned(), since, at: now.steady };
            self.0.insert(node.to_owned(), gone);
        }
        self.forget(after);
    }

    /// Takes an answer: what it names is not gone.
    pub fn forget(&mut self, named: &EntryMap) {
        self.0.retain(|node, _| named.get(node).is_none());
    }

    /// Whether a node has been gone for so long.
    pub fn any_over(&self, remove_after: SignedDuration, now: SignedDuration) -> bool {
        self.0.values().any(|gone| is_over(gone, remove_after, now))
    }

    /// Lets go who has been gone for so long.
    pub fn expire(&mut self, remove_after: SignedDuration, now: SignedDuration) {
        self.0.retain(|_, gone| !is_over(gone, remove_after, now));
    }

    /// When the next one goes after now, on the steady clock.
    pub fn next_due(
        &self,
        remove_after: SignedDuration,
        now: SignedDuration,
    ) -> Option<SignedDuration> {
        let due = self.0.values().map(|gone| gone.at.saturating_add(remove_after));
        due.filter(|due| *due > now).min()
    }

    /// What the sources said, with the nodes that are gone.
    pub fn under(&self, said: &Arc<EntryMap>) -> Arc<EntryMap> {
        if self.0.is_empty() {
            return Arc::clone(said);
        }
        let mut gone = EntryMapBuilder::new();
        for (node, GoneNode { master, .. }) in &self.0 {
            gone.push_checked(node, master);
        }
        Arc::new(overlay(said, &gone.finish()))
    }

    pub fn get(&self, node: &str) -> Option<&GoneNode> {
        self.0.get(node)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the map file says it.
    pub fn said(&self) -> impl Iterator<Item = (&str, Said<'_>)> {
        self.iter().map(|(node, GoneNode { since, master, .. })| {
            (node, Said::Gone { since: *since, master })
        })
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GoneNode)> {
        self.0.iter().map(|(node, gone)| (node.as_str(), gone))
    }
}

fn is_over(gone: &GoneNode, remove_after: SignedDuration, now: SignedDuration) -> bool {
    now >= gone.at.saturating_add(remove_after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::map_file::{self, Header};

    /// So long a node stays, in seconds.
    const STAYS: i64 = 10;

    #[derive(Debug, Clone)]
    enum Event {
        /// An answer that passes by itself, or with an approval.
        Answer {
            said: Vec<(usize, u8)>,
            approved: bool,
        },
        Restart,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let answer = (proptest::collection::vec((0usize..8, 0u8..3), 0..8), any::<bool>())
            .prop_map(|(said, approved)| Event::Answer { said, approved });
        prop_oneof![4 => answer, 1 => Just(Event::Restart)]
    }

    fn map(rows: &[(usize, u8)]) -> Arc<EntryMap> {
        let rows: Vec<_> =
            rows.iter().map(|(node, master)| (format!("n{node}"), format!("m{master}"))).collect();
        Arc::new(rows.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect())
    }

    fn moment(steady: i64, wall: i64) -> Moment {
        let wall = Timestamp::from_second(1_800_000_000 + wall).unwrap();
        Moment { steady: SignedDuration::from_secs(steady), wall }
    }

    /// What a start finds in the file that was written.
    fn restarted(gone: &GoneNodes, said: &Arc<EntryMap>, now: Moment) -> GoneNodes {
        let mut text = Vec::new();
        let header = Header { revision: 1, writer: None };
        map_file::print(&gone.under(said), &header, gone.said(), &mut text).unwrap();
        let file = map_file::parse(&text);
        assert_eq!(&file.said_by_sources(), &**said);
        GoneNodes::from_file(file.gone, now)
    }

    proptest! {
        #[test]
        fn a_node_is_in_the_map_for_as_long_as_it_is_named_and_then_until_its_time_is_over(
            events in proptest::collection::vec((any_event(), 0i64..8), 1..30),
        ) {
            let stays = SignedDuration::from_secs(STAYS);
            let (mut gone, mut said) = (GoneNodes::default(), map(&[]));
            // When each node was named last, while it should stay: its master, and since when.
            let mut expected: BTreeMap<String, (String, Option<i64>)> = BTreeMap::new();
            let (mut second, mut started) = (0, 0);
            for (event, passes) in events {
                second += passes;
                let now = moment(second - started, second);
                match event {
                    Event::Answer { said: rows, approved } => {
                        let next = map(&rows);
                        if approved { gone.forget(&next) } else { gone.note(&said, &next, now) }
                        for (node, (_, since)) in &mut expected {
                            if next.get(node).is_none() && since.is_none() {
                                *since = Some(if approved { second - STAYS } else { second });
                            }
                        }
                        for (node, master) in next.iter() {
                            expected.insert(node.to_owned(), (master.to_owned(), None));
                        }
                        said = next;
                    }
                    Event::Restart => {
                        started = second;
                        gone = restarted(&gone, &said, moment(0, second));
                    }
                }
                let steady = SignedDuration::from_secs(second - started);
                expected.retain(|_, (_, since)| since.is_none_or(|since| second < since + STAYS));
                prop_assert_eq!(gone.any_over(stays, steady), {
                    let mut left = gone.clone();
                    left.expire(stays, steady);
                    left != gone
                });
                gone.expire(stays, steady);
                let map = gone.under(&said);
                let found: BTreeMap<_, _> = map.iter().collect();
                let wanted: BTreeMap<_, _> = expected
                    .iter()
                    .map(|(node, (master, _))| (node.as_str(), master.as_str()))
                    .collect();
                prop_assert_eq!(found, wanted);
                let due = expected.values().filter_map(|(_, since)| *since).min();
                prop_assert_eq!(
                    gone.next_due(stays, steady),
                    due.map(|since| SignedDuration::from_secs(since + STAYS - started))
                );
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_takes_no_node_away_and_keeps_none_for_longer_than_from_now_on() {
        let stays = SignedDuration::from_secs(STAYS);
        let mut gone = GoneNodes::default();
        gone.note(&map(&[(1, 1)]), &map(&[]), moment(5, 0));
        assert_eq!(gone.next_due(stays, SignedDuration::from_secs(5)), Some(stays * 3 / 2));
        // A start finds that they vanished tomorrow.
        let found = restarted(&gone, &map(&[]), moment(0, -86_400));
        assert_eq!(found.next_due(stays, SignedDuration::ZERO), Some(stays));
    }
}
