//! `[schedule]`: when things are looked at.

use std::time::Duration;

use serde::Deserialize;

use super::keys::section;
use super::units::{duration, parse_duration};

section! {
    /// When sources are polled and instances are checked.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Schedule {
        /// When every source is polled: an interval in whole seconds, at least `1s`, or a cron
        /// expression of six fields, seconds first, in UTC (`0 * * * * *`). One that never comes is
        /// refused.
        #[unset("60s")]
        pub poll: PollSchedule,
        /// The most random jitter of a scheduled poll, so that a fleet does not poll at once. A
        /// reload request never waits.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub jitter: Duration,
        /// The time between two full read-backs of every instance's map, at least `1s`.
        #[unset("60s")]
        #[serde(deserialize_with = "duration")]
        pub verify: Duration,
        /// The time between two checks of each instance's process and map counters, and of the map
        /// file, at least `100ms`.
        #[unset("1s")]
        #[serde(deserialize_with = "duration")]
        pub observe: Duration,
        /// The time between two checks of each instance's backends and servers while nothing is
        /// being changed, at least `100ms`.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub servers: Duration,
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            poll: PollSchedule::Every(Duration::from_secs(60)),
            jitter: Duration::from_secs(5),
            verify: Duration::from_secs(60),
            observe: Duration::from_secs(1),
            servers: Duration::from_secs(5),
        }
    }
}

impl Schedule {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        for (key, value, least) in [
            ("schedule.verify", self.verify, Duration::from_secs(1)),
            ("schedule.observe", self.observe, Duration::from_millis(100)),
            ("schedule.servers", self.servers, Duration::from_millis(100)),
        ] {
            if value < least {
                problems.push(format!("{key}: {value:?} is too short, at least {least:?}"));
            }
        }
        if let PollSchedule::Every(interval) = self.poll
            && (interval.is_zero() || interval.subsec_nanos() > 0)
        {
            problems
                .push(format!("schedule.poll: {interval:?} must be whole seconds, at least 1s"));
        }
    }
}

/// When the sources are polled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PollSchedule {
    /// At this interval.
    Every(Duration),
    /// By a cron expression with seconds: `0 * * * * *`.
    Cron(String),
}

impl TryFrom<String> for PollSchedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.split_whitespace().count() < 5 {
            return parse_duration(&text).map(Self::Every).map_err(|error| {
                format!(
                    "{text:?} is neither a duration like \"60s\" nor a cron expression \
                    like \"0 * * * * *\": {error}"
                )
            });
        }
        match comes(&text) {
            None => Err(format!(
                "{text:?} is not a cron expression of six fields, seconds first, like \"0 * * * * \
                    *\" for each minute"
            )),
            Some(false) => Err(format!("{text:?} never comes: no such day or year lies ahead")),
            Some(true) => Ok(Self::Cron(text)),
        }
    }
}

impl PollSchedule {
    /// Whether it has a tick from now on: a cron expression that names a year runs out.
    pub fn comes(&self) -> bool {
        match self {
            Self::Every(_) => true,
            Self::Cron(expression) => comes(expression) == Some(true),
        }
    }
}

/// Whether a cron expression has a tick from now on; none for what is not a cron expression.
fn comes(expression: &str) -> Option<bool> {
    let mut job = tokio_cron_scheduler::Job::new(expression, |_, _| {}).ok()?;
    // The scheduler's sign for no tick at all.
    job.job_data().ok().map(|data| data.next_tick != 0)
}
