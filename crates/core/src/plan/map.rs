//! Which way a deviation is corrected: nothing to do, single commands, or a whole swap.

use super::cost::{CostModel, EditCounts};
use super::deviation::Deviation;
use crate::status::milliseconds;
use crate::{EntryMap, names};

/// One single command on the live map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `add map`: the key is not in memory.
    Add { key: String, value: String },
    /// `set map`: the key is in memory with another value.
    Set { key: String, value: String },
    /// `del map`: the key is in memory and not wanted.
    Remove { key: String },
}

impl Edit {
    pub fn key(&self) -> &str {
        match self {
            Self::Add { key, .. } | Self::Set { key, .. } | Self::Remove { key } => key,
        }
    }

    /// What a lookup of the key answers afterwards.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Add { value, .. } | Self::Set { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }
}

/// How an instance's memory gets to the wanted map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapPlan {
    InSync,
    /// Single commands, in this order.
    Edit {
        /// The commands: new keys, then moves, then removals.
        edits: Vec<Edit>,
        reason: String,
    },
    /// The whole wanted map as a new version.
    Swap {
        reason: String,
    },
}

/// What the planner knows of an instance's memory beside the deviation.
#[derive(Debug, Clone, Copy)]
pub struct MapFacts {
    pub entries: usize,
    /// Entries of staged versions that nobody has committed. Before 3.2 single commands reach into
    /// them too, and answer success where only they hold the key.
    pub staged_entries: usize,
    pub cost: CostModel,
}

/// Plans one instance's change. A second plan over the result is [`MapPlan::InSync`].
pub fn plan_map(wanted: &EntryMap, deviation: &Deviation, memory: &MapFacts) -> MapPlan {
    if deviation.is_none() {
        return MapPlan::InSync;
    }
    let swap = |reason: String| MapPlan::Swap { reason };
    if deviation.duplicates > 0 {
        // `del map` removes every duplicate up to 3.2 and only the first in 3.4: only a swap is
        // sure.
        return swap(format!(
            "{} duplicate entries can only be corrected by a swap",
            deviation.duplicates
        ));
    }
    if memory.staged_entries > 0 {
        return swap(format!(
            "{} entries of uncommitted versions would mix with single commands",
            memory.staged_entries
        ));
    }
    if memory.entries == 0 {
        return swap("the map in memory is empty".to_owned());
    }
    let extra: Option<Vec<&str>> = deviation
        .extra
        .iter()
        .map(|key| str::from_utf8(key).ok().filter(|key| names::check_key(key).is_ok()))
        .collect();
    let Some(extra) = extra.filter(|extra| extra.len() == deviation.extra_count) else {
        return swap(
            "memory holds surplus keys that no single command can name, or too many of them"
                .to_owned(),
        );
    };
    let counts = EditCounts {
        adding: deviation.missing.len(),
        walking: deviation.wrong.len() + extra.len(),
    };
    let (edits_cost, swap_cost) =
        (memory.cost.edits(memory.entries, counts), memory.cost.swap(wanted.len()));
    let edits = counts.adding + counts.walking;
    let commands = if edits == 1 { "command is" } else { "commands are" };
    let reason = format!(
        "{edits} {commands} estimated at {:.2} ms, a swap of {} entries at {:.2} ms",
        milliseconds(edits_cost),
        wanted.len(),
        milliseconds(swap_cost)
    );
    if edits_cost > swap_cost {
        return swap(reason);
    }
    let entry =
        |at: &u32| (wanted.key(*at as usize).to_owned(), wanted.value(*at as usize).to_owned());
    let added = deviation.missing.iter().map(entry).map(|(key, value)| Edit::Add { key, value });
    let moved = deviation.wrong.iter().map(entry).map(|(key, value)| Edit::Set { key, value });
    let removed = extra.iter().map(|key| Edit::Remove { key: (*key).to_owned() });
    MapPlan::Edit { edits: added.chain(moved).chain(removed).collect(), reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deviation::ReadBack;
    use super::super::diff::tests::any_map;
    use super::super::replay::{Entry, replay};
    use super::*;
    use haproxy_runtime::HaproxyVersion;

    const OLD: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
    const NEW: HaproxyVersion = HaproxyVersion { major: 3, minor: 0 };

    fn map_of(entries: usize, master: &str) -> EntryMap {
        let keys: Vec<_> = (0..entries).map(|number| format!("n{number:06}")).collect();
        keys.iter().map(|key| (key.as_str(), master)).collect()
    }

    fn plan_moves(version: HaproxyVersion, entries: usize, moves: usize) -> MapPlan {
        let (held, other) = (map_of(entries, "m1"), map_of(entries, "m2"));
        let wanted: EntryMap = other.iter().take(moves).chain(held.iter().skip(moves)).collect();
        let memory = MapFacts { entries, staged_entries: 0, cost: CostModel::new(version) };
        plan_map(&wanted, &Deviation::between(&held, &wanted), &memory)
    }

    #[test]
    fn few_moves_in_a_large_map_are_single_commands_and_many_are_a_swap() {
        assert!(matches!(plan_moves(NEW, 100_000, 0), MapPlan::InSync));
        assert!(matches!(plan_moves(NEW, 100_000, 100), MapPlan::Edit { .. }));
        assert!(matches!(plan_moves(NEW, 100_000, 50_000), MapPlan::Swap { .. }));
    }

    #[test]
    fn a_version_that_walks_a_list_swaps_earlier() {
        assert!(matches!(plan_moves(OLD, 100_000, 10), MapPlan::Edit { .. }));
        assert!(matches!(plan_moves(OLD, 100_000, 500), MapPlan::Swap { .. }));
        assert!(matches!(plan_moves(NEW, 100_000, 500), MapPlan::Edit { .. }));
    }

    #[test]
    fn what_single_commands_cannot_heal_is_swapped() {
        let wanted = map_of(3, "m1");
        let memory = MapFacts { entries: 3, staged_entries: 0, cost: CostModel::new(NEW) };
        let hash_key = Deviation {
            extra: vec![b"#1".as_slice().into()],
            extra_count: 1,
            ..Deviation::default()
        };
        let binary_key = Deviation {
            extra: vec![[0xff].as_slice().into()],
            extra_count: 1,
            ..Deviation::default()
        };
        let duplicates = Deviation { duplicates: 1, ..Deviation::default() };
        let missing = Deviation { missing: vec![0], ..Deviation::default() };
        for deviation in [&hash_key, &binary_key, &duplicates] {
            assert!(
                matches!(plan_map(&wanted, deviation, &memory), MapPlan::Swap { .. }),
                "{deviation:?}"
            );
        }
        let staged = MapFacts { staged_entries: 5, ..memory };
        assert!(matches!(plan_map(&wanted, &missing, &staged), MapPlan::Swap { .. }));
        assert!(matches!(plan_map(&wanted, &missing, &memory), MapPlan::Edit { .. }));
    }

    /// Memory as HAProxy might hold it: in any order, with duplicates.
    fn any_memory() -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec(("[a-d#]{1,3}", "[mno]"), 0..40).prop_map(|entries| {
            entries.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes())).collect()
        })
    }

    fn observe(memory: &[Entry], wanted: &EntryMap) -> Deviation {
        let mut read_back = ReadBack::new(wanted);
        for (key, value) in memory {
            read_back.entry(key, value);
        }
        read_back.finish()
    }

    proptest! {
        #[test]
        fn folding_a_plan_over_the_observed_map_gives_the_desired_one_and_a_second_plan_is_empty(
            memory in any_memory(),
            wanted in any_map(),
            old: bool,
            staged in 0usize..2,
        ) {
            // Small maps would nearly always be edited; a staged entry makes it a swap.
            let cost = CostModel::new(if old { OLD } else { NEW });
            let facts = MapFacts { entries: memory.len(), staged_entries: staged, cost };
            let plan = plan_map(&wanted, &observe(&memory, &wanted), &facts);
            let after = replay(&memory, &plan, &wanted);
            prop_assert_eq!(after.len(), wanted.len());
            let again = observe(&after, &wanted);
            prop_assert!(again.is_none(), "{:?} left {:?}", plan, again);
            prop_assert_eq!(plan_map(&wanted, &again, &facts), MapPlan::InSync);
        }
    }
}
