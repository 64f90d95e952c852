//! What the verbs say of metadata, with and without a Mapsmith that runs.

use std::fs;

use super::{Site, free_port, service};
use crate::support::master::Master;
use crate::support::scene::{newest, printed};

#[test]
fn the_verbs_read_the_metadata_first_and_name_what_is_rejected() {
    let web = Master::start("web");
    let port = free_port();
    let site = Site::start(newest(), &service("http", port, &web), "");
    site.declare(&format!("{},udp://53:a.test:53", service("http", port, &web)));
    site.wait_for_rejected("53", "unsupported protocol");
    let config = site.managed.mapsmith.configuration();
    let (code, text) = printed(&config.cli(&["render", "--check"]));
    assert!(code == 0 && text.contains(&format!("frontend fe-{port}\n")), "{code}: {text}");
    let (code, text) = printed(&config.cli(&["plan"]));
    assert_eq!(code, 0, "{text}");
    let (code, text) = printed(&config.cli(&["check"]));
    assert!(code == 1 && text.contains("FAIL  service 53: column "), "{code}: {text}");
    assert!(text.contains("ok    services: 1 service from md"), "{text}");
    let (code, text) = printed(&site.managed.mapsmith.cli(&["status"]));
    let shown =
        format!("{port}  127.0.0.1:{port}, http, servers from 127.0.0.1:{}", web.address().port());
    assert!(code == 1 && text.contains(&shown), "{shown}: {text}");
    assert!(text.contains("53 rejected: column "), "{text}");

    fs::remove_file(&site.metadata).expect("the file");
    let (code, text) = printed(&config.cli(&["check"]));
    assert!(code == 1 && text.contains("FAIL  services: md: "), "{code}: {text}");
    let output = config.cli(&["render"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
