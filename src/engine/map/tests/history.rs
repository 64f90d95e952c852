//! What is kept of revisions where the store fails for a while.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mapsmith_core::history::{Fingerprint, RevisionKind};

use super::*;
use crate::store::{HistoryStore, KeptRevision, StoreError, StoreErrorKind};

/// A store in memory that can be full.
#[derive(Default)]
struct Memory {
    kept: Mutex<BTreeMap<u64, KeptRevision>>,
    bases: Mutex<Vec<u64>>,
    is_full: AtomicBool,
}

impl Memory {
    fn check(&self) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(StoreError {
                path: "memory".to_owned(),
                fault: StoreErrorKind::Full("no room".to_owned()),
            }),
            false => Ok(()),
        }
    }

    /// Each kept revision, with the one that it is a change of.
    fn kept(&self) -> Vec<(u64, Option<u64>)> {
        let kept = self.kept.lock().unwrap();
        kept.values().map(|it| (it.record.number, it.record.previous)).collect()
    }
}

#[async_trait]
impl HistoryStore for Memory {
    async fn fingerprint_of(&self, _: u64) -> Result<Option<(Fingerprint, Timestamp)>, StoreError> {
        Ok(None)
    }

    async fn keep_revision(&self, revision: KeptRevision) -> Result<(), StoreError> {
        self.check()?;
        self.kept.lock().unwrap().insert(revision.record.number, revision);
        Ok(())
    }

    async fn keep_base(&self, number: u64, _: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.check()?;
        self.bases.lock().unwrap().push(number);
        Ok(())
    }
}

#[tokio::test]
async fn a_revision_that_could_not_be_kept_is_as_soon_as_it_can() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    let kept_in: Arc<dyn HistoryStore> = Arc::<Memory>::clone(&store);
    scene.decider = scene.decider.with_history(kept_in).await;
    scene.one(nodes(100, "m1")).await;
    assert_eq!(store.kept(), [(1, None)]);
    store.is_full.store(true, Ordering::SeqCst);
    for count in [101, 102] {
        scene.one(nodes(count, "m1")).await;
        let error = scene.decider.decision().history.error.clone();
        assert!(error.is_some_and(|it| it.contains("no room")), "it is told");
        assert!(scene.decider.must_try_again());
    }
    store.is_full.store(false, Ordering::SeqCst);
    scene.one(nodes(102, "m1")).await;
    assert_eq!(store.kept(), [(1, None), (3, Some(1))], "only one that has gone by is missing");
    let record = store.kept.lock().unwrap()[&3].record.clone();
    assert_eq!((record.kind, record.sources), (RevisionKind::Sources, vec!["puppetdb".to_owned()]));
    let history = scene.decider.decision().history.clone();
    assert_eq!((history.error, history.kept.map(|it| it.number)), (None, Some(3)));
    assert!(!scene.decider.must_try_again());
    scene.one(nodes(103, "m1")).await;
    assert_eq!(store.kept().last(), Some(&(4, Some(3))));
}

#[tokio::test]
async fn the_map_of_the_first_start_is_kept_once_there_is_room() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    store.is_full.store(true, Ordering::SeqCst);
    let kept_in: Arc<dyn HistoryStore> = Arc::<Memory>::clone(&store);
    scene.decider = scene.decider.with_history(kept_in).await;
    scene.one(nodes(100, "m1")).await;
    assert_eq!(store.kept(), []);
    store.is_full.store(false, Ordering::SeqCst);
    scene.one(nodes(100, "m1")).await;
    assert_eq!(store.kept(), [(1, None)]);
    assert_eq!(scene.decider.decision().history.error, None);
}

#[tokio::test]
async fn a_revision_that_is_missed_is_not_forgotten_for_an_answer_that_a_pin_hides() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    let kept_in: Arc<dyn HistoryStore> = Arc::<Memory>::clone(&store);
    scene.decider = scene.decider.with_history(kept_in).await;
    scene.order(&[("n000", "m9")], &[]);
    scene.one(nodes(100, "m1")).await;
    store.is_full.store(true, Ordering::SeqCst);
    scene.one(nodes(101, "m1")).await;
    let mut said: Vec<_> = nodes(101, "m1").iter().map(own).collect();
    said[0].1 = "m2".to_owned();
    scene.one(said.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect()).await;
    assert!(scene.decider.decision().history.error.is_some(), "it is missing yet");
    store.is_full.store(false, Ordering::SeqCst);
    scene.one(said.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect()).await;
    assert_eq!(store.kept(), [(1, None), (2, Some(1))]);
}

fn own((node, master): (&str, &str)) -> (String, String) {
    (node.to_owned(), master.to_owned())
}
