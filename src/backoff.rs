//! How long to wait after a failure: twice as long each time, half of it at random, so that a fleet
//! does not come back at once.

use std::time::Duration;

/// The pauses after failures in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The most that the next pause takes.
    next: Duration,
}

impl Backoff {
    /// Before the first failure, whose pause takes `first` at most; later ones take `longest` at
    /// most.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The pause after another failure.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next.min(self.longest);
        self.next = whole.saturating_mul(2);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_its_bound_and_begins_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..2 {
            for failure in 1..=1000 {
                let pause = backoff.pause();
                let whole = match failure {
                    1..=5 => Duration::from_secs(1 << (failure - 1)),
                    _ => Duration::from_secs(30),
                };
                assert!(pause >= whole / 2 && pause <= whole, "{failure}: {pause:?}");
            }
            backoff.reset();
        }
    }
}
