//! The declared configuration of HAProxy: its process, frontends and backends. Pure.
//!
//! Every value is checked where it comes in ([`values`]), native lines by [`natives`], and what
//! contradicts itself by [`Config::problems`]; so whatever is here can be rendered.

mod backend;
mod frontend;
pub mod natives;
mod problems;
mod process;
pub mod rules;
pub mod status;
pub mod values;

pub use backend::{
    Backend, Balance, Cookie, ErrorBody, Expect, HttpCheck, HttpReuse, HttpVersion, RetryOn,
};
pub use frontend::{
    Bind, BindTls, ClientCertificates, Frontend, KeepAlive, Mode, Route, RouteBy, Verify,
};
pub use natives::Native;
pub use problems::Problem;
pub use process::{Health, LogFormat, Metrics, Process, Stats, Timeouts};

use values::FilePath;

/// Everything that `haproxy.cfg` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub process: Process,
    pub frontends: Vec<Frontend>,
    pub backends: Vec<Backend>,
    /// Files that HAProxy loads after this one, in this order. They are never written.
    pub includes: Vec<FilePath>,
}

impl Config {
    /// The route that sends its requests to this backend.
    pub fn route_to(&self, backend: &Backend) -> Option<&Route> {
        let routes = self.frontends.iter().filter_map(|frontend| frontend.route.as_ref());
        routes.into_iter().find(|route| route.backend.as_ref() == Some(&backend.name))
    }
}
