//! What a person did to a server by HAProxy's own commands outlives a reload, and what all servers
//! of a backend have is changed by one.

use std::fs;

use super::{Managed, PATIENCE};
use crate::support::haproxy::{ask, installed};
use crate::support::master::Master;
use crate::support::scene::newest;

/// As `show servers state` has it.
const MAINTENANCE: u8 = 0x01;
const DRAIN: u8 = 0x08;

fn backend(masters: &[Master], more: &str) -> String {
    let server = |master: &Master| {
        format!("{{ name = \"{}\", address = \"{}\" }}", master.name(), master.address())
    };
    let servers: Vec<_> = masters.iter().map(server).collect();
    format!(
        "default_backend = \"app\"\n[[backend]]\nname = \"app\"\nservers = [{}]\n{more}\n",
        servers.join(", ")
    )
}

fn command(managed: &Managed, command: &str) -> String {
    let socket = format!("unix@{}", managed.ground.file("admin.sock").display());
    ask(&socket, command).expect("the Runtime API answers")
}

/// The flags of a server's administrative state.
fn admin_state(managed: &Managed, server: &str) -> u8 {
    let table = command(managed, "show servers state app");
    let mut rows = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let row = rows.find(|row| row.get(3) == Some(&server)).expect("the server is listed");
    row[6].parse().expect("a number")
}

#[test]
fn maintenance_and_drain_of_a_person_outlive_a_reload_and_end_with_ready() {
    for binary in installed() {
        let masters = ["one", "two", "three"].map(Master::start);
        let more = backend(&masters, "");
        let mut managed = Managed::start(binary, "before", &more);
        command(&managed, "set server app/one state maint");
        command(&managed, "set server app/two state drain");
        managed.change("after", &more);
        managed.wait_for_word("after");
        assert_eq!(managed.wait_for_state("in_force")["reloads"], 1);
        let states = ["one", "two", "three"].map(|server| admin_state(&managed, server));
        assert_eq!(states, [MAINTENANCE, DRAIN, 0]);
        managed.mapsmith.wait_for("status names both", PATIENCE, |mapsmith| {
            let (_, status) = mapsmith.get("/v1/status");
            let external = status["instances"][0]["servers"]["external"].as_array()?.len();
            (external == 2).then_some(())
        });
        let answers: Vec<_> =
            (0..6).map(|_| managed.ground.get("/").expect("an answer").body).collect();
        assert!(answers.iter().all(|body| body.contains("three")), "{answers:?}");
        // A start that nobody ordered a state for begins with the settings.
        let states = fs::read_to_string(managed.ground.file("servers.state")).unwrap();
        assert_eq!(states, "1\n");
        command(&managed, "set server app/one state ready;set server app/two state ready");
        managed.change("again", &more);
        managed.wait_for_word("again");
        assert_eq!([admin_state(&managed, "one"), admin_state(&managed, "two")], [0, 0]);
    }
}

#[test]
fn maintenance_outlives_a_reload_by_hand_and_no_row_of_it_outlives_the_reload() {
    let masters = ["one", "two"].map(Master::start);
    let mut managed = Managed::start(newest(), "word", &backend(&masters, ""));
    command(&managed, "set server app/one state maint");
    let reloaded = managed.mapsmith.configuration().cli(&["haproxy", "reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_eq!(admin_state(&managed, "one"), MAINTENANCE);
    // As a Mapsmith leaves it that is killed in the midst of a reload.
    let file = managed.ground.file("servers.state");
    let table = command(&managed, "show servers state app");
    let row = table.lines().find(|line| line.contains(" one ")).expect("a row");
    managed.mapsmith.kill();
    fs::write(&file, format!("1\n{row}\n")).unwrap();
    command(&managed, "set server app/one state ready");
    managed.mapsmith.restart();
    managed.change("other", &backend(&masters, ""));
    managed.wait_for_word("other");
    assert_eq!(admin_state(&managed, "one"), 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
}

#[test]
fn an_option_of_all_servers_that_the_runtime_api_cannot_change_is_one_reload() {
    let masters = ["one"].map(Master::start);
    let mut managed = Managed::start(newest(), "word", &backend(&masters, ""));
    let file = managed.ground.file("haproxy.cfg");
    let mut change = |more: &str, line: &str, reloads: u64| {
        managed.change("word", &backend(&masters, more));
        managed.mapsmith.wait_for(&format!("{line:?} is in force"), PATIENCE, |_| {
            let status = managed.status();
            let text = fs::read_to_string(&file).ok()?;
            let server = text.lines().find(|line| line.contains(" server one "))?;
            let has_it = server.contains(line);
            (has_it && status["state"]["state"] == "in_force").then_some(())
        });
        assert_eq!(u64::from(managed.ground.reloads()), reloads, "{line}");
    };
    change("send_proxy = true", " send-proxy-v2", 1);
    change("send_proxy = true\nmaxconn = 77", " maxconn 77", 1);
}
