//! How often a feed's own watch may have its round polled.

use std::time::Duration;

use tokio::time::Instant;

/// The most time between two rounds that changes ask for, in the long run: a file that is written
/// all the time must not have a registry beside it asked all the time.
const SPACING: Duration = Duration::from_secs(1);
/// Where a round is one feed's, a poll is followed by so many times its length of rest: reading a
/// large list again and again must not keep a processor busy.
const REST: u32 = 4;
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
    /// When a change that was seen `now` may be asked for, where these are `spacing` apart in the
    /// long run. It counts as asked for then.
    pub(super) fn due(&mut self, now: Instant, spacing: Duration) -> Instant {
        let rested = self.rested.map_or(now, |rested| rested.max(now));
        self.rested = Some(rested + spacing);
        rested.checked_sub(spacing * (BURST - 1)).map_or(now, |due| due.max(now))
    }
}

/// How far apart changes are asked for in the long run. Others may be asked with a `shared` round;
/// alone, a feed that is polled within `usual` is asked as often as `polls` may be.
pub(super) fn spacing(shared: bool, usual: Duration, polls: Duration) -> Duration {
    match shared {
        true => SPACING,
        false => (usual * REST).max(polls).min(SPACING),
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
            let due = pacer.due(now, SPACING);
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
    fn a_list_that_is_read_quickly_is_read_as_often_as_polls_may_be_and_a_slow_one_is_not() {
        let milliseconds = Duration::from_millis;
        for (shared, usual, expected) in
            [(true, 1, 1000), (false, 1, 300), (false, 100, 400), (false, 900, 1000)]
        {
            let found = spacing(shared, milliseconds(usual), milliseconds(300));
            assert_eq!(found, milliseconds(expected), "shared: {shared}, {usual} ms");
        }
    }

    #[test]
    fn after_a_rest_a_few_come_at_once_again() {
        let (mut pacer, start) = (ChangePacer::default(), Instant::now());
        for _ in 0..20 {
            pacer.due(start, SPACING);
        }
        let later = start + Duration::from_secs(60);
        let dues: Vec<_> =
            (0..6).map(|_| (pacer.due(later, SPACING) - later).as_millis()).collect();
        assert_eq!(dues, [0, 0, 0, 0, 0, 1000]);
    }
}
