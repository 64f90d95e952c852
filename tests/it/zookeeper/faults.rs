//! Whatever ZooKeeper does, the last good answer stays in force, and the status says what is wrong.

use serde_json::Value;

use super::{Scene, address};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{list, ready, settles};
use crate::support::scene::{BOUND, reload};

const WEB: &str = "format = \"proxymgr\", path = \"/services/web\"";

/// A backend with two servers, and what they are called.
struct Two {
    scene: Scene,
    mapsmith: Mapsmith,
    masters: [Master; 2],
}

impl Two {
    fn start() -> Self {
        let masters = [Master::start("first"), Master::start("second")];
        let scene = Scene::new();
        for (child, master) in ["n1", "n2"].iter().zip(&masters) {
            scene.zookeeper.create(&format!("/services/web/{child}"), &address(master));
        }
        let mapsmith = scene.config(WEB).start();
        let two = Self { scene, mapsmith, masters };
        two.settles(&[0, 1]);
        two
    }

    fn settles(&self, masters: &[usize]) {
        let at = masters.iter().map(|master| self.masters[*master].address());
        let names: Vec<_> = at.clone().map(|address| address.to_string()).collect();
        let servers: Vec<_> = names.iter().map(String::as_str).zip(at).collect();
        settles(&self.scene.gateway, &self.mapsmith, &servers);
    }

    /// Asks for a poll, which must fail with these words for the server list, and change nothing.
    fn keeps(&self, words: &[&str]) {
        let before = ready(&self.scene.gateway);
        let (status, problem) = self.mapsmith.post("/v1/reload?wait=30s");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!(status, 502, "{problem:#}");
        for word in words {
            assert!(detail.contains(word), "{word:?} is not in {detail}");
        }
        assert_eq!(ready(&self.scene.gateway), before);
        assert_eq!(self.scene.answering(4), ["first", "second"]);
    }
}

fn backend(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/status").1["backends"][0].clone()
}

#[test]
fn a_zookeeper_that_is_killed_takes_nothing_away_and_is_followed_again_once_it_is_back() {
    let two = Two::start();
    two.scene.zookeeper.kill();
    let at = two.scene.zookeeper.address().to_string();
    two.keeps(&["source zk", &at, "can't be reached", "refused"]);
    two.scene.zookeeper.restart();
    two.scene.zookeeper.delete("/services/web/n1");
    two.settles(&[1]);
    // And what changes later is seen by itself again.
    two.scene.zookeeper.create("/services/web/n1", &address(&two.masters[0]));
    two.settles(&[0, 1]);
}

#[test]
fn a_session_that_expired_is_replaced_and_what_changed_meanwhile_is_read() {
    let mut two = Two::start();
    two.mapsmith.signal("STOP");
    two.scene.zookeeper.expire_sessions();
    two.scene.zookeeper.delete("/services/web/n2");
    two.mapsmith.signal("CONT");
    two.settles(&[0]);
    two.scene.zookeeper.create("/services/web/n2", &address(&two.masters[1]));
    two.settles(&[0, 1]);
}

#[test]
fn a_zookeeper_that_lost_its_data_or_hangs_is_no_empty_list() {
    let two = Two::start();
    two.scene.zookeeper.restart_empty();
    two.keeps(&["source zk", "there is no node /services/web"]);
    two.scene.zookeeper.create("/mapsmith/nodes/node1", "app");
    two.scene.zookeeper.create("/services/web/n1", &address(&two.masters[0]));
    two.scene.zookeeper.create("/services/web/n2", &address(&two.masters[1]));
    reload(&two.mapsmith);
    two.settles(&[0, 1]);
    two.scene.zookeeper.signal("STOP");
    two.keeps(&["source zk"]);
    two.scene.zookeeper.signal("CONT");
    two.scene.zookeeper.delete("/services/web/n1");
    two.settles(&[1]);
}

#[test]
fn a_child_that_holds_garbage_keeps_its_server_and_the_others_go_on() {
    let two = Two::start();
    two.scene.zookeeper.set("/services/web/n1", b"{\"address\": \"127.0.");
    let row = two.mapsmith.wait_for("the child is rejected", BOUND, |mapsmith| {
        backend(mapsmith)["rejected"][0].as_object().cloned()
    });
    assert_eq!(
        (row["place"].as_str(), row["reason"].as_str()),
        (Some("child \"n1\""), Some("does not hold JSON")),
        "{row:#?}"
    );
    two.settles(&[0, 1]);
    // One that never was good is no server, and the good ones come and go.
    two.scene.zookeeper.create("/services/web/n3", "");
    two.scene.zookeeper.delete("/services/web/n2");
    two.settles(&[0]);
    two.scene.zookeeper.set("/services/web/n1", address(&two.masters[1]).as_bytes());
    two.settles(&[1]);
}

#[test]
fn a_child_that_may_not_be_read_and_a_path_that_is_gone_fail_the_poll_as_a_whole() {
    let two = Two::start();
    let second = address(&two.masters[1]);
    two.scene.zookeeper.create_for("/services/web/n3", &second, "somebody", "else");
    two.keeps(&["source zk", "no permission to read /services/web/n3", "set auth_file"]);
    two.scene.zookeeper.delete("/services/web/n3");
    two.scene.zookeeper.delete_all("/services");
    two.keeps(&["source zk", "there is no node /services/web"]);
}

#[test]
fn a_list_that_is_empty_all_at_once_is_held() {
    let two = Two::start();
    two.scene.zookeeper.delete("/services/web/n1");
    two.settles(&[1]);
    two.scene.zookeeper.delete("/services/web/n2");
    let held = two.mapsmith.wait_for("the empty list is held", BOUND, |mapsmith| {
        backend(mapsmith)["held"]["reason"].as_str().map(str::to_owned)
    });
    assert!(held.contains("0 servers"), "{held}");
    let second = two.masters[1].address();
    assert_eq!(ready(&two.scene.gateway), list(&[(&second.to_string(), second)]));
}
