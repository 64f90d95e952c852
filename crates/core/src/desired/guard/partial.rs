//! What of a change comes into force while the rest of it is held: its moves, its additions and its
//! removals are judged apart. Pure.
//!
//! A registry that lost nodes still knows where the others go. But an answer that is no answer of
//! this registry at all is not believed in anything.

use std::cmp::Ordering;

use super::{Limits, Proposal};
use crate::revision::ChangeCounts;
use crate::{EntryMap, EntryMapBuilder};

/// Which entries of a change come into force together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    pub moved: bool,
    pub added: bool,
    pub removed: bool,
}

const MOVED: Part = Part { moved: true, added: false, removed: false };
const ADDED: Part = Part { moved: false, added: true, removed: false };
const REMOVED: Part = Part { moved: false, added: false, removed: true };

impl Part {
    /// The parts that are less than the whole, the most welcome one first: a route that is right
    /// is worth more than one less that is wrong.
    const LESS: [Self; 6] = [
        Self { removed: false, ..Self::WHOLE },
        Self { added: false, ..Self::WHOLE },
        Self { moved: false, ..Self::WHOLE },
        MOVED,
        ADDED,
        REMOVED,
    ];
    pub const WHOLE: Self = Self { moved: true, added: true, removed: true };

    /// Its entries of a change.
    pub fn counts(self, of: ChangeCounts) -> ChangeCounts {
        let only = |is_in: bool, count: usize| if is_in { count } else { 0 };
        ChangeCounts {
            added: only(self.added, of.added),
            moved: only(self.moved, of.moved),
            removed: only(self.removed, of.removed),
        }
    }

    /// Whether a node that goes from one master to another is in it; none where it has no entry.
    pub fn has(self, from: Option<&str>, to: Option<&str>) -> bool {
        match (from, to) {
            (Some(_), Some(_)) => self.moved,
            (None, _) => self.added,
            (_, None) => self.removed,
        }
    }

    /// The entries of a change that it leaves.
    pub fn rest(self, of: ChangeCounts) -> ChangeCounts {
        Self { moved: !self.moved, added: !self.added, removed: !self.removed }.counts(of)
    }

    /// Whether all of it is in the other one.
    fn is_in(self, other: Self) -> bool {
        (!self.moved || other.moved)
            && (!self.added || other.added)
            && (!self.removed || other.removed)
    }

    fn and(self, other: Self) -> Self {
        Self {
            moved: self.moved || other.moved,
            added: self.added || other.added,
            removed: self.removed || other.removed,
        }
    }

    /// The map in force with this part of a change to another one.
    pub fn apply(self, in_force: &EntryMap, to: &EntryMap) -> EntryMap {
        let mut map = EntryMapBuilder::new();
        let (mut at, mut at_new) = (0, 0);
        loop {
            let order = match (at < in_force.len(), at_new < to.len()) {
                (true, true) => in_force.key(at).cmp(to.key(at_new)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => return map.finish(),
            };
            match order {
                Ordering::Less if self.removed => {}
                Ordering::Less => map.copy(in_force, at),
                Ordering::Greater if self.added => map.copy(to, at_new),
                Ordering::Greater => {}
                Ordering::Equal if self.moved => map.copy(to, at_new),
                Ordering::Equal => map.copy(in_force, at),
            }
            at += usize::from(order != Ordering::Greater);
            at_new += usize::from(order != Ordering::Less);
        }
    }
}

/// Which part of a change that is held as a whole comes into force, if any. `passes` says whether
/// the map in force with this part would be let through: it is asked of moves, additions and
/// removals, and then of those together that pass by themselves.
pub fn split(
    limits: &Limits,
    whole: &Proposal,
    mut passes: impl FnMut(Part) -> bool,
) -> Option<Part> {
    // The first map is one answer, and so is what follows no map at all.
    let known = whole.in_force?.saturating_sub(whole.counts.removed);
    if !limits.partial || known == 0 || whole.entries < limits.min_entries {
        return None;
    }
    let changes = |part: &Part| part.counts(whole.counts).total() > 0;
    let good = [MOVED, ADDED, REMOVED]
        .into_iter()
        .filter(|part| changes(part) && passes(*part))
        .fold(Part::default(), Part::and);
    // Nodes that are gone beside more new ones than known ones: that is another fleet.
    if changes(&REMOVED) && !good.removed && whole.counts.added > known {
        return None;
    }
    let alone = |part: Part| [MOVED, ADDED, REMOVED].contains(&part);
    Part::LESS.into_iter().find(|part| part.is_in(good) && (alone(*part) || passes(*part)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Limit, Recent, Subject, check};
    use super::*;
    use crate::plan::Diff;

    fn counts(added: usize, moved: usize, removed: usize) -> ChangeCounts {
        ChangeCounts { added, moved, removed }
    }

    /// What of a change of so many entries in force these limits let into force.
    fn part_of(limits: &Limits, in_force: usize, change: ChangeCounts) -> Option<ChangeCounts> {
        let proposal = |counts: ChangeCounts| Proposal {
            in_force: Some(in_force),
            entries: in_force + counts.added - counts.removed,
            counts,
            recent: Recent::default(),
        };
        let passes =
            |part: Part| check(Subject::Map, limits, &proposal(part.counts(change))).is_ok();
        assert!(check(Subject::Map, limits, &proposal(change)).is_err(), "it passes as a whole");
        let part = split(limits, &proposal(change), passes)?;
        assert_eq!(part.counts(change).total() + part.rest(change).total(), change.total());
        Some(part.counts(change))
    }

    #[test]
    fn removals_that_are_held_hold_no_move_and_no_addition_back() {
        let limits = Limits::default();
        assert_eq!(part_of(&limits, 100, counts(5, 10, 21)), Some(counts(5, 10, 0)));
        assert_eq!(part_of(&limits, 100, counts(0, 1, 97)), Some(counts(0, 1, 0)));
        assert_eq!(part_of(&limits, 100, counts(0, 0, 21)), None);
    }

    #[test]
    fn moves_and_additions_that_are_held_hold_no_other_part_back() {
        let counted = Limits { free: 0, ..Limits::default() };
        let limits = Limits { max_added: Limit::Entries(4), ..counted.clone() };
        assert_eq!(part_of(&limits, 100, counts(4, 51, 20)), Some(counts(4, 0, 20)));
        assert_eq!(part_of(&limits, 100, counts(5, 50, 20)), Some(counts(0, 50, 20)));
        assert_eq!(part_of(&limits, 100, counts(5, 51, 20)), Some(counts(0, 0, 20)));
        assert_eq!(part_of(&limits, 100, counts(5, 51, 21)), None);
        let limits = Limits { max_entries: Some(102), ..Limits::default() };
        assert_eq!(part_of(&limits, 100, counts(3, 5, 0)), Some(counts(0, 5, 0)));
        assert_eq!(
            part_of(&limits, 100, counts(3, 5, 21)),
            Some(counts(0, 5, 0)),
            "what is added counts with what is not removed"
        );
        let limits = Limits { min_entries: 90, max_added: Limit::Entries(9), ..counted };
        assert_eq!(part_of(&limits, 100, counts(10, 5, 11)), Some(counts(0, 5, 0)));
    }

    #[test]
    fn an_answer_that_is_not_credible_is_held_as_a_whole() {
        let limits = Limits::default();
        assert_eq!(part_of(&limits, 100, counts(5, 0, 100)), None, "every key is another one");
        assert_eq!(part_of(&limits, 100, counts(70, 20, 40)), None, "another fleet");
        assert_eq!(part_of(&limits, 100, counts(60, 20, 40)), Some(counts(60, 20, 0)));
        let least = Limits { min_entries: 80, ..Limits::default() };
        assert_eq!(part_of(&least, 100, counts(0, 5, 21)), None, "below guard.min_entries");
        let whole = Limits { partial: false, ..Limits::default() };
        assert_eq!(part_of(&whole, 100, counts(5, 10, 21)), None);
    }

    #[test]
    fn parts_that_pass_alone_and_not_together_do_not_come_together() {
        let whole = Proposal {
            in_force: Some(100),
            entries: 100,
            counts: counts(5, 5, 5),
            recent: Recent::default(),
        };
        let split = |passes: fn(Part) -> bool| split(&Limits::default(), &whole, passes);
        assert_eq!(split(|_| true), Some(Part { removed: false, ..Part::WHOLE }));
        assert_eq!(
            split(|part| !(part.moved && part.added)),
            Some(Part { added: false, ..Part::WHOLE })
        );
        assert_eq!(split(|part| part.counts(counts(1, 1, 1)).total() == 1), Some(MOVED));
        assert_eq!(split(|part| part == ADDED), Some(ADDED));
        assert_eq!(split(|_| false), None);
    }

    fn any_map() -> impl Strategy<Value = EntryMap> {
        proptest::collection::btree_map("[a-d]{1,3}", "[mno]", 0..40).prop_map(|plain| {
            plain.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        })
    }

    proptest! {
        #[test]
        fn a_part_changes_what_it_says_and_the_rest_leads_to_the_whole(
            old in any_map(),
            new in any_map(),
            (moved, added, removed) in any::<(bool, bool, bool)>(),
        ) {
            let part = Part { moved, added, removed };
            let whole = Diff::between(&old, &new).counts();
            let map = part.apply(&old, &new);
            prop_assert_eq!(Diff::between(&old, &map).counts(), part.counts(whole));
            prop_assert_eq!(Diff::between(&map, &new).counts(), part.rest(whole));
            prop_assert_eq!(&Part::WHOLE.apply(&map, &new), &new);
        }
    }
}
