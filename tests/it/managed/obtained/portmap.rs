//! The certificate of a portmap, whose names are in metadata.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{NAMES, Scene, Trust, oldest_and_newest};
use crate::managed::portmap::{service, settings, write};
use crate::managed::{Ground, Managed, PATIENCE};
use crate::support::acme::{Acme, Plan};
use crate::support::free_port;
use crate::support::haproxy::Binary;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;

/// A gateway whose portmap has a service with HTTPS.
struct Site {
    scene: Scene,
    metadata: PathBuf,
    server: Master,
}

impl Site {
    /// `port` is where the authority asks.
    fn start(ground: Ground, acme: &Acme, port: u16) -> Self {
        let server = Master::start("safe");
        let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let metadata = ground.file("metadata.json");
        say(&metadata, &service("https-http", secure.port(), &server), NAMES[0]);
        let place = format!("path = {:?}", metadata.display().to_string());
        let at = format!("[acme]\nhttp_port = {port}\n");
        let more = settings(&place, &acme.settings().replace("[acme]\n", &at));
        let mapsmith = Mapsmith::config(&ground.settings("one", &more)).start();
        let managed = Managed { mapsmith, ground };
        Self { scene: Scene { managed, secure }, metadata, server }
    }

    fn say(&self, names: &str) {
        let port = self.scene.secure.port();
        say(&self.metadata, &service("https-http", port, &self.server), names);
    }
}

fn say(metadata: &Path, portmap: &str, names: &str) {
    let keys = json!({"loadbalancer": "true", "portmap": portmap, "certificate_name": names});
    write(metadata, &keys);
}

fn from_metadata_to_trust(binary: &'static Binary) {
    let ground = Ground::new(binary);
    let port = ground.web.port();
    let acme = Plan::asks_at(port).is_down().start();
    let site = Site::start(ground, &acme, port);
    let (scene, secure) = (&site.scene, site.scene.secure);
    scene.managed.wait_for_state("in_force");
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
    site.say(&NAMES.join(", "));
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

#[test]
fn where_another_program_has_the_authoritys_port_all_is_served_and_it_is_asked_once_that_is_free() {
    let ground = Ground::new(oldest_and_newest()[1]);
    let port = free_port();
    let taken = TcpListener::bind(("0.0.0.0", port)).expect("nobody has it yet");
    let acme = Plan::asks_at(port).start();
    let site = Site::start(ground, &acme, port);
    let scene = &site.scene;
    let reasons = scene.managed.mapsmith.wait_for("the port is named", PATIENCE, |mapsmith| {
        let services = mapsmith.get("/v1/status").1["services"].clone();
        let rejected = services["rejected"].as_array()?.clone();
        let of = |name: &str| rejected.iter().find(|one| one["name"] == name).cloned();
        Some([of("acme.port_80")?, of("certificate_name")?].map(|one| one["reason"].to_string()))
    });
    assert!(reasons[0].contains("is taken by another program"), "{}", reasons[0]);
    assert!(reasons[1].contains("no authority can be asked: acme.port_80"), "{}", reasons[1]);
    let own = fs::read_to_string(scene.file("certificates/portmap.pem")).expect("it is there");
    let own = Trust::of(&own);
    scene.managed.mapsmith.wait_for("HTTPS is served all the same", PATIENCE, |_| {
        own.ask(scene.secure, NAMES[0]).ok()
    });
    assert_eq!(acme.orders(), 0, "{}", acme.log());
    drop(taken);
    let trust = Trust::of(&acme.root());
    scene
        .managed
        .mapsmith
        .wait_for("clients trust it", PATIENCE, |_| trust.ask(scene.secure, NAMES[0]).ok());
}
