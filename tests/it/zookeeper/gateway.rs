//! From ZooKeeper through Mapsmith to HAProxy: the servers that are registered answer, and a change
//! arrives without a poll of the schedule.

use serde_json::json;

use super::{Scene, address};
use crate::support::master::Master;
use crate::support::pool::settles;
use crate::support::scene::{BOUND, entries, in_sync, map_file, memory, printed};

#[test]
fn proxymgrs_children_answer_requests_and_changes_arrive_by_themselves() {
    let (first, second) = (Master::start("first"), Master::start("second"));
    let scene = Scene::new();
    scene.zookeeper.create("/services/web/n1", &address(&first));
    let mapsmith = scene.config("format = \"proxymgr\", path = \"/services/web\"").start();
    let at = |master: &Master| (master.address().to_string(), master.address());
    let (one, two) = (at(&first), at(&second));
    settles(&scene.gateway, &mapsmith, &[(&one.0, one.1)]);
    assert_eq!(scene.answering(2), ["first"]);

    scene.zookeeper.create("/services/web/n2", &address(&second));
    settles(&scene.gateway, &mapsmith, &[(&one.0, one.1), (&two.0, two.1)]);
    assert_eq!(scene.answering(4), ["first", "second"]);
    let (code, text) = printed(&mapsmith.configuration().cli(&["check"]));
    let list = "ok    source zk format=proxymgr path=/services/web: answers with 2 entries";
    assert!(code == 0 && text.contains(list), "{code}: {text}");

    scene.zookeeper.set("/services/web/n1", address(&second).as_bytes());
    settles(&scene.gateway, &mapsmith, &[(&two.0, two.1)]);
    assert_eq!(scene.answering(2), ["second"]);
}

#[test]
fn a_registrars_record_is_a_server_on_each_port_and_the_node_map_follows_its_path() {
    let (web, other) = (Master::start("web"), Master::start("other"));
    let scene = Scene::new();
    let record = json!({"type": "host", "host": {"address": "127.0.0.1", "ports": [9]}});
    let balancer = json!({"type": "load_balancer", "load_balancer": {"address": "127.0.0.1"}});
    let manta = "/com/example/region/manta";
    scene.zookeeper.create(&format!("{manta}/web1"), &record.to_string());
    scene.zookeeper.create(&format!("{manta}/lb1"), &balancer.to_string());
    let ports = [web.address().port(), other.address().port()];
    let from = format!(
        "format = \"registrar\", domain = \"Region.example.com\", service = \"manta\", \
         record = \"host\", ports = [{}, {}]",
        ports[0], ports[1]
    );
    let mapsmith = scene.config(&from).start();
    let names = ports.map(|port| format!("web1:{port}"));
    let servers = [(&*names[0], web.address()), (&*names[1], other.address())];
    settles(&scene.gateway, &mapsmith, &servers);
    assert_eq!(scene.answering(4), ["other", "web"]);
    assert!(memory(&scene.gateway).contains(&("node1".to_owned(), "app".to_owned())));

    scene.zookeeper.create("/mapsmith/nodes/node2", "app");
    mapsmith.wait_for("the new node is routed", BOUND, |_| {
        let map = memory(&scene.gateway);
        (map == entries(&[("node1", "app"), ("node2", "app")])).then_some(())
    });
    in_sync(&mapsmith);
    assert_eq!(map_file(&scene.gateway).len(), 2);
}
