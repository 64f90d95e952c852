//! What maps were before: from the newest one back, revision by revision.
//!
//! A revision is kept as what leads from it to the one before: of each node that it changed, the
//! master before. The newest map is at hand, and an older one is the newest with those changes
//! taken back. So the oldest revision can be forgotten and nothing else has to be touched, and what
//! can't be kept makes a gap and no wrong map: behind it nothing is reached any more.
//!
//! Beside it stands what the sources had said of nodes that the map has otherwise, for pins, drains
//! and whatever else lies over their answer: that answer is what a rollback goes back to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Note;
use crate::revision::{ChangeCounts, RevisionSummary};

mod chain;
mod delta;
mod difference;
mod fingerprint;
mod patch;

pub use chain::{Chain, Unreached};
pub use delta::{BLOCK_ROWS, Malformed, before_in, encode};
pub use difference::{Difference, Shift};
pub use fingerprint::Fingerprint;
pub use patch::Patch;

/// What led to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionKind {
    /// The sources said something else.
    Sources,
    /// They had, and the guard held it until it was approved.
    Approve,
    /// A pin, a blocked node or a drain began or ended.
    Override,
    /// Nodes go to their owner, or leave it.
    Ownership,
    /// What the map may point to changed, or what a HAProxy takes.
    References,
    /// The time was over for which a node stays that no source names.
    RemoveAfter,
    /// An operator went back to what the sources had said at an older revision.
    Rollback,
    /// It was in the map file, and nothing is known of how it came there.
    Found,
}

/// A revision, without its map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionRecord {
    pub number: u64,
    pub at: Timestamp,
    pub kind: RevisionKind,
    #[serde(flatten)]
    pub note: Note,
    /// The sources whose new answers led to it, and what else did.
    pub sources: Vec<String>,
    pub entries: usize,
    pub counts: ChangeCounts,
    /// The revision that it is a change of; none where the map before is not known.
    pub previous: Option<u64>,
    /// The revision that it went back to, where it is a rollback.
    #[serde(default, rename = "of", skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// The revision that is kept with what the sources had said of nodes that the map has
    /// otherwise: this one, or an older one where they had said the same. None where it is not
    /// known.
    #[serde(skip)]
    pub base: Option<u64>,
}

impl From<RevisionRecord> for RevisionSummary {
    fn from(record: RevisionRecord) -> Self {
        let RevisionRecord { number, at, sources, entries, counts, .. } = record;
        Self { number, at, sources, entries, counts }
    }
}

#[cfg(test)]
mod tests;
