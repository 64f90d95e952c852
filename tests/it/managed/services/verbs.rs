//! What the verbs say of services, with and without a Mapsmith that runs.

use serde_json::json;

use super::{Site, free_port};
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

    site.zookeeper.kill();
    let (code, text) = printed(&config.cli(&["check"]));
    assert!(code == 1 && text.contains("FAIL  services: "), "{code}: {text}");
    let output = config.cli(&["render"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
