//! The facts about HAProxy that the code relies on, read off the real process.

use super::{Scene, first_certificate};
use crate::support::haproxy::{ask, installed};

/// Gives a loaded file another content; what HAProxy answers to the commit.
fn replace(scene: &Scene, kind: &str, name: &str, from: &str) -> String {
    let (text, path) = (scene.authority.read(from), scene.authority.path("loaded").join(name));
    let (address, path) = (scene.gateway.runtime_address(), path.display());
    let opened = ask(&address, &format!("set ssl {kind} {path} <<\n{}\n\n", text.trim())).unwrap();
    assert!(opened.to_lowercase().starts_with("transaction created for "), "{opened}");
    // A process that ends answers nothing, or breaks the connection.
    ask(&address, &format!("commit ssl {kind} {path}")).unwrap_or_default()
}

#[test]
fn before_3_2_a_certificate_is_lost_after_a_crl_and_the_next_crl_ends_the_process() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let loses = binary.version < (3, 2);
        let scene = Scene::start(binary, |plan| plan);
        let succeeds = |reply: String| reply.ends_with("Success!\n\n");
        assert!(succeeds(replace(&scene, "crl-file", "crl.pem", "crl.pem")));
        assert!(succeeds(replace(&scene, "cert", "cert.pem", "renewed-pair.pem")));
        let renewed = first_certificate(&scene.authority.path("renewed.pem"));
        assert_eq!(scene.served() == renewed, !loses);
        assert_eq!(succeeds(replace(&scene, "crl-file", "crl.pem", "crl.pem")), !loses);
    }
}

#[test]
fn a_connection_that_is_open_is_served_after_its_certificate_was_revoked_and_a_new_one_is_not() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let mut open = scene.open("bad");
        assert!(open.is_served());
        scene.authority.revoke("bad");
        scene.authority.issue("crl.pem", "");
        assert!(replace(&scene, "crl-file", "crl.pem", "crl.pem").ends_with("Success!\n\n"));
        assert!(!scene.is_welcome("bad"));
        assert!(open.is_served());
    }
}

#[test]
fn a_certificate_before_a_crl_is_served_and_both_may_follow() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let scene = Scene::start(binary, |plan| plan);
        let pid = scene.gateway.pid();
        for (kind, name, from) in [
            ("cert", "cert.pem", "renewed-pair.pem"),
            ("ca-file", "ca.pem", "ca.pem"),
            ("crl-file", "crl.pem", "crl.pem"),
            ("crl-file", "crl.pem", "crl.pem"),
        ] {
            let reply = replace(&scene, kind, name, from);
            assert!(reply.ends_with("Success!\n\n"), "{kind}: {reply}");
        }
        assert_eq!(scene.served(), first_certificate(&scene.authority.path("renewed.pem")));
        assert!(scene.is_welcome("good") && scene.gateway.pid() == pid);
    }
}
