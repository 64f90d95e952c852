//! How often a feed's own watch may have its round polled.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two rounds, in the long run: a file that is written all the time must not
/// have a registry beside it asked all the time.
const SPACING: Duration = Duration::from_secs(1);
/// How many rounds may come at once after a rest: a service that is deployed changes its registry
/// several times within a second, and each change should be routed as fast as the first. They wait
/// for no more than the spacing of polls.
const BURST: u32 = 5;

/// Says when a change may be asked for.
#[derive(Debug, Default)]
pub(super) struct ChangePacer {
    /// When a whole burst may come again.
    rested: Option<Instant>,
}

impl ChangePacer {
    /// When a change that was seen `now` may be asked for. It counts as asked for then.
    pub(super) fn due(&mut self, now: Instant) -> Instant {
        let rested = self.rested.map_or(now, |rested| rested.max(now));
        self.rested = Some(rested + SPACING);
        rested.checked_sub(SPACING * (BURST - 1)).map_or(now, |due| due.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds that changes wait which are seen so far apart, each once the one before was
    /// asked for.
    fn waits(apart: Duration, changes: usize) -> Vec<u128> {
        let (mut pacer, mut now) = (ChangePacer::default(), Instant::now());
        let wait = |_| {
            let due = pacer.due(now);
            let wait = due - now;
            now = due + apart;
            wait.as_millis()
        };
        (0..changes).map(wait).collect()
    }

    #[test]
    fn a_few_changes_come_at_once_and_what_changes_all_the_time_once_a_second() {
        assert_eq!(waits(Duration::ZERO, 8), [0, 0, 0, 0, 0, 1000, 1000, 1000]);
        assert_eq!(waits(Duration::from_millis(900), 60)[50..], [100; 10]);
        assert_eq!(waits(SPACING, 100), [0; 100]);
    }

    #[test]
    fn after_a_rest_a_few_come_at_once_again() {
        let (mut pacer, start) = (ChangePacer::default(), Instant::now());
        for _ in 0..20 {
            pacer.due(start);
        }
        let later = start + Duration::from_secs(60);
        let dues: Vec<_> = (0..6).map(|_| (pacer.due(later) - later).as_millis()).collect();
        assert_eq!(dues, [0, 0, 0, 0, 0, 1000]);
    }
}
