//! `check` of a HAProxy that Mapsmith starts: its folder and its ports.

use std::fs;
use std::net::TcpListener;

use super::{Ground, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{complaints, file_source_settings, printed};

/// What `check` says of these settings.
fn checked(settings: &str) -> (i32, String) {
    let output = Mapsmith::config(settings).cli(&["check"]);
    let (code, text) = printed(&output);
    (code, text + &complaints(&output))
}

#[test]
fn check_wants_no_folder_that_run_makes_and_finds_one_that_it_can_not_make() {
    let ground = Ground::new(&installed()[0]);
    let nodes = ground.file("nodes.map");
    fs::write(&nodes, "alpha m1\n").expect("a node map");
    let nodes = file_source_settings("nodes", &nodes);
    let gateway = "[[frontend]]\nname = \"gateway\"\nbind = [\"127.0.0.1:1\"]\n\
        route = { by = { header = \"X-Node-Name\" }, backend = \"masters\" }\n\
        [[backend]]\nname = \"masters\"\n\
        servers = [{ name = \"m1\", address = \"127.0.0.1:2\" }]\n";
    let settings = ground.settings("one", &format!("{nodes}{gateway}"));
    let within = |folder: &str| {
        let folder = ground.file(folder).display().to_string();
        settings.replace(&format!("{:?}", ground.path()), &format!("{folder:?}"))
    };
    let (code, text) = checked(&within("to/come"));
    let made = text.contains("to/come does not exist yet and will be created")
        && text.contains("node-master.map does not exist yet and will be created");
    assert!(code == 0 && made, "{code}: {text}");
    assert!(!ground.file("to").exists(), "check changes nothing");
    // Its instances would be refused for good, with a map that no frontend goes by.
    let unused = within("to/come").replace("route = {", "default_backend = \"masters\" #");
    let (code, text) = checked(&unused);
    let told = "FAIL  instance haproxy: HAProxy's configuration uses no map of the name ";
    assert!(code == 1 && text.contains(told), "{code}: {text}");
    // Nor is a HAProxy that is yet to be started compared with anything.
    let (code, text) = printed(&Mapsmith::config(&within("to/come")).cli(&["plan"]));
    assert!(code == 3 && text.contains("HAProxy started with it"), "{code}: {text}");
    assert!(!text.contains("instances"), "{text}");

    // Not even root can make a folder below a file.
    let (code, text) = checked(&within("nodes.map/haproxy"));
    let folder = ground.file("nodes.map/haproxy").display().to_string();
    let found = format!("FAIL  haproxy.folder: {folder}: can't be created: ");
    assert!(code == 1 && text.contains(&found), "{code}: {text}");
}

#[test]
fn check_finds_a_port_that_another_program_has_and_none_of_haproxys_own() {
    let ground = Ground::new(&installed()[0]);
    let other = TcpListener::bind(ground.web).expect("a port");
    let taken = |setting: &str, text: &str| {
        let address = other.local_addr().expect("an address");
        let told = format!("FAIL  haproxy ports: {setting}: {address} is taken by another program");
        text.contains(&told)
    };
    let (code, text) = checked(&ground.settings("one", ""));
    assert!(code == 1 && taken("frontend[0].bind[0]", &text), "{code}: {text}");

    for hold in ["", "hold_sockets = true\n"] {
        let ground = Ground::new(&installed()[0]);
        let settings = |more: &str| {
            let settings = ground.settings("one", more);
            settings.replace("[haproxy]\n", &format!("[haproxy]\n{hold}"))
        };
        let stored = settings("[store]\npath = \"mapsmith.db\"\n");
        let mapsmith = Mapsmith::config(&stored).start();
        mapsmith.wait_for("HAProxy answers", PATIENCE, |_| (ground.word()? == "one").then_some(()));
        let (code, text) = checked(&settings(""));
        assert!(code == 0 && !text.contains("haproxy ports"), "{code}: {text}");
        let (code, text) = printed(&mapsmith.cli(&["explain", "alpha"]));
        assert!(code == 1 && text.starts_with("there is no node map: "), "{code}: {text}");
        // What would come into force nowhere is not taken for an order.
        for (method, path, body) in [
            ("PUT", "/v1/overrides/alpha?force=true", "{\"master\": \"m1\"}"),
            ("PUT", "/v1/overrides/alpha?dry_run=true", "{\"absent\": true}"),
            ("POST", "/v1/masters/m1/drain?force=true", ""),
        ] {
            let answer = mapsmith.ask(method, path, &[], body);
            let is_told = answer.body.contains("there is no node map");
            assert!(answer.status == 404 && is_told, "{method} {path}: {}", answer.body);
        }
        let address = other.local_addr().expect("an address");
        let more = format!(
            "[[frontend]]\nname = \"more\"\nbind = [\"{address}\"]\n\
             rules = [{{ path = \"/\", return = {{ status = 200, body = \"more\" }} }}]\n"
        );
        let (code, text) = checked(&settings(&more));
        assert!(code == 1 && taken("frontend[1].bind[0]", &text), "{code}: {text}");
    }
}

#[test]
fn check_finds_an_address_that_this_machine_can_not_have() {
    let ground = Ground::new(&installed()[0]);
    for (bind, told) in [
        ("192.0.2.1:21397", "192.0.2.1:21397 is no address of this machine"),
        ("unix@/nonexistent/x.sock", "has no folder: /nonexistent is not there"),
    ] {
        let more = format!(
            "[[frontend]]\nname = \"more\"\nbind = [\"{bind}\"]\n\
             rules = [{{ path = \"/\", return = {{ status = 200, body = \"more\" }} }}]\n"
        );
        let (code, text) = checked(&ground.settings("one", &more));
        let is_told = text.contains("FAIL  haproxy ports: frontend[1].bind[0]: ");
        assert!(code == 1 && is_told && text.contains(told), "{code}: {text}");
    }
}
