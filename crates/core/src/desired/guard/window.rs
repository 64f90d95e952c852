//! What came into force lately: the figures that show a registry that loses a little at each poll,
//! and the marks that show a return to what was in force. Pure; the clock is an argument.
//!
//! It holds figures, not maps: of each change its time, its counts and a mark of the content before
//! it, whatever the content's size.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Recent;
use crate::revision::ChangeCounts;

/// The most changes that are remembered one by one; beyond them the two oldest become one.
const MOST_CHANGES: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Change {
    /// Before 0 where it came before a start.
    at: SignedDuration,
    /// The mark of the content before it.
    before: u64,
    entries: usize,
    counts: ChangeCounts,
}

/// A change as it outlives the process that saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastChange {
    pub at: Timestamp,
    /// Entries before it.
    pub entries: usize,
    pub counts: ChangeCounts,
}

#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The mark of the content after it, from [`Window::after`].
    pub mark: u64,
    pub before: usize,
    pub entries: usize,
    pub counts: ChangeCounts,
    /// Whether an operator let it through: what came before then no longer counts.
    pub approved: bool,
}

/// The changes of the last while. Times are those of one steady clock that the caller reads.
#[derive(Debug, Clone)]
pub struct Window {
    length: Duration,
    changes: VecDeque<Change>,
    /// Stands for the content in force: equal contents have equal marks, and different ones differ
    /// but by chance.
    mark: u64,
    /// Keyed again in each process, so that no registry can make two contents look alike.
    hasher: RandomState,
}

impl Window {
    /// Nothing came into force yet. With a length of 0 nothing is remembered.
    pub fn new(length: Duration) -> Self {
        Self { length, changes: VecDeque::new(), mark: 0, hasher: RandomState::new() }
    }

    /// Goes on from what came into force before, by the same clock. A window that was shorter knows
    /// no more than it did.
    pub fn go_on(&mut self, before: &Self) {
        let length = std::mem::replace(self, before.clone()).length;
        self.set_length(length);
    }

    /// The same, as if nothing had come into force yet.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(self.length)
    }

    /// Remembers for so long from now on.
    pub fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// What came into force within the window; `at` is what the time `now` is elsewhere.
    pub fn past(&self, now: Duration, at: Timestamp) -> Vec<PastChange> {
        let counting = self.changes.iter().filter(|change| self.counts(change, now));
        let past = counting.filter_map(|change| {
            let Change { entries, counts, .. } = *change;
            Some(PastChange { at: at.checked_sub(age(change, now)).ok()?, entries, counts })
        });
        past.collect()
    }

    /// Goes on from what another process saw, where this one saw nothing. Nothing of it is known for a return: marks are of one
    /// process.
    pub fn recall(&mut self, past: &[PastChange], now: Duration, at: Timestamp) {
        if !self.changes.is_empty() {
            return;
        }
        let recalled = past.iter().zip(0u64..).map(|(change, index)| Change {
            // A clock that was set back makes none younger than now.
            at: steady(now).saturating_sub(at.duration_since(change.at).max(SignedDuration::ZERO)),
            before: self.hasher.hash_one(("a start", index)),
            entries: change.entries,
            counts: change.counts,
        });
        self.changes = recalled.collect();
    }

    /// The mark of what is in force with these changes: key, value before, value after. Takes time
    /// in proportion to them.
    pub fn after<'a>(
        &self,
        changes: impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)>,
    ) -> u64 {
        let hash = |key: &str, value: Option<&str>| {
            value.map_or(0, |value| self.hasher.hash_one((key, value)))
        };
        changes.fold(self.mark, |mark, (key, before, after)| {
            mark.wrapping_sub(hash(key, before)).wrapping_add(hash(key, after))
        })
    }

    /// What the guard must know beside a change that leads to `mark`.
    pub fn recent(&self, mark: u64, now: Duration) -> Recent {
        let mut recent = Recent::default();
        for change in self.changes.iter().filter(|change| self.counts(change, now)) {
            recent.most = recent.most.max(change.entries);
            recent.counts += change.counts;
            recent.is_return |= change.before == mark;
        }
        recent
    }

    fn counts(&self, change: &Change, now: Duration) -> bool {
        age(change, now).unsigned_abs() < self.length
    }

    /// Notes a change that came into force. A return to what was in force undoes what came since.
    pub fn accept(&mut self, accepted: &Accepted, now: Duration) {
        while self.changes.front().is_some_and(|change| !self.counts(change, now)) {
            self.changes.pop_front();
        }
        let before = std::mem::replace(&mut self.mark, accepted.mark);
        if let Some(undone) = self.changes.iter().position(|change| change.before == accepted.mark)
        {
            self.changes.truncate(undone);
            return;
        }
        // What an empty map is filled with is no change of anything.
        if self.length.is_zero() || accepted.before == 0 {
            return;
        }
        let mut change =
            Change { at: steady(now), before, entries: accepted.before, counts: accepted.counts };
        if accepted.approved {
            for change in self.changes.iter_mut().chain([&mut change]) {
                (change.entries, change.counts) = (accepted.entries, ChangeCounts::default());
            }
        }
        self.changes.push_back(change);
        if self.changes.len() > MOST_CHANGES
            && let Some(oldest) = self.changes.pop_front()
            && let Some(next) = self.changes.front_mut()
        {
            next.entries = next.entries.max(oldest.entries);
            next.counts += oldest.counts;
        }
    }
}

fn steady(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

fn age(change: &Change, now: Duration) -> SignedDuration {
    steady(now).saturating_sub(change.at).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn removed(count: usize) -> ChangeCounts {
        ChangeCounts { removed: count, ..ChangeCounts::default() }
    }

    /// Removes these nodes of m1 at a minute; the map has so many entries before.
    fn remove(window: &mut Window, nodes: &[&str], entries: usize, minute: u64, approved: bool) {
        let mark = window.after(nodes.iter().map(|node| (*node, Some("m1"), None)));
        let counts = removed(nodes.len());
        let accepted =
            Accepted { mark, before: entries, entries: entries - nodes.len(), counts, approved };
        window.accept(&accepted, minutes(minute));
    }

    #[test]
    fn changes_add_up_until_they_are_a_window_old() {
        let mut window = Window::new(HOUR);
        remove(&mut window, &["a", "b"], 10, 0, false);
        remove(&mut window, &["c"], 8, 30, false);
        let recent = |minute| window.recent(1, minutes(minute));
        assert_eq!((recent(59).most, recent(59).counts), (10, removed(3)));
        assert_eq!((recent(60).most, recent(60).counts), (8, removed(1)));
        assert_eq!(recent(90), Recent::default());
    }

    #[test]
    fn what_came_into_force_before_a_start_adds_up_with_what_comes_after_it() {
        let mut window = Window::new(HOUR);
        remove(&mut window, &["a", "b"], 10, 0, false);
        remove(&mut window, &["c"], 8, 30, false);
        let at = Timestamp::from_second(100_000).unwrap();
        let later = |minutes| at + SignedDuration::from_mins(minutes);
        let past = window.past(minutes(40), at);
        assert_eq!(past[0].at, later(-40));
        let mut next = Window::new(HOUR);
        next.recall(&past, minutes(0), later(10));
        let recent = |minute| next.recent(1, minutes(minute));
        assert_eq!((recent(9).most, recent(9).counts), (10, removed(3)));
        assert_eq!((recent(10).most, recent(10).counts), (8, removed(1)), "it is an hour ago");
        assert_eq!(recent(40), Recent::default());
        // A clock that was set back: they are as new as can be, and end all the same.
        next = next.emptied();
        next.recall(&past, minutes(0), later(-500));
        assert_eq!(next.recent(1, minutes(59)).counts, removed(3));
        assert_eq!(next.recent(1, minutes(60)).counts, removed(0));
        assert_eq!(window.past(minutes(90), at), []);
    }

    #[test]
    fn what_came_into_force_counts_on_in_a_window_of_another_length() {
        let mut window = Window::new(HOUR);
        remove(&mut window, &["a"], 10, 100, false);
        for (length, at, counts) in
            [(minutes(30), 120, 1), (minutes(30), 130, 0), (2 * HOUR, 200, 1)]
        {
            let mut other = Window::new(length);
            other.go_on(&window);
            assert_eq!(other.recent(1, minutes(at)).counts, removed(counts), "{length:?} at {at}");
        }
    }

    #[test]
    fn a_return_is_known_by_its_content_and_undoes_what_came_since() {
        let mut window = Window::new(HOUR);
        remove(&mut window, &["a"], 10, 0, false);
        remove(&mut window, &["b"], 9, 1, false);
        let with_b = window.after([("b", None, Some("m1"))].into_iter());
        assert!(window.recent(with_b, minutes(2)).is_return);
        for other in [("b", None, Some("m2")), ("c", None, Some("m1")), ("c", Some("m1"), None)] {
            let mark = window.after([other].into_iter());
            assert!(!window.recent(mark, minutes(2)).is_return, "{other:?}");
        }
        assert!(!window.recent(with_b, minutes(61)).is_return, "it was longer ago");
        let counts = ChangeCounts { added: 1, ..ChangeCounts::default() };
        window.accept(
            &Accepted { mark: with_b, before: 8, entries: 9, counts, approved: false },
            minutes(2),
        );
        assert_eq!(window.recent(0, minutes(2)).counts, removed(1), "only a is gone");
        let whole = window.after([("a", None, Some("m1"))].into_iter());
        assert!(window.recent(whole, minutes(2)).is_return);
    }

    #[test]
    fn what_an_operator_let_through_starts_the_figures_anew_and_can_be_returned_from() {
        let mut window = Window::new(HOUR);
        remove(&mut window, &["a"], 10, 0, false);
        remove(&mut window, &["b", "c", "d"], 9, 1, true);
        let before = window.after(["b", "c", "d"].into_iter().map(|node| (node, None, Some("m1"))));
        assert_eq!(
            window.recent(before, minutes(2)),
            Recent { most: 6, is_return: true, ..Recent::default() }
        );
    }

    #[test]
    fn a_window_of_no_length_remembers_nothing() {
        let mut window = Window::new(Duration::ZERO);
        remove(&mut window, &["a"], 10, 0, false);
        assert!(window.changes.is_empty());
        assert_eq!(window.recent(0, minutes(0)), Recent::default());
    }

    #[test]
    fn more_changes_than_are_remembered_one_by_one_still_count() {
        let mut window = Window::new(HOUR);
        for number in 0..MOST_CHANGES + 10 {
            let node = format!("n{number}");
            remove(&mut window, &[&node], 2 * MOST_CHANGES - number, 0, false);
        }
        assert_eq!(window.changes.len(), MOST_CHANGES);
        let recent = window.recent(1, minutes(1));
        assert_eq!((recent.most, recent.counts), (2 * MOST_CHANGES, removed(MOST_CHANGES + 10)));
    }
}
