//! ProxyMgr: steps of desired services beside what HAProxy reports, and its listening sockets.

use std::net::{SocketAddr, TcpListener};

use super::{Listed, Row};
use crate::support::free_port;
use crate::support::http;
use crate::support::scene::{oldest_and_newest, reload};

const A: Row<'_> = ("10.0.0.1:80", "127.0.0.1:8001", &[]);
const B: Row<'_> = ("10.0.0.2:80", "127.0.0.1:8002", &[]);
const C: Row<'_> = ("10.0.0.3:80", "127.0.0.1:8003", &[]);

#[test]
fn servers_that_proxymgr_restarts_for_come_and_go_without_a_reload() {
    for binary in oldest_and_newest() {
        let listed = Listed::start(binary, "", &[A, B]);
        for (name, rows) in [
            ("unknown-server-added", &[A, B, C][..]),
            ("one-replaced-by-an-unknown", &[A, C]),
            ("port-changed", &[(A.0, "127.0.0.1:8081", &[][..]), C]),
            // The order of a list means nothing.
            ("backend-order-independent", &[C, (A.0, "127.0.0.1:8081", &[][..])]),
        ] {
            println!("{name}");
            listed.list(rows);
            listed.wait_for(rows);
        }
        assert_eq!(listed.reloads(), 0);
    }
}

#[test]
fn options_that_a_server_gets_later_are_in_force_by_one_reload() {
    for binary in oldest_and_newest() {
        let listed = Listed::start(binary, "", &[A, B]);
        listed.list(&[(A.0, A.1, &["check"]), B]);
        listed.managed.mapsmith.wait_for("it is checked", super::PATIENCE, |_| {
            let table = listed.command("show stat app 4 -1");
            let row = table.lines().find(|line| line.contains(A.0))?;
            // Nobody listens there.
            row.contains("DOWN").then_some(())
        });
        listed.managed.wait_for_state("in_force");
        assert_eq!(listed.reloads(), 1);
    }
}

#[test]
fn a_server_that_an_operator_put_in_maintenance_is_not_enabled_again() {
    for binary in oldest_and_newest() {
        // Theirs enables it at the next update.
        let listed = Listed::start(binary, "", &[A, B]);
        listed.command(&format!("disable server app/{}", B.0));
        listed.wait_for_external(B.0);
        listed.list(&[A, B, C]);
        listed.wait_for_states(&[(A.0, A.1, "READY"), (B.0, B.1, "MAINT"), (C.0, C.1, "READY")]);
        reload(&listed.managed.mapsmith);
        assert_eq!((listed.states()[B.0].1, listed.reloads()), ("MAINT", 0));
    }
}

#[test]
fn servers_that_haproxy_lost_are_there_again() {
    for binary in oldest_and_newest() {
        // Theirs looks no more at what it once wrote.
        let listed = Listed::start(binary, "", &[A, B]);
        listed.command(&format!("disable server app/{}", B.0));
        listed.command(&format!("del server app/{}", B.0));
        listed.wait_for(&[A, B]);
        assert_eq!(listed.reloads(), 0);
    }
}

#[test]
fn ports_come_and_go_with_their_frontends_and_one_that_is_busy_is_told() {
    for binary in oldest_and_newest() {
        let mut listed = Listed::start(binary, "", &[A]);
        let other = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let frontend = format!(
            "[[frontend]]\nname = \"other\"\nbind = [\"{other}\"]\n\
            rules = [{{ return = {{ status = 200, body = \"other\" }} }}]\n"
        );
        let asked = || http::request(other, "GET", "/", &[], "").map(|answer| answer.body).ok();
        listed.change("with", "", &frontend);
        assert_eq!(asked().as_deref(), Some("other"));
        listed.change("without", "", "");
        assert_eq!(asked(), None, "its socket is closed");
        // Theirs tries for six seconds and goes on without the port; here nothing changes, and it
        // is tried again until the port is free.
        let busy = TcpListener::bind(other).expect("it is free");
        let settings = super::settings(&listed.managed.ground, "again", "", &frontend);
        listed.managed.write_settings(&settings);
        listed.managed.mapsmith.hangup();
        let status = listed.managed.wait_for_state("refused").to_string();
        assert!(status.contains(&other.to_string()), "{status}");
        assert_eq!(listed.managed.ground.word().as_deref(), Some("without"));
        drop(busy);
        listed.managed.wait_for_word("again");
        assert_eq!(asked().as_deref(), Some("other"));
        listed.managed.wait_for_state("in_force");
    }
}
