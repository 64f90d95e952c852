//! Authorities that refuse, and names that lead elsewhere.

use jiff::Timestamp;

use super::{Scene, oldest_and_newest};
use crate::support::acme::Plan;
use crate::support::free_port;

#[test]
fn what_the_authority_refuses_replaces_nothing_and_is_told_with_its_reason() {
    // The authority looks where nobody listens, and the gateway's own check does not know.
    let (acme, scene) = Scene::start(oldest_and_newest()[1], |_| Plan::asks_at(free_port()), "");
    let refused = scene.wait_for_certificate("the refusal is told", |certificate| {
        certificate["renewal"]["error"].is_string()
    });
    let error = refused["renewal"]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("the authority refuses "), "{error}");
    assert!(error.contains("example.test: ") && error.contains("refused"), "{error}");
    assert_eq!(refused["in_force"]["self_signed"], true, "{refused}");
    let next: Timestamp = refused["renewal"]["next_at"].as_str().unwrap().parse().unwrap();
    let wait = next.duration_since(Timestamp::now());
    assert!(wait > jiff::SignedDuration::from_mins(4), "it is left alone for minutes: {wait}");
    assert_eq!(acme.orders(), 1, "{}", acme.log());
    let (_, metrics) = scene.managed.mapsmith.get("/metrics");
    let metrics = metrics.as_str().unwrap_or_default().to_owned();
    for line in [
        "mapsmith_certificate_renewal_failed{certificate=\"site\"} 1",
        "mapsmith_certificate_renewal_failures_total{certificate=\"site\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in: {metrics}");
    }
}

#[test]
fn nothing_is_ordered_for_a_name_that_leads_elsewhere() {
    let (acme, scene) =
        Scene::start(oldest_and_newest()[1], |port| Plan::asks_at(port).is_down(), "");
    acme.names_lead_to("127.0.0.9");
    acme.launch();
    let refused = scene.wait_for_certificate("it is told", |certificate| {
        let error = certificate["renewal"]["error"].as_str();
        error.is_some_and(|error| error.contains("not all names lead here"))
    });
    let error = refused["renewal"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("www.example.test: port"), "{error}");
    assert_eq!(acme.orders(), 0, "{}", acme.log());
    acme.names_lead_to("127.0.0.1");
    assert_eq!(scene.renew().0, 202);
    scene.wait_for_trust(&acme);
}
