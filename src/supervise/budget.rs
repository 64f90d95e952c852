//! When a wanted reload is due: not too soon after the one before, and not while too many processes
//! of earlier ones still have connections. Pure: the time is an argument.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

/// What reloads may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The least time between the beginnings of two reloads.
    pub interval: Duration,
    /// How many old workers there may be before a reload.
    pub max_old_workers: usize,
}

/// The reloads that are wanted, for the reasons `R`.
#[derive(Debug, Clone)]
pub struct Budget<R> {
    limits: Limits,
    last: Option<Instant>,
    wanted: BTreeSet<R>,
    since: Option<Instant>,
}

/// When the wanted reload is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// None is wanted.
    Never,
    Now,
    /// After this time: another one has just been.
    In(Duration),
    /// When there are fewer old workers.
    Workers {
        alive: usize,
        most: usize,
    },
}

impl<R: Ord> Budget<R> {
    pub fn new(limits: Limits) -> Self {
        Self { limits, last: None, wanted: BTreeSet::new(), since: None }
    }

    /// Another one's last reload began then.
    pub fn go_on(&mut self, last: Option<Instant>) {
        self.last = last;
    }

    /// A reload is wanted; several are one.
    pub fn want(&mut self, reason: R, now: Instant) {
        self.since.get_or_insert(now);
        self.wanted.insert(reason);
    }

    /// No reload is wanted any more.
    pub fn forget(&mut self) {
        self.wanted.clear();
        self.since = None;
    }

    /// What a reload is wanted for.
    pub fn wanted(&self) -> &BTreeSet<R> {
        &self.wanted
    }

    /// Since when one is wanted.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When it is due, where so many old workers are alive.
    pub fn due(&self, old_workers: usize, now: Instant) -> Due {
        let Limits { interval, max_old_workers } = self.limits;
        if self.wanted.is_empty() {
            return Due::Never;
        }
        let left =
            self.last.map(|last| interval.saturating_sub(now.saturating_duration_since(last)));
        match left {
            Some(left) if !left.is_zero() => Due::In(left),
            _ if old_workers >= max_old_workers => {
                Due::Workers { alive: old_workers, most: max_old_workers }
            }
            _ => Due::Now,
        }
    }

    /// A reload begins, for these reasons.
    pub fn begin(&mut self, now: Instant) -> BTreeSet<R> {
        self.last = Some(now);
        self.since = None;
        std::mem::take(&mut self.wanted)
    }
}

impl fmt::Display for Due {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => write!(out, "no reload is wanted"),
            Self::Now => write!(out, "due now"),
            Self::In(left) => {
                write!(out, "due in {:.1} s (haproxy.reload_interval)", left.as_secs_f64())
            }
            Self::Workers { alive, most } => write!(
                out,
                "waits until old workers end: {alive} are alive, and a reload begins below {most} \
                    (haproxy.max_old_workers, hard_stop_after)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { interval: Duration::from_secs(2), max_old_workers: 3 };

    #[test]
    fn the_first_reload_is_due_at_once_and_the_next_after_the_interval() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let mut budget = Budget::new(LIMITS);
        assert_eq!(budget.due(0, start), Due::Never);
        budget.want("frontend", start);
        assert_eq!(budget.due(0, start), Due::Now);
        budget.begin(start);
        budget.want("backend", at(0.5));
        budget.want("backend", at(0.7));
        budget.want("certificate", at(0.7));
        assert_eq!(budget.due(0, at(0.5)), Due::In(Duration::from_millis(1500)));
        assert_eq!(budget.since(), Some(at(0.5)));
        assert_eq!(budget.due(0, at(2.0)), Due::Now);
        assert_eq!(budget.begin(at(2.0)), BTreeSet::from(["backend", "certificate"]));
        assert_eq!(budget.due(0, at(9.0)), Due::Never);
    }

    #[test]
    fn a_reload_waits_while_too_many_old_workers_are_alive_and_says_so() {
        let now = Instant::now();
        let mut budget = Budget::new(LIMITS);
        budget.want((), now);
        assert_eq!(budget.due(2, now), Due::Now);
        let waits = budget.due(3, now);
        assert_eq!(waits, Due::Workers { alive: 3, most: 3 });
        assert!(waits.to_string().contains("3 are alive"), "{waits}");
        budget.forget();
        assert_eq!(budget.due(3, now), Due::Never);
    }

    proptest! {
        /// Whoever reloads when it is due, and only then, keeps both limits, and every want is
        /// served in the end.
        #[test]
        fn both_limits_are_kept_and_nothing_wanted_is_lost(
            steps in proptest::collection::vec((0u64..900, any::<bool>(), 0usize..5), 1..200),
        ) {
            let mut now = Instant::now();
            let mut budget = Budget::new(LIMITS);
            let (mut last, mut unserved) = (None::<Instant>, 0);
            for (milliseconds, wants, old_workers) in steps {
                now += Duration::from_millis(milliseconds);
                if wants {
                    unserved += 1;
                    budget.want(unserved, now);
                }
                if budget.due(old_workers, now) == Due::Now {
                    prop_assert!(old_workers < LIMITS.max_old_workers);
                    prop_assert!(last.is_none_or(|last| now - last >= LIMITS.interval));
                    prop_assert!(budget.begin(now).contains(&unserved));
                    last = Some(now);
                }
            }
            let idle = budget.wanted().is_empty();
            prop_assert_eq!(budget.due(0, now + LIMITS.interval) == Due::Now, !idle);
        }
    }
}
