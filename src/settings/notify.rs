//! `[notify]`: the command that tells somebody.

use std::time::Duration;

use mapsmith_core::config::values::Text;
use serde::Deserialize;

use super::keys::section;
use super::units::duration;

/// The longest time that the command may be given.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest time that the worst may have to last.
const LONGEST_SETTLE: Duration = Duration::from_secs(3600);

section! {
    /// A command that is run when the worst of what needs a person is another item, and when
    /// nothing needs anybody any more. [operations.md](operations.md#what-needs-you) has an
    /// example.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Notify {
        /// The command, each word one text; the first is the absolute path of a program. It gets a
        /// JSON object on its standard input. Where it fails it is run again, after 5 seconds at
        /// first and 5 minutes at most.
        #[unset(required)]
        pub command: Vec<Text>,
        /// How long it may take, at most a minute. Then it is killed with all that it has started.
        #[unset("10s")]
        #[serde(default = "timeout", deserialize_with = "duration")]
        pub timeout: Duration,
        /// How long an item has to be the worst before that is told, at most an hour. What goes on
        /// changing is told after four times as long.
        #[unset("10s")]
        #[serde(default = "settle", deserialize_with = "duration")]
        pub settle: Duration,
    }
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

fn settle() -> Duration {
    Duration::from_secs(10)
}

impl Notify {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        let mut problem = |text: &str| problems.push(format!("notify.{text}"));
        if !self.command.first().is_some_and(|program| program.as_str().starts_with('/')) {
            problem("command: its first word must be the absolute path of a program");
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            problem("timeout: must be more than 0 and at most 1m");
        }
        if self.settle > LONGEST_SETTLE {
            problem("settle: must be at most 1h");
        }
    }
}
