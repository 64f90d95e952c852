//! How long HAProxy is left alone between the parts of a long change. Pure.
//!
//! HAProxy works on a payload, or on a line of commands, in one go, and the thread that does so serves no request meanwhile: 0.3 to 0.4 ms for
//! a payload of 15 KiB (2.6 to 3.4). Parts sent without a pause keep that thread, and the processors of a small machine, from
//! the requests nearly all the time. So each part is followed by a rest in proportion to what it took.

use core::time::Duration;

/// A part is followed by a rest of so many times what it took.
const REST_FACTOR: u32 = 2;
/// The longest rest that one part earns: a slow network or a busy machine must not make a swap take for ever.
const LONGEST_REST: Duration = Duration::from_millis(2);
/// Shorter rests are saved up: timers count whole milliseconds.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// The rests of one change.
#[derive(Debug, Default)]
pub struct Pace {
    owed: Duration,
}

impl Pace {
    /// A part took so long, from its sending to its answer. The rest that is due now, zero where it is not worth a timer yet.
    pub fn worked(&mut self, took: Duration) -> Duration {
        self.owed += (took * REST_FACTOR).min(LONGEST_REST);
        if self.owed < SHORTEST_REST { Duration::ZERO } else { self.owed }
    }

    /// It rested for so long, which may be longer than it was to.
    pub fn rested(&mut self, rest: Duration) {
        self.owed = self.owed.saturating_sub(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(200);

    #[test]
    fn short_rests_are_saved_up_until_a_timer_can_keep_them() {
        let mut pace = Pace::default();
        assert_eq!([pace.worked(QUICK), pace.worked(QUICK)], [Duration::ZERO; 2]);
        let rest = pace.worked(QUICK);
        assert_eq!(rest, Duration::from_micros(1200));
        pace.rested(rest + QUICK);
        assert_eq!(pace.worked(QUICK), Duration::ZERO, "a rest is taken once");
    }

    #[test]
    fn a_slow_part_does_not_earn_a_long_rest() {
        let mut pace = Pace::default();
        assert_eq!(pace.worked(Duration::from_secs(5)), LONGEST_REST);
    }
}
