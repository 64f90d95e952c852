//! When the sources are polled: by an interval or a cron expression, put off a little at random.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::requests::PollRequests;
use crate::heartbeat;
use crate::settings::{self, PollSchedule};

/// The scheduler could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the schedule {schedule:?} can't be started: {error}")]
pub struct ScheduleError {
    schedule: PollSchedule,
    error: JobSchedulerError,
}

/// A tick may be this late before it counts as missed: the scheduler checks every 500 ms and counts
/// whole seconds.
const GRACE: Duration = Duration::from_secs(3);

/// How long a schedule without a next tick is left alone.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests a poll at each tick until `shutdown`, put off at random by up to `schedule.jitter`, but
/// by no more than half the time to the next tick.
///
/// The scheduler goes by the wall clock, and one of its repeated jobs never fires again once that
/// clock, or a pause of the machine, has jumped over a tick. So the monotonic clock stands guard: a
/// tick that does not come is made up for, and the scheduler is started again.
///
/// A schedule that has run out, its last year being over, is logged once; from then on polls are
/// made on request only.
///
/// # Errors
/// If the scheduler can't be started.
pub async fn run(
    schedule: &settings::Schedule,
    requests: PollRequests,
    shutdown: CancellationToken,
) -> Result<(), ScheduleError> {
    let failed = |error| ScheduleError { schedule: schedule.poll.clone(), error };
    while schedule.poll.comes() {
        let mut ticker = Ticker::start(&schedule.poll).await.map_err(failed)?;
        let ended =
            shutdown.run_until_cancelled(heartbeat::waiting(ticker.run(schedule, &requests))).await;
        // Its own task reads a flag every 500 ms and ends.
        ticker.scheduler.shutdown().await.map_err(failed)?;
        match ended {
            None => return Ok(()),
            Some(outcome) => outcome.map_err(failed)?,
        }
        if schedule.poll.comes() {
            warn!(
                "the poll schedule missed its tick (was the clock set, or the machine paused?): \
                    polling now, scheduling again"
            );
            requests.request();
        }
    }
    warn!(
        "the poll schedule has run out: sources are polled on request only from now on; set \
            schedule.poll and restart Mapsmith"
    );
    shutdown.cancelled().await;
    Ok(())
}

struct Ticker {
    scheduler: JobScheduler,
    ticks: mpsc::Receiver<()>,
}

impl Ticker {
    async fn start(schedule: &PollSchedule) -> Result<Self, JobSchedulerError> {
        // One place: ticks that come while one waits for its jitter are one request.
        let (sender, ticks) = mpsc::channel(1);
        let tick = move || {
            let _ = sender.try_send(());
        };
        let job = match schedule {
            PollSchedule::Every(interval) => Job::new_repeated(*interval, move |_, _| tick())?,
            PollSchedule::Cron(expression) => Job::new(expression.as_str(), move |_, _| tick())?,
        };
        let scheduler = JobScheduler::new().await?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self { scheduler, ticks })
    }

    /// Ends when a tick was missed, or when there is none to come: the scheduler drops its job
    /// then.
    async fn run(
        &mut self,
        schedule: &settings::Schedule,
        requests: &PollRequests,
    ) -> Result<(), JobSchedulerError> {
        loop {
            let until_next = self.until_next(&schedule.poll).await?;
            match tokio::time::timeout(until_next + GRACE, self.ticks.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
            let period = self.until_next(&schedule.poll).await?;
            let longest = schedule.jitter.min(period / 2);
            tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            requests.request();
        }
    }

    async fn until_next(&mut self, schedule: &PollSchedule) -> Result<Duration, JobSchedulerError> {
        if let PollSchedule::Every(interval) = schedule {
            return Ok(*interval);
        }
        // The scheduler notes a cron job's next tick shortly after it made the last one.
        for _ in 0..20 {
            if let Some(time) = self.scheduler.time_till_next_job().await? {
                return Ok(time);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It has run out: nothing to wait for, and nothing missed.
        Ok(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_second(poll: PollSchedule) -> settings::Schedule {
        settings::Schedule {
            poll,
            jitter: Duration::from_millis(10),
            ..settings::Schedule::default()
        }
    }

    #[tokio::test]
    async fn polls_are_requested_again_and_again_until_the_end() {
        for poll in [
            PollSchedule::Every(Duration::from_secs(1)),
            PollSchedule::Cron("* * * * * *".to_owned()),
        ] {
            let (requests, shutdown) = (PollRequests::new(), CancellationToken::new());
            let mut latest = requests.round().subscribe();
            let (schedule, end) = (every_second(poll), shutdown.clone());
            let task = tokio::spawn(async move { run(&schedule, requests, end).await });
            latest.wait_for(|requested| requested.latest >= 2).await.unwrap();
            shutdown.cancel();
            task.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_a_tick() {
        let (requests, shutdown) = (PollRequests::new(), CancellationToken::new());
        let schedule = every_second(PollSchedule::Every(Duration::from_secs(86_400)));
        shutdown.cancel();
        let round = requests.round();
        run(&schedule, requests, shutdown).await.unwrap();
        assert_eq!(round.subscribe().borrow().latest, 0);
    }
}
