//! Services that come, change and go, of each type.

use std::fs;

use serde_json::json;

use super::{Client, Site, free_port, register};
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

#[test]
fn a_service_that_comes_changes_or_goes_is_served_so_and_the_others_fail_no_request() {
    for binary in oldest_and_newest() {
        let [web, api] = ["web", "api"].map(Master::start);
        let [port, first, second] = [(); 3].map(|()| free_port());
        let site = Site::start(binary, &web, port, "");
        let others = Client::start(port, "web");

        register(&site.zookeeper, "api", &api);
        site.declare("api", &site.service("api", first));
        site.wait_for_answer(first, "api");
        let file = site.file();
        assert!(file.contains("frontend api-listen") && file.contains("backend api\n"), "{file}");
        assert!(file.contains("check inter 2000"), "{file}");

        let mut changed = site.service("api", second);
        changed["server_options"] = json!(["check", "inter 3s maxconn 50"]);
        changed["listen_options"] = json!(["mode http", "balance leastconn", "timeout server 5s"]);
        site.change("api", &changed.to_string());
        site.wait_for_answer(second, "api");
        site.wait_until_closed(first);
        let file = site.file();
        for line in ["balance leastconn", "timeout server 5s", "inter 3s", "maxconn 50"] {
            assert!(file.contains(line), "{line}: {file}");
        }
        let status = site.status();
        assert_eq!(status["in_force"][0]["name"], "api", "{status:#}");
        assert_eq!(status["in_force"][0]["bind"], format!("127.0.0.1:{second}"), "{status:#}");

        site.remove("api");
        site.wait_until_closed(second);
        others.assert_all_answered();
        assert_eq!(site.managed.reloads(), 0, "of these settings");
        assert_eq!(site.managed.ground.word().as_deref(), Some("own"));
    }
}

#[test]
fn the_servers_of_each_type_of_service_answer() {
    let [web, named, listed] = ["web", "named", "listed"].map(Master::start);
    let [port, by_name, by_file] = [(); 3].map(|()| free_port());
    let site = Site::start(crate::support::scene::newest(), &web, port, "");
    let folder = site.managed.ground.file("lists");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("listed"), format!("{}\n", listed.address())).expect("a list");

    // Campanja's children are named like their hosts.
    site.zookeeper.create("/hosts/127.0.0.1", "");
    site.declare(
        "named",
        &json!({
            "type": "CampanjaZK",
            "server": site.zookeeper.address().to_string(),
            "path": "/hosts",
            "port": by_name,
            "remote_port": named.address().port(),
            "listen_options": ["mode http"],
        }),
    );
    site.wait_for_answer(by_name, "named");
    let file = folder.join("listed");
    site.declare(
        "listed",
        &json!({
            "type": "file",
            "file": file,
            "port": by_file,
            "listen_options": ["mode http"],
        }),
    );
    site.wait_for_answer(by_file, "listed");
    fs::write(&file, format!("{}\n", web.address())).expect("a list");
    site.wait_for_answer(by_file, "web");
}
