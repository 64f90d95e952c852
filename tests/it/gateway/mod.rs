//! The shipped gateways on real HAProxys: what each request is answered, whom it reaches, and how
//! it waits.
//!
//! docs/gateway.md says in words what these tests hold.

mod commands;
mod puppet;
mod queueing;
mod rendered;
mod routing;

use crate::support::haproxy::{Binary, installed};
use crate::support::http::Response;
use crate::support::owner::Owner;
use crate::support::shipped::{BACKEND_PER_MASTER, Plan, REDISPATCH};

/// One backend of all masters, which finds a node's master by redispatch: shipped and rendered.
const REDISPATCHING: [&str; 2] = [REDISPATCH, rendered::REDISPATCH];
/// One backend a master: shipped and rendered.
const SEPARATE: [&str; 2] = [BACKEND_PER_MASTER, rendered::BACKEND_PER_MASTER];

/// Every HAProxy with each of these.
fn each(shapes: [&'static str; 2]) -> impl Iterator<Item = (&'static Binary, &'static str)> {
    installed().iter().flat_map(move |binary| shapes.map(move |shape| (binary, shape)))
}

/// web1 is the first master's, web2 the second's and web3 the third's.
fn masters() -> [Owner; 3] {
    ["1", "2", "3"]
        .map(|number| Owner::start(&format!("master{number}"), &[&format!("web{number}")]))
}

/// A gateway with an empty map.
fn bare_plan(binary: &Binary, shape: &str, masters: [&Owner; 3]) -> Plan {
    let plan = match shape.ends_with(".toml") {
        true => rendered::plan(binary, shape),
        false => Plan::of(binary, shape),
    };
    plan.masters(masters)
}

/// A gateway whose map knows web1 and web2 as they are.
fn plan(binary: &Binary, shape: &str, masters: &[Owner; 3]) -> Plan {
    let plan = bare_plan(binary, shape, masters.each_ref());
    plan.entry("web1", "master1").entry("web2", "master2")
}

/// The status, and the body without its newline.
fn said(response: &Response) -> (u16, &str) {
    (response.status, response.body.trim_end())
}

/// A 503 in writing, with the time to come back.
fn assert_unavailable(response: &Response, text: &str) {
    assert_eq!(said(response), (503, text));
    assert_eq!(
        (response.content_type.as_str(), response.retry_after.as_deref()),
        ("text/plain", Some("5"))
    );
}
