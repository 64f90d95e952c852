//! Whoever dies: traffic goes on wherever HAProxy lives, and all comes together again.

use super::{Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::{eventually, run};

fn kill(pid: u32) {
    run("kill", &["-9", &pid.to_string()]);
}

#[test]
fn haproxy_outlives_mapsmith_and_is_found_again_without_a_reload() {
    for binary in installed() {
        let mut managed = Managed::start(binary, "one", "");
        let master = managed.ground.master();
        for end in ["TERM", "KILL"] {
            managed.mapsmith.signal(end);
            managed.mapsmith.wait();
            assert_eq!(managed.ground.word().as_deref(), Some("one"), "after SIG{end}");
            managed.mapsmith.restart();
            let status = managed.wait_for_state("in_force");
            assert_eq!(status["reloads"], 0, "{status}");
            assert_eq!(status["starts"], 0, "{status}");
            assert_eq!(managed.ground.master(), master);
        }
    }
}

#[test]
fn what_changed_while_mapsmith_was_away_is_loaded_when_it_is_back() {
    let mut managed = Managed::start(&installed()[0], "one", "");
    managed.mapsmith.kill();
    managed.write("two", "");
    managed.mapsmith.restart();
    managed.ground.wait_for_word("two");
    assert_eq!(managed.wait_for_state("in_force")["reloads"], 1);
}

#[test]
fn a_haproxy_whose_master_or_worker_is_killed_is_started_again() {
    for binary in installed() {
        let managed = Managed::start(binary, "one", "");
        for victim in ["master", "worker"] {
            let before = managed.ground.master();
            let pid = match victim {
                "master" => u64::from(before),
                _ => managed.status()["process"]["workers"][0]["pid"].as_u64().expect("a worker"),
            };
            kill(pid.try_into().expect("a pid"));
            eventually(
                &format!("another master serves after the {victim}'s end"),
                PATIENCE,
                || {
                    let serves = managed.ground.word().as_deref() == Some("one");
                    let status = managed.status();
                    let master = status["process"]["master_pid"].as_u64()?;
                    (serves && master != u64::from(before)).then_some(())
                },
            );
        }
        assert!(managed.wait_for_state("in_force")["starts"].as_u64() >= Some(2));
    }
}
