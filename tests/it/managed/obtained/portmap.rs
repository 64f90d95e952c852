//! The certificate of a portmap, whose names are in metadata.

use std::fs;
use std::net::SocketAddr;

use serde_json::json;

use super::{NAMES, Scene, Trust, oldest_and_newest};
use crate::managed::portmap::{service, settings, write};
use crate::managed::{Ground, Managed, PATIENCE};
use crate::support::acme::Plan;
use crate::support::free_port;
use crate::support::haproxy::Binary;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;

fn from_metadata_to_trust(binary: &'static Binary) {
    let ground = Ground::new(binary);
    let acme = Plan::asks_at(ground.web.port()).is_down().start();
    let server = Master::start("safe");
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let metadata = ground.file("metadata.json");
    let say = |names: &str| {
        let portmap = service("https-http", secure.port(), &server);
        let keys = json!({
            "loadbalancer": "true", "portmap": portmap, "certificate_name": names
        });
        write(&metadata, &keys);
    };
    say(NAMES[0]);
    let place = format!("path = {:?}", metadata.display().to_string());
    let at = format!("[acme]\nhttp_port = {}\n", ground.web.port());
    let more = settings(&place, &acme.settings().replace("[acme]\n", &at));
    let mapsmith = Mapsmith::config(&ground.settings("one", &more)).start();
    let managed = Managed { mapsmith, ground };
    managed.wait_for_state("in_force");
    let scene = Scene { managed, secure };
    let waiting = scene.wait_for_certificate("the failure is told", |certificate| {
        certificate["renewal"]["error"].is_string()
    });
    assert_eq!(waiting["name"], "portmap", "{waiting}");
    let file = scene.file("certificates/portmap.pem");
    let own = Trust::of(&fs::read_to_string(&file).expect("it is there"));
    scene.managed.mapsmith.wait_for("HTTPS answers without an authority", PATIENCE, |_| {
        own.ask(secure, NAMES[0]).ok()
    });
    acme.launch();
    let trust = Trust::of(&acme.root());
    scene
        .managed
        .mapsmith
        .wait_for("clients trust it", PATIENCE, |_| trust.ask(secure, NAMES[0]).ok());
    // Another name: clients see the first certificate until there is one of both.
    say(&NAMES.join(", "));
    scene.managed.mapsmith.wait_for("the other name is trusted too", PATIENCE, |_| {
        trust.ask(secure, NAMES[0]).expect("it is never shown without");
        trust.ask(secure, NAMES[1]).ok()
    });
    assert_eq!(acme.orders(), 2);
    let again = scene.managed.mapsmith.post("/v1/certificates/portmap/renew");
    assert_eq!(again.0, 202, "{}", again.1);
}

#[test]
fn a_portmap_has_https_at_once_and_a_certificate_of_the_names_in_metadata_on_the_oldest_haproxy() {
    from_metadata_to_trust(oldest_and_newest()[0]);
}

#[test]
fn a_portmap_has_https_at_once_and_a_certificate_of_the_names_in_metadata_on_the_newest_haproxy() {
    from_metadata_to_trust(oldest_and_newest()[1]);
}
