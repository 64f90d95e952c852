//! Who lists a backend's servers changes: what the new one says is a change of the list in force.

use std::fs;

use serde_json::{Value, json};

use super::{LISTED, QUICK, Scene, backend, has, list, servers};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, in_sync, printed};

const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";

/// How many servers are written out.
const WRITTEN: usize = 25;

/// The backend with its servers written out, as a registry would list them.
fn written() -> String {
    let servers = list(WRITTEN);
    let rows = servers.as_array().into_iter().flatten().map(|row| {
        format!("{{ name = {}, address = \"{}:8140\" }}", row["name"], text(&row["address"]))
    });
    let rows: Vec<_> = rows.collect();
    format!("[[backend]]\nname = \"puppet\"\nservers = [{}]\n", rows.join(", "))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Changes the settings of one that runs.
fn change(mapsmith: &mut Mapsmith, settings: &str) {
    fs::write(mapsmith.configuration().path(), settings).expect("settings can be written");
    mapsmith.hangup();
}

/// Waits until the list of this origin is held, and nothing of it is in force.
fn held(mapsmith: &Mapsmith, origin: &str) {
    mapsmith.wait_for(&format!("the list of {origin} is held"), BOUND, |mapsmith| {
        let status = backend(mapsmith);
        (status["from"] == origin && !status["held"].is_null()).then_some(())
    });
    assert_eq!(servers(mapsmith).len(), WRITTEN, "{:#}", backend(mapsmith));
}

#[test]
fn a_registry_that_takes_written_out_servers_over_is_foreseen_and_its_short_list_held() {
    let scene = Scene::new();
    let listed = format!("{QUICK}{LISTED}manage = \"all\"\n{STORE}");
    let listed = fs::read_to_string(scene.config(&listed).path()).expect("settings");
    let config = scene.config(&format!("{QUICK}{}manage = \"all\"\n{STORE}", written()));
    let mut mapsmith = config.start();
    in_sync(&mapsmith);
    has(&mapsmith, WRITTEN);
    let database = mapsmith.configuration().directory().join("mapsmith.db");
    mapsmith.wait_for("the list is stored", BOUND, |_| {
        let store = rusqlite::Connection::open(&database).ok()?;
        let stored = store.query_row("SELECT servers FROM server_lists", [], |row| row.get(0));
        stored.is_ok_and(|stored: String| stored.contains("s24")).then_some(())
    });

    scene.servers.answers(200, &list(1).to_string());
    fs::write(mapsmith.configuration().path(), &listed).expect("settings can be written");
    let (code, planned) = printed(&mapsmith.configuration().cli(&["plan"]));
    let change_of = "puppet:  25 -> 1 server:  0 added, 0 changed, 24 removed\n";
    let foreseen = planned.contains(change_of) && planned.contains("    - s01\n");
    assert!(code == 4 && foreseen && planned.contains("would hold this back"), "{code}: {planned}");
    let (_, planned) = printed(&mapsmith.configuration().cli(&["--output", "json", "plan"]));
    let planned: Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!(planned["backends"][0]["removed"].as_array().map(Vec::len), Some(24));
    let (code, checked) = printed(&mapsmith.configuration().cli(&["check"]));
    let finding = "FAIL  backend puppet: the guard would hold its list back (0 added, 0 changed, \
        24 removed, of the 25 in force): ";
    assert!(code == 1 && checked.contains(finding), "{code}: {checked}");

    mapsmith.hangup();
    held(&mapsmith, "source consul");
    // A source that is called otherwise by now is no other case.
    change(&mut mapsmith, &listed.replace("\"consul\"", "\"zoo\""));
    held(&mapsmith, "source zoo");
    // What settings write out is an order.
    let config = scene.config(&format!("{QUICK}{}manage = \"all\"\n{STORE}", written()));
    let few = fs::read_to_string(config.path()).expect("settings").replace(
        &written(),
        "[[backend]]\nname = \"puppet\"\nservers = [{ name = \"s00\", address = \"10.0.0.1:8140\" }]\n",
    );
    change(&mut mapsmith, &few);
    has(&mapsmith, 1);
    assert_eq!(mapsmith.get("/v1/held").1, json!([]));
}
