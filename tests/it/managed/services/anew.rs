//! Changes of services that can't be begun with, and what outlives one that is.

use std::net::TcpStream;

use rusqlite::Connection;

use super::{Client, Mapsmith, PATIENCE, Site, free_port, register};
use crate::support::master::Master;
use crate::support::scene::newest;

/// How often the log has this.
fn times(mapsmith: &Mapsmith, part: &str) -> usize {
    mapsmith.log().matches(part).count()
}

#[test]
fn a_store_that_fails_for_a_while_ends_nothing_and_the_change_comes_once_it_is_back() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, other] = [(); 2].map(|()| free_port());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("[store]\npath = \"{}/db\"", folder.path().display());
    let mut site = Site::start(newest(), &web, port, &store);
    let others = Client::start(port, "web");

    // Whoever begins anew reads the pins: what can't be read keeps them from it.
    let database = Connection::open(folder.path().join("db")).expect("the store");
    let rename = |from: &str, to: &str| {
        let done = database.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []);
        done.expect("the table is renamed");
    };
    rename("pins", "elsewhere");
    register(&site.zookeeper, "api", &api);
    site.declare("api", &site.service("api", other));
    let (refused, retried) = ("the changed settings can't be used", "trying again in");
    site.managed.mapsmith.wait_for("the settings before are tried again", PATIENCE, |mapsmith| {
        (times(mapsmith, retried) > 1).then_some(())
    });
    assert!(!site.managed.mapsmith.has_ended(), "{}", site.managed.mapsmith.log());
    TcpStream::connect(site.managed.mapsmith.address()).expect("the API's socket is open");
    rename("elsewhere", "pins");
    site.wait_for_answer(other, "api");
    others.assert_all_answered();
    let log = site.managed.mapsmith.log();
    assert_eq!(times(&site.managed.mapsmith, refused), 1, "one change, one refusal: {log}");

    // A signal does not wait for the store.
    rename("pins", "elsewhere");
    let before = times(&site.managed.mapsmith, retried);
    site.remove("api");
    site.managed.mapsmith.wait_for("it is tried again", PATIENCE, |mapsmith| {
        (times(mapsmith, retried) > before).then_some(())
    });
    assert_eq!(site.managed.mapsmith.sigterm(), 0, "{}", site.managed.mapsmith.log());
}
