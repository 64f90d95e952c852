//! Rollbacks, holds and rejected answers over a real map file.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mapsmith_core::desired::hold::{HoldState, Rollback};

use super::rollout::ticket;
use super::*;
use crate::engine::HoldOrderError;
use crate::store::{AuditTicket, HoldStore, StoreError, StoreErrorKind, StoredRollout};

/// A store in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub state: Mutex<HoldState>,
    /// The newest first.
    pub rollouts: Mutex<Vec<StoredRollout>>,
    /// What the sources had said, by revision.
    pub bases: Mutex<BTreeMap<u64, EntryMap>>,
    pub fails: AtomicBool,
}

fn failure() -> StoreError {
    StoreError { path: "memory".to_owned(), fault: StoreErrorKind::Full("no room".to_owned()) }
}

#[async_trait]
impl HoldStore for Memory {
    async fn keep_hold(
        &self,
        state: HoldState,
        rollout: Option<StoredRollout>,
        _: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(failure());
        }
        *self.state.lock().unwrap() = state;
        if let Some(mut stored) = rollout {
            let mut rollouts = self.rollouts.lock().unwrap();
            let known = rollouts.iter().position(|it| it.rollout.id == stored.rollout.id);
            let before = known.map(|at| rollouts.remove(at));
            stored.ways = stored.ways.or(before.and_then(|it| it.ways));
            rollouts.insert(0, stored);
        }
        Ok(())
    }

    async fn base_of(&self, _: Arc<Revision>, number: u64) -> Result<EntryMap, StoreError> {
        self.bases.lock().unwrap().get(&number).cloned().ok_or_else(failure)
    }
}

/// A decider with a store for its hold.
pub(super) struct Held {
    pub scene: Scene,
    pub store: Arc<Memory>,
    pub said: EntryMap,
}

impl Held {
    pub async fn start(said: EntryMap) -> Self {
        let mut held = Self { scene: Scene::start(None).await, store: Arc::default(), said };
        held.restart().await;
        held.decide().await;
        held
    }

    pub async fn restart(&mut self) {
        let path = self.scene.path();
        let overrides = Arc::clone(&self.scene.overrides);
        // So that what comes into force is a whole answer.
        let limits = Limits { partial: false, ..Limits::default() };
        let decider = MapDecider::start(limits, MapFileWriter::new(&path), overrides).await;
        let state = self.store.state.lock().unwrap().clone();
        let rollouts = self.store.rollouts.lock().unwrap().clone();
        let store: Arc<dyn HoldStore> = Arc::<Memory>::clone(&self.store);
        self.scene.decider = decider.unwrap().with_source_hold(state, rollouts, Some(store)).await;
    }

    pub async fn decide(&mut self) {
        self.scene.one(self.said.clone()).await;
        let (number, accepted) = (self.number(), self.scene.decider.gate.accepted().cloned());
        if let Some(accepted) = accepted {
            self.store.bases.lock().unwrap().insert(number, (*accepted).clone());
        }
    }

    pub fn number(&self) -> u64 {
        self.scene.decider.decision().in_force.as_ref().map_or(0, |revision| revision.number)
    }

    pub fn map(&self) -> EntryMap {
        (*self.scene.decider.entries_in_force().unwrap_or_default()).clone()
    }

    pub fn state(&self) -> HoldState {
        self.scene.decider.decision().hold.state.clone()
    }

    pub async fn roll_back(
        &mut self,
        to: u64,
        until: Option<Timestamp>,
    ) -> Result<(), HoldOrderError> {
        let base = self.store.bases.lock().unwrap()[&to].clone();
        let rollback = Rollback { of: to, until, note: Note::default(), replace: false };
        let number = self.number();
        let done = self.scene.decider.roll_back(rollback, Arc::new(base), number, None).await;
        done.map(drop)
    }

    fn would_hold(&mut self, said: usize) -> Option<String> {
        let states = self.scene.states(&[("puppetdb", true, Some(nodes(said, "m1")))]);
        self.scene.decider.would_hold(&states)
    }

    pub async fn reject(&mut self, id: &str) -> Result<HeldChange, HoldOrderError> {
        self.scene.decider.reject(id, Note::default(), None).await
    }
}

#[tokio::test]
async fn a_rollback_is_beyond_the_guard_and_nothing_of_the_sources_is_applied_until_resumed() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    held.scene.order(&[("n000", "m9")], &[]);
    held.decide().await;
    assert_eq!((held.number(), held.map().get("n000")), (3, Some("m9")));
    let wrong = held.scene.decider.roll_back(
        Rollback { of: 1, until: None, note: Note::default(), replace: false },
        Arc::default(),
        2,
        None,
    );
    let changed = HoldOrderError::Changed { expected: 2, in_force: 3 };
    assert_eq!(wrong.await.err(), Some(changed));
    held.store.fails.store(true, Ordering::SeqCst);
    assert!(matches!(held.roll_back(1, None).await, Err(HoldOrderError::NotStored(_))));
    held.decide().await;
    assert_eq!((held.number(), held.state().hold), (3, None), "nothing has changed");
    held.store.fails.store(false, Ordering::SeqCst);

    held.roll_back(1, None).await.unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (4, 100));
    assert_eq!(held.map().get("n000"), Some("m9"), "today's pin lies over it");
    assert_eq!(held.scene.causes(), ["rollback"]);
    assert_eq!(held.scene.file().len(), 100, "a restart loads it");
    held.restart().await;
    held.decide().await;
    assert_eq!(held.would_hold(101), None, "the sources are held back as they are");
    let decision = held.scene.decider.decision();
    assert_eq!((held.number(), decision.held.as_ref()), (4, None));
    assert_eq!(decision.hold.waiting.added, 1, "what the sources would change");
    let on_hold = held.scene.decider.approve("x").unwrap_err().to_string();
    assert!(on_hold.contains("resume first"), "{on_hold}");

    held.scene.decider.resume(None, None).await.unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (5, 101));
    let none = held.scene.decider.resume(None, None).await.unwrap_err();
    assert!(none.to_string().contains("there is no hold"), "{none}");
}

#[tokio::test]
async fn a_rollback_that_can_not_be_written_is_in_force_once_it_can() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    let (path, aside) = (held.scene.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let gone = aside.path().join("folder");
    held.roll_back(1, None).await.unwrap();
    fs::rename(&path, &gone).unwrap();
    held.decide().await;
    assert!(held.scene.decider.outcome_of_rollback().is_err());
    assert_eq!((held.number(), held.state().is_pending()), (2, true));
    fs::rename(&gone, &path).unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.scene.file().len()), (3, 100));
    assert_eq!(held.store.state.lock().unwrap().hold.as_ref().unwrap().revision, Some(3));
}

#[tokio::test]
async fn after_a_hold_what_the_sources_say_is_held_and_a_rejected_answer_is_not_shown() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    held.roll_back(1, Some(Timestamp::UNIX_EPOCH)).await.unwrap();
    held.decide().await;
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (3, 100), "one more node is held, too");
    let id = held.scene.held().id.clone();
    assert!(held.scene.held().reason.contains("its time is over"), "{}", held.scene.held().reason);
    let other = held.reject("0123").await.unwrap_err();
    assert!(other.to_string().contains(&id), "{other}");
    held.reject(&id).await.unwrap();
    for _ in 0..2 {
        held.decide().await;
        assert_eq!((held.number(), &held.scene.decider.decision().held), (3, &None));
        held.restart().await;
    }
    let why = held.would_hold(102).expect("one node more would be held");
    assert!(why.contains("its time is over"), "{why}");
    assert_eq!(held.state().rejected.map(|it| it.note), Some(Note::default()), "only tried");
    held.said = nodes(102, "m1");
    held.decide().await;
    assert_eq!(held.scene.held().reason, why);
    let id = held.scene.held().id.clone();
    held.scene.decider.approve(&id).unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (4, 102));
    held.said = nodes(103, "m1");
    held.decide().await;
    assert_eq!((held.number(), held.state()), (5, HoldState::default()), "they are followed");
    assert_eq!(held.would_hold(104), None);

    held.said = nodes(10, "m1");
    held.decide().await;
    let id = held.scene.held().id.clone();
    held.reject(&id).await.unwrap();
    held.decide().await;
    assert_eq!(held.scene.decider.decision().held, None, "the guard's are rejected likewise");
}

#[tokio::test]
async fn a_rejection_that_is_taken_back_is_a_held_change_again_which_can_be_approved() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(10, "m1");
    held.decide().await;
    let before = held.scene.held().clone();
    held.reject(&before.id).await.unwrap();
    held.decide().await;
    assert_eq!(held.scene.decider.decision().held, None);
    // Also over a restart it is known what was rejected.
    held.restart().await;
    held.decide().await;
    let rejected = held.state().rejected_change().cloned().expect("a rejection");
    let change = rejected.change.clone().expect("what it was of");
    assert_eq!((rejected.id(), change.counts), (before.id.as_str(), before.counts));

    let other = held.scene.decider.unreject("0123", ticket()).await.unwrap_err();
    assert!(other.to_string().contains("no held change 0123 is rejected"), "{other}");
    let tried = held.scene.decider.unreject(&before.id, None).await.unwrap();
    held.decide().await;
    assert_eq!((tried, held.scene.decider.decision().held.as_ref()), (rejected, None), "tried");
    held.store.fails.store(true, Ordering::SeqCst);
    let failed = held.scene.decider.unreject(&before.id, ticket()).await;
    assert!(matches!(failed, Err(HoldOrderError::NotStored(_))), "{failed:?}");
    held.store.fails.store(false, Ordering::SeqCst);

    held.scene.decider.unreject(&before.id, ticket()).await.unwrap();
    held.decide().await;
    assert_eq!(held.scene.held().id, before.id, "it is held again");
    let held_since = Some(held.scene.held().since);
    assert_eq!(held.state(), HoldState { held_since, ..HoldState::default() });
    held.scene.decider.approve(&before.id).unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (2, 10));
}

#[tokio::test]
async fn what_the_guard_holds_for_what_came_before_it_is_held_after_a_restart_too() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(85, "m1");
    held.decide().await;
    held.restart().await;
    held.decide().await;
    held.said = nodes(75, "m1");
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (3, 75), "nothing was held at the restart");
    held.said = nodes(62, "m1");
    held.decide().await;
    let (id, reason) = (held.scene.held().id.clone(), held.scene.held().reason.clone());
    let since = held.scene.held().since;
    assert!(reason.contains("within 1h"), "{reason}");
    for _ in 0..2 {
        held.restart().await;
        // The sources may be down when it starts.
        held.scene.answer(&[("puppetdb", true, None)]).await;
        held.restart().await;
        held.decide().await;
        assert_eq!((&held.scene.held().id, &held.scene.held().reason), (&id, &reason));
        assert_eq!(held.scene.held().since, since, "it has been held all the time");
        assert_eq!((held.number(), held.map().len()), (3, 75));
    }
    held.reject(&id).await.unwrap();
    held.decide().await;
    held.restart().await;
    held.decide().await;
    assert_eq!(held.scene.decider.decision().held, None, "it is rejected");
    held.said = nodes(61, "m1");
    held.decide().await;
    assert_eq!(held.number(), 3, "one node less is no way round what was rejected");
    held.said = nodes(62, "m1");
    held.decide().await;
    assert_eq!(held.scene.held().id, id);
    held.scene.decider.approve(&id).unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (4, 62));
    assert_eq!(held.state(), HoldState::default(), "nothing is held any more");
    held.restart().await;
    held.decide().await;
    held.said = nodes(52, "m1");
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (5, 52), "what was let through is over");
}
