//! How long HAProxy is left alone between the parts of a long change. Pure.
//!
//! HAProxy works on a payload, or on a line of commands, in one go, and the thread that does so
//! serves no request meanwhile: 0.3 to 0.4 ms for a payload of 15 KiB (2.6 to 3.4). Parts sent
//! without a pause keep that thread, and the processors of a small machine, from the requests
//! nearly all the time. So each part is followed by a rest in proportion to what it took.

use core::time::Duration;

/// A part is followed by a rest of so many times what it took.
const REST_FACTOR: u32 = 2;
/// The longest rest that one part earns: a slow network or a busy machine must not make a swap take
/// for ever.
const LONGEST_REST: Duration = Duration::from_millis(2);
/// Shorter rests are saved up: timers count whole milliseconds.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// The most that a rest which lasted longer than it was to counts for what comes after it.
const MOST_CREDIT: Duration = Duration::from_millis(10);

/// The rests of one change.
#[derive(Debug, Default)]
pub struct Pacer {
    owed: Duration,
    credit: Duration,
}

impl Pacer {
    /// A part took so long, from its sending to its answer. The rest that is due now, zero where it
    /// is not worth a timer yet.
    pub fn worked(&mut self, took: Duration) -> Duration {
        let earned = (took * REST_FACTOR).min(LONGEST_REST);
        let paid = earned.min(self.credit);
        self.credit -= paid;
        self.owed += earned - paid;
        if self.owed < SHORTEST_REST { Duration::ZERO } else { self.owed }
    }

    /// It rested for so long. On a busy machine that is much longer than it was to, and must not
    /// make the change take for ever.
    pub fn rested(&mut self, rest: Duration) {
        self.credit = (self.credit + rest.saturating_sub(self.owed)).min(MOST_CREDIT);
        self.owed = self.owed.saturating_sub(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(200);

    #[test]
    fn short_rests_are_saved_up_until_a_timer_can_keep_them() {
        let mut pace = Pacer::default();
        assert_eq!([pace.worked(QUICK), pace.worked(QUICK)], [Duration::ZERO; 2]);
        let rest = pace.worked(QUICK);
        assert_eq!(rest, Duration::from_micros(1200));
        pace.rested(rest);
        assert_eq!(pace.worked(QUICK), Duration::ZERO, "a rest is taken once");
    }

    #[test]
    fn a_rest_that_lasted_too_long_counts_for_the_next_parts() {
        let mut pace = Pacer::default();
        let rest = pace.worked(Duration::from_millis(1));
        pace.rested(rest + 2 * REST_FACTOR * QUICK);
        for part in 0..4 {
            assert_eq!(pace.worked(QUICK), Duration::ZERO, "{part}");
        }
        assert_eq!(pace.worked(3 * QUICK), Duration::from_micros(2000));
        pace.rested(Duration::from_secs(1));
        let unpaid = (0..1000).find(|_| !pace.worked(QUICK).is_zero());
        assert_eq!(unpaid, Some(27), "ten milliseconds are 25 parts, and three more are saved up");
    }

    #[test]
    fn a_slow_part_does_not_earn_a_long_rest() {
        let mut pace = Pacer::default();
        assert_eq!(pace.worked(Duration::from_secs(5)), LONGEST_REST);
    }
}
