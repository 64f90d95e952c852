//! Services that come, change and go, of each type.

use std::fs;

use serde_json::json;

use super::{Client, Ground, Managed, Mapsmith, PATIENCE, Site, answer, free_port, register};
use crate::support::master::Master;
use crate::support::scene::{newest, oldest_and_newest};

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
        site.managed.wait_for_log("the services have changed (new or changed: api)");
        let file = site.file();
        assert!(file.contains("frontend api-listen") && file.contains("backend api\n"), "{file}");
        assert!(file.contains("check inter 2000"), "{file}");

        let mut changed = site.service("api", second);
        changed["server_options"] = json!(["check", "inter 3s maxconn 50"]);
        changed["listen_options"] = json!(["mode http", "balance leastconn", "timeout server 5s"]);
        site.change("api", &changed.to_string());
        site.wait_for_answer(second, "api");
        site.wait_until_closed(first);
        // The servers' options come with the next answer of their registry.
        for line in ["balance leastconn", "timeout server 5s", "inter 3s", "maxconn 50"] {
            site.managed.mapsmith.wait_for(&format!("{line} is in the file"), PATIENCE, |_| {
                site.file().contains(line).then_some(())
            });
        }
        let status = site.status();
        assert_eq!(status["in_force"][0]["name"], "api", "{status:#}");
        assert_eq!(status["in_force"][0]["bind"], format!("127.0.0.1:{second}"), "{status:#}");

        site.remove("api");
        site.wait_until_closed(second);
        others.assert_all_answered();
        let status = site.managed.wait_for_state("in_force");
        assert!(status["reloads"].as_u64() >= Some(3), "each change is counted: {status:#}");
        assert_eq!(site.managed.ground.word().as_deref(), Some("own"));
    }
}

#[test]
fn a_service_whose_text_changes_and_says_the_same_takes_no_reload() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, of_api, late] = [(); 3].map(|()| free_port());
    let site = Site::start(newest(), &web, port, "");
    register(&site.zookeeper, "api", &api);
    site.declare("api", &site.service("api", of_api));
    site.wait_for_answer(of_api, "api");
    site.managed.wait_for_state("in_force");
    let (reloads, file) = (site.managed.reloads(), site.file());

    let log = "going on with the changed settings";
    let begun = |mapsmith: &Mapsmith| mapsmith.log().matches(log).count();
    let before = begun(&site.managed.mapsmith);
    site.change("api", &format!("{} ", site.service("api", of_api)));
    site.managed
        .mapsmith
        .wait_for("it is taken", PATIENCE, |mapsmith| (begun(mapsmith) > before).then_some(()));
    site.managed.wait_for_state("in_force");
    assert_eq!(site.file(), file);
    // What does change takes the next one.
    site.change("api", &site.service("api", late).to_string());
    site.wait_for_answer(late, "api");
    site.managed.wait_for_state("in_force");
    assert_eq!(site.managed.reloads(), reloads + 1, "{}", site.managed.mapsmith.log());

    // Nobody is to be called for what Mapsmith does itself.
    let log = site.managed.mapsmith.log();
    let warned = |line: &&str| line.contains("WARN") && line.contains("needs a reload of HAProxy");
    assert_eq!(log.lines().find(warned), None);
}

#[test]
fn the_servers_of_each_type_of_service_answer() {
    let [web, named, listed] = ["web", "named", "listed"].map(Master::start);
    let [port, by_name, by_file] = [(); 3].map(|()| free_port());
    let site = Site::start(newest(), &web, port, "");
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

#[test]
fn services_may_be_the_files_of_a_folder() {
    let [web, late] = ["web", "late"].map(Master::start);
    let [port, second] = [(); 2].map(|()| free_port());
    let ground = Ground::new(newest());
    let (folder, lists) = (ground.file("services"), ground.file("lists"));
    for folder in [&folder, &lists] {
        fs::create_dir(folder).expect("a folder");
    }
    let declare = |name: &str, port: u16, server: &Master| {
        let list = lists.join(name);
        fs::write(&list, format!("{}\n", server.address())).expect("a list");
        let service = json!({
            "type": "file",
            "file": list,
            "port": port,
            "listen_options": ["mode http"],
        });
        fs::write(folder.join(format!("{name}.json")), service.to_string()).expect("a service");
    };
    declare("shop", port, &web);
    fs::write(folder.join("README"), "no service").expect("another file");
    let more = format!(
        "[[source]]\nname = \"folder\"\ntype = \"file\"\npath = {folder:?}\n\
        [services]\nfrom = \"folder\"\nfiles = {lists:?}\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n"
    );
    let settings = ground.settings("own", &more);
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    let answered = |port: u16, name: &str| {
        managed.mapsmith.wait_for(&format!("{name} answers"), PATIENCE, |_| {
            (answer(port).ok()? == name).then_some(())
        });
    };
    answered(port, "web");
    declare("late", second, &late);
    answered(second, "late");
    // A folder that is not there is no answer.
    fs::rename(&folder, folder.with_extension("gone")).expect("it can be moved");
    managed.wait_for_log("the poll failed; the last good answer stays in force");
    answered(second, "late");
    answered(port, "web");
}
