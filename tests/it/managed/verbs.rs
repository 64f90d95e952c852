//! `mapsmith haproxy` beside a Mapsmith that runs.

use std::io::Write;
use std::net::TcpStream;
use std::process::Output;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::{BINARY, Mapsmith};
use crate::support::process::{Ending, Process};
use crate::support::scene::oldest_and_newest;

fn holding(ground: Ground) -> Managed {
    let config = Mapsmith::config(&ground.settings("one", ""))
        .variable("MAPSMITH__HAPROXY__HOLD_SOCKETS", "true");
    let managed = Managed { mapsmith: config.start(), ground };
    managed.wait_for_state("in_force");
    managed
}

fn verb(managed: &Managed, arguments: &[&str]) -> Output {
    let arguments: Vec<_> = ["haproxy"].iter().chain(arguments).copied().collect();
    let output = managed.mapsmith.configuration().cli(&arguments);
    assert!(output.status.success(), "{output:?}\n{}", managed.mapsmith.log());
    output
}

#[test]
fn a_restart_is_one_and_nobody_is_refused_meanwhile() {
    for binary in installed() {
        let managed = holding(Ground::new(binary));
        for _ in 0..2 {
            let before = managed.ground.master();
            verb(&managed, &["restart", "--grace", "1s"]);
            assert_ne!(managed.ground.master(), before);
            managed.ground.wait_for_word("one");
            managed.wait_for_state("in_force");
        }
        assert!(!managed.mapsmith.log().contains("ended by itself"), "{}", managed.mapsmith.log());
        // The process has no sockets of its own: changes are loaded by it as before.
        assert_eq!(managed.reloads(), 0, "{}", managed.status());
    }
}

#[test]
fn what_was_stopped_stays_so_whatever_changes_until_it_is_started() {
    let mut managed = holding(Ground::new(&installed()[0]));
    verb(&managed, &["stop", "--grace", "0s"]);
    managed.wait_for_state("stopped");
    managed.change("two", "");
    managed.mapsmith.wait_for("the settings are read", PATIENCE, |mapsmith| {
        mapsmith.log().contains("going on with the changed settings").then_some(())
    });
    managed.wait_for_state("stopped");
    assert!(TcpStream::connect(managed.ground.web).is_err(), "nobody listens");
    verb(&managed, &["start"]);
    managed.ground.wait_for_word("two");
    managed.wait_for_state("in_force");
}

#[test]
fn a_stop_that_is_called_off_by_a_start_leaves_haproxy_listening() {
    for binary in oldest_and_newest() {
        let managed = Managed::start(binary, "one", "");
        // A request that is never finished keeps it from ending.
        let mut held = TcpStream::connect(managed.ground.web).expect("it listens");
        held.write_all(b"GET / HTTP/1.1\r\n").expect("it reads");
        let path = managed.mapsmith.configuration().path().display().to_string();
        let mut stop = Process::start(
            &[BINARY, "haproxy", "stop", "--grace", "10m", "-c", &path],
            &managed.ground.file("stop.log"),
            Ending::default(),
        );
        managed.wait_for_state("stopped");
        managed.mapsmith.wait_for("nobody listens any more", PATIENCE, |_| {
            TcpStream::connect(managed.ground.web).is_err().then_some(())
        });
        stop.kill();
        verb(&managed, &["start"]);
        assert_eq!(managed.ground.word().as_deref(), Some("one"));
        managed.wait_for_state("in_force");
        drop(held);
    }
}
