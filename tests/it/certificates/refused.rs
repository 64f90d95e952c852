//! What does not come into force, and what is said of it.

use super::{Scene, contents};
use crate::support::haproxy::ask;
use crate::support::scene::{BOUND, metric, newest, oldest_and_newest, printed};

#[test]
fn a_corrupt_an_older_or_an_expired_crl_changes_nothing_and_is_shown() {
    for binary in oldest_and_newest() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let older = scene.authority.read("crl.pem");
        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        let mapsmith = scene.mapsmith(&[("crl", "crl.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        let good = scene.authority.read("crl.pem");
        scene.authority.issue(
            "expired.pem",
            "-crl_lastupdate 20250101000000Z -crl_nextupdate \
            20250201000000Z",
        );
        for (text, part) in [
            (good[..good.len() / 2].to_owned(), "no END line"),
            (older, "older than the one in force"),
            (scene.authority.read("expired.pem"), "is out of date since 2025-02-01"),
            (scene.authority.read("ca.pem"), "holds a certificate; a CRL has none"),
            (String::new(), "is empty"),
        ] {
            scene.authority.replace("crl.pem", &text);
            scene.wait_for_error(&mapsmith, part);
            let status = mapsmith.get("/v1/status").1;
            assert!(contents(&status).contains("CRL 11 of"), "{status:#}");
            assert_eq!(scene.loaded("crl.pem"), good, "{part}");
            assert!(!scene.is_welcome("bad") && scene.is_welcome("good"), "{part}");
        }
        let path = scene.authority.path("loaded/crl.pem");
        let failed =
            format!("mapsmith_tls_file_failed{{file=\"{}\",kind=\"crl\"}}", path.display());
        assert_eq!(metric(&mapsmith, &failed), Some(1.0));
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        assert!(text.contains("certificates and CRLs") && text.contains("not taken: "), "{text}");
        let (code, text) = printed(&mapsmith.configuration().cli(&["check"]));
        assert!(code == 1 && text.contains("crl.pem: it is empty"), "{text}");

        scene.authority.replace("crl.pem", &good);
        mapsmith.wait_for("it is good again", BOUND, |mapsmith| {
            (metric(mapsmith, &failed) == Some(0.0)).then_some(())
        });
    }
}

#[test]
fn a_crl_that_expired_in_force_is_shown_with_its_time() {
    let scene = Scene::start(newest(), |plan| plan);
    scene.authority.issue(
        "crl.pem",
        "-crl_lastupdate 20250101000000Z -crl_nextupdate \
        20250201000000Z",
    );
    scene.authority.shell("cp crl.pem loaded/crl.pem");
    let mapsmith = scene.mapsmith(&[("crl", "crl.pem", "")]);
    scene.wait_for_error(&mapsmith, "is out of date");
    let (_, text) = printed(&mapsmith.cli(&["status"]));
    assert!(text.contains("EXPIRED since 2025-02-01T00:00:00Z"), "{text}");
    let path = scene.authority.path("loaded/crl.pem");
    let series = format!(
        "mapsmith_tls_file_expiry_timestamp_seconds{{file=\"{}\",kind=\"crl\"}}",
        path.display()
    );
    assert_eq!(metric(&mapsmith, &series), Some(1_738_368_000.0));
}

#[test]
fn a_transaction_of_somebody_else_is_named_and_what_is_wanted_comes_after_it() {
    for binary in oldest_and_newest() {
        println!("HAProxy {:?}", binary.version);
        let (authority, port) = (super::Authority::new(), super::free_port());
        authority.shell("cp crl.pem loaded/second.pem");
        let loaded = authority.path("loaded");
        let bind = |crl: &str, port: u16| {
            format!(
                "    bind 127.0.0.1:{port} ssl crt {0}/cert.pem ca-file {0}/ca.pem crl-file \
                    {0}/{crl}.pem verify required\n",
                loaded.display()
            )
        };
        let frontend = format!(
            "frontend secure\n{}{}    http-request return status 200 content-type text/plain \
                string welcome\n",
            bind("crl", port),
            bind("second", super::free_port())
        );
        let gateway = super::Gateway::plan(binary).entry("a", "m1").more(&frontend).start();
        let scene = Scene { authority, gateway, port };
        let mapsmith = scene.mapsmith(&[("crl", "crl.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        let second = scene.authority.path("loaded/second.pem");
        let (second, text) = (second.display(), scene.authority.read("crl.pem"));
        let opened = ask(
            &scene.gateway.runtime_address(),
            &format!("set ssl crl-file {second} <<\n{}\n\n", text.trim()),
        )
        .unwrap();
        assert!(opened.contains("transaction created"), "{opened}");
        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        mapsmith.wait_for("the other transaction is named", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let error = status["instances"][0]["tls_files"][0]["error"].as_str()?.to_owned();
            error.contains("another transaction is open").then_some(())
        });
        assert_eq!(scene.loaded("crl.pem"), scene.authority.read("crl.pem"));
        assert!(scene.is_welcome("bad"), "memory has the old one");
        scene.gateway.command(&format!("abort ssl crl-file {second}"));
        mapsmith.wait_for("the revoked client is refused", BOUND, |_| {
            (!scene.is_welcome("bad")).then_some(())
        });
    }
}
