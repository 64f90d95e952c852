//! The time that a member may be silent counts only while Mapsmith listens.

use std::time::Duration;

/// The longest step that counts. Whoever reads the clock does so far more often; where they did
/// not, the program was stopped, or the clock was set, and nobody was listened to.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// How long Mapsmith has listened. It is fed from any clock: one that goes back, or jumps ahead,
/// moves it on by next to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListeningClock {
    listened: Duration,
    last: Option<Duration>,
}

impl ListeningClock {
    /// It is `now` by the clock that feeds it.
    pub fn advance(&mut self, now: Duration) {
        let step = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.listened = self.listened.saturating_add(step.min(LONGEST_STEP));
        self.last = Some(now);
    }

    /// How long it has been listened.
    pub fn listened(&self) -> Duration {
        self.listened
    }
}
