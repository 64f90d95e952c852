//! What a load balancer in front of the gateway is answered.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Ground, Managed, PATIENCE};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{newest, oldest_and_newest};
use crate::support::{eventually, free_port, http};

fn status(address: SocketAddr) -> Option<u16> {
    http::request(address, "GET", "/", &[], "").ok().map(|response| response.status)
}

#[test]
fn the_health_check_is_good_from_the_first_map_and_lists_on_until_haproxy_is_stopped() {
    for binary in oldest_and_newest() {
        let ground = Ground::new(binary);
        let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let list = ground.file("app.json");
        // The list that a backend waits for is not there yet.
        let more = format!(
            "default_backend = \"app\"\n[[source]]\nname = \"app\"\ntype = \"file\"\n\
            path = \"{}\"\n[[backend]]\nname = \"app\"\nfrom = \"app\"\n",
            list.display()
        );
        let settings = ground
            .settings("word", &more)
            .replace("[haproxy]\n", &format!("[haproxy]\nhealth = \"{health}\"\n"));
        let mapsmith = Mapsmith::config(&settings).start();
        let mut managed = Managed { mapsmith, ground };
        managed.wait_for_word("word");
        assert_eq!(status(health), Some(503), "no list is known yet");
        fs::write(&list, r#"[{"name": "one", "address": "127.0.0.1:9"}]"#).unwrap();
        managed.mapsmith.wait_for("the gateway is ready", PATIENCE, |_| {
            (status(health) == Some(200)).then_some(())
        });
        // Changed settings are loaded, and nobody is turned away meanwhile.
        let watched = AtomicBool::new(true);
        let seen = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while watched.load(Ordering::Relaxed) {
                    seen.insert(status(health));
                }
                seen
            });
            let changed = fs::read_to_string(managed.mapsmith.configuration().path()).unwrap();
            let changed = changed.replace("body = \"word\"", "body = \"other\"");
            fs::write(managed.mapsmith.configuration().path(), changed).unwrap();
            managed.mapsmith.hangup();
            managed.wait_for_word("other");
            managed.wait_for_state("in_force");
            watched.store(false, Ordering::Relaxed);
            watch.join().unwrap()
        });
        assert_eq!(seen, [Some(200)].into());
        let config = managed.mapsmith.configuration();
        let stopping = thread::scope(|scope| {
            let stop = scope.spawn(|| config.cli(&["haproxy", "stop", "--grace", "2s"]));
            eventually("the health check says that it is being stopped", PATIENCE, || {
                (status(health) == Some(503)).then_some(())
            });
            // All is served meanwhile.
            assert_eq!(managed.ground.word().as_deref(), Some("other"));
            stop.join().unwrap()
        });
        assert!(stopping.status.success(), "{stopping:?}");
        assert_eq!(status(health), None, "nobody listens any more");
        managed.wait_for_state("stopped");
        let started = managed.mapsmith.configuration().cli(&["haproxy", "start"]);
        assert!(started.status.success(), "{started:?}");
        managed.mapsmith.wait_for("the gateway is ready again", PATIENCE, |_| {
            (status(health) == Some(200)).then_some(())
        });
        managed.wait_for_state("in_force");
    }
}

/// A mistake in the settings takes no gateway out that works.
#[test]
fn the_health_check_is_good_after_a_start_of_haproxy_though_changed_settings_are_refused() {
    let ground = Ground::new(newest());
    let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = ground
        .settings("word", "")
        .replace("[haproxy]\n", &format!("[haproxy]\nhealth = \"{health}\"\n"));
    let mapsmith = Mapsmith::config(&settings).start();
    let mut managed = Managed { mapsmith, ground };
    managed.wait_for_state("in_force");
    managed
        .write_settings(&settings.replace("[haproxy]\n", "[haproxy]\nglobal = [\"bogus line\"]\n"));
    managed.mapsmith.hangup();
    managed.wait_for_state("refused");
    let master = managed.ground.master();
    let restarted = managed.mapsmith.configuration().cli(&["haproxy", "restart", "--grace", "0s"]);
    assert!(restarted.status.success(), "{restarted:?}");
    assert_ne!(managed.ground.master(), master);
    managed.mapsmith.wait_for("the gateway is ready", PATIENCE, |_| {
        (status(health) == Some(200)).then_some(())
    });
    assert_eq!(managed.status()["state"]["state"], "refused");
}
