//! How often somebody may ask: a token bucket for each, as one number (the generic cell rate
//! algorithm of ATM's traffic management).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// So much at once, and one more each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub burst: u32,
    pub every: Duration,
}

impl Rate {
    /// When a bucket is full again that is full at `full` and gives one away; or how long it is
    /// empty still.
    fn take(self, full: Duration, now: Duration) -> Result<Duration, Duration> {
        let full = full.max(now) + self.every;
        match full.checked_sub(now + self.every * self.burst) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(full),
        }
    }
}

/// A bucket for each key. `now` is the time since any fixed moment.
#[derive(Debug, Clone)]
pub struct Buckets<K> {
    rate: Rate,
    /// How many keys are told apart.
    most: usize,
    /// When each bucket is full again; what is full needs no place.
    full: HashMap<K, Duration>,
    /// The one that all share who came when there was no place left.
    shared: Duration,
}

impl<K: Hash + Eq> Buckets<K> {
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, full: HashMap::new(), shared: Duration::ZERO }
    }

    /// Takes one, if there is one.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, key: K, now: Duration) -> Result<(), Duration> {
        if self.full.len() >= self.most && !self.full.contains_key(&key) {
            self.full.retain(|_, full| *full > now);
            if self.full.len() >= self.most {
                self.shared = self.rate.take(self.shared, now)?;
                return Ok(());
            }
        }
        let full = self.full.entry(key).or_default();
        *full = self.rate.take(*full, now)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 5, every: Duration::from_secs(12) };

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_at_a_time() {
        let mut buckets = Buckets::new(RATE, 10);
        for _ in 0..5 {
            assert_eq!(buckets.take("a", second(100)), Ok(()));
        }
        assert_eq!(buckets.take("a", second(100)), Err(second(12)));
        assert_eq!(buckets.take("b", second(100)), Ok(()), "each has its own");
        assert_eq!(buckets.take("a", second(111)), Err(second(1)));
        assert_eq!(buckets.take("a", second(112)), Ok(()), "what was refused costs nothing");
        assert_eq!(buckets.take("a", second(112)), Err(second(12)));
        for _ in 0..5 {
            assert_eq!(
                buckets.take("a", second(1000)),
                Ok(()),
                "full again, and no more than that"
            );
        }
        assert!(buckets.take("a", second(1000)).is_err());
    }

    #[test]
    fn who_comes_when_there_is_no_place_shares_a_bucket() {
        let mut buckets = Buckets::new(RATE, 2);
        for key in 0..7 {
            assert_eq!(buckets.take(key, second(0)), Ok(()), "{key}");
        }
        assert!(buckets.take(7, second(0)).is_err());
        assert_eq!(buckets.take(0, second(0)), Ok(()), "who has a place keeps it");
        assert_eq!(buckets.full.len(), 2);
        assert_eq!(buckets.take(8, second(1000)), Ok(()));
        assert_eq!(buckets.full.len(), 1, "full ones are forgotten");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_time_gave(
            burst in 1u32..20,
            every in 1u64..1000,
            pauses in prop::collection::vec(0u64..500, 1..200),
        ) {
            let rate = Rate { burst, every: Duration::from_millis(every) };
            let mut buckets = Buckets::new(rate, 1);
            let (mut now, mut taken) = (0u64, 0u64);
            for pause in pauses {
                now += pause;
                match buckets.take((), Duration::from_millis(now)) {
                    Ok(()) => taken += 1,
                    Err(wait) => prop_assert!(
                        buckets.clone().take((), Duration::from_millis(now) + wait).is_ok(),
                        "there is one when it was said that there would be"
                    ),
                }
                prop_assert!(taken <= u64::from(burst) + now / every);
            }
        }
    }
}
