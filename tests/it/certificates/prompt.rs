//! How soon a change is in force, and for whom that is asked.

use std::fs;
use std::time::SystemTime;

use serde_json::Value;

use super::{Published, Scene};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, gateway_settings, newest, printed};

/// An instance that is looked at, and sources that are polled, once an hour.
const HOURLY: &str = "[schedule]\npoll = \"1h\"\nverify = \"1h\"\nobserve = \"1h\"\n";

#[test]
fn a_crl_that_changes_is_in_haproxy_at_once_whatever_the_schedule_says() {
    let scene = Scene::start(newest(), |plan| plan);
    let settings = HOURLY.to_owned()
        + &gateway_settings(&scene.gateway)
        + &scene.nodes()
        + &format!(
            "[[tls_file]]\nkind = \"crl\"\npath = {:?}\nfrom = {:?}\npoll = \"1h\"\n",
            scene.authority.path("loaded/crl.pem"),
            scene.authority.path("crl.pem"),
        );
    let mapsmith = Mapsmith::config(&settings).start();
    scene.wait_for_state(&mapsmith, "in_sync");
    for (client, other) in [("bad", Some("good")), ("good", None)] {
        scene.authority.revoke(client);
        scene.authority.issue("crl.pem", "");
        scene.wait_for_refusal(&mapsmith, client);
        assert!(other.is_none_or(|other| scene.is_welcome(other)));
    }
}

#[test]
fn a_reload_reads_a_crl_at_once_and_answers_when_revoked_clients_are_refused() {
    let scene = Scene::start(newest(), |plan| plan);
    let published = Published::start(&scene);
    let mapsmith = scene.mapsmith_with(&published.settings("poll = \"1h\"\n"));
    scene.wait_for_state(&mapsmith, "in_sync");
    scene.authority.revoke("bad");
    scene.authority.issue("crl.pem", "");
    published.publish();
    let output = mapsmith.cli(&["reload", "--wait", "30s"]);
    assert!(!scene.is_welcome("bad") && scene.is_welcome("good"), "{output:?}");
    let (code, text) = printed(&output);
    assert!(code == 0 && text.contains("crl.pem is another one now"), "{text}");
    let (code, text) = printed(&mapsmith.cli(&["reload", "--wait", "30s"]));
    assert!(code == 0 && !text.contains("another one"), "{text}");

    drop(published);
    let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!((status, &problem["report"]["outcome"]), (502, &Value::from("source_failed")));
    let message = problem["report"]["message"].to_string();
    for part in ["CRL", "loaded/crl.pem: not taken", "can't be reached", "stays", "in sync"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert!(!scene.is_welcome("bad") && scene.is_welcome("good"));
}

#[test]
fn a_reload_says_which_haproxy_needs_one_of_its_own_for_a_file() {
    let scene = Scene::start(newest(), |plan| plan);
    scene.authority.shell("cp crl.pem other.pem");
    let mapsmith = scene.mapsmith(&[("crl", "other.pem", "")]);
    scene.wait_for_state(&mapsmith, "needs_reload");
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!((status, &report["outcome"]), (202, &Value::from("behind")), "{report:#}");
    let message = report["message"].to_string();
    for part in ["edge1: CRL", "other.pem needs a reload of HAProxy: ", "names no such file"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

impl Scene {
    /// Waits until a client that was just revoked is refused, and prints how long that took.
    pub(super) fn wait_for_refusal(&self, mapsmith: &Mapsmith, client: &str) {
        mapsmith.wait_for("the revoked client is refused", BOUND, |_| {
            (!self.is_welcome(client)).then_some(())
        });
        let refused = SystemTime::now();
        let changed = fs::metadata(self.authority.path("crl.pem")).unwrap().modified().unwrap();
        let took = refused.duration_since(changed).unwrap_or_default();
        println!("refused {} ms after the CRL's change at most", took.as_millis());
    }
}
