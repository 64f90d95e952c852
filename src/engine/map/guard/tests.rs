//! What passes, what is held and what stays, over time; with a clock of the test's own.

use std::collections::BTreeMap;
use std::path::Path;

use mapsmith_core::desired::guard::Limits;
use mapsmith_core::{EntryMapBuilder, Overrides, Snapshot, SourceState};

use super::*;
use crate::engine::Memory;
use crate::store::map_file::MapFileWriter;

const HOLD: Duration = Duration::from_secs(90);

struct Scene {
    folder: tempfile::TempDir,
    decider: MapDecider,
    /// Whether all begins anew before each answer, as with other settings.
    begins_anew: bool,
}

impl Scene {
    async fn start(file: Option<&EntryMap>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.map");
        if let Some(entries) = file {
            let text: String =
                entries.iter().map(|(node, master)| format!("{node} {master}\n")).collect();
            std::fs::write(&path, text).unwrap();
        }
        let decider = Self::decider(&path).await;
        Self { folder, decider, begins_anew: false }
    }

    /// A first start, and one that begins anew with other settings all the time.
    async fn both() -> [Self; 2] {
        [Self::start(None).await, Self { begins_anew: true, ..Self::start(None).await }]
    }

    async fn decider(path: &Path) -> MapDecider {
        let writer = MapFileWriter::new(path);
        let decider = MapDecider::start(Limits::default(), writer, Arc::default()).await;
        decider.unwrap().with_hold(HOLD)
    }

    async fn begin_anew(&mut self) {
        let (clock, lists) = (tokio::time::Instant::now(), BTreeMap::new());
        let memory = Memory { clock, map: self.decider.memory(), lists };
        self.decider = Self::decider(&self.folder.path().join("n.map")).await;
        self.decider.go_on(&memory);
    }

    /// The registry says this at that second. Whether it is held.
    async fn says(&mut self, second: u64, map: &EntryMap) -> bool {
        if self.begins_anew {
            self.begin_anew().await;
        }
        let mut state =
            SourceState::before_first_poll("puppetdb".to_owned(), "file".to_owned(), true);
        state.snapshot = Some(Snapshot {
            entries: Arc::new(map.clone()),
            rejections: Arc::default(),
            answered_at: Timestamp::UNIX_EPOCH,
        });
        self.decider
            .decide_at(&[state], Arc::<Overrides>::default(), Duration::from_secs(second))
            .await;
        self.decider.decision().held.is_some()
    }

    fn in_force(&self) -> &EntryMap {
        &self.decider.decision().in_force.as_ref().expect("a map").entries
    }

    fn reason(&self) -> &str {
        &self.decider.decision().held.as_ref().expect("something is held").reason
    }
}

/// Nodes of m1.
fn nodes(numbers: std::ops::Range<usize>) -> EntryMap {
    let names: Vec<_> = numbers.map(|node| format!("n{node:07}")).collect();
    names.iter().map(|name| (name.as_str(), "m1")).collect()
}

#[tokio::test]
async fn a_map_that_grows_beyond_measure_is_held_and_the_way_back_never() {
    let mut scene = Scene::start(None).await;
    assert!(!scene.says(0, &nodes(0..200)).await);
    assert!(scene.says(60, &nodes(0..30_200)).await);
    assert!(
        scene.reason().contains("add 30000 to the 200 entries in force")
            && scene.reason().contains("guard.max_added")
    );
    assert_eq!(scene.in_force().len(), 200);
    let id = scene.decider.decision().held.as_ref().map(|held| held.id.clone()).unwrap();
    scene.decider.approve(&id).unwrap();
    assert!(!scene.says(120, &nodes(0..30_200)).await);
    assert!(!scene.says(180, &nodes(0..200)).await, "it was like that within the window");
    assert_eq!(scene.in_force(), &nodes(0..200));
}

#[tokio::test]
async fn what_was_in_force_an_hour_ago_is_no_way_back_any_more() {
    let mut scene = Scene::start(None).await;
    scene.says(0, &nodes(0..200)).await;
    assert!(!scene.says(60, &nodes(0..9_000)).await, "small maps may grow");
    assert!(scene.says(60 + 3600, &nodes(0..200)).await);
    assert_eq!(scene.in_force().len(), 9_000);
}

#[tokio::test]
async fn a_fifth_less_at_each_poll_is_held_at_the_second_poll_until_the_first_is_an_hour_old() {
    for mut scene in Scene::both().await {
        scene.says(0, &nodes(0..200)).await;
        assert!(!scene.says(60, &nodes(0..160)).await);
        assert!(scene.says(120, &nodes(0..128)).await);
        let words = "remove 32 of the 160 entries in force, 72 of 200 within 1h (36.0%), \
            guard.max_removed allows 20%";
        assert!(scene.reason().contains(words), "{}", scene.reason());
        // A single node more, and a map that grows again.
        assert!(scene.says(180, &nodes(0..159)).await);
        assert!(!scene.says(240, &nodes(0..161)).await);
        assert!(!scene.says(60 + 3600, &nodes(0..130)).await);
        assert_eq!(scene.in_force().len(), 130);
    }
}

#[tokio::test]
async fn the_same_few_nodes_that_go_and_come_back_never_add_up() {
    let mut scene = Scene::start(None).await;
    scene.says(0, &nodes(0..200)).await;
    for minute in 1..50 {
        assert!(
            !scene.says(60 * minute, &nodes(0..if minute % 2 == 0 { 200 } else { 165 })).await,
            "minute {minute}"
        );
    }
}

#[tokio::test]
async fn a_map_of_other_keys_is_held_at_any_size_after_a_restart_too() {
    for size in [1, 3, 19, 40] {
        let mut scene = Scene::start(Some(&nodes(0..size))).await;
        for second in [0, 60] {
            assert!(scene.says(second, &nodes(100..100 + 2 * size)).await);
            assert!(scene.reason().contains("replace every key"), "{}", scene.reason());
            assert!(scene.says(second, &nodes(0..0)).await);
        }
        assert!(!scene.says(120, &nodes(0..size)).await);
        assert!(scene.says(180, &nodes(100..100 + size)).await);
    }
}

#[tokio::test]
async fn a_change_that_leads_too_many_entries_nowhere_is_held_until_there_is_something() {
    let mut scene = Scene::start(None).await;
    scene.decider.limits.max_moved = "100%".parse().unwrap();
    let targets =
        |masters: &[&str]| vec![Arc::new(masters.iter().map(|master| (*master, true)).collect())];
    scene.decider.see(targets(&["m1"]));
    let renamed = |count: usize| -> EntryMap {
        let map = nodes(0..100);
        let kept = map.iter().enumerate();
        kept.map(|(at, (node, master))| (node, if at < count { "renamed" } else { master }))
            .collect()
    };
    assert!(!scene.says(0, &nodes(0..100)).await);
    assert!(!scene.says(60, &renamed(20)).await, "some are kept and shown");
    assert_eq!(scene.decider.decision().dangling.entries(), (20, 0));
    assert!(scene.says(120, &renamed(50)).await);
    assert!(
        scene.reason().contains("lead 50 of 100 entries (50.0%)")
            && scene.reason().contains(": renamed (see"),
        "{}",
        scene.reason()
    );
    assert_eq!(scene.in_force(), &renamed(20));
    scene.decider.see(targets(&["m1", "renamed"]));
    assert!(!scene.says(180, &renamed(50)).await, "it is there by now");
    scene.decider.see(targets(&["other"]));
    assert!(
        !scene.says(240, &renamed(51)).await,
        "what a gateway lost is no change of the registry"
    );
}

#[tokio::test]
async fn a_disputed_node_stays_where_it_is_and_a_new_one_is_routed_all_the_same() {
    let mut scene = Scene::start(Some(&[("a", "m2"), ("b", "m1")].into_iter().collect())).await;
    let disputed = |nodes: &[&str]| {
        let mut builder = EntryMapBuilder::new();
        for (node, master) in [("a", "m1"), ("a", "m2"), ("b", "m1"), ("c", "m2"), ("c", "m1")] {
            builder.push(node, master).unwrap();
        }
        builder
            .finish_with(|repeated| (repeated.candidates.len() - 1, nodes.contains(&repeated.key)))
    };
    let mut both = disputed(&["a", "c"]);
    assert_eq!((both.get("a"), both.get("c"), both.disputed()), (Some("m2"), Some("m1"), 2));
    for second in [0, 60] {
        assert!(!scene.says(second, &both).await);
        let expected: EntryMap = [("a", "m2"), ("b", "m1"), ("c", "m1")].into_iter().collect();
        assert_eq!(scene.in_force(), &expected);
        // Named the other way round from now on: nothing moves.
        both = both.iter().map(|(node, _)| (node, "m3")).collect::<EntryMap>();
        both = dispute_all(&both);
        assert_eq!(scene.decider.decision().conflicts.count, if second == 0 { 2 } else { 3 });
    }
}

/// The same with every node in dispute.
fn dispute_all(map: &EntryMap) -> EntryMap {
    let mut builder = EntryMapBuilder::new();
    for (node, master) in map.iter().chain(map.iter()) {
        builder.push(node, master).unwrap();
    }
    builder.finish_with(|_| (0, true))
}

#[tokio::test]
async fn a_node_that_flaps_stays_where_it_is_while_the_others_move_and_goes_when_it_has_been_still()
{
    for scene in Scene::both().await {
        flaps(scene).await;
    }
}

async fn flaps(mut scene: Scene) {
    let with = |flapping: &'static str, other: &'static str| -> EntryMap {
        nodes(0..30).iter().chain([("flaps", flapping), ("other", other)]).collect()
    };
    scene.says(0, &with("m1", "m1")).await;
    let follow = [
        (60, "m2", "m2"),
        (120, "m1", "m1"),
        (180, "m2", "m1"),
        (240, "m1", "m1"),
        (300, "m2", "m1"),
        (389, "m2", "m1"),
    ];
    for (second, said, expected) in follow {
        // The other moves once, while the first is kept.
        let other = if second > 200 { "m3" } else { "m1" };
        assert!(!scene.says(second, &with(said, other)).await);
        assert_eq!(
            (scene.in_force().get("flaps"), scene.in_force().get("other")),
            (Some(expected), Some(other)),
            "at {second} s"
        );
        let flapping = &scene.decider.decision().flapping;
        assert_eq!(flapping.count, usize::from(second >= 180), "at {second} s");
        // Due until the next decision, whatever else happens at that moment.
        let due = (second >= 180).then(|| Duration::from_secs(second.min(300)) + HOLD);
        assert_eq!(scene.decider.release, due, "at {second} s");
        if let [kept] = &flapping.nodes[..] {
            assert_eq!((&*kept.node, &*kept.master, &*kept.said), ("flaps", "m1", said));
        }
    }
    assert!(!scene.says(390, &with("m2", "m3")).await);
    assert_eq!(
        (scene.in_force().get("flaps"), scene.decider.decision().flapping.count),
        (Some("m2"), 0)
    );
    assert_eq!(scene.decider.release, None);
}
