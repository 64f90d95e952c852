//! Figures of backends and servers over time: what is kept of them, which of them somebody watches,
//! and how they are told. Knows no socket; the clock is an argument.
//!
//! HAProxy's counters only grow, and fall when it begins again. What is kept and told is how much
//! they grew between two readings, and nothing where that is not known.

use haproxy_runtime::stats::{COUNTERS, GAUGES, Row};

mod frames;
mod history;
mod series;
mod subscription;
mod watcher;

pub use frames::{LARGEST_FRAME, error};
pub use history::{Gap, Heard, History, KEPT, MOST_SERIES, Outcome, Tick, backends};
pub use series::{Selector, Series, SeriesError};
pub use subscription::{
    LONGEST_EVERY, MOST_SELECTORS, SHORTEST_EVERY, Subscription, SubscriptionError,
};
pub use watcher::{MOST_WATCHED, Watcher};

/// How many figures a sample has: gauges, then counters.
const FIGURES: usize = GAUGES.len() + COUNTERS.len();

/// A figure that is not known.
const UNKNOWN: u32 = u32::MAX;

/// The counters of a series as HAProxy has them.
type Totals = [Option<u64>; COUNTERS.len()];

/// The figures of one series between two readings. Small, because many are kept: no figure of two
/// readings comes near 2^32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures([u32; FIGURES]);

impl Figures {
    /// The gauges of a reading, and how much the counters grew since the one before; nothing is
    /// known of one that fell, as all do when HAProxy begins again.
    fn new(row: &Row<'_>, before: Option<&Totals>) -> Self {
        let small = |value: u64| u32::try_from(value).unwrap_or(UNKNOWN);
        let mut figures = [UNKNOWN; FIGURES];
        let (gauges, counters) = figures.split_at_mut(GAUGES.len());
        for (figure, value) in gauges.iter_mut().zip(row.gauges) {
            *figure = value.map_or(UNKNOWN, small);
        }
        let before = before
            .filter(|before| before.iter().zip(&row.counters).all(|(before, now)| before <= now));
        for (position, figure) in counters.iter_mut().enumerate() {
            let before = before.and_then(|before| before[position]);
            let grown = row.counters[position].zip(before).map(|(now, before)| now - before);
            *figure = grown.map_or(UNKNOWN, small);
        }
        Self(figures)
    }

    /// Nothing is known of how much the counters grew.
    fn forget_growth(&mut self) {
        self.0[GAUGES.len()..].fill(UNKNOWN);
    }

    /// What both say together, where `later` follows: its gauges, and the sum of what the counters
    /// grew by.
    fn then(&self, later: &Self) -> Self {
        let mut figures = later.0;
        for (figure, earlier) in figures.iter_mut().zip(self.0).skip(GAUGES.len()) {
            *figure = match (*figure, earlier) {
                // What is known of a part is not known of the whole.
                (UNKNOWN, _) | (_, UNKNOWN) => UNKNOWN,
                (later, earlier) => later.saturating_add(earlier),
            };
        }
        Self(figures)
    }

    /// In the order of the gauges' and the counters' names.
    pub fn values(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.0.iter().map(|figure| (*figure != UNKNOWN).then_some(*figure))
    }
}

#[cfg(test)]
mod tests;
