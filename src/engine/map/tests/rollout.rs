//! Rollouts over a real map file, and over a Mapsmith that ends at any moment.

use mapsmith_core::desired::hold::{HoldState, Rollback};
use mapsmith_core::desired::rollout::{
    CanaryInstances, InstanceView, Rollout, State, Subject, Terms, Then,
};
use mapsmith_core::status::InstanceState;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::rollback::Held;
use super::*;
use crate::engine::HoldOrderError;
use crate::store::{AuditRequest, AuditTicket};

const BAKE: Duration = Duration::from_secs(60);

fn terms() -> Terms {
    let instances = CanaryInstances::Named(vec!["e1".to_owned()]);
    Terms { instances, bake: BAKE, then: Then::Auto }
}

pub(super) fn ticket() -> Option<Arc<AuditTicket>> {
    let request = AuditRequest::of_the_clock(Timestamp::UNIX_EPOCH, "rollouts".to_owned());
    Some(Arc::new(AuditTicket::new(request)))
}

impl Held {
    fn rollout(&self) -> Option<Rollout> {
        self.scene.decider.decision().rollout.open().cloned()
    }

    fn last_rollout(&self) -> Option<Rollout> {
        self.scene.decider.decision().rollout.rollouts.first().cloned()
    }

    /// What each instance should hold: the canary's one, and the other.
    fn wanted(&self) -> [(u64, EntryMap); 2] {
        let decider = &self.scene.decider;
        let canary = decider.desired_canary();
        let (map, generation) = (decider.desired(), 1);
        let desired = mapsmith_core::Desired { generation, map, canary, ..Default::default() };
        ["e1", "e2"].map(|name| {
            let map = desired.map_of(name).unwrap();
            (map.revision.number, (*map.revision.entries).clone())
        })
    }

    /// How the instances stand where they hold what they should, but for `lacks`.
    fn views(&self, lacks: &[&str]) -> Vec<InstanceView> {
        let numbers = self.wanted().map(|(number, _)| number);
        let view = |(name, revision): (&str, u64)| {
            let state = match lacks.contains(&name) {
                true => InstanceState::Behind { wanted: revision, reason: "slow".to_owned() },
                false => InstanceState::InSync { revision },
            };
            InstanceView { name: name.to_owned(), state }
        };
        [("e1", numbers[0]), ("e2", numbers[1])].map(view).to_vec()
    }

    async fn canary_back(&mut self, to: u64, replace: bool) -> Result<(), HoldOrderError> {
        let base = Arc::new(self.store.bases.lock().unwrap()[&to].clone());
        let rollback = Rollback { of: to, until: None, note: Note::default(), replace };
        let (views, number) = (self.views(&[]), self.number());
        let order = (rollback, terms());
        let begun = self.scene.decider.begin_rollback(order, base, number, &views, None);
        begun.await.map(drop)
    }

    async fn canary_approved(&mut self, id: &str) -> Result<HeldChange, HoldOrderError> {
        let (views, order) = (self.views(&[]), (id, Note::default(), terms()));
        self.scene.decider.begin_approved(order, &views, None).await
    }

    async fn verdict(&mut self, promote: bool) -> Result<Rollout, HoldOrderError> {
        let Rollout { id, version, .. } = self.last_rollout().unwrap();
        let note = Note { reason: None, by: Some("anna".to_owned()) };
        self.scene.decider.decide_rollout((&id, version), promote, note, ticket()).await
    }

    /// Observes it now, and once it has baked.
    async fn bake(&mut self, lacks: &[&str]) {
        let now = Timestamp::now();
        for later in [0, 59, 61] {
            let views = self.views(lacks);
            let at = now + SignedDuration::from_secs(later);
            self.scene.decider.observe_rollout(&views, at).await;
        }
        self.decide().await;
    }
}

#[tokio::test]
async fn a_canary_of_a_rollback_is_nowhere_but_in_its_instance_until_it_is_promoted() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    held.canary_back(1, false).await.unwrap();
    held.decide().await;
    let wanted = held.wanted();
    assert_eq!(wanted.clone().map(|(number, map)| (number, map.len())), [(3, 100), (2, 101)]);
    assert_eq!((held.number(), held.scene.file().len(), held.scene.file_number()), (2, 101, 2));
    assert_eq!(held.state(), HoldState::default(), "no hold before it is everywhere");

    // What the sources say waits, an override does not, and a restart changes nothing.
    held.said = nodes(102, "m1");
    held.scene.order(&[("n000", "m9")], &[]);
    held.decide().await;
    let [(canary, there), (stable, here)] = held.wanted();
    assert_eq!((stable, here.len(), here.get("n000")), (4, 101, Some("m9")));
    let told = |held: &Held| held.rollout().map(|open| (open.stable, open.revision));
    assert_eq!(told(&held), Some((held.scene.file_number(), canary)), "what the others have");
    assert_eq!((canary, there.len(), there.get("n000")), (5, 100, Some("m9")));
    let waiting = held.scene.decider.decision().rollout.waiting.unwrap();
    assert_eq!(waiting.added, 1, "1 change waits");
    held.restart().await;
    held.decide().await;
    assert_eq!(held.wanted(), [(canary, there.clone()), (stable, here)]);
    assert_eq!(told(&held), Some((stable, canary)));
    let refused = held.canary_back(1, true).await.unwrap_err().to_string();
    assert!(refused.contains("promote or abort it first"), "{refused}");
    assert!(matches!(held.roll_back(1, None).await, Err(HoldOrderError::Rollout(_))));

    held.bake(&[]).await;
    assert_eq!((held.number(), held.map()), (canary, there), "it has baked, and is the same map");
    assert_eq!((held.scene.file_number(), held.scene.causes()), (canary, vec!["rollback".into()]));
    // What they said meanwhile is no matter of course after a rollback.
    held.decide().await;
    assert!(held.scene.held().reason.contains("something else"), "{}", held.scene.held().reason);
    let views = held.views(&[]);
    held.scene.decider.observe_rollout(&views, Timestamp::now()).await;
    held.decide().await;
    assert_eq!((held.rollout(), held.last_rollout().unwrap().state), (None, State::InForce));
}

#[tokio::test]
async fn an_aborted_canary_leaves_what_was_there_and_an_approved_change_is_held_again() {
    let mut held = Held::start(nodes(40, "m1")).await;
    held.said = nodes(40, "m2");
    held.decide().await;
    let id = held.scene.held().id.clone();
    let other = held.canary_approved("0123").await.unwrap_err();
    assert!(matches!(other, HoldOrderError::NotHeld(_)), "{other}");
    held.canary_approved(&id).await.unwrap();
    held.decide().await;
    let approved = held.said.clone();
    assert_eq!(held.wanted(), [(2, approved.clone()), (1, nodes(40, "m1"))]);
    assert_eq!(held.scene.decider.decision().held, None, "it is on its way");
    assert!(held.scene.decider.decision().rollout.waiting.is_none(), "it is what they say");
    held.verdict(false).await.unwrap();
    held.decide().await;
    assert_eq!(held.wanted().map(|(number, map)| (number, map.len())), [(1, 40), (1, 40)]);
    assert_eq!(held.last_rollout().unwrap().state, State::Aborted);
    assert_eq!(held.scene.held().id, id, "it is held as before");
    assert!(held.verdict(true).await.is_err(), "it is over");

    // The same again, to the end.
    held.canary_approved(&id).await.unwrap();
    held.decide().await;
    assert_eq!(held.wanted()[0].0, 3, "a number is had once");
    held.verdict(true).await.unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.map()), (3, approved.clone()));
    assert_eq!(held.rollout().unwrap().state, State::Promoting);
    let gone_on = held.verdict(false).await.unwrap();
    assert_eq!(gone_on.state, State::Aborting);
    held.decide().await;
    assert_eq!((held.number(), held.map(), held.scene.file().len()), (4, nodes(40, "m1"), 40));
    assert_eq!(held.last_rollout().unwrap().state, State::Aborted);
    held.decide().await;
    assert!(held.scene.held().reason.contains("was aborted"), "{}", held.scene.held().reason);
}

#[tokio::test]
async fn one_whose_instance_is_behind_stays_until_somebody_decides() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    held.canary_back(1, false).await.unwrap();
    held.decide().await;
    held.bake(&["e1"]).await;
    let rollout = held.rollout().unwrap();
    assert_eq!((rollout.state, held.number()), (State::Paused, 2));
    assert!(rollout.why.unwrap().contains("e1 did not hold the canary"));
    held.bake(&[]).await;
    assert_eq!(held.rollout().unwrap().state, State::Paused, "it has been seen to fail");
    held.verdict(true).await.unwrap();
    held.decide().await;
    assert_eq!((held.number(), held.scene.file().len()), (3, 100));
}

#[tokio::test]
async fn a_promotion_that_can_not_be_written_is_in_force_once_it_can_or_aborted() {
    for abort in [false, true] {
        let mut held = Held::start(nodes(100, "m1")).await;
        held.said = nodes(101, "m1");
        held.decide().await;
        held.canary_back(1, false).await.unwrap();
        held.decide().await;
        let (path, aside) = (held.scene.folder.path().to_owned(), tempfile::tempdir().unwrap());
        let gone = aside.path().join("folder");
        fs::rename(&path, &gone).unwrap();
        held.verdict(true).await.unwrap();
        held.decide().await;
        let lens = held.wanted().map(|(_, map)| map.len());
        assert_eq!((lens, held.rollout().unwrap().in_force), ([100, 101], None), "nothing moves");
        if abort {
            held.verdict(false).await.unwrap();
            held.decide().await;
            assert_eq!(held.wanted().map(|(_, map)| map.len()), [101, 101]);
        }
        fs::rename(&gone, &path).unwrap();
        held.decide().await;
        let expected = if abort { 101 } else { 100 };
        assert_eq!((held.map().len(), held.scene.file().len()), (expected, expected));
        assert_eq!(held.rollout().is_none(), abort);
    }
}

#[tokio::test]
async fn an_order_that_is_not_stored_changes_nothing() {
    let mut held = Held::start(nodes(100, "m1")).await;
    held.said = nodes(101, "m1");
    held.decide().await;
    held.store.fails.store(true, Ordering::SeqCst);
    assert!(matches!(held.canary_back(1, false).await, Err(HoldOrderError::NotStored(_))));
    held.decide().await;
    assert_eq!((held.rollout(), held.wanted().map(|(number, _)| number)), (None, [2, 2]));
    held.store.fails.store(false, Ordering::SeqCst);
    held.canary_back(1, false).await.unwrap();
    held.decide().await;
    held.store.fails.store(true, Ordering::SeqCst);
    assert!(matches!(held.verdict(false).await, Err(HoldOrderError::NotStored(_))));
    held.bake(&[]).await;
    assert_eq!(held.rollout().unwrap().state, State::Baking, "it is promoted once that is stored");
    held.store.fails.store(false, Ordering::SeqCst);
    held.bake(&[]).await;
    assert_eq!(held.map().len(), 100);
}

/// What happens, in any order.
#[derive(Debug, Clone)]
enum Event {
    Say(usize),
    /// With a time that is over; with a crash before it is in force.
    RollBack(usize, bool, bool),
    /// The canary of one, or of what is held; with a crash before it is anywhere.
    Canary(usize, bool),
    CanaryApproved(bool),
    /// With a crash before it is in force.
    Promote(bool),
    Abort(bool),
    /// It bakes; an instance lacks it.
    Bake(Option<bool>),
    Resume,
    Reject,
    Approve,
    Restart,
}

impl Event {
    /// Mapsmith is killed right after it, and started again.
    fn ends_mapsmith(&self) -> bool {
        matches!(
            self,
            Self::RollBack(_, _, true)
                | Self::Canary(_, true)
                | Self::CanaryApproved(true)
                | Self::Promote(true)
                | Self::Abort(true)
                | Self::Restart
        )
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0..5usize).prop_map(Event::Say),
        2 => (0..9usize, any::<bool>(), any::<bool>())
            .prop_map(|(to, over, crash)| Event::RollBack(to, over, crash)),
        4 => (0..9usize, any::<bool>()).prop_map(|(to, crash)| Event::Canary(to, crash)),
        3 => any::<bool>().prop_map(Event::CanaryApproved),
        3 => any::<bool>().prop_map(Event::Promote),
        3 => any::<bool>().prop_map(Event::Abort),
        3 => proptest::option::of(any::<bool>()).prop_map(Event::Bake),
        1 => Just(Event::Resume),
        2 => Just(Event::Reject),
        2 => Just(Event::Approve),
        2 => Just(Event::Restart),
    ]
}

/// Two that the guard lets through from the first one, and two that it holds.
fn answers() -> Vec<EntryMap> {
    vec![nodes(40, "m1"), nodes(41, "m1"), nodes(42, "m1"), nodes(4, "m1"), nodes(40, "m2")]
}

/// What a model knows: whatever an instance may hold.
struct Model {
    held: Held,
    /// The map of the open rollout, and what was stable before it.
    canary: Option<(EntryMap, EntryMap)>,
}

impl Model {
    /// Does it; the map that it orders to be in force, if any, and whether it may not be yet.
    async fn take(&mut self, event: &Event) -> Option<EntryMap> {
        let (open, stable) = (self.held.rollout(), self.held.map());
        let bases: Vec<_> = self.held.store.bases.lock().unwrap().clone().into_iter().collect();
        let is_canary = open.as_ref().is_some_and(|it| it.is_canary());
        let waits = open.as_ref().is_some_and(|it| it.holds_sources());
        let mut ordered = None;
        match event {
            Event::Say(at) => self.held.said = answers()[*at].clone(),
            Event::RollBack(to, over, _) => {
                let (number, base) = &bases[to % bases.len()];
                let until = over.then_some(Timestamp::UNIX_EPOCH);
                match self.held.roll_back(*number, until).await {
                    Ok(()) => ordered = Some(base.clone()),
                    Err(_) => assert!(waits || self.held.state().hold.is_some(), "one at a time"),
                }
            }
            Event::Canary(to, _) => {
                let (number, base) = &bases[to % bases.len()];
                if self.held.canary_back(*number, true).await.is_ok() {
                    assert!(!waits, "never two");
                    self.canary = Some((base.clone(), stable));
                }
            }
            Event::CanaryApproved(_) => {
                let id = self.held.scene.decider.decision().held.as_ref().map(|it| it.id.clone());
                if let Some(id) = id {
                    self.held.canary_approved(&id).await.unwrap();
                    assert!(!waits, "nothing is held beside a canary");
                    self.canary = Some((self.held.said.clone(), stable));
                }
            }
            Event::Promote(_) => {
                if open.is_some() {
                    self.held.verdict(true).await.unwrap();
                    ordered = self.canary.clone().filter(|_| is_canary).map(|(base, _)| base);
                }
            }
            Event::Abort(_) => {
                if let Some(open) = &open {
                    self.held.verdict(false).await.unwrap();
                    // Before it was promoted what is stable is in force, and the sources are
                    // followed at once.
                    let stable = self.canary.take().map(|(_, stable)| stable);
                    ordered = stable.filter(|_| open.promoted.is_some());
                }
            }
            Event::Bake(lacks) => {
                let lacks: &[&str] = match lacks {
                    None => &[],
                    Some(true) => &["e1"],
                    Some(false) => &["e2"],
                };
                self.held.bake(lacks).await;
                if is_canary && self.held.rollout().is_none_or(|it| !it.is_canary()) {
                    ordered = self.canary.clone().map(|(base, _)| base);
                    assert!(!lacks.contains(&"e1"), "nobody saw it there");
                }
            }
            Event::Resume => drop(self.held.scene.decider.resume(None, None).await),
            Event::Reject | Event::Approve => {
                let held = self.held.scene.decider.decision().held.clone();
                match (held, event) {
                    (Some(held), Event::Reject) => drop(self.held.reject(&held.id).await.unwrap()),
                    (Some(held), _) => drop(self.held.scene.decider.approve(&held.id).unwrap()),
                    _ => {}
                }
            }
            Event::Restart => {}
        }
        if event.ends_mapsmith() {
            self.held.restart().await;
        }
        ordered
    }

    fn check(&mut self, event: &Event, before: (EntryMap, HoldState), ordered: Option<EntryMap>) {
        let (held, (map, hold)) = (&self.held, before);
        let (after, now, open) = (held.map(), held.state(), held.rollout());
        let waits = open.as_ref().is_some_and(|it| it.holds_sources());
        match &ordered {
            Some(ordered) => assert!(after == *ordered, "{event:?}: an order is in force at once"),
            None if waits => assert!(after == map, "{event:?}: what they say waits"),
            None => assert!(after == map || after == held.said, "{event:?}: of nobody"),
        }
        let [(number, there), (stable, here)] = held.wanted();
        assert!(here == after, "{event:?}: the others hold what is in force");
        let is_canary = open.as_ref().is_some_and(|it| it.is_canary());
        match (&self.canary, is_canary) {
            (Some((base, _)), true) => assert!(there == *base && number > stable, "{event:?}"),
            _ => assert!(there == after && number == stable, "{event:?}: no canary is left"),
        }
        if matches!(event, Event::Abort(_)) {
            assert_eq!(open, None, "an abort ends it");
        }
        let moved = after != map && ordered.is_none();
        let by_a_person = matches!(event, Event::Resume | Event::Approve);
        assert!(hold.hold.is_none() || by_a_person || !moved, "{event:?}: applied on hold");
        let file: Vec<_> = after.iter().map(|(node, master)| format!("{node} {master}")).collect();
        assert_eq!(held.scene.file(), file, "{event:?}: the file is what a restart loads");
        assert_eq!(held.scene.file_number(), held.number());
        assert_eq!(*held.store.state.lock().unwrap(), now, "and so is the store");
        let stored = held.store.rollouts.lock().unwrap().first().map(|it| it.rollout.clone());
        // What is observed of instances is in memory alone.
        let told = |it: Rollout| (it.id, it.state, it.version, it.revision, it.in_force);
        assert_eq!(stored.map(told), held.last_rollout().map(told), "{event:?}");
        let is_stopped = waits || now.lasting().is_some() || now.rejected.is_some();
        assert!(!is_stopped || held.scene.decider.decision().held.is_none(), "{event:?}");
        if let Some(Subject::Approve { .. }) = open.as_ref().map(|it| &it.subject) {
            assert!(now.lasting().is_none(), "nothing is approved on hold");
        }
    }
}

async fn goes_through(events: Vec<Event>) {
    let held = Held::start(answers()[0].clone()).await;
    let mut model = Model { held, canary: None };
    for event in events {
        let before = (model.held.map(), model.held.state());
        let ordered = model.take(&event).await;
        model.held.decide().await;
        model.check(&event, before, ordered);
    }
    // Whatever came before, an abort ends it.
    if model.held.rollout().is_some() {
        let before = (model.held.map(), model.held.state());
        let abort = Event::Abort(false);
        let ordered = model.take(&abort).await;
        model.held.decide().await;
        model.check(&abort, before, ordered);
    }
}

proptest! {
    #![proptest_config(Config::with_cases(48))]

    #[test]
    fn no_map_comes_into_force_that_nobody_let_through_and_an_abort_always_ends(
        events in proptest::collection::vec(event(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(goes_through(events));
    }
}
