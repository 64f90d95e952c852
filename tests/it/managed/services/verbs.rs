//! What the verbs say of services, with and without a Mapsmith that runs.

use serde_json::json;

use super::{Site, free_port};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::{newest, printed};

#[test]
fn the_verbs_read_the_services_first_and_name_those_that_are_rejected() {
    let web = Master::start("web");
    let port = free_port();
    let site = Site::start(newest(), &web, port, "");
    let mut bad = site.service("bad", free_port());
    bad["type"] = json!("nope");
    site.declare("bad", &bad);
    site.wait_for_rejected("bad", "type: ");
    let config = site.managed.mapsmith.configuration();

    let (code, text) = printed(&config.cli(&["render", "--check"]));
    assert!(code == 0 && text.contains("frontend shop-listen"), "{code}: {text}");
    let (code, text) = printed(&config.cli(&["plan"]));
    assert_eq!(code, 0, "{text}");
    let (code, text) = printed(&config.cli(&["check"]));
    let told = "FAIL  service bad: type: \"nope\" is none of zookeeper, campanjazk, dns and file";
    assert!(code == 1 && text.contains(told), "{code}: {text}");
    assert!(text.contains("ok    services: 1 service from zk path=/service_config"), "{text}");
    let (code, text) = printed(&site.managed.mapsmith.cli(&["status"]));
    assert!(code == 1 && text.contains("\nservices ("), "{code}: {text}");
    assert!(text.contains("bad rejected: type: \"nope\""), "{text}");
    assert!(text.contains(" worker ") && !text.contains("\n\n\n"), "{text}");

    // A store that can't be read keeps nothing else from being checked.
    let ground = &site.managed.ground;
    let store = ground.file("no-store");
    std::fs::write(&store, "this is no database").expect("the file can be written");
    let more = format!("[store]\npath = \"{}\"", store.display());
    let settings = super::settings(ground, &site.zookeeper, &more);
    let settings = ground.settings("with-store", &settings);
    let (code, text) = printed(&Mapsmith::config(&settings).cli(&["check"]));
    assert!(code == 1 && text.contains("FAIL  stored services: "), "{code}: {text}");
    assert!(text.contains("ok    services: 1 service from zk path=/service_config"), "{text}");
    assert!(text.contains("FAIL  service bad: "), "{text}");

    site.zookeeper.kill();
    let (code, text) = printed(&config.cli(&["check"]));
    assert!(code == 1 && text.contains("FAIL  services: "), "{code}: {text}");
    let output = config.cli(&["render"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
