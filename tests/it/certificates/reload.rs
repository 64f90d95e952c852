//! What only a reload of HAProxy brings, and what a restart finds.

use serde_json::Value;

use super::Scene;
use crate::support::haproxy::installed;
use crate::support::scene::{BOUND, metric, newest, oldest_and_newest};

#[test]
fn a_crl_that_is_too_large_needs_a_reload_unless_the_buffers_are_large() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        for buffers in [None, Some("global\n    tune.bufsize 131072\n")] {
            let mut scene = Scene::start(binary, |plan| match buffers {
                Some(more) => plan.master_worker().more(more),
                None => plan.master_worker(),
            });
            let mapsmith = scene.mapsmith(&[("crl", "crl.pem", "")]);
            scene.wait_for_state(&mapsmith, "in_sync");
            scene.authority.revoke("bad");
            scene.authority.issue_long("crl.pem", 1000);
            if buffers.is_none() && binary.version < (3, 4) {
                let status = scene.wait_for_state(&mapsmith, "needs_reload");
                let reason = status["instances"][0]["tls_files"][0]["reason"].as_str().unwrap();
                assert!(reason.contains("takes 15360 at most"), "{reason}");
                let series = "mapsmith_tls_files_need_reload{haproxy=\"edge1\"}";
                assert_eq!(metric(&mapsmith, series), Some(1.0));
                assert_eq!(scene.loaded("crl.pem"), scene.authority.read("crl.pem"));
                assert!(scene.is_welcome("bad"));
                scene.gateway.reload();
            }
            mapsmith.wait_for("the revoked client is refused", BOUND, |_| {
                (!scene.is_welcome("bad")).then_some(())
            });
            scene.wait_for_state(&mapsmith, "in_sync");
        }
    }
}

#[test]
fn before_3_2_a_certificate_waits_for_a_reload_once_a_crl_was_replaced() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let mut scene = Scene::start(binary, super::Plan::master_worker);
        let mapsmith = scene.mapsmith(&[("crl", "crl.pem", ""), ("certificate", "cert.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        mapsmith.wait_for("the revoked client is refused", BOUND, |_| {
            (!scene.is_welcome("bad")).then_some(())
        });
        scene.authority.replace("cert.pem", &scene.authority.read("renewed-pair.pem"));
        let renewed = super::first_certificate(&scene.authority.path("renewed.pem"));
        if binary.version < (3, 2) {
            mapsmith.wait_for("the certificate needs a reload", BOUND, |mapsmith| {
                let status = mapsmith.get("/v1/status").1;
                let files = status["instances"][0]["tls_files"].as_array()?;
                files.iter().any(|file| file["state"] == "needs_reload").then_some(())
            });
            // What would end the process otherwise.
            scene.authority.revoke("good");
            scene.authority.issue("crl.pem", "");
            mapsmith.wait_for("the other client is refused", BOUND, |_| {
                (!scene.is_welcome("good")).then_some(())
            });
            scene.gateway.reload();
        }
        mapsmith.wait_for("the new certificate is served", BOUND, |_| {
            (scene.served() == renewed).then_some(())
        });
        scene.wait_for_state(&mapsmith, "in_sync");
    }
}

#[test]
fn a_restarted_haproxy_has_what_the_file_has_and_is_sent_nothing() {
    for binary in oldest_and_newest() {
        println!("HAProxy {:?}", binary.version);
        let mut scene = Scene::start(binary, |plan| plan);
        let mapsmith = scene.mapsmith(&[("crl", "crl.pem", ""), ("ca", "ca.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        scene.gateway.restart();
        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        mapsmith.wait_for("the revoked client is refused", BOUND, |_| {
            (!scene.is_welcome("bad")).then_some(())
        });
        scene.gateway.restart();
        let pid = scene.gateway.pid();
        let status = mapsmith.wait_for("the new process is known", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let instance = &status["instances"][0];
            let in_sync = instance["tls_files"][0]["state"] == "in_sync";
            (instance["process"]["pid"] == pid && in_sync).then(|| status.clone())
        });
        assert!(status["instances"][0]["tls_files"][0]["changed_at"] != Value::Null);
        assert!(!scene.is_welcome("bad"));
    }
}

#[test]
fn a_file_that_haproxy_has_not_loaded_is_named() {
    let scene = Scene::start(newest(), |plan| plan);
    scene.authority.shell("cp crl.pem other.pem");
    let mapsmith = scene.mapsmith(&[("crl", "other.pem", "")]);
    let status = scene.wait_for_state(&mapsmith, "needs_reload");
    let reason = status["instances"][0]["tls_files"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("names no such file"), "{reason}");
    mapsmith.wait_for("the map goes its way", BOUND, |mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        (status["instances"][0]["state"] == "in_sync").then_some(())
    });
}
