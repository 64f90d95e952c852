//! Whose the nodes are, beside the guard, references, another Mapsmith and a store that fails.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mapsmith_core::desired::ownership::{OwnerRecord, OwnersChange, Policy, StoredOwners};
use mapsmith_core::{EndedKind, EndedOverride, Note};

use super::*;
use crate::engine::OwnError;
use crate::store::{OwnerStore, StoreError};

/// A store in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, OwnerRecord>>);

#[async_trait]
impl OwnerStore for Memory {
    async fn keep_owners(&self, change: OwnersChange) -> Result<(), StoreError> {
        let mut kept = self.0.lock().unwrap();
        for (node, record) in change.records {
            match record {
                Some(record) => kept.insert(node, record),
                None => kept.remove(&node),
            };
        }
        Ok(())
    }
}

impl Scene {
    /// A scene that remembers owners, whose instance has `m1` and `m2`; entries that point nowhere
    /// are held.
    async fn owning() -> (Self, Arc<Memory>) {
        let mut scene = Self::start(None).await;
        let store = Arc::new(Memory::default());
        scene.decider = scene
            .decider
            .with_actions(Actions { unknown: Action::Hold, not_ready: Action::Keep })
            .with_ownership(
                Some(Policy::default()),
                StoredOwners::default(),
                Some(Arc::clone(&store) as Arc<dyn OwnerStore>),
            );
        scene.decider.see(vec![Arc::new([("m1", true), ("m2", true)].into_iter().collect())]);
        (scene, store)
    }

    /// `a` ran at `m2` while `m1` was drained, and is on its way home.
    async fn returning(&mut self) {
        self.one(map(&[("a", "m1"), ("b", "m1"), ("c", "m2")])).await;
        let mut drained = Overrides::numbered(1);
        let (master, since) = ("m1".to_owned(), Timestamp::now());
        drained
            .add_drain(DrainedMaster {
                master: master.clone(),
                to: None,
                since,
                note: Note::default(),
            })
            .unwrap();
        self.overrides = Arc::new(drained);
        self.one(map(&[("a", "m2"), ("b", "m1"), ("c", "m2")])).await;
        assert_eq!(self.phases(), [("a", "away")]);
        let mut ended = Overrides::numbered(2);
        let of = EndedKind::Drain { master };
        ended.add_ended(EndedOverride { of, since, until: Timestamp::now(), stay: false });
        self.overrides = Arc::new(ended);
        self.one(map(&[("a", "m2"), ("b", "m1"), ("c", "m2")])).await;
        assert_eq!(self.phases(), [("a", "returning")]);
        assert_eq!(self.file(), ["a m1", "b m1", "c m2"]);
    }

    fn phases(&self) -> Vec<(&str, &'static str)> {
        let nodes = &self.decider.decision().owners.nodes;
        nodes.iter().map(|(node, owned)| (node.as_str(), owned.phase.label())).collect()
    }
}

fn map(entries: &[(&str, &str)]) -> EntryMap {
    entries.iter().copied().collect()
}

#[tokio::test]
async fn an_answer_that_is_held_for_where_it_points_to_confirms_no_owner() {
    let (mut scene, store) = Scene::owning().await;
    scene.returning().await;
    for _ in 0..2 {
        scene.one(map(&[("a", "m1"), ("b", "m1"), ("c", "m2"), ("d", "gone")])).await;
        assert!(scene.held().reason.contains("gone"));
        assert_eq!(scene.file(), ["a m1", "b m1", "c m2"], "as before");
        assert_eq!(scene.phases(), [("a", "returning")]);
        assert!(store.0.lock().unwrap().contains_key("a"));
    }
    scene.one(map(&[("a", "m1"), ("b", "m1"), ("c", "m2")])).await;
    assert_eq!(
        (scene.phases(), scene.file()),
        (vec![], ["a m1", "b m1", "c m2"].map(str::to_owned).to_vec())
    );
    assert!(store.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_another_mapsmiths_to_decide_is_not_waited_for_and_not_ordered_here() {
    let (mut scene, _store) = Scene::owning().await;
    scene.returning().await;
    assert!(scene.decider.owners_due().is_some());
    let text = fs::read_to_string(scene.path()).unwrap();
    let own = format!("pid {}", std::process::id());
    fs::write(scene.path(), text.replace(&own, "pid 7 on elsewhere.example.com; not")).unwrap();
    scene.decider.check_file().await;
    assert!(scene.decider.decision().read_only.is_some());
    assert_eq!(scene.decider.owners_due(), None);
    let refused = scene.decider.own("a", "m2", Timestamp::now());
    assert!(matches!(refused, Err(OwnError::ReadOnly(_))), "{refused:?}");
}

#[tokio::test]
async fn an_owner_that_is_ordered_before_the_first_answer_is_told_to_wait_for_it() {
    let (mut scene, store) = Scene::owning().await;
    scene.decider.own("a", "m2", Timestamp::now()).unwrap();
    scene.answer(&[("puppetdb", true, None)]).await;
    let outcome = scene.decider.outcome_of_own();
    let expected = "the first answer of puppetdb is waited for".to_owned();
    assert_eq!(outcome, Err(OwnError::NotInForce(expected)));
    scene.one(map(&[("a", "m1"), ("b", "m1"), ("c", "m2")])).await;
    assert_eq!((scene.decider.outcome_of_own(), scene.file()[0].as_str()), (Ok(()), "a m2"));
    assert!(store.0.lock().unwrap().contains_key("a"));
}
