//! Whatever etcd does, the last good answer stays in force, and the status says what is wrong.

use serde_json::Value;

use super::{LIST, Scene, fails, feed, json_of};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{ready, settles};
use crate::support::scene::{BOUND, entries, memory, reload};

/// A backend with two servers.
struct Two {
    scene: Scene,
    mapsmith: Mapsmith,
    masters: [Master; 2],
}

impl Two {
    fn start() -> Self {
        let masters = [Master::start("first"), Master::start("second")];
        let scene = Scene::new();
        let mapsmith = scene.config("").start();
        let two = Self { scene, mapsmith, masters };
        two.put(0);
        two.put(1);
        two.settles(&[0, 1]);
        two
    }

    fn key(&self, at: usize) -> &'static str {
        ["/services/web/n1", "/services/web/n2"][at]
    }

    fn put(&self, at: usize) {
        self.scene.etcd.put(self.key(at), &json_of(&self.masters[at]));
    }

    fn delete(&self, at: usize) {
        self.scene.etcd.delete(self.key(at));
    }

    fn settles(&self, at: &[usize]) {
        let servers: Vec<_> =
            at.iter().map(|at| (["n1", "n2"][*at], self.masters[*at].address())).collect();
        settles(&self.scene.gateway, &self.mapsmith, &servers);
    }

    /// Both feeds fail with these words, and nothing changes.
    fn keeps(&self, words: &str) {
        fails(&self.mapsmith, "etcd", words);
        fails(&self.mapsmith, LIST, words);
        self.settles(&[0, 1]);
        assert_eq!(memory(&self.scene.gateway), entries(&[("node1", "app")]));
        assert_eq!(self.scene.answering(4), ["first", "second"]);
    }

    fn backend(&self) -> Value {
        self.mapsmith.get("/v1/status").1["backends"][0].clone()
    }
}

#[test]
fn an_etcd_that_is_killed_takes_nothing_away_and_is_followed_again_once_it_is_back() {
    let mut two = Two::start();
    two.scene.etcd.kill();
    two.keeps("refused");
    // A start while etcd is away goes on from the store and the map file.
    two.mapsmith.restart();
    two.keeps("can't be reached");

    two.scene.etcd.restart();
    two.delete(0);
    two.settles(&[1]);
    // What changes later is seen by itself again.
    two.put(0);
    two.settles(&[0, 1]);
    assert_eq!(feed(&two.mapsmith, LIST)["watch"], "watched");
}

#[test]
fn what_changed_and_was_compacted_while_nobody_listened_is_read() {
    let mut two = Two::start();
    two.mapsmith.signal("STOP");
    // Its watch is gone, and so is every revision that it knows.
    two.scene.etcd.kill();
    two.scene.etcd.restart();
    two.delete(0);
    for number in 0..5 {
        two.scene.etcd.put("/elsewhere", &number.to_string());
    }
    two.scene.etcd.compact(two.scene.etcd.revision());
    two.mapsmith.signal("CONT");
    two.settles(&[1]);
    two.put(0);
    two.settles(&[0, 1]);
}

#[test]
fn an_etcd_that_lost_its_data_is_told_and_taken_only_once_an_operator_reloads() {
    let two = Two::start();
    two.scene.etcd.restart_empty();
    two.keeps("mapsmith reload");
    // It is as it was again, but for one server: that may be wrong, and is not taken by itself.
    two.scene.etcd.put("/mapsmith/nodes/node1", "app");
    two.put(1);
    reload(&two.mapsmith);
    two.settles(&[1]);
    two.put(0);
    two.settles(&[0, 1]);
}

#[test]
fn an_etcd_that_hangs_or_has_no_leader_is_no_empty_list() {
    let two = Two::start();
    two.scene.etcd.signal("STOP");
    two.mapsmith.post("/v1/reload");
    two.keeps("gave no answer within");
    two.scene.etcd.signal("CONT");
    two.delete(0);
    two.settles(&[1]);
    two.put(0);
    two.settles(&[0, 1]);
    // A second member that never comes: one of two is no quorum.
    two.scene.etcd.ctl(&["member", "add", "absent", "--peer-urls=http://127.0.0.1:1"]);
    two.keeps("have no leader");
}

#[test]
fn a_value_that_is_garbage_keeps_its_server_and_the_others_go_on() {
    let two = Two::start();
    two.scene.etcd.put(two.key(0), "{\"address\": \"127.0.");
    let row = two.mapsmith.wait_for("the key is rejected", BOUND, |_| {
        two.backend()["rejected"][0].as_object().cloned()
    });
    assert_eq!(
        (row["place"].as_str(), row["reason"].as_str()),
        (Some("key \"n1\""), Some("does not hold JSON")),
        "{row:#?}"
    );
    two.settles(&[0, 1]);
    // One that never was good is no server, and the good ones come and go.
    two.scene.etcd.put("/services/web/n3", "7");
    two.delete(1);
    two.settles(&[0]);
    two.put(1);
    two.delete(0);
    two.settles(&[1]);
}

#[test]
fn a_list_that_is_empty_all_at_once_is_held() {
    let two = Two::start();
    two.scene.etcd.delete_all("/services/web/");
    let held = two.mapsmith.wait_for("the empty list is held", BOUND, |_| {
        two.backend()["held"]["reason"].as_str().map(str::to_owned)
    });
    assert!(held.contains("0 servers"), "{held}");
    assert_eq!(ready(&two.scene.gateway).len(), 2);
    two.settles(&[0, 1]);
}
