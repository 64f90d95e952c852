//! From etcd through Mapsmith to HAProxy: the servers that are registered answer, and a change
//! arrives without a poll of the schedule.

use super::{LIST, Scene, feed, json_of};
use crate::support::master::Master;
use crate::support::pool::{BACKEND, settles};
use crate::support::scene::{BOUND, entries, in_sync, map_file, memory, metric, printed};

#[test]
fn keys_are_servers_and_nodes_and_each_change_is_routed_as_etcd_tells_it() {
    let masters = ["m1", "m2", "m3"].map(Master::start);
    let scene = Scene::new();
    scene.etcd.put("/services/web/w1", &json_of(&masters[0]));
    scene.etcd.put("/services/web/eu/w2", &json_of(&masters[1]));
    // The prefix ends with a slash: this is another list.
    scene.etcd.put("/services/web2/w3", &json_of(&masters[2]));
    let config = scene.config("");
    let (code, checked) = printed(&config.cli(&["check"]));
    assert_eq!(code, 0, "{checked}");
    assert!(checked.contains(&format!("source {LIST}: answers with 2 entries")), "{checked}");

    let mapsmith = config.start();
    let both = [("eu:w2", masters[1].address()), ("w1", masters[0].address())];
    settles(&scene.gateway, &mapsmith, &both);
    assert_eq!(scene.answering(4), ["m1", "m2"]);

    scene.etcd.put("/services/web/w3", &json_of(&masters[2]));
    settles(&scene.gateway, &mapsmith, &[both[0], both[1], ("w3", masters[2].address())]);
    scene.etcd.delete("/services/web/w1");
    scene.etcd.put("/services/web/eu/w2", &json_of(&masters[2]));
    scene.etcd.delete("/services/web/w3");
    settles(&scene.gateway, &mapsmith, &[("eu:w2", masters[2].address())]);
    assert_eq!(scene.answering(2), ["m3"]);

    scene.etcd.put("/mapsmith/nodes/Node2", BACKEND);
    mapsmith.wait_for("the new node is routed", BOUND, |_| {
        let map = memory(&scene.gateway);
        (map == entries(&[("node1", "app"), ("node2", "app")])).then_some(())
    });
    in_sync(&mapsmith);
    assert_eq!(map_file(&scene.gateway).len(), 2);
    for (name, entries) in [("etcd", 2.0), (LIST, 1.0)] {
        assert_eq!(feed(&mapsmith, name)["watch"], "watched", "{name}");
        let series = format!("mapsmith_source_entries{{source=\"{name}\"}}");
        assert_eq!(metric(&mapsmith, &series), Some(entries), "{series}");
    }
}
