//! HAProxy's timeouts (`timeouts`): `{queue:0,connect:5s,client:60s,server:180000ms}`.

use std::time::Duration;

use super::shown;
use crate::config;

/// The longest that clients and servers may be silent.
const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// The longest time that HAProxy can count.
const MAX_TIME: Duration = Duration::from_millis(i32::MAX as u64);

/// Zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub queue: Duration,
    pub connect: Duration,
    pub client: Duration,
    pub server: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            queue: Duration::ZERO,
            connect: Duration::from_millis(2000),
            client: Duration::from_millis(55_000),
            server: Duration::from_millis(120_000),
        }
    }
}

/// Why a text names no timeouts. The last good ones stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutsError {
    #[error("timeouts: invalid timeout parameter format: {0}; write {{connect:5s,server:180s}}")]
    Format(String),
    #[error("timeouts: unknown timeout parameter: {0}; write queue, connect, client or server")]
    Key(String),
    #[error(
        "timeouts: invalid {0} timeout value: {1}; write milliseconds like 5000 or 5000ms, or \
            seconds like 5s"
    )]
    Value(&'static str, String),
    #[error("timeouts: {0} is given twice; keep one")]
    Twice(&'static str),
}

impl Timeouts {
    /// What a text says, the defaults where it says nothing. Times that are too long are the
    /// longest that may be: an hour for `client` and `server`, for the others what HAProxy counts.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse(text: &str) -> Result<Self, TimeoutsError> {
        let text = text.trim();
        let inner = match (text.strip_prefix('{'), text.strip_suffix('}')) {
            (None, None) => text,
            _ => text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'))
                .ok_or_else(|| TimeoutsError::Format(shown(text)))?,
        };
        let mut timeouts = Self::default();
        if inner.is_empty() {
            return Ok(timeouts);
        }
        let mut given = Vec::new();
        for pair in inner.split(',') {
            let format = || TimeoutsError::Format(shown(pair.trim()));
            let (key, value) = pair.split_once(':').ok_or_else(format)?;
            let (key, place, most) = match key.trim() {
                "queue" => ("queue", &mut timeouts.queue, MAX_TIME),
                "connect" => ("connect", &mut timeouts.connect, MAX_TIME),
                "client" => ("client", &mut timeouts.client, MAX_SILENCE),
                "server" => ("server", &mut timeouts.server, MAX_SILENCE),
                other => return Err(TimeoutsError::Key(shown(other))),
            };
            if given.contains(&key) {
                return Err(TimeoutsError::Twice(key));
            }
            given.push(key);
            let wrong = || TimeoutsError::Value(key, shown(value.trim()));
            *place = timeout(value).ok_or_else(wrong)?.min(most);
        }
        Ok(timeouts)
    }

    /// Puts them in place of a configuration's. HAProxy counts no longer than some 24 days, which
    /// is what no limit comes to.
    pub fn apply(&self, timeouts: &mut config::Timeouts) {
        let limit = |time: Duration| if time.is_zero() { MAX_TIME } else { time };
        timeouts.queue = limit(self.queue);
        timeouts.connect = limit(self.connect);
        timeouts.client = limit(self.client);
        timeouts.server = limit(self.server);
    }
}

/// A time: `5000` and `5000ms` are milliseconds, `5s` are seconds.
pub fn timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1),
    };
    let number = number.trim_end();
    let has_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| has_digits)?;
    Some(Duration::from_millis(u64::from(number) * factor))
}
