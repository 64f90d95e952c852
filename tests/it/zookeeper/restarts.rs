//! What a child was is known after a restart too, as far as that matters.

use std::fs;

use super::{Scene, address};
use crate::support::master::Master;
use crate::support::pool::settles;
use crate::support::scene::{BOUND, reload};

#[test]
fn a_child_that_holds_garbage_keeps_its_server_when_settings_change() {
    let masters = [Master::start("first"), Master::start("second")];
    let scene = Scene::new();
    for (child, master) in ["n1", "n2"].iter().zip(&masters) {
        scene.zookeeper.create(&format!("/services/web/{child}"), &address(master));
    }
    let config = scene.config("format = \"proxymgr\", path = \"/services/web\"");
    let settings = fs::read_to_string(config.path()).expect("settings");
    let settings = format!("{settings}[store]\npath = \"mapsmith.db\"\n");
    fs::write(config.path(), &settings).expect("settings can be written");
    let mut mapsmith = config.start();
    let names = masters.each_ref().map(|master| master.address().to_string());
    let both = [(&*names[0], masters[0].address()), (&*names[1], masters[1].address())];
    settles(&scene.gateway, &mapsmith, &both);
    let database = mapsmith.configuration().directory().join("mapsmith.db");
    mapsmith.wait_for("both servers are stored", BOUND, |_| {
        let store = rusqlite::Connection::open(&database).ok()?;
        let stored = store.query_row("SELECT servers FROM server_lists", [], |row| row.get(0));
        stored
            .is_ok_and(|stored: String| names.iter().all(|name| stored.contains(name)))
            .then_some(())
    });

    scene.zookeeper.set("/services/web/n2", b"{bad");
    let changed = settings.replace("verify = \"1s\"", "verify = \"2s\"");
    assert_ne!(changed, settings);
    fs::write(mapsmith.configuration().path(), changed).expect("settings can be written");
    mapsmith.hangup();
    mapsmith.wait_for("the list is read with the changed settings", BOUND, |mapsmith| {
        let goes_on = mapsmith.log().contains("going on with the changed settings");
        let backend = mapsmith.get("/v1/status").1["backends"][0].clone();
        let is_read = backend["waiting_for"].is_null() && !backend["rejected"][0].is_null();
        (goes_on && is_read).then_some(())
    });
    reload(&mapsmith);
    settles(&scene.gateway, &mapsmith, &both);
    scene.zookeeper.delete("/services/web/n2");
    settles(&scene.gateway, &mapsmith, &both[..1]);
}
