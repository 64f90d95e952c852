//! What an operator ordered of a server is in HAProxy's file: no reload and no start undoes it.

use std::fs;

use super::{Managed, PATIENCE};
use crate::support::eventually;
use crate::support::haproxy::ask;
use crate::support::master::Master;
use crate::support::run;
use crate::support::scene::{oldest_and_newest, printed};

const OUT: u8 = 0x01 | 0x08;

fn settings(masters: &[Master]) -> String {
    let server = |master: &Master| {
        format!("{{ name = \"{}\", address = \"{}\" }}", master.name(), master.address())
    };
    let servers: Vec<_> = masters.iter().map(server).collect();
    format!(
        "default_backend = \"app\"\n[store]\npath = \"mapsmith.db\"\n[[backend]]\nname = \
            \"app\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// Administrative state and weight, as `show servers state` has them.
fn seen(managed: &Managed, server: &str) -> Option<(u8, u16)> {
    let socket = format!("unix@{}", managed.ground.file("admin.sock").display());
    let table = ask(&socket, "show servers state app").ok()?;
    let mut rows = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let row = rows.find(|row| row.get(3) == Some(&server))?;
    Some((row.get(6)?.parse::<u8>().ok()? & OUT, row.get(7)?.parse().ok()?))
}

/// The same as soon as HAProxy can be asked.
fn at_first(managed: &Managed, server: &str) -> (u8, u16) {
    eventually("HAProxy can be asked", PATIENCE, || seen(managed, server))
}

fn is(managed: &Managed, server: &str, expected: (u8, u16)) {
    managed.mapsmith.wait_for(&format!("{server} is {expected:?}"), PATIENCE, |_| {
        (seen(managed, server) == Some(expected)).then_some(())
    });
}

fn done(managed: &Managed, arguments: &[&str]) {
    let (code, text) = printed(&managed.mapsmith.cli(&[&["server"][..], arguments].concat()));
    assert_eq!(code, 0, "{text}\n{}", managed.mapsmith.log());
}

/// Waits until the file has this line of a server.
fn line(managed: &Managed, server: &str, fits: impl Fn(&str) -> bool) {
    managed.mapsmith.wait_for(&format!("the file has {server} so"), PATIENCE, |_| {
        let text = fs::read_to_string(managed.ground.file("haproxy.cfg")).ok()?;
        let line = text.lines().find(|line| line.contains(&format!(" server {server} ")))?;
        fits(line).then_some(())
    });
}

#[test]
fn an_order_outlives_reloads_and_starts_of_haproxy_and_leaves_nothing_behind() {
    for binary in oldest_and_newest() {
        let masters = ["one", "two", "three"].map(Master::start);
        let more = settings(&masters);
        let mut managed = Managed::start(binary, "before", &more);
        done(&managed, &["disable", "app/one"]);
        done(&managed, &["drain", "app/two"]);
        done(&managed, &["weight", "app/two", "7"]);
        is(&managed, "one", (1, 1));
        is(&managed, "two", (8, 7));
        line(&managed, "one", |line| line.contains(" disabled"));
        line(&managed, "two", |line| line.contains(" weight 7 disabled"));

        managed.change("after", &more);
        managed.wait_for_word("after");
        managed.wait_for_state("in_force");
        assert_eq!(at_first(&managed, "one"), (1, 1));
        is(&managed, "two", (8, 7));

        let before = managed.ground.master();
        run("kill", &["-9", &before.to_string()]);
        eventually("another HAProxy serves", PATIENCE, || {
            let master = managed.status()["process"]["master_pid"].as_u64()?;
            let serves = managed.ground.word().as_deref() == Some("after");
            (serves && master != u64::from(before)).then_some(())
        });
        assert_eq!(at_first(&managed, "one"), (1, 1));
        is(&managed, "two", (8, 7));

        done(&managed, &["reset", "app/one"]);
        done(&managed, &["reset", "app/two"]);
        is(&managed, "one", (0, 1));
        is(&managed, "two", (0, 1));
        line(&managed, "one", |line| !line.contains("disabled"));
        line(&managed, "two", |line| !line.contains("disabled") && !line.contains("weight"));
        managed.change("again", &more);
        managed.wait_for_word("again");
        managed.wait_for_state("in_force");
        assert_eq!((at_first(&managed, "one"), at_first(&managed, "two")), ((0, 1), (0, 1)));
    }
}
