//! What is kept of revisions where the store fails for a while, or is slow.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mapsmith_core::history::{Fingerprint, RevisionKind};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::store::{HistoryStore, KeptRevision, StoreError, StoreErrorKind};

/// A store in memory that can be full, and slow.
#[derive(Default)]
struct Memory {
    kept: Mutex<BTreeMap<u64, KeptRevision>>,
    bases: Mutex<Vec<u64>>,
    is_full: AtomicBool,
    is_slow: watch::Sender<bool>,
    /// How often it was asked for something.
    asked: AtomicUsize,
}

impl Memory {
    async fn check(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut is_slow = self.is_slow.subscribe();
        is_slow.wait_for(|is_slow| !is_slow).await.unwrap();
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(StoreError {
                path: "memory".to_owned(),
                fault: StoreErrorKind::Full("no room".to_owned()),
            }),
            false => Ok(()),
        }
    }

    /// How often it was asked for something by now.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Each kept revision, with the one that it is a change of.
    fn kept(&self) -> Vec<(u64, Option<u64>)> {
        let kept = self.kept.lock().unwrap();
        kept.values().map(|it| (it.record.number, it.record.previous)).collect()
    }
}

#[async_trait]
impl HistoryStore for Memory {
    async fn fingerprint_of(
        &self,
        number: u64,
    ) -> Result<Option<(Fingerprint, Timestamp)>, StoreError> {
        self.check().await?;
        let kept = self.kept.lock().unwrap();
        Ok(kept.get(&number).map(|it| (it.fingerprint, it.record.at)))
    }

    async fn keep_revision(&self, revision: KeptRevision) -> Result<(), StoreError> {
        self.check().await?;
        self.kept.lock().unwrap().insert(revision.record.number, revision);
        Ok(())
    }

    async fn keep_base(&self, number: u64, _: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.check().await?;
        self.bases.lock().unwrap().push(number);
        Ok(())
    }
}

/// How long the store may take: soon over where it is to give no answer.
fn bound(is_slow: bool) -> Duration {
    if is_slow { Duration::from_millis(10) } else { Duration::from_secs(60) }
}

impl Scene {
    async fn keep_in(&mut self, store: &Arc<Memory>) {
        let path = self.path();
        let other = MapDecider::without_map(Limits::default(), &path, Arc::default());
        let decider = std::mem::replace(&mut self.decider, other);
        let mut history = History::new(Arc::<Memory>::clone(store));
        history.bound = bound(*store.is_slow.borrow());
        self.decider = decider.keeping_in(history).await;
    }

    /// Has the store give no answer for now, or answer.
    fn slow(&mut self, store: &Memory, is_slow: bool) {
        store.is_slow.send_replace(is_slow);
        self.decider.history.as_mut().unwrap().bound = bound(is_slow);
    }

    /// Decides again until all is kept, which must be soon.
    async fn settle(&mut self, said: EntryMap) {
        let settled = async {
            while self.decider.must_try_again() {
                tokio::task::yield_now().await;
                self.one(said.clone()).await;
            }
        };
        timeout(Duration::from_secs(30), settled).await.expect("all is kept by now");
    }
}

#[tokio::test]
async fn a_revision_that_could_not_be_kept_is_as_soon_as_it_can() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    scene.keep_in(&store).await;
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
    scene.keep_in(&store).await;
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
    scene.keep_in(&store).await;
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

#[tokio::test]
async fn a_revision_that_a_slow_store_has_kept_late_is_kept_once() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    scene.keep_in(&store).await;
    scene.one(nodes(100, "m1")).await;
    scene.slow(&store, true);
    for _ in 0..2 {
        scene.one(nodes(101, "m1")).await;
        assert!(scene.decider.must_try_again(), "it is not kept yet");
        assert_eq!(store.asked(), 2, "nothing else is asked meanwhile");
    }
    scene.slow(&store, false);
    scene.settle(nodes(101, "m1")).await;
    assert_eq!((store.kept(), store.asked()), (vec![(1, None), (2, Some(1))], 2));
    let kept = scene.decider.decision().history.kept.as_ref().map(|it| it.number);
    assert_eq!(kept, Some(2));
}

#[tokio::test]
async fn a_revision_after_one_that_is_kept_late_is_a_change_of_that() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    scene.keep_in(&store).await;
    // Nothing before the first one is kept, and neither is it for now.
    scene.slow(&store, true);
    for count in [100, 101] {
        scene.one(nodes(count, "m1")).await;
    }
    scene.slow(&store, false);
    scene.settle(nodes(101, "m1")).await;
    assert_eq!((store.kept(), store.asked()), (vec![(1, None), (2, Some(1))], 2));
}

#[tokio::test]
async fn what_a_pin_hides_is_kept_once_by_a_slow_store_and_again_if_it_changed_meanwhile() {
    let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
    scene.keep_in(&store).await;
    scene.order(&[("n000", "m9")], &[]);
    let said = |master: &str| -> EntryMap {
        let first = [("n000".to_owned(), master.to_owned())];
        let others = nodes(100, "m1");
        let said: Vec<_> = first.into_iter().chain(others.iter().skip(1).map(own)).collect();
        said.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect()
    };
    scene.one(said("m1")).await;
    for (masters, bases) in [(&["m2"][..], 1), (&["m3", "m4"], 3)] {
        scene.slow(&store, true);
        for master in masters {
            scene.one(said(master)).await;
            assert!(scene.decider.must_try_again(), "it is not kept yet");
        }
        scene.slow(&store, false);
        scene.settle(said(masters.last().unwrap())).await;
        assert_eq!(*store.bases.lock().unwrap(), vec![1; bases]);
    }
    assert_eq!(store.asked(), 1 + 3);
}

#[tokio::test]
async fn a_start_does_not_wait_for_a_store_that_hangs_and_takes_its_answer_when_it_comes() {
    for is_known in [true, false] {
        let (mut scene, store) = (Scene::start(None).await, Arc::<Memory>::default());
        if is_known {
            scene.keep_in(&store).await;
        }
        scene.one(nodes(100, "m1")).await;
        let written = store.asked();
        scene.restart().await;
        store.is_slow.send_replace(true);
        let started = timeout(Duration::from_secs(30), scene.keep_in(&store)).await;
        started.expect("the start goes on");
        scene.one(nodes(100, "m1")).await;
        assert!(scene.decider.must_try_again(), "it is not known yet what is kept");
        assert_eq!(store.asked(), written + 1, "nothing else is asked meanwhile");
        scene.slow(&store, false);
        scene.settle(nodes(100, "m1")).await;
        assert_eq!(store.kept(), [(1, None)]);
        assert_eq!(store.asked(), written + if is_known { 1 } else { 2 });
        scene.one(nodes(101, "m1")).await;
        assert_eq!(store.kept().last(), Some(&(2, Some(1))));
    }
}
