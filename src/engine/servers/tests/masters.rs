//! The masters of the map as a backend's servers.

use mapsmith_core::desired::ownership::OwnedNode;
use mapsmith_core::{DrainedMaster, EndedKind, EndedOverride, Overrides};

use super::*;

const MASTERS: &str = "[[backend]]\nname = \"mapped\"\nmasters = \"{master}:8140\"\n";

const BOTH: [&str; 2] = ["127.0.0.1 127.0.0.1:8140", "127.0.0.2 127.0.0.2:8140"];

fn both() -> Vec<String> {
    BOTH.map(str::to_owned).to_vec()
}

impl Scene {
    /// Both masters have nodes, and are servers.
    async fn with_masters() -> Self {
        let mut scene = Self::start(MASTERS);
        scene.map(true, &[("n1", "127.0.0.1"), ("n2", "127.0.0.2")]);
        scene.decide(0).await;
        scene.decide_again(1).await;
        assert_eq!(scene.servers("mapped"), BOTH);
        scene
    }

    /// An operator has drained these.
    fn drains(&mut self, masters: &[&str]) {
        let mut overrides = Overrides::numbered(1);
        for master in masters {
            let drained = DrainedMaster {
                master: (*master).to_owned(),
                to: None,
                since: Timestamp::UNIX_EPOCH,
                note: mapsmith_core::Note::default(),
            };
            overrides.add_drain(drained).unwrap();
        }
        self.map.overrides = Arc::new(overrides);
    }

    /// An operator has ended the drains of this one, the last time with this `stay`.
    fn undrains(&mut self, master: &str, stays: &[bool]) {
        let mut overrides = Overrides::numbered(2);
        for (second, stay) in stays.iter().enumerate() {
            let of = EndedKind::Drain { master: master.to_owned() };
            let until = Timestamp::from_second(second as i64).unwrap();
            let since = Timestamp::UNIX_EPOCH;
            overrides.add_ended(EndedOverride { of, since, until, stay: *stay });
        }
        self.map.overrides = Arc::new(overrides);
    }

    /// The names that have left the list and are Mapsmith's to remove.
    fn former(&self) -> Vec<String> {
        self.desired("mapped").unwrap().former.into_iter().collect()
    }

    /// This node is elsewhere, and its owner remembered.
    fn remembers(&mut self, node: &str, owner: &str) {
        let at = Timestamp::UNIX_EPOCH;
        let owned = serde_json::json!({
            "owner": owner, "since": at, "seen": at, "ordered": false, "phase": "away",
        });
        let owned: OwnedNode = serde_json::from_value(owned).unwrap();
        self.map.owners.nodes = Arc::new([(node.to_owned(), owned)].into());
    }

    fn drained(&self) -> Vec<String> {
        self.desired("mapped").unwrap().drained.unwrap().into_iter().collect()
    }
}

#[tokio::test]
async fn a_drained_master_stays_a_server_though_no_node_is_sent_to_it() {
    let mut scene = Scene::with_masters().await;
    assert_eq!(scene.drained(), [""; 0]);
    scene.drains(&["127.0.0.2"]);
    scene.map(true, &[("n1", "127.0.0.1"), ("n2", "127.0.0.1")]);
    scene.decide_again(2).await;
    assert_eq!(scene.drained(), ["127.0.0.2"]);
    assert_eq!(scene.decider.desired().unwrap().number, 2, "an order counts at once");
    scene.decide(500).await;
    assert_eq!((scene.servers("mapped"), scene.status("mapped").leaving.len()), (both(), 0));
    scene.drains(&[]);
    scene.map(true, &[("n1", "127.0.0.1"), ("n2", "127.0.0.2")]);
    scene.decide_again(501).await;
    assert_eq!((scene.servers("mapped"), scene.drained()), (both(), vec![]));
}

#[tokio::test]
async fn a_master_whose_drain_has_ended_stays_a_server_though_its_nodes_run_elsewhere_by_now() {
    // Its nodes were to stay elsewhere an earlier time, or this time.
    for (stays, left) in [(&[false][..], 2), (&[true, false], 2), (&[false, true], 1)] {
        let mut scene = Scene::with_masters().await;
        scene.drains(&["127.0.0.2"]);
        scene.map(true, &[("n1", "127.0.0.1"), ("n2", "127.0.0.1")]);
        scene.decide(500).await;
        scene.undrains("127.0.0.2", stays);
        scene.decide_again(501).await;
        let desired = scene.desired("mapped").unwrap();
        assert_eq!(desired.undrained, ["127.0.0.2".to_owned()].into(), "it gets its weight back");
        scene.decide(600).await;
        scene.decide(1000).await;
        assert_eq!(scene.servers("mapped"), BOTH[..left], "{stays:?}");
        assert_eq!(scene.former().len(), 2 - left, "{stays:?}");
    }
}

#[tokio::test]
async fn an_order_of_a_master_that_no_map_named_neither_adds_nor_removes_a_server() {
    let mut scene = Scene::with_masters().await;
    scene.drains(&["127.0.0.9"]);
    scene.remembers("n1", "127.0.0.8");
    for second in [10, 100, 500] {
        scene.decide(second).await;
        assert_eq!(scene.servers("mapped"), BOTH);
    }
    scene.undrains("127.0.0.9", &[false]);
    scene.map.owners.nodes = Arc::default();
    for second in [501, 600, 1000] {
        scene.decide(second).await;
        assert_eq!(scene.servers("mapped"), BOTH);
    }
    assert_eq!(scene.former(), [""; 0], "one of its name in HAProxy is an operator's");
}

#[tokio::test]
async fn a_master_whose_nodes_will_come_home_stays_a_server_and_one_that_has_none_goes() {
    let mut scene = Scene::with_masters().await;
    scene.remembers("n2", "127.0.0.2");
    scene.map(true, &[("n1", "127.0.0.1"), ("n2", "127.0.0.1")]);
    scene.decide(10).await;
    scene.decide(500).await;
    assert_eq!(scene.servers("mapped"), BOTH);
    scene.map.owners.nodes = Arc::default();
    scene.decide(501).await;
    scene.decide(600).await;
    assert_eq!(scene.servers("mapped"), BOTH[..1]);
}

#[tokio::test]
async fn a_drain_is_no_matter_of_backends_that_are_not_made_of_masters() {
    let mut scene = Scene::start("");
    scene.lists(0..2);
    scene.drains(&["s00"]);
    scene.decide(0).await;
    scene.decide_again(1).await;
    assert_eq!(scene.desired("listed").unwrap().drained, None);
}
