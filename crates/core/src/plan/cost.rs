//! What a change costs HAProxy: single commands against a whole swap.
//!
//! The constants were measured over a unix socket on 2.6.12, 3.0.11 and 3.4.7 with 1,000 to 1,000,000 entries; each instance
//! scales them by what its own replies take, so a slower machine or a remote socket moves the border by itself.

use std::time::Duration;

use haproxy_runtime::HaproxyVersion;

/// From 2.9 on a map's entries stand in a tree, before in a list that `set map` and `del map` walk from its start.
const TREE: HaproxyVersion = HaproxyVersion { major: 2, minor: 9 };
/// The lines round single commands, however few: one that sends them, one that looks them up. Without it one change alone would
/// teach that each of many takes as long.
const EDITS: f64 = 0.3e-3;
/// One command in a batch of many.
const EDIT: f64 = 8e-6;
/// What `set map` and `del map` add for each entry of a list-based map: 12 ns where it fits the processor's cache (100,000
/// entries), up to 70 ns where it does not (a million).
const WALK_PER_ENTRY: f64 = 40e-9;
/// Staging, read-back and commit of one entry.
const SWAP_PER_ENTRY: f64 = 1.1e-6;
/// The commands round a swap.
const SWAP: f64 = 0.5e-3;
/// How long HAProxy may work on a line of single commands.
const LONGEST_LINE: Duration = Duration::from_millis(2);
/// How much the latest measurement counts against all earlier ones.
const WEIGHT: f64 = 0.3;

/// Predicts what a change costs, and learns from what it did cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostModel {
    list_based: bool,
    /// By how much each way takes longer than on the machine of the constants; none before it was measured.
    edit_scale: Option<f64>,
    swap_scale: Option<f64>,
}

/// A number of single commands, by what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditCounts {
    /// `add map`: never walks.
    pub adding: usize,
    /// `set map` and `del map`: walk the list before 2.9.
    pub walking: usize,
}

impl CostModel {
    /// The measured defaults for a version.
    pub fn new(version: HaproxyVersion) -> Self {
        Self { list_based: version < TREE, edit_scale: None, swap_scale: None }
    }

    fn plain_edits(&self, entries: usize, edits: EditCounts) -> f64 {
        EDITS + EDIT * edits.adding as f64 + self.plain_walk(entries) * edits.walking as f64
    }

    fn plain_walk(&self, entries: usize) -> f64 {
        EDIT + if self.list_based { WALK_PER_ENTRY * entries as f64 } else { 0.0 }
    }

    fn plain_swap(entries: usize) -> f64 {
        SWAP + SWAP_PER_ENTRY * entries as f64
    }

    /// A way that was never gone is as slow as the other: what makes one slow is mostly the machine, and would make a swap look
    /// cheap just then.
    fn scale(own: Option<f64>, other: Option<f64>) -> f64 {
        own.or(other).unwrap_or(1.0)
    }

    /// The time of single commands on a map with `entries` entries in memory.
    pub fn edits(&self, entries: usize, edits: EditCounts) -> Duration {
        Duration::from_secs_f64(Self::scale(self.edit_scale, self.swap_scale) * self.plain_edits(entries, edits))
    }

    /// How many single commands of one kind a line may hold, at least one: HAProxy works on a line in one go, on a thread that serves
    /// no request meanwhile, and before 2.9 walks a list for some. A line must surely be answered within `timeout`, too.
    pub fn edits_a_line(&self, entries: usize, timeout: Duration) -> EditCounts {
        let scale = Self::scale(self.edit_scale, self.swap_scale);
        let most = |command: f64| {
            // Not by what replies took: on a busy machine shorter lines would take longer yet.
            let held = LONGEST_LINE.as_secs_f64() / command;
            let in_time = timeout.as_secs_f64() / 4.0 / (scale * command);
            (held.min(in_time) as usize).max(1)
        };
        EditCounts { adding: most(EDIT), walking: most(self.plain_walk(entries)) }
    }

    /// The time of a swap to a map of `entries` entries.
    pub fn swap(&self, entries: usize) -> Duration {
        Duration::from_secs_f64(Self::scale(self.swap_scale, self.edit_scale) * Self::plain_swap(entries))
    }

    /// Learns from single commands that took `took`.
    pub fn observe_edits(&mut self, entries: usize, edits: EditCounts, took: Duration) {
        let plain = self.plain_edits(entries, edits);
        self.edit_scale = Some(learned(Self::scale(self.edit_scale, self.swap_scale), took, plain));
    }

    /// Learns from a swap that took `took`.
    pub fn observe_swap(&mut self, entries: usize, took: Duration) {
        self.swap_scale = Some(learned(Self::scale(self.swap_scale, self.edit_scale), took, Self::plain_swap(entries)));
    }
}

/// One stalled reply must not decide for hours: a measurement is bounded, and later ones soon outweigh it.
fn learned(scale: f64, took: Duration, plain: f64) -> f64 {
    let measured = (took.as_secs_f64() / plain).clamp(0.02, 50.0);
    scale + WEIGHT * (measured - scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_moment_of_single_commands_makes_no_swap_look_cheap() {
        let (changes, entries) = (EditCounts { adding: 0, walking: 100 }, 10_000);
        let mut cost = CostModel::new(HaproxyVersion { major: 3, minor: 4 });
        assert!(cost.edits(entries, changes) < cost.swap(entries));
        for _ in 0..5 {
            cost.observe_edits(entries, changes, Duration::from_millis(50));
            assert!(cost.edits(entries, changes) < cost.swap(entries), "{cost:?}");
        }
        cost.observe_swap(entries, Duration::from_millis(5));
        let measured = cost.swap(entries);
        cost.observe_edits(entries, changes, Duration::from_millis(500));
        assert_eq!(cost.swap(entries), measured, "what was measured counts");
    }

    #[test]
    fn a_change_now_and_then_does_not_make_many_look_dear() {
        let (few, many) = (EditCounts { adding: 0, walking: 1 }, EditCounts { adding: 0, walking: 100 });
        let mut cost = CostModel::new(HaproxyVersion { major: 3, minor: 4 });
        cost.observe_swap(10_000, cost.swap(10_000));
        for _ in 0..20 {
            cost.observe_edits(10_000, few, Duration::from_micros(500));
        }
        assert!(cost.edits(10_000, many) < cost.swap(10_000), "{cost:?}");
    }

    #[test]
    fn a_line_of_commands_holds_few_that_walk_and_many_that_do_not() {
        let line = |minor, entries| {
            let line = CostModel::new(HaproxyVersion { major: 2, minor }).edits_a_line(entries, Duration::from_secs(5));
            (line.adding, line.walking)
        };
        assert_eq!((line(6, 1_000_000), line(6, 100_000), line(9, 1_000_000)), ((250, 1), (250, 1), (250, 250)));
        assert!(line(6, 100).1 > 100);
    }

    #[test]
    fn a_slow_machine_makes_no_line_shorter_than_its_answer_needs() {
        let mut cost = CostModel::new(HaproxyVersion { major: 3, minor: 4 });
        let counts = EditCounts { adding: 0, walking: 1_000 };
        let before = cost.edits_a_line(100_000, Duration::from_secs(5));
        for _ in 0..20 {
            cost.observe_edits(100_000, counts, Duration::from_millis(500));
        }
        assert_eq!(cost.edits_a_line(100_000, Duration::from_secs(5)), before);
        assert!(cost.edits_a_line(100_000, Duration::from_millis(10)).walking < before.walking, "it must be answered in time");
    }

    #[test]
    fn a_model_follows_what_the_replies_take() {
        let mut cost = CostModel::new(HaproxyVersion { major: 3, minor: 0 });
        let before = cost.swap(100_000);
        for _ in 0..20 {
            cost.observe_swap(100_000, before * 4);
        }
        let after = cost.swap(100_000);
        assert!(after > before * 39 / 10 && after < before * 41 / 10, "{before:?} -> {after:?}");
        cost.observe_swap(100_000, Duration::from_secs(3600));
        assert!(cost.swap(100_000) < before * 20, "one stalled reply is bounded");
    }
}
