//! Authorities that refuse, and names that lead elsewhere.

use jiff::SignedDuration;

use super::{NAMES, Scene, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::{Acme, Plan};
use crate::support::free_port;
use crate::support::haproxy::Gateway;

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
    assert!(scene.pause() > SignedDuration::from_mins(4), "it is left alone for minutes");
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

/// Somebody else answers at the address that the names lead to; Mapsmith looks before, or does not.
fn led_elsewhere(check_names: bool) -> (Acme, Scene, Gateway) {
    let ground = Ground::new(oldest_and_newest()[1]);
    let port = ground.web.port();
    let frontend = format!(
        "frontend other\n    bind 127.0.0.9:{port}\n    http-request return status 200 \
        content-type text/plain string other\n"
    );
    let other = Gateway::plan(oldest_and_newest()[1]).more(&frontend).start();
    let acme = Plan::asks_at(port).start();
    acme.names_lead_to("127.0.0.9");
    let settings = format!("{}check_names = {check_names}\n", acme.settings());
    let scene = Scene::on(ground, &settings, "acme");
    (acme, scene, other)
}

#[test]
fn where_somebody_else_answers_for_a_name_it_is_told_before_anything_is_ordered() {
    let (acme, scene, _other) = led_elsewhere(true);
    let error = scene.wait_for_error("not all names lead here");
    for name in NAMES {
        let of_name = error.split(&format!("{name}: ")).nth(1).unwrap_or_default();
        // At port 80, too, where this machine may have something or nothing.
        assert!(of_name.contains("something else answers at port"), "{name} in: {error}");
    }
    assert_eq!(acme.orders(), 0, "{}", acme.log());
}

#[test]
fn without_a_look_before_the_authority_refuses_in_its_own_words_and_is_left_alone() {
    let (acme, scene, _other) = led_elsewhere(false);
    let error = scene.wait_for_error("the authority refuses ");
    // Both names, or the one that it has looked at first.
    assert!(NAMES.iter().any(|name| error.contains(&format!("{name}: The key author"))), "{error}");
    assert!(error.contains("other"), "what it was answered: {error}");
    assert!(scene.pause() > SignedDuration::from_mins(4), "it is left alone for minutes");
    assert_eq!(acme.orders(), 1, "{}", acme.log());
    acme.names_lead_to("127.0.0.1");
    assert_eq!(scene.renew().0, 202, "an operator who has put it right need not wait");
    scene.wait_for_trust(&acme);
    assert_eq!(acme.orders(), 2, "{}", acme.log());
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
