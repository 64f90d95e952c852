//! Sources' map + overrides -> the desired map.
//!
//! - A pin gives its node its master, whatever the sources say. A node that no source knows is
//!   routed too, and a pin to a drained master stays: the operator said so.
//! - The nodes of a drained master go to the master that was named, or are spread over the others:
//!   those that the sources' map names and that are not drained themselves.
//! - `a` drained to `b` while `b` is drained to `c`: `a`'s nodes go to `c`. Where such a chain ends
//!   at a master whose nodes are spread, or runs in a circle, they are spread.
//! - A blocked node is in no map, whoever names it.
//! - Where no other master is left to spread over, the nodes stay where the sources have them, and
//!   their master is reported as stuck.
//!
//! The result hangs on nothing but the two arguments: without an override the map is as it was
//! before it.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{EntryMap, EntryMapBuilder, Overrides};

#[derive(Debug, Clone)]
pub struct Overridden {
    pub entries: Arc<EntryMap>,
    /// Drained masters that keep their nodes, because no other master is left. Sorted.
    pub stuck: Vec<String>,
}

#[derive(Clone, Copy)]
enum Target<'a> {
    Master(&'a str),
    Spread,
}

/// Puts the overrides over the map that the sources led to. The caller leaves out pins whose time
/// is over ([`Overrides::at`]).
pub fn apply(merged: &Arc<EntryMap>, overrides: &Overrides) -> Overridden {
    if overrides.is_empty() {
        return Overridden { entries: Arc::clone(merged), stuck: Vec::new() };
    }
    let load = merged.load();
    let others = Others::new(
        load.iter().map(|(master, _)| *master).filter(|master| overrides.drain(master).is_none()),
    );
    let targets: FxHashMap<&str, Target<'_>> = overrides
        .drained()
        .map(|drained| (drained.master.as_str(), target(overrides, &drained.master)))
        .collect();
    let mut builder = EntryMapBuilder::new();
    let mut take = |node: &str, master: &str| builder.push_checked(node, master);
    let mut pins = overrides.pins().peekable();
    for (node, master) in merged.iter() {
        if overrides.block(node).is_some() {
            continue;
        }
        while let Some(pin) = pins.next_if(|pin| pin.node.as_str() < node) {
            take(&pin.node, &pin.master);
        }
        match pins.next_if(|pin| pin.node == node) {
            Some(pin) => take(node, &pin.master),
            None => match targets.get(master) {
                None => take(node, master),
                Some(Target::Master(to)) => take(node, to),
                // Without another master the node stays.
                Some(Target::Spread) => take(node, others.master_for(node).unwrap_or(master)),
            },
        }
    }
    pins.for_each(|pin| take(&pin.node, &pin.master));
    let stays = |master: &&str| {
        others.masters.is_empty() && matches!(targets.get(*master), Some(Target::Spread))
    };
    let stuck = load.iter().map(|(master, _)| *master).filter(stays).map(str::to_owned).collect();
    Overridden { entries: Arc::new(builder.finish()), stuck }
}

/// Why a master that is drained like this gives its nodes to nobody, if so: the drains run in a
/// circle, each master named, or no master of the sources' map is left.
pub fn dead_end(merged: &EntryMap, overrides: &Overrides, master: &str) -> Option<DeadEnd> {
    let mut way = vec![master.to_owned()];
    while let Some(drained) = overrides.drain(&way[way.len() - 1]) {
        let Some(to) = &drained.to else {
            let left =
                merged.load().into_iter().any(|(master, _)| overrides.drain(master).is_none());
            return (!left).then_some(DeadEnd::NobodyLeft);
        };
        let closed = way.contains(to);
        way.push(to.clone());
        if closed {
            return Some(DeadEnd::Circle(way));
        }
    }
    None
}

/// See [`dead_end`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadEnd {
    Circle(Vec<String>),
    NobodyLeft,
}

/// Follows a drain to a master that is not drained itself.
fn target<'a>(overrides: &'a Overrides, master: &str) -> Target<'a> {
    let mut next = overrides.drain(master);
    // So many steps without an end are a circle.
    for _ in 0..overrides.drained().len() {
        let Some(to) = next.and_then(|drained| drained.to.as_deref()) else {
            return Target::Spread;
        };
        next = overrides.drain(to);
        if next.is_none() {
            return Target::Master(to);
        }
    }
    Target::Spread
}

/// The masters that a drained master's nodes are spread over, by rendezvous hashing (Thaler and
/// Ravishankar, 1998): a node goes to the master with the greatest hash of both names. So a master
/// that joins or leaves takes or gives only its own share.
struct Others<'a> {
    /// Sorted, each with the hash of its name.
    masters: Vec<(u64, &'a str)>,
}

impl<'a> Others<'a> {
    /// `masters` are sorted.
    fn new(masters: impl Iterator<Item = &'a str>) -> Self {
        Self { masters: masters.map(|master| (xxh3_64(master.as_bytes()), master)).collect() }
    }

    fn master_for(&self, node: &str) -> Option<&'a str> {
        // Of equal hashes the last master's counts: the order is the names', and so the same
        // everywhere.
        self.masters
            .iter()
            .max_by_key(|(master, _)| xxh3_64_with_seed(node.as_bytes(), *master))
            .map(|(_, master)| *master)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{BlockedNode, DrainedMaster, Note, Pin};

    #[test]
    fn a_drain_that_gives_its_nodes_to_nobody_is_told() {
        let map: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
        let of = |drained: &[(&str, Option<&str>)]| dead_end(&map, &overrides(&[], drained), "m1");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("m1", None)]), None, "m2 is left");
        assert_eq!(of(&[("m1", Some("m9"))]), None);
        assert_eq!(of(&[("m1", Some("m2")), ("m2", Some("m3"))]), None, "a chain that ends");
        assert_eq!(of(&[("m1", None), ("m2", None)]), Some(DeadEnd::NobodyLeft));
        assert_eq!(of(&[("m1", Some("m2")), ("m2", None)]), Some(DeadEnd::NobodyLeft));
        let circle = |way: &[&str]| {
            Some(DeadEnd::Circle(way.iter().map(|master| (*master).to_owned()).collect()))
        };
        assert_eq!(of(&[("m1", Some("m1"))]), circle(&["m1", "m1"]));
        assert_eq!(of(&[("m1", Some("m2")), ("m2", Some("m1"))]), circle(&["m1", "m2", "m1"]));
        assert_eq!(
            of(&[("m1", Some("m2")), ("m2", Some("m3")), ("m3", Some("m2"))]),
            circle(&["m1", "m2", "m3", "m2"])
        );
    }

    fn overrides(pins: &[(&str, &str)], drained: &[(&str, Option<&str>)]) -> Overrides {
        let mut overrides = Overrides::default();
        for (node, master) in pins {
            let (node, master) = ((*node).to_owned(), (*master).to_owned());
            overrides
                .add_pin(Pin {
                    node,
                    master,
                    since: Timestamp::UNIX_EPOCH,
                    until: None,
                    note: Note::default(),
                })
                .unwrap();
        }
        for (master, to) in drained {
            let (master, to) = ((*master).to_owned(), to.map(str::to_owned));
            overrides
                .add_drain(DrainedMaster {
                    master,
                    to,
                    since: Timestamp::UNIX_EPOCH,
                    note: Note::default(),
                })
                .unwrap();
        }
        overrides
    }

    fn map(entries: &[(&str, &str)]) -> Arc<EntryMap> {
        Arc::new(entries.iter().copied().collect())
    }

    /// What the map becomes, and who is stuck.
    fn check(
        merged: &[(&str, &str)],
        given: &Overrides,
        expected: &[(&str, &str)],
        stuck: &[&str],
    ) {
        let result = apply(&map(merged), given);
        assert_eq!(result.entries.iter().collect::<Vec<_>>(), expected);
        assert_eq!(result.stuck, stuck);
    }

    /// `count` nodes in turn of masters `m0`, `m1`, ...
    fn fleet(count: usize, masters: usize) -> Arc<EntryMap> {
        let entries: Vec<_> = (0..count)
            .map(|node| (format!("n{node}.example.test"), format!("m{}", node % masters)))
            .collect();
        Arc::new(entries.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect())
    }

    #[test]
    fn without_overrides_the_map_is_shared_and_not_copied() {
        let merged = map(&[("a", "m1")]);
        assert!(Arc::ptr_eq(&apply(&merged, &Overrides::numbered(9)).entries, &merged));
    }

    #[test]
    fn a_pin_counts_more_than_the_sources_and_more_than_a_drain() {
        let merged = [("b", "m1"), ("d", "m1"), ("f", "m2")];
        let expected =
            [("a", "m2"), ("b", "m1"), ("c", "m9"), ("d", "m2"), ("f", "m9"), ("g", "m1")];
        let pins = [("a", "m2"), ("b", "m1"), ("c", "m9"), ("f", "m9"), ("g", "m1")];
        check(&merged, &overrides(&pins, &[("m1", None)]), &expected, &[]);
    }

    #[test]
    fn a_blocked_node_is_in_no_map_and_the_others_are_where_they_were() {
        let mut given = overrides(&[("a", "m2"), ("x", "m2")], &[("m2", Some("m3"))]);
        for node in ["b", "d", "unknown"] {
            let since = Timestamp::UNIX_EPOCH;
            let blocked =
                BlockedNode { node: node.to_owned(), since, until: None, note: Note::default() };
            given.add_block(blocked).unwrap();
        }
        let merged = [("b", "m1"), ("c", "m1"), ("d", "m2"), ("e", "m2")];
        check(&merged, &given, &[("a", "m2"), ("c", "m1"), ("e", "m3"), ("x", "m2")], &[]);
    }

    #[test]
    fn a_drain_to_a_drained_master_goes_on_to_where_that_ones_nodes_go() {
        let merged = [("n", "a"), ("o", "b"), ("p", "c"), ("q", "d")];
        check(
            &merged,
            &overrides(&[], &[("a", Some("b"))]),
            &[("n", "b"), ("o", "b"), ("p", "c"), ("q", "d")],
            &[],
        );
        let chain = overrides(&[], &[("a", Some("b")), ("b", Some("c"))]);
        check(&merged, &chain, &[("n", "c"), ("o", "c"), ("p", "c"), ("q", "d")], &[]);
        let to_one_that_is_spread = overrides(&[], &[("a", Some("b")), ("b", None), ("c", None)]);
        check(
            &merged,
            &to_one_that_is_spread,
            &[("n", "d"), ("o", "d"), ("p", "d"), ("q", "d")],
            &[],
        );
        let circle = overrides(&[], &[("a", Some("b")), ("b", Some("c")), ("c", Some("a"))]);
        check(&merged, &circle, &[("n", "d"), ("o", "d"), ("p", "d"), ("q", "d")], &[]);
        let to_itself = overrides(&[], &[("a", Some("a")), ("b", Some("b")), ("c", Some("b"))]);
        check(&merged, &to_itself, &[("n", "d"), ("o", "d"), ("p", "d"), ("q", "d")], &[]);
    }

    #[test]
    fn where_every_master_is_drained_nothing_moves_and_it_is_told() {
        let merged = [("n", "a"), ("o", "b")];
        check(
            &merged,
            &overrides(&[], &[("a", None), ("b", None), ("gone", None)]),
            &merged,
            &["a", "b"],
        );
        check(
            &merged,
            &overrides(&[], &[("a", Some("b")), ("b", Some("a"))]),
            &merged,
            &["a", "b"],
        );
        // A master that is named is one that the operator answers for, in the map or not.
        check(
            &merged,
            &overrides(&[], &[("a", Some("spare")), ("b", None)]),
            &[("n", "spare"), ("o", "b")],
            &["b"],
        );
    }

    #[test]
    fn a_drained_masters_nodes_are_spread_evenly() {
        for masters in [3, 10, 50] {
            let merged = fleet(20_000, masters);
            let drained = apply(&merged, &overrides(&[], &[("m0", None)])).entries;
            let before: BTreeMap<_, _> = merged.load().into_iter().collect();
            let share = before["m0"] / (masters - 1);
            for (master, nodes) in drained.load() {
                let got = nodes - before[master];
                // Five standard deviations of a fair draw.
                let off = 5.0 * (share as f64).sqrt();
                assert!(
                    (got as f64 - share as f64).abs() <= off,
                    "{master} got {got} of {}, not about {share}",
                    before["m0"]
                );
            }
        }
    }

    #[test]
    fn nodes_with_names_that_hardly_differ_are_spread_evenly_too() {
        let names: Vec<_> = (0..4000).map(|node| format!("{node:04}")).collect();
        let mut entries: Vec<_> = names.iter().map(|name| (name.as_str(), "master1")).collect();
        entries.extend([("x", "master2"), ("y", "master3"), ("z", "master4")]);
        let load = apply(&map(&entries), &overrides(&[], &[("master1", None)])).entries;
        for (master, nodes) in load.load() {
            assert!((1150..=1520).contains(&nodes), "{master} has {nodes} of 4003");
        }
    }

    #[test]
    fn the_choice_is_the_same_in_every_version() {
        let merged = map(&[
            ("web1.example.test", "m0"),
            ("web2.example.test", "m0"),
            ("a", "m1"),
            ("b", "m2"),
            ("c", "m3"),
        ]);
        let drained = apply(&merged, &overrides(&[], &[("m0", None)])).entries;
        assert_eq!(
            [drained.get("web1.example.test"), drained.get("web2.example.test")],
            [Some("m3"), Some("m2")]
        );
    }

    proptest! {
        #[test]
        fn a_master_that_joins_or_leaves_moves_only_what_it_takes_or_leaves(
            nodes in proptest::collection::btree_set("[a-z]{1,6}", 1..60),
            masters in proptest::collection::btree_set("m[a-z0-9]{1,3}", 2..8),
        ) {
            let all = Others::new(masters.iter().map(String::as_str));
            for gone in &masters {
                let rest =
                    Others::new(masters.iter().map(String::as_str).filter(|master| master != gone));
                for node in &nodes {
                    if all.master_for(node) != Some(gone) {
                        prop_assert_eq!(
                            all.master_for(node),
                            rest.master_for(node),
                            "{} was moved by \
                            {}",
                            node,
                            gone
                        );
                    }
                }
            }
        }

        #[test]
        fn overrides_touch_no_node_that_they_do_not_concern_and_drained_masters_keep_none(
            entries in proptest::collection::btree_map("[a-f]{1,2}", "m[1-4]", 1..40),
            pins in proptest::collection::btree_map("[a-f]{1,2}", "m[1-5]", 0..6),
            drained in proptest::collection::btree_map(
                "m[1-4]",
                proptest::option::of("m[1-5]"),
                0..5,
            ),
        ) {
            let merged: Arc<EntryMap> =
                Arc::new(entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect());
            let pins: Vec<_> =
                pins.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect();
            let drained: Vec<_> =
                drained.iter().map(|(master, to)| (master.as_str(), to.as_deref())).collect();
            let given = overrides(&pins, &drained);
            let result = apply(&merged, &given);
            for (node, master) in result.entries.iter() {
                match (given.pin(node), merged.get(node)) {
                    (Some(pin), _) => prop_assert_eq!(master, pin.master.as_str()),
                    (None, Some(before)) if given.drain(before).is_none() => {
                        prop_assert_eq!(master, before)
                    }
                    (None, Some(before)) => prop_assert!(
                        given.drain(master).is_none()
                            || (master == before
                                && result.stuck.iter().any(|stuck| stuck == before)),
                        "{} of drained {} went to {}",
                        node,
                        before,
                        master
                    ),
                    (None, None) => prop_assert!(false, "{} came from nowhere", node),
                }
            }
            prop_assert!(merged.iter().all(|(node, _)| result.entries.get(node).is_some()));
            prop_assert!(pins.iter().all(|(node, _)| result.entries.get(node).is_some()));
        }
    }
}
