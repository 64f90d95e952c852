//! When a server can be removed, and what it still does before that.

use std::time::Duration;

use haproxy_runtime::{Refusal, ServerCommand, ServerState};
use mapsmith_core::server::AdminState;

use super::{BOUND, HeldMaster, Scene, Stream, at, delete, every_version, set_state};
use crate::support::eventually;
use crate::support::haproxy::installed;

#[test]
fn a_server_is_removed_in_maintenance_when_no_connection_is_left() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = HeldMaster::start();
        let sections =
            format!("backend b\n    balance roundrobin\n    server s1 {}\n", master.address());
        let scene = Scene::start(binary, &sections);
        let mut node = Stream::client(&scene.gateway);
        node.ask();
        let mut begun = master.request();
        assert_eq!(scene.server("b", "s1").sessions, 1);

        assert_eq!(scene.one(set_state("b", "s1", ServerState::Drain)), Ok(()));
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::NotInMaintenance));
        assert_eq!(scene.one(set_state("b", "s1", ServerState::Maintenance)), Ok(()));
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::ConnectionsLeft));
        let waited = scene.wait(&at("b", "s1"), Duration::from_millis(10)).unwrap();
        let too_old = scene.version() < (3, 0);
        assert_eq!(waited, if too_old { Err(Refusal::UnknownCommand) } else { Ok(false) });

        // Requests in flight end well, in maintenance too.
        begun.answer();
        assert_eq!(node.read_head(), "HTTP/1.1 200 OK");
        if too_old {
            // A trap: a connection that goes idle in maintenance stays for seconds
            // (`pool-purge-delay`) and keeps the server. Entering maintenance once more closes it.
            let states = [ServerState::Drain, ServerState::Maintenance]
                .map(|state| set_state("b", "s1", state));
            eventually("it is removed", BOUND, || {
                assert!(scene.run(&states).iter().all(Result::is_ok));
                scene.one(delete("b", "s1")).ok()
            });
        } else {
            assert_eq!(scene.wait(&at("b", "s1"), BOUND).unwrap(), Ok(true));
            assert_eq!(scene.one(delete("b", "s1")), Ok(()));
        }
        assert!(scene.observe()["b"].servers.is_empty());
    }
}

#[test]
fn shutdown_sessions_cuts_what_a_server_still_does() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = HeldMaster::start();
        let sections =
            format!("backend b\n    balance roundrobin\n    server s1 {}\n", master.address());
        let scene = Scene::start(binary, &sections);
        let mut node = Stream::client(&scene.gateway);
        node.ask();
        let _begun = master.request();
        assert_eq!(scene.one(set_state("b", "s1", ServerState::Maintenance)), Ok(()));
        assert_eq!(scene.one(ServerCommand::ShutdownSessions { at: at("b", "s1") }), Ok(()));
        assert_ne!(node.read_head(), "HTTP/1.1 200 OK");
        eventually("it is removed", BOUND, || scene.one(delete("b", "s1")).ok());
        assert_eq!(
            scene.one(ServerCommand::ShutdownSessions { at: at("b", "s1") }),
            Err(Refusal::NoSuchServer)
        );
    }
}

#[test]
fn a_server_that_the_configuration_names_is_not_removed_at_runtime() {
    let sections = "backend b\n    use-server s1 if { path /x }\n    use-server %[path] if \
        { path /y }\n    server s1 127.0.0.1:1 check inter 1h\n    \
        server s2 127.0.0.1:1\n    server s3 127.0.0.1:1 track c/s1\nbackend c\n    server s1 \
        127.0.0.1:1 check inter 1h\n";
    every_version(sections, |scene| {
        for (backend, server) in [("b", "s1"), ("b", "s2"), ("c", "s1")] {
            assert_eq!(scene.one(set_state(backend, server, ServerState::Maintenance)), Ok(()));
        }
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::Referenced));
        assert_eq!(
            scene.one(delete("c", "s1")),
            Err(Refusal::Referenced),
            "another server tracks it"
        );
        assert_eq!(
            scene.one(delete("b", "s2")),
            Ok(()),
            "a server of the configuration goes as well as an added one"
        );
        let tracking = scene.server("b", "s3");
        assert_eq!(tracking.admin, AdminState(AdminState::INHERITED_MAINTENANCE));
        assert_eq!(tracking.status, "MAINT (via c/s1)");
        if scene.version() >= (3, 0) {
            let waited = scene.wait(&at("b", "s1"), BOUND).unwrap();
            assert!(
                matches!(waited, Err(Refusal::Referenced | Refusal::Other { .. })),
                "told at once: {waited:?}"
            );
        }
    });
}
