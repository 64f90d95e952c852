//! What is reported of the files of certificates and revocations that HAProxy has loaded.

use haproxy_runtime::cert::FileKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A file of the settings' `[[tls_file]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TlsFileStatus {
    /// Its path, as HAProxy's configuration names it.
    pub path: String,
    pub kind: FileKind,
    /// Where its content comes from: a file, or a URL without its query.
    pub from: String,
    /// What is in force, an item for each list or certificate; empty before the first.
    pub contents: Vec<String>,
    /// When the first of it is out of date; none where it names no time, and before the first.
    pub expires_at: Option<Timestamp>,
    /// When it came into force; Mapsmith's start for what the file held then.
    pub in_force_since: Option<Timestamp>,
    /// When `from` was last read, whatever it held.
    pub polled_at: Option<Timestamp>,
    /// Why what `from` holds is not in force, if so: the last good content stays meanwhile.
    pub error: Option<String>,
    /// What is wrong although `from` can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// How an instance stands with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TlsFileState {
    /// Nothing is in force yet.
    Waiting,
    /// Its memory was seen to hold what is in force.
    InSync,
    /// Only a reload of HAProxy brings what is in force.
    NeedsReload { reason: String },
    /// It could not be seen or changed.
    Failed { error: String },
}

/// A file, as an instance has it in its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceTlsFile {
    pub path: String,
    pub kind: FileKind,
    #[serde(flatten)]
    pub state: TlsFileState,
    /// When its memory was last changed by Mapsmith.
    pub changed_at: Option<Timestamp>,
}
