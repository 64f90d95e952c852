//! A HAProxy that another supervisor runs, set up as nobody meant it.

use std::net::SocketAddr;

use super::attached::{haproxy, settings};
use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::{eventually, free_port, http};

#[test]
fn one_that_loads_another_file_is_told_and_not_reloaded_for_ever() {
    for binary in installed() {
        let ground = Ground::new(binary);
        let _process = haproxy(&ground);
        // Nobody loads it.
        let settings = settings(&ground, "one").replace("site.cfg", "other.cfg");
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        let status = managed.wait_for_state("failed");
        let error = status["state"]["error"].as_str().unwrap_or_default();
        assert!(error.contains("other.cfg: does the process at haproxy.socket load"), "{status}");
        for _ in 0..5 {
            let (code, report) = managed.mapsmith.post("/v1/reload?wait=100ms");
            assert!(code < 600, "{report}");
        }
        // The next try may have come.
        assert!(managed.reloads() <= 2, "{}", managed.status());
        assert_eq!(managed.ground.word().as_deref(), Some("distribution"));
    }
}

#[test]
fn one_that_is_taken_over_answers_the_balancer_in_front() {
    let ground = Ground::new(&installed()[0]);
    let _process = haproxy(&ground);
    let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = settings(&ground, "one")
        .replace("[haproxy]\n", &format!("[haproxy]\nhealth = \"{health}\"\n"));
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    managed.wait_for_state("edited");
    let taken = managed.mapsmith.configuration().cli(&["render", "--take-over"]);
    assert!(taken.status.success(), "{taken:?}");
    eventually("the gateway is ready", PATIENCE, || {
        let answer = http::request(health, "GET", "/", &[], "").ok()?;
        (answer.status == 200).then_some(())
    });
}
