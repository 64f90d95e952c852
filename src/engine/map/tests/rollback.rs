//! Rollbacks, holds and rejected answers over a real map file, and over a Mapsmith that ends at any
//! moment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use mapsmith_core::desired::hold::{HoldState, Rollback};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::engine::HoldOrderError;
use crate::store::{AuditTicket, HoldStore, StoreError, StoreErrorKind};

/// A store in memory.
#[derive(Default)]
struct Memory {
    state: Mutex<HoldState>,
    /// What the sources had said, by revision.
    bases: Mutex<BTreeMap<u64, EntryMap>>,
    fails: AtomicBool,
}

fn failure() -> StoreError {
    StoreError { path: "memory".to_owned(), fault: StoreErrorKind::Full("no room".to_owned()) }
}

#[async_trait]
impl HoldStore for Memory {
    async fn keep_hold(
        &self,
        state: HoldState,
        _: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(failure()),
            false => {
                *self.state.lock().unwrap() = state;
                Ok(())
            }
        }
    }

    async fn base_of(&self, _: Arc<Revision>, number: u64) -> Result<EntryMap, StoreError> {
        self.bases.lock().unwrap().get(&number).cloned().ok_or_else(failure)
    }
}

/// A decider with a store for its hold.
struct Held {
    scene: Scene,
    store: Arc<Memory>,
    said: EntryMap,
}

impl Held {
    async fn start(said: EntryMap) -> Self {
        let mut held = Self { scene: Scene::start(None).await, store: Arc::default(), said };
        held.restart().await;
        held.decide().await;
        held
    }

    async fn restart(&mut self) {
        let path = self.scene.path();
        let overrides = Arc::clone(&self.scene.overrides);
        // So that what comes into force is a whole answer.
        let limits = Limits { partial: false, ..Limits::default() };
        let decider = MapDecider::start(limits, MapFileWriter::new(&path), overrides).await;
        let state = self.store.state.lock().unwrap().clone();
        let store: Arc<dyn HoldStore> = Arc::<Memory>::clone(&self.store);
        self.scene.decider = decider.unwrap().with_source_hold(state, Some(store)).await;
    }

    async fn decide(&mut self) {
        self.scene.one(self.said.clone()).await;
        let (number, accepted) = (self.number(), self.scene.decider.gate.accepted().cloned());
        if let Some(accepted) = accepted {
            self.store.bases.lock().unwrap().insert(number, (*accepted).clone());
        }
    }

    fn number(&self) -> u64 {
        self.scene.decider.decision().in_force.as_ref().map_or(0, |revision| revision.number)
    }

    fn map(&self) -> EntryMap {
        (*self.scene.decider.entries_in_force().unwrap_or_default()).clone()
    }

    fn state(&self) -> HoldState {
        self.scene.decider.decision().hold.state.clone()
    }

    async fn roll_back(&mut self, to: u64, until: Option<Timestamp>) -> Result<(), HoldOrderError> {
        let base = self.store.bases.lock().unwrap()[&to].clone();
        let rollback = Rollback { of: to, until, note: Note::default(), replace: false };
        let number = self.number();
        let done = self.scene.decider.roll_back(rollback, Arc::new(base), number, None).await;
        done.map(drop)
    }

    async fn reject(&mut self, id: &str) -> Result<HeldChange, HoldOrderError> {
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
    held.said = nodes(102, "m1");
    held.decide().await;
    let id = held.scene.held().id.clone();
    held.scene.decider.approve(&id).unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map().len()), (4, 102));
    held.said = nodes(103, "m1");
    held.decide().await;
    assert_eq!((held.number(), held.state()), (5, HoldState::default()), "they are followed");

    held.said = nodes(10, "m1");
    held.decide().await;
    let id = held.scene.held().id.clone();
    held.reject(&id).await.unwrap();
    held.decide().await;
    assert_eq!(held.scene.decider.decision().held, None, "the guard's are rejected likewise");
}

#[derive(Debug, Clone)]
enum Event {
    Say(usize),
    /// With a time that is over; with a crash before it is in force.
    RollBack(usize, bool, bool),
    Resume,
    Reject,
    Approve,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0..5usize).prop_map(Event::Say),
        3 => (0..9usize, any::<bool>(), any::<bool>())
            .prop_map(|(to, over, crash)| Event::RollBack(to, over, crash)),
        1 => Just(Event::Resume),
        2 => Just(Event::Reject),
        2 => Just(Event::Approve),
        1 => Just(Event::Restart),
    ]
}

/// Two that the guard lets through from the first one, and two that it holds.
fn answers() -> Vec<EntryMap> {
    vec![nodes(40, "m1"), nodes(41, "m1"), nodes(42, "m1"), nodes(4, "m1"), nodes(40, "m2")]
}

async fn goes_through(events: Vec<Event>) {
    let answers = answers();
    let mut held = Held::start(answers[0].clone()).await;
    for event in events {
        let (before, hold, said) = (held.map(), held.state(), held.said.clone());
        let (mut ordered, mut approved) = (None, false);
        match &event {
            Event::Say(at) => held.said = answers[*at].clone(),
            Event::RollBack(to, over, crash) => {
                let bases: Vec<_> = held.store.bases.lock().unwrap().clone().into_iter().collect();
                let (number, base) = &bases[to % bases.len()];
                let until = over.then_some(Timestamp::UNIX_EPOCH);
                if held.roll_back(*number, until).await.is_ok() {
                    ordered = Some(base.clone());
                    if *crash {
                        held.restart().await;
                    }
                } else {
                    assert!(hold.hold.is_some(), "one at a time");
                }
            }
            Event::Resume => {
                assert_eq!(
                    held.scene.decider.resume(None, None).await.is_ok(),
                    hold.hold.is_some()
                );
            }
            Event::Reject | Event::Approve => {
                if let Some(id) = held.scene.decider.decision().held.as_ref().map(|it| &it.id) {
                    let id = id.clone();
                    match matches!(event, Event::Reject) {
                        true => drop(held.reject(&id).await.unwrap()),
                        false => {
                            held.scene.decider.approve(&id).unwrap();
                            approved = true;
                        }
                    }
                }
            }
            Event::Restart => held.restart().await,
        }
        held.decide().await;
        let (after, now) = (held.map(), held.state());
        match ordered {
            Some(base) => assert!(after == base, "a rollback is in force at once"),
            None => assert!(after == before || after == held.said, "{event:?}: of nobody"),
        }
        let is_followed = hold.hold.is_none() || approved || matches!(event, Event::Resume);
        let is_moved = after != before && !matches!(event, Event::RollBack(..));
        assert!(is_followed || !is_moved, "{event:?}: applied on hold");
        let is_rejected = hold.rejected.is_some() && held.said == said;
        assert!(!(is_rejected && is_moved) || is_followed && hold.hold.is_some(), "{event:?}");
        assert!(is_followed || now.hold.is_some(), "{event:?}: a hold ended by itself");
        assert_eq!(held.scene.file().len(), after.len(), "the file is what a restart loads");
        assert_eq!(*held.store.state.lock().unwrap(), now, "and so is the store");
        if now.lasting().is_some() || now.rejected.is_some() {
            assert_eq!(held.scene.decider.decision().held, None, "{event:?}: {now:?}");
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(32))]

    #[test]
    fn no_map_comes_into_force_that_nobody_let_through(
        events in proptest::collection::vec(event(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(goes_through(events));
    }
}
