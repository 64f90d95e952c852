//! Certificates that Mapsmith signs itself.

use std::fs;

use super::{NAMES, Scene, Trust};
use crate::managed::Ground;
use crate::support::haproxy::installed;

#[test]
fn a_self_signed_certificate_needs_no_authority_and_is_renewed_on_request() {
    let scene = Scene::on(Ground::new(&installed()[0]), "", "self_signed");
    let path = scene.file("certificates/site.pem");
    let first = fs::read_to_string(&path).expect("it is there");
    for name in NAMES {
        Trust::of(&first).ask(scene.secure, name).expect("whoever trusts it is answered");
    }
    let status = scene.certificate();
    assert_eq!(
        (&status["source"], &status["in_force"]["self_signed"]),
        (&"self_signed".into(), &true.into())
    );
    let ordered = scene.managed.mapsmith.cli(&["certificates", "renew", "site"]);
    assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
    let second = scene.managed.mapsmith.wait_for("there is another", super::PATIENCE, |_| {
        fs::read_to_string(&path).ok().filter(|text| *text != first)
    });
    scene.managed.mapsmith.wait_for("it is shown", super::PATIENCE, |_| {
        Trust::of(&second).ask(scene.secure, NAMES[0]).ok()
    });
    assert_eq!(scene.managed.reloads(), 0);
    let unknown = scene.managed.mapsmith.cli(&["certificates", "renew", "other"]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{told}");
    assert!(told.contains("there is no certificate other that Mapsmith gets itself"), "{told}");
    let shown = scene.managed.mapsmith.cli(&["certificates"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("site") && shown.contains("self-signed"), "{shown}");
}
