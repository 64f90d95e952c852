//! Servers that come, go and move all the time: the file follows each change, and HAProxy is not
//! reloaded once. Forty changes on the newest HAProxy; a thousand on each with
//! `MAPSMITH_TEST_LONG`.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use serde_json::json;

use super::{Managed, PATIENCE};
use crate::support::free_port;
use crate::support::haproxy::{ask, installed};
use crate::support::http;
use crate::support::scene::newest;

/// Of the list, at most.
const MOST: usize = 12;

/// The list after so many changes: each adds a server, takes one away, or moves one to another
/// address.
fn change(list: &mut BTreeMap<String, u16>, number: usize) {
    let some = list.keys().nth(number % list.len().max(1)).cloned();
    match (number % 3, some) {
        (1, Some(name)) if list.len() > MOST / 2 => _ = list.remove(&name),
        (2, Some(name)) => _ = list.insert(name, port_of(number)),
        _ if list.len() < MOST => _ = list.insert(format!("s{number}"), port_of(number)),
        (_, Some(name)) => _ = list.remove(&name),
        (_, None) => {}
    }
}

/// Nothing need listen there.
fn port_of(number: usize) -> u16 {
    u16::try_from(20_000 + number % 10_000).expect("a port")
}

/// The servers of the file.
fn in_file(text: &str) -> BTreeMap<String, u16> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter_map(|words| match words.as_slice() {
            ["server", name, address, ..] => Some(((*name).to_owned(), port(address)?)),
            _ => None,
        })
        .collect()
}

fn port(address: &str) -> Option<u16> {
    address.trim_matches('\'').rsplit_once(':')?.1.parse().ok()
}

/// The servers that HAProxy has, ready.
fn in_haproxy(socket: &str) -> BTreeMap<String, u16> {
    let table = ask(socket, "show servers state app").unwrap_or_default();
    let rows = table.lines().skip(2).map(|line| line.split(' ').collect::<Vec<_>>());
    rows.filter(|row| row.get(6) == Some(&"0"))
        .filter_map(|row| Some(((*row.get(3)?).to_owned(), row.get(18)?.parse().ok()?)))
        .collect()
}

#[test]
fn changes_of_servers_write_the_file_each_time_and_never_reload() {
    let long = std::env::var_os("MAPSMITH_TEST_LONG").is_some();
    let (changes, binaries) = match long {
        true => (1000, installed().iter().collect()),
        false => (40, vec![newest()]),
    };
    for binary in binaries {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("app.json");
        let write = |list: &BTreeMap<String, u16>| {
            let rows: Vec<_> = list
                .iter()
                .map(|(name, port)| json!({"name": name, "address": format!("127.0.0.1:{port}")}))
                .collect();
            // As a whole: half a list would be another change.
            let new = folder.path().join("new");
            fs::write(&new, json!(rows).to_string()).expect("the list can be written");
            fs::rename(&new, &file).expect("the list can be replaced");
        };
        let mut list = BTreeMap::new();
        change(&mut list, 0);
        write(&list);
        let backend = format!(
            "default_backend = \"app\"\n[[source]]\nname = \"app\"\ntype = \"file\"\n\
            path = {file:?}\n[[backend]]\nname = \"app\"\nfrom = \"app\"\ndrain = \"0s\"\n\
            [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n\
            max_removed = \"100%\"\n"
        );
        let mut managed = Managed::start(binary, "word", &backend);
        let config = managed.ground.file("haproxy.cfg");
        let socket = format!("unix@{}", managed.ground.file("admin.sock").display());
        for number in 1..=changes {
            let before = list.clone();
            change(&mut list, number);
            assert_ne!(list, before);
            write(&list);
            // A watched file is read once a second.
            managed.mapsmith.post("/v1/reload");
            managed.mapsmith.wait_for("file and HAProxy have the list", PATIENCE, |_| {
                let text = fs::read_to_string(&config).ok()?;
                let mut there = in_haproxy(&socket);
                if number % 10 != 0 {
                    // A server that is to go takes some looks until it is gone.
                    there.retain(|name, _| list.contains_key(name));
                }
                (in_file(&text) == list && there == list).then_some(())
            });
        }
        assert_eq!((managed.reloads(), managed.ground.reloads()), (0, 0));
        // What the Runtime API can't do is one reload, and brings the same servers.
        let other = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let frontend = format!(
            "{backend}[[frontend]]\nname = \"other\"\nbind = [\"{other}\"]\n\
            rules = [{{ return = {{ status = 200, body = \"other\" }} }}]\n"
        );
        managed.change("word", &frontend);
        managed.mapsmith.wait_for("the new frontend serves", PATIENCE, |_| {
            let answer = http::request(other, "GET", "/", &[], "").ok()?;
            (answer.body == "other").then_some(())
        });
        let status = managed.wait_for_state("in_force");
        assert_eq!((&status["reloads"], managed.ground.reloads()), (&json!(1), 1), "{status}");
        assert_eq!(in_haproxy(&socket), list);
    }
}
