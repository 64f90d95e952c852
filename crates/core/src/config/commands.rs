//! What HAProxy does with commands that are run on nodes.

use std::time::Duration;

use serde::Serialize;

use super::serialized;
use super::values::{BindAddress, FilePath, Name, Text};

/// Commands go through a frontend of their own, which nothing is repeated behind; to the others
/// they are denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commands {
    /// Of each path that others are denied, what it has whichever node it names.
    pub denied: Vec<Vec<Text>>,
    /// None where somebody else has written it.
    pub gateway: Option<CommandGateway>,
}

/// The frontend of commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandGateway {
    pub bind: BindAddress,
    /// The backend with all masters as servers, for commands alone.
    pub backend: Name,
    /// The node map's file, as the Runtime API names it.
    pub map: FilePath,
    /// SHA-256, in hexadecimal, of the secret that each request must have: who knows it does not
    /// know the secret.
    pub secret_sha256: String,
    /// The longest that a command may take.
    #[serde(serialize_with = "serialized::time")]
    pub timeout: Duration,
}

impl CommandGateway {
    /// The name of the frontend.
    pub const FRONTEND: &'static str = "mapsmith-commands";
    /// The header with the secret.
    pub const SECRET: &'static str = "X-Mapsmith-Secret";
    /// The header with the master that Mapsmith means.
    pub const MASTER: &'static str = "X-Mapsmith-Master";
    /// The header of an answer that says whose it is.
    pub const ANSWER: &'static str = "X-Mapsmith-Gateway";
    /// The master's own answer.
    pub const ANSWERED: &'static str = "answered";
    /// The gateway's own: nothing was sent to a master.
    pub const NOT_SENT: &'static str = "not-sent";
    /// The gateway's own: it was sent, and there is no answer.
    pub const UNKNOWN: &'static str = "unknown";
}
