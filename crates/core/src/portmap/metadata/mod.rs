//! What else the metadata of a load balancer says beside its portmap: a value of each key, read by
//! itself. Pure.
//!
//! A value that can't be used is never the same as none: where another counts in its place the
//! reading says so, and where nothing may stand in for it the reading is an error.

mod acl;
mod certificates;
mod syslog;
mod timeouts;

pub use acl::MetricsAcl;
pub use certificates::CertificateNames;
pub use syslog::Syslog;
pub use timeouts::{Timeouts, TimeoutsError, timeout};

use super::Port;
use super::service::shown;

/// The keys, each without the prefix that all of them have.
pub const KEYS: [&str; 8] = [
    "loadbalancer",
    "portmap",
    "certificate_name",
    "max_rs",
    "metrics_acl",
    "metrics_port",
    "syslog",
    "timeouts",
];

/// What counts, and what is wrong with the text where something else counts in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading<T> {
    pub value: T,
    pub problem: Option<String>,
}

impl<T> Reading<T> {
    fn good(value: T) -> Self {
        Self { value, problem: None }
    }

    fn instead(value: T, problem: String) -> Self {
        Self { value, problem: Some(problem) }
    }
}

/// Whether there is a load balancer (`loadbalancer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    /// `true`, in any case of letters.
    Yes,
    /// `false`: an order to stop.
    No,
    /// Nothing, or another text: no order at all. What does not run is not started, and what runs
    /// goes on.
    Unknown,
}

impl Enabled {
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            text if text.eq_ignore_ascii_case("true") => Self::Yes,
            text if text.eq_ignore_ascii_case("false") => Self::No,
            _ => Self::Unknown,
        }
    }
}

/// The fewest servers of a service that `max_rs` can ask for.
pub const MIN_SERVERS: u16 = 32;
/// The most.
pub const MAX_SERVERS: u16 = 1024;

/// The most servers of each service (`max_rs`): 32 to 1024, the nearest of both where it is another
/// number, and 32 where it is none.
pub fn max_servers(text: &str) -> Reading<u16> {
    let text = text.trim();
    if text.is_empty() {
        return Reading::good(MIN_SERVERS);
    }
    let number: Option<u64> = text.parse().ok();
    let nearest = number.map_or(u64::from(MIN_SERVERS), |number| {
        number.clamp(MIN_SERVERS.into(), MAX_SERVERS.into())
    });
    let value = u16::try_from(nearest).unwrap_or(MAX_SERVERS);
    if number == Some(nearest) {
        return Reading::good(value);
    }
    let problem = format!(
        "max_rs: {} is not a number from {MIN_SERVERS} to {MAX_SERVERS}; {value} counts",
        shown(text)
    );
    Reading::instead(value, problem)
}

/// Where HAProxy's metrics are (`metrics_port`): 8405 unless a port is given.
pub fn metrics_port(text: &str) -> Reading<Port> {
    let text = text.trim();
    match text.parse().ok().and_then(Port::new) {
        Some(port) => Reading::good(port),
        None if text.is_empty() => Reading::good(Port::METRICS),
        None => {
            let problem = format!(
                "metrics_port: {} is not a port from 1 to {}; {} counts",
                shown(text),
                Port::MAX,
                Port::METRICS
            );
            Reading::instead(Port::METRICS, problem)
        }
    }
}

#[cfg(test)]
mod tests;
