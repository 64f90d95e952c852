//! The declared configuration of HAProxy: its process, frontends and backends. Pure.
//!
//! Every value is checked where it comes in ([`values`]), native lines by [`natives`], and what
//! contradicts itself by [`Config::problems`]; so whatever is here can be rendered.

mod backend;
mod commands;
mod frontend;
mod listens_at;
pub mod natives;
mod problems;
mod process;
pub mod rules;
mod serialized;
pub mod status;
pub mod values;

pub use backend::{
    Backend, Balance, Cookie, ErrorBody, Expect, HttpCheck, HttpReuse, HttpVersion, RetryOn,
};
pub use commands::{CommandGateway, Commands};
pub use frontend::{
    Bind, BindTls, ClientCertificates, Frontend, KeepAlive, Mode, Route, RouteBy, TlsVersion,
    Verify,
};
pub use listens_at::ListensAt;
pub use natives::Native;
pub use problems::Problem;
pub use process::{Challenges, Health, LogFormat, Metrics, Process, Stats, Timeouts};

use std::sync::Arc;

use serde::Serialize;
use values::FilePath;

/// Everything that `haproxy.cfg` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    pub process: Process,
    pub frontends: Vec<Frontend>,
    pub backends: Vec<Backend>,
    /// What is done with commands that are run on nodes; none where they are off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Commands>,
    /// Files that HAProxy loads after this one, in this order. They are never written.
    pub includes: Vec<Include>,
    /// Certificates, CAs and CRLs that HAProxy reads with it and that somebody else writes.
    pub files: Vec<Include>,
    /// The user's own template; none is the shipped text.
    #[serde(skip)]
    pub template: Option<Template>,
}

/// A template of `haproxy.cfg` (see [`crate::render::rendered`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Of its file, for messages.
    pub name: String,
    pub source: Arc<str>,
}

/// A file that HAProxy loads with the rendered one, or a folder of such files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Include {
    pub path: FilePath,
    /// Tells its content from another: it is part of what is loaded.
    pub hash: u64,
}

impl Include {
    pub fn as_str(&self) -> &str {
        self.path.as_str()
    }
}

impl Config {
    /// The frontend of commands, where it is rendered.
    pub fn command_gateway(&self) -> Option<&CommandGateway> {
        self.commands.as_ref()?.gateway.as_ref()
    }

    /// The same, where it sends commands to this backend.
    pub fn commands_to(&self, backend: &Backend) -> Option<&CommandGateway> {
        self.command_gateway().filter(|gateway| gateway.backend == backend.name)
    }

    /// The route that sends its requests to this backend.
    pub fn route_to(&self, backend: &Backend) -> Option<&Route> {
        let routes = self.frontends.iter().filter_map(|frontend| frontend.route.as_ref());
        routes.into_iter().find(|route| route.backend.as_ref() == Some(&backend.name))
    }
}
