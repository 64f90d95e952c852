//! What a pass of the task comes to, and what it wants.

use std::time::Duration;

use mapsmith_core::config::status::ConfigState;

use crate::supervise::check::CheckError;
use crate::supervise::files::FilesError;
use crate::supervise::process::ProcessError;

/// Why a reload is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The process has another configuration.
    Configuration,
    /// Servers can't be brought by the Runtime API.
    Servers,
}

impl Reason {
    pub(super) const ALL: [Self; 2] = [Self::Configuration, Self::Servers];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Servers => "servers",
        }
    }
}

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Files(#[from] FilesError),
    #[error("{0}")]
    Check(#[from] CheckError),
    #[error("{0}")]
    Process(#[from] ProcessError),
    #[error("a task of the program ended: {0}")]
    Blocking(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Unanswered(String),
    #[error("HAProxy was stopped on purpose; `mapsmith haproxy start` starts it")]
    Stopped,
    #[error("HAProxy is being ended, to be started again")]
    Restarting,
    #[error("Mapsmith is shutting down")]
    Ending,
    #[error("HAProxy ended by itself and is started again in {:.1} s", .0.as_secs_f64())]
    Down(Duration),
    #[error("{0}; the last good configuration was started")]
    FellBack(ProcessError),
}

/// When to look again, unless there is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    AsUsual,
    /// HAProxy is started again then.
    In(Duration),
    /// Each time later: HAProxy's check is run for it.
    BackOff,
}

impl Next {
    pub(super) fn after(outcome: &Result<ConfigState, Failure>) -> Self {
        match outcome {
            Err(Failure::Down(left)) => Self::In(*left),
            Ok(ConfigState::Refused { .. } | ConfigState::Failed { .. }) => Self::BackOff,
            Ok(_) | Err(Failure::Stopped | Failure::Ending | Failure::Restarting) => Self::AsUsual,
            Err(_) => Self::BackOff,
        }
    }
}
