//! Why an instance is not in sync.

use haproxy_runtime::{ReplyError, RuntimeError};

use super::apply::ApplyError;
use crate::engine::rows::RefusedRow;

/// Why an instance is not in sync.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Probe(RuntimeError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(
        "the socket has {0} level, Mapsmith needs `level admin` on its `stats socket` line in \
            HAProxy's configuration"
    )]
    Level(&'static str),
    #[error(
        "HAProxy's configuration uses no map of the name {0}: it must name exactly this path in a \
            map converter (see `map.path`)"
    )]
    UnknownMap(String),
    #[error("{0}")]
    Version(String),
    #[error("post-change check failed: {0}; retrying")]
    NotConfirmed(String),
    #[error("HAProxy refuses {}, the first is {first}; it is taken out of the map \
        file", pluralize(*rows))]
    Rows { rows: usize, first: RefusedRow },
}

fn pluralize(rows: usize) -> String {
    if rows == 1 { "1 entry of the map".to_owned() } else { format!("{rows} entries of the map") }
}

impl Failure {
    /// The process could not be reached or gave no whole answer to the first probe. Once it has
    /// answered that, a command that fails later leaves it behind, not unreachable.
    pub(super) fn unreachable(&self) -> bool {
        matches!(self, Self::Probe(_)) && !self.refused()
    }

    /// The process answers and won't do it: only its configuration can help.
    pub(super) fn refused(&self) -> bool {
        match self {
            Self::Probe(error) | Self::Runtime(error) | Self::Apply(ApplyError::Runtime(error)) => {
                matches!(
                    error.reply(),
                    Some(ReplyError::Denied | ReplyError::UnknownMap | ReplyError::TooBig)
                )
            }
            Self::Level(_) | Self::UnknownMap(_) | Self::Version(_) => true,
            Self::Apply(_) | Self::NotConfirmed(_) | Self::Rows { .. } => false,
        }
    }
}
