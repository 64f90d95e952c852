//! Where a list comes from: the settings, a file, the masters of the map.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{LISTED, QUICK, Scene, backend, gauge, has, list, servers};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{
    BOUND, ON_REQUEST, file_source_settings, gateway_settings, in_sync, printed, reload,
    source_settings,
};

const WRITTEN: &str = r#"
[[backend]]
name = "puppet"
options = ["check"]
servers = [
  { name = "m1", address = "127.0.0.1:8141", weight = 100, options = ["maxconn 1000"] },
  { name = "m2", address = "localhost:8142", backup = true },
  { name = "m1", address = "127.0.0.1:8143" },
  { name = "m3", address = "127.0.0.300:8144" },
]
"#;

#[test]
fn a_mistake_in_a_written_list_is_told_by_place_and_the_rest_goes_on() {
    let scene = Scene::new();
    let config = scene.config(&format!("{QUICK}{WRITTEN}"));
    let (code, text) = printed(&config.cli(&["check"]));
    assert_eq!(code, 1, "{text}");
    for part in [
        "backend puppet: 2 servers from settings; rejected: ",
        "servers[2] \"m1\": ",
        "servers[3] \"m3\": ",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }

    let mapsmith = config.start();
    in_sync(&mapsmith);
    has(&mapsmith, 2);
    // What `localhost` is differs from machine to machine; its port does not.
    let servers = servers(&mapsmith);
    assert!(servers[0] == "m1 127.0.0.1 8141" && servers[1].ends_with(" 8142"), "{servers:?}");
    let backend = backend(&mapsmith);
    assert_eq!(
        (&backend["from"], &backend["held"]),
        (&json!("settings"), &Value::Null),
        "{backend:#}"
    );
    let options = |number: usize| backend["servers"][number]["options"].clone();
    assert_eq!(
        (&options(0)["check"], &options(0)["maxconn"]),
        (&json!(false), &json!(1000)),
        "{backend:#}"
    );
    assert_eq!(
        (&options(1)["check"], &backend["servers"][1]["backup"]),
        (&json!(true), &json!(true)),
        "{backend:#}"
    );
    let mut places: Vec<_> =
        backend["rejected"].as_array().unwrap().iter().map(|row| row["place"].clone()).collect();
    places.sort_by_key(Value::to_string);
    assert_eq!(places, [json!("servers[2] \"m1\""), json!("servers[3] \"m3\"")]);
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_rejected_servers"), Some(2.0));
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_servers"), Some(2.0));
    let log = mapsmith.log();
    assert!(log.contains("rejected in the server list") && log.contains("127.0.0.300"), "{log}");
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    assert!(
        code == 0
            && text.contains("puppet  2 servers from settings")
            && text.contains("rejected: servers[2] \"m1\""),
        "{text}"
    );
}

#[test]
fn a_list_in_a_file_is_followed_as_it_is_replaced() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let replace = |text: &str| replace(&path, text);
    replace(&list(3).to_string());
    let sources =
        source_settings("registry", &scene.nodes.url()) + &file_source_settings("consul", &path);
    let settings =
        format!("{ON_REQUEST}{}{sources}{QUICK}{LISTED}", gateway_settings(&scene.gateway));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    has(&mapsmith, 3);
    replace(&list(5).to_string());
    has(&mapsmith, 5);
    // With an address changed and half of a file, which is no answer.
    replace(&list(5).to_string().replace("10.0.0.2", "10.0.9.9"));
    mapsmith.wait_for("the new address", BOUND, |mapsmith| {
        (servers(mapsmith)[1] == "s01 10.0.9.9 8140").then_some(())
    });
    replace("[{\"name\": \"s00\", \"addr");
    mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        let sources = mapsmith.get("/v1/status").1["sources"].clone();
        sources[1]["error"].as_str().is_some_and(|error| error.contains("cut off")).then_some(())
    });
    assert_eq!(servers(&mapsmith).len(), 5);
}

/// As a careful writer does it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the folder can be written");
    fs::rename(new, path).expect("the file can be replaced");
}

#[test]
fn the_masters_of_the_map_are_servers_at_the_registrys_name_of_them() {
    let scene = Scene::new();
    scene.nodes.answers(
        200,
        r#"{"n1": "localhost", "n2": "localhost", "n3": "127.0.0.7", "n4": "nowhere.invalid"}"#,
    );
    let source = source_settings("registry", &scene.nodes.url())
        + "[source.masters]\nlocalhost = \"master1\"\n";
    let masters = "[[backend]]\nname = \"puppet\"\nmasters = \"{producer}:8140\"\n";
    let settings =
        format!("{ON_REQUEST}{}{source}{QUICK}{masters}", gateway_settings(&scene.gateway));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    has(&mapsmith, 2);
    let names: Vec<_> = servers(&mapsmith)
        .iter()
        .map(|server| server.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["127.0.0.7", "master1"]);
    let rejected = backend(&mapsmith)["rejected"].clone();
    assert_eq!(rejected[0]["place"], "server \"nowhere.invalid\"");
    assert!(
        rejected[0]["reason"].as_str().is_some_and(|reason| reason.contains("never resolved")),
        "{rejected}"
    );

    // A master that comes is a server at once, whatever its name on the way.
    scene.nodes.answers(200, r#"{"n1": "localhost", "n3": "127.0.0.7", "n4": "127.0.0.8"}"#);
    reload(&mapsmith);
    has(&mapsmith, 3);
    assert_eq!(backend(&mapsmith)["rejected"], json!([]));
}

#[test]
fn a_check_names_what_is_wrong_with_the_lists_of_sources() {
    let scene = Scene::new();
    let config = scene.config(LISTED);
    let check = || {
        let (_, text) = printed(&config.cli(&["check"]));
        text.lines()
            .find(|line| line.contains("  backend puppet: "))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    assert!(
        check().starts_with("ok ") && check().contains("3 servers from source consul"),
        "{}",
        check()
    );
    scene.servers.answers(200, r#"[{"address": "10.0.0.1:1"}, {"address": "10.0.0.1"}]"#);
    let line = check();
    assert!(line.starts_with("FAIL") && line.contains("row 2: \"10.0.0.1\" has no port"), "{line}");
    scene.servers.answers(200, "[]");
    assert!(check().contains("the guard would hold its list back"), "{}", check());
    scene.servers.answers(500, "down");
    assert!(check().contains("not known without a first answer of source consul"), "{}", check());
}
