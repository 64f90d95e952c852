//! What comes into force, and for whom.

use super::{Published, Scene, contents, first_certificate};
use crate::support::haproxy::installed;
use crate::support::scene::{BOUND, metric, newest, oldest_and_newest};

#[test]
fn a_revoked_client_is_refused_without_a_reload() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let pid = scene.gateway.pid();
        let mapsmith = scene.mapsmith(&[("crl", "crl.pem", "")]);
        let status = scene.wait_for_state(&mapsmith, "in_sync");
        assert!(contents(&status).contains("CRL 10 of"), "{status:#}");
        assert_eq!(
            status["instances"][0]["tls_files"][0]["changed_at"],
            serde_json::Value::Null,
            "it was there already"
        );
        assert!(scene.is_welcome("good") && scene.is_welcome("bad"));

        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        scene.wait_for_refusal(&mapsmith, "bad");
        assert!(scene.is_welcome("good"));
        assert_eq!(scene.gateway.pid(), pid);
        assert_eq!(scene.loaded("crl.pem"), scene.authority.read("crl.pem"));
        let status = scene.wait_for_state(&mapsmith, "in_sync");
        assert!(contents(&status).contains("CRL 11 of"), "{status:#}");
        let path = scene.authority.path("loaded/crl.pem");
        let series = format!(
            "mapsmith_tls_file_expiry_timestamp_seconds{{file=\"{}\",kind=\"crl\"}}",
            path.display()
        );
        assert!(metric(&mapsmith, &series).is_some_and(|at| at > 1.7e9));
        assert_eq!(metric(&mapsmith, "mapsmith_tls_files_in_sync{haproxy=\"edge1\"}"), Some(1.0));
        // Again, over what this process was given.
        scene.authority.revoke("good");
        scene.authority.issue("crl.pem", "");
        mapsmith.wait_for("the other client is refused", BOUND, |_| {
            (!scene.is_welcome("good")).then_some(())
        });
        assert_eq!(scene.gateway.pid(), pid);
    }
}

#[test]
fn a_crl_comes_from_a_url_that_wants_a_certificate() {
    let scene = Scene::start(newest(), |plan| plan);
    let published = Published::start(&scene);
    let mapsmith = scene.mapsmith_with(&published.settings(""));
    scene.wait_for_state(&mapsmith, "in_sync");
    scene.authority.revoke("bad");
    scene.authority.issue("crl.pem", "");
    published.publish();
    scene.wait_for_refusal(&mapsmith, "bad");
    assert_eq!(scene.loaded("crl.pem"), scene.authority.read("crl.pem"));
    drop(published);
    scene.wait_for_error(&mapsmith, "can't be reached");
    assert!(scene.is_welcome("good") && !scene.is_welcome("bad"));
}

#[test]
fn a_renewed_certificate_is_served_to_new_connections() {
    for binary in oldest_and_newest() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let pid = scene.gateway.pid();
        let mapsmith = scene.mapsmith(&[("certificate", "cert.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        let certificate = |name: &str| first_certificate(&scene.authority.path(name));
        assert_eq!(scene.served(), certificate("gateway.pem"));

        scene.authority.replace("cert.pem", &scene.authority.read("renewed-pair.pem"));
        mapsmith.wait_for("the new certificate is served", BOUND, |_| {
            (scene.served() == certificate("renewed.pem")).then_some(())
        });
        assert_eq!(scene.gateway.pid(), pid);
        assert_eq!(scene.loaded("cert.pem"), scene.authority.read("renewed-pair.pem"));
        let status = scene.wait_for_state(&mapsmith, "in_sync").to_string();
        assert!(!(status + &mapsmith.log()).contains("PRIVATE KEY"));
    }
}

#[test]
fn a_ca_that_is_added_lets_its_clients_in() {
    for binary in oldest_and_newest() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let ca = scene.authority.read("ca.pem");
        scene.authority.shell(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -subj \
                /CN=other -days 10",
        );
        let mapsmith = scene.mapsmith(&[("ca", "ca.pem", "")]);
        scene.wait_for_state(&mapsmith, "in_sync");
        let both = ca + &scene.authority.read("other.pem");
        scene.authority.replace("ca.pem", &both);
        let show =
            format!("show ssl ca-file {}:2", scene.authority.path("loaded/ca.pem").display());
        mapsmith.wait_for("HAProxy has both CAs", BOUND, |_| {
            scene.gateway.command(&show).contains("Serial: ").then_some(())
        });
        scene.wait_for_state(&mapsmith, "in_sync");
        assert_eq!(scene.loaded("ca.pem"), both);
        assert!(scene.is_welcome("good"));
    }
}
