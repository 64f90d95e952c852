//! The shipped gateways on real HAProxys: what each request is answered, whom it reaches, and how
//! it waits.
//!
//! docs/gateway.md says in words what these tests hold.

mod puppet;
mod queueing;
mod routing;

use crate::support::haproxy::Binary;
use crate::support::http::Response;
use crate::support::owner::Owner;
use crate::support::shipped::{Plan, Shipped};

/// web1 is the first master's, web2 the second's and web3 the third's.
fn masters() -> [Owner; 3] {
    ["1", "2", "3"]
        .map(|number| Owner::start(&format!("master{number}"), &[&format!("web{number}")]))
}

/// A gateway whose map knows web1 and web2 as they are.
fn plan(binary: &Binary, shape: &str, masters: &[Owner; 3]) -> Plan {
    let plan = Shipped::plan(binary, shape, masters.each_ref());
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
