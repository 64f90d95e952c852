//! How long something that is read again and again is left alone between two reads, so that
//! reading never becomes anybody's main work: neither HAProxy's nor ours. The clocks are arguments.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A read is followed by a rest of so many times what it took, whoever was busy or waited: HAProxy
/// answers others meanwhile.
const TIMES_TAKEN: u32 = 10;
/// The longest such rest.
const LONGEST: Duration = Duration::from_secs(10);
/// And by one of so many times the processor time that it cost us, however long that is: reads take
/// at most 2 % of a core.
const TIMES_WORKED: u32 = 49;

/// The rest between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    until: Instant,
}

impl Rest {
    /// The rest is over at once.
    pub(super) fn none(now: Instant) -> Self {
        Self { until: now }
    }

    /// A read has ended: it took so long, and this process worked for so long of it.
    pub(super) fn after(now: Instant, took: Duration, worked: Duration) -> Self {
        Self { until: now + (took * TIMES_TAKEN).min(LONGEST).max(worked * TIMES_WORKED) }
    }

    /// Whether the next read is due.
    pub(super) fn is_over(self, now: Instant) -> bool {
        self.until <= now
    }
}

/// Runs `task` to its end and says for how long it worked by `clock`: what passes while it waits
/// does not count.
pub(super) async fn metered<T>(
    task: impl Future<Output = T>,
    clock: impl Fn() -> Duration,
) -> (T, Duration) {
    let mut task = pin!(task);
    let mut worked = Duration::ZERO;
    let output = poll_fn(|context| {
        let began = clock();
        let poll = task.as_mut().poll(context);
        worked += clock().saturating_sub(began);
        poll
    });
    let output = output.await;
    (output, worked)
}

/// The processor time of the calling thread. The scheduler's other work does not count, so a
/// machine that is busy or was suspended makes no rest longer.
pub(super) fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn looks_take_at_most_two_percent_of_a_core_whatever_one_costs() {
        const HOUR: Duration = Duration::from_secs(3600);
        let start = Instant::now();
        for (worked, waited) in
            [(0, 0), (1, 0), (1, 500), (40, 0), (250, 20), (250, 60_000), (3_000, 0)]
        {
            let (worked, waited) = (millis(worked), millis(waited));
            let (mut now, mut rest, mut reads, mut work) =
                (start, Rest::none(start), 0_u32, Duration::ZERO);
            while now < start + HOUR {
                if rest.is_over(now) {
                    now += worked + waited;
                    rest = Rest::after(now, worked + waited, worked);
                    (reads, work) = (reads + 1, work + worked);
                }
                now += millis(1000);
            }
            // The last read's rest may end after the hour.
            assert!(
                work.saturating_sub(worked) * 50 <= HOUR,
                "{reads} reads of {worked:?} worked for {work:?} in an hour"
            );
            assert!(reads > 20, "{reads} reads of {worked:?} and {waited:?}");
        }
    }

    #[test]
    fn a_look_that_waits_long_rests_for_a_bounded_time() {
        let now = Instant::now();
        for (took, worked, rest) in
            [(5, 0, 50), (900, 1, 9_000), (60_000, 1, 10_000), (60_000, 400, 19_600)]
        {
            let resting = Rest::after(now, millis(took), millis(worked));
            assert!(
                !resting.is_over(now + millis(rest - 1)) && resting.is_over(now + millis(rest)),
                "{took} {worked}"
            );
        }
    }

    #[tokio::test]
    async fn work_counts_and_waiting_does_not() {
        let clock = Cell::new(Duration::ZERO);
        let pass = |time| clock.set(clock.get() + time);
        let task = async {
            pass(millis(3));
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                pass(millis(10));
                context.waker().wake_by_ref();
                if polls < 3 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            })
            .await;
            pass(millis(2));
            "done"
        };
        let (metered, elsewhere) = (metered(task, || clock.get()), async { pass(millis(1000)) });
        let ((output, worked), ()) = tokio::join!(metered, elsewhere);
        assert_eq!((output, worked), ("done", millis(35)));
        assert_eq!(clock.get(), millis(1035), "others had the processor meanwhile");
    }

    #[test]
    fn the_processors_time_grows_with_work() {
        let before = processor_time();
        while processor_time() == before {}
    }
}
