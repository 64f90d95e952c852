//! Sockets that Mapsmith holds for HAProxy.

use std::net::TcpStream;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::{eventually, run};

#[test]
fn nobody_is_refused_while_a_killed_haproxy_is_started_again_before_and_after_a_restart() {
    for binary in installed() {
        let ground = Ground::new(binary);
        let config = Mapsmith::config(&ground.settings("one", ""))
            .variable("MAPSMITH__HAPROXY__HOLD_SOCKETS", "true");
        let mut managed = Managed { mapsmith: config.start(), ground };
        managed.wait_for_state("in_force");
        managed.ground.wait_for_word("one");
        for _ in 0..2 {
            let before = managed.ground.master();
            run("kill", &["-9", &before.to_string()]);
            // The kernel takes connections for whoever comes.
            let mut connected = 0;
            eventually("HAProxy is started again", PATIENCE, || {
                TcpStream::connect(managed.ground.web).expect("not refused");
                connected += 1;
                let status = managed.status();
                let master = status["process"]["master_pid"].as_u64()?;
                (master != u64::from(before)).then_some(())
            });
            assert!(connected > 1);
            managed.ground.wait_for_word("one");
            managed.wait_for_state("in_force");
            managed.mapsmith.restart();
            managed.wait_for_state("in_force");
        }
        // It is reloaded with the same sockets.
        managed.change("two", "");
        managed.ground.wait_for_word("two");
    }
}
