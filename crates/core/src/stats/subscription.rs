//! What somebody who watches asks for: one JSON text of theirs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use super::history::KEPT;
use super::series::{Selector, SeriesError};

/// The shortest time between two readings: `show stat` of a large site is work.
pub const SHORTEST_EVERY: Duration = Duration::from_secs(1);
/// The longest one: a watcher of so little asks for one reading now and then.
pub const LONGEST_EVERY: Duration = Duration::from_secs(60);
/// What it is unless somebody says otherwise.
const USUAL_EVERY: Duration = Duration::from_secs(2);
/// The most names that one may give.
pub const MOST_SELECTORS: usize = 500;

/// The series that somebody wants to see, how often, and how much of what was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub series: Vec<Selector>,
    pub every: Duration,
    pub backlog: Duration,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum SubscriptionError {
    #[error(
        "this is no subscription like {{\"series\": [\"backend/web\"], \"every\": \"2s\"}}: {0}"
    )]
    Json(String),
    #[error(transparent)]
    Series(#[from] SeriesError),
    #[error(
        "{given} series are named, and no more than {MOST_SELECTORS} may be; use * for the last \
            name"
    )]
    TooMany { given: usize },
    #[error("every must be a duration from 1s to 60s")]
    Every,
    #[error("backlog must be a duration up to 300s")]
    Backlog,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    series: Vec<String>,
    #[serde(default)]
    every: Option<String>,
    #[serde(default)]
    backlog: Option<String>,
}

impl Subscription {
    /// Reads a message. No series are a pause.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SubscriptionError> {
        let message: Message = serde_json::from_str(text)
            .map_err(|error| SubscriptionError::Json(error.to_string()))?;
        let series = message.series.iter().map(String::as_str);
        Self::new(series, message.every.as_deref(), message.backlog.as_deref())
    }

    /// Of texts as people write them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new<'t>(
        series: impl IntoIterator<Item = &'t str>,
        every: Option<&str>,
        backlog: Option<&str>,
    ) -> Result<Self, SubscriptionError> {
        let mut series: Vec<Selector> =
            series.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        series.sort();
        series.dedup();
        if series.len() > MOST_SELECTORS {
            return Err(SubscriptionError::TooMany { given: series.len() });
        }
        let duration = |text: &str| humantime::parse_duration(text).ok();
        let every = every.map_or(Some(USUAL_EVERY), duration);
        let backlog = backlog.map_or(Some(Duration::ZERO), duration);
        Ok(Self {
            series,
            every: every
                .filter(|every| (SHORTEST_EVERY..=LONGEST_EVERY).contains(every))
                .ok_or(SubscriptionError::Every)?,
            backlog: backlog.filter(|it| *it <= KEPT).ok_or(SubscriptionError::Backlog)?,
        })
    }

    /// The message that asks for it.
    pub fn message(&self) -> String {
        let text = |duration| humantime::format_duration(duration).to_string();
        let message = Message {
            series: self.series.iter().map(Selector::to_string).collect(),
            every: Some(text(self.every)),
            backlog: Some(text(self.backlog)),
        };
        serde_json::to_string(&message).unwrap_or_default()
    }
}
