use proptest::prelude::*;

use super::*;
use crate::desired::gate::{Gate, Verdict};
use crate::revision::{ChangeCounts, HeldChange};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rollback(until: Option<i64>) -> Rollback {
    Rollback { of: 7, until: until.map(at), note: Note::default(), replace: false }
}

fn holding(until: Option<i64>) -> HoldState {
    let mut state = HoldState::default().rolled_back(rollback(until), "bad".into(), at(0)).unwrap();
    state.note_in_force(9);
    state
}

#[test]
fn what_was_rolled_back_from_is_not_applied_and_not_shown() {
    let mut state = holding(Some(60));
    assert_eq!(state.observe("bad", Some("good"), at(59)), Course::Stay);
    assert_eq!(state.observe("good", Some("good"), at(59)), Course::Stay, "they agree for now");
    assert_eq!(state.check_approval(), Err(HoldError::OnHold(7)));
    assert_eq!(state.next_end(), Some(at(60)));
}

#[test]
fn a_hold_that_is_over_leaves_a_held_change_and_only_a_person_ends_it() {
    for (answer, now, why) in
        [("bad", 60, EndReason::TimeOver), ("other", 1, EndReason::OtherAnswer)]
    {
        let mut state = holding(Some(60));
        let course = state.observe(answer, Some("good"), at(now));
        assert!(matches!(&course, Course::Hold(reason) if reason.contains("revision 7")));
        assert_eq!(state.hold.as_ref().unwrap().ended.unwrap().why, why);
        assert_eq!(state.check_approval(), Ok(()));
        assert_eq!(state.next_end(), None);
        assert_eq!(state.observe("good", Some("good"), at(99)), Course::Stay);
        assert!(matches!(state.observe("bad", Some("good"), at(99)), Course::Hold(_)));
        let rejected =
            state.rejecting("bad".into(), &held("bad"), Note::default(), at(99)).unwrap();
        let mut after = rejected.clone();
        assert_eq!(after.observe("bad", Some("good"), at(99)), Course::Stay);
        assert!(matches!(after.observe("more", Some("good"), at(99)), Course::Hold(_)));
        assert_eq!(rejected.resumed(), Ok(HoldState::default()));
        state.note_approved();
        assert_eq!(state.observe("bad", Some("bad"), at(99)), Course::Follow);
    }
    let mut lost = holding(None);
    assert!(matches!(lost.observe("bad", None, at(1)), Course::Hold(_)), "a map must come back");
}

fn held(id: &str) -> HeldChange {
    HeldChange {
        id: format!("held-{id}"),
        of: HeldChange::MAP.to_owned(),
        reason: "too much".to_owned(),
        since: at(0),
        entries_in_force: 9,
        entries_held: 2,
        counts: ChangeCounts { removed: 7, ..ChangeCounts::default() },
        applied: ChangeCounts::default(),
    }
}

#[test]
fn a_rejection_that_is_taken_back_leaves_the_answer_to_the_guard_and_nothing_else_changes() {
    let note = Note { reason: Some("no".to_owned()), by: Some("anna".to_owned()) };
    let state = HoldState::default();
    let state = state.rejecting("x".into(), &held("x"), note.clone(), at(5)).unwrap();
    let rejected = state.rejected_change().unwrap();
    assert_eq!((rejected.id(), &rejected.note, rejected.at), ("held-x", &note, at(5)));
    assert_eq!(rejected.change, Some(RejectedChange::from(&held("x"))));
    let other = state.unrejected("held-y").unwrap_err();
    assert_eq!(other, HoldError::NotRejected("held-y".to_owned()));
    let (mut after, rejected) = state.unrejected("held-x").unwrap();
    assert_eq!((after.clone(), rejected.id()), (HoldState::default(), "held-x"));
    assert_eq!(after.observe("x", Some("good"), at(6)), Course::Follow);

    // After a hold it is held again, whatever the guard says.
    let mut over = holding(Some(60));
    over.observe("bad", Some("good"), at(60));
    let over = over.rejecting("bad".into(), &held("bad"), note, at(61)).unwrap();
    let (mut after, _) = over.unrejected("held-bad").unwrap();
    assert!(matches!(after.observe("bad", Some("good"), at(62)), Course::Hold(_)));

    // What was rolled back from is no rejected change: that ends by resuming.
    let lasting = holding(None);
    assert_eq!(lasting.rejected_change(), None);
    assert_eq!(lasting.unrejected("bad").unwrap_err(), HoldError::OnHold(7));
}

#[test]
fn a_state_that_was_kept_before_rejections_had_their_change_is_read() {
    let kept = r#"{"hold": null, "rejected": {"answer": "00ff", "at": "1970-01-01T00:00:05Z",
        "reason": null, "by": "anna"}}"#;
    let state: HoldState = serde_json::from_str(kept).unwrap();
    let rejected = state.rejected_change().unwrap();
    assert_eq!((rejected.id(), &rejected.change), ("00ff", &None));
    let note = Note { reason: None, by: Some("anna".to_owned()) };
    let state = HoldState::default().rejecting("x".into(), &held("x"), note, at(5)).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<HoldState>(&text).unwrap(), state, "{text}");
}

#[test]
fn a_rejected_answer_is_judged_again_once_the_sources_have_said_something_else() {
    let state = HoldState::default();
    let mut state = state.rejecting("x".into(), &held("x"), Note::default(), at(0)).unwrap();
    assert_eq!(state.observe("x", Some("good"), at(1)), Course::Stay);
    assert_eq!(state.observe("y", Some("good"), at(1)), Course::Follow);
    assert_eq!(state.observe("x", Some("good"), at(1)), Course::Follow);
}

#[test]
fn what_was_aborted_is_held_while_the_sources_say_it_whatever_the_guard_says() {
    let aborted =
        Rejected { answer: "x".to_owned(), at: at(0), note: Note::default(), change: None };
    let mut state = HoldState { aborted: Some(aborted), ..HoldState::default() };
    assert!(
        matches!(state.observe("x", Some("good"), at(1)), Course::Hold(_)),
        "its canary was aborted"
    );
    assert_eq!(state.observe("x", Some("x"), at(1)), Course::Follow, "it is in force by now");
    assert_eq!(state.observe("y", Some("good"), at(1)), Course::Follow);
    assert_eq!(state.observe("x", Some("good"), at(1)), Course::Follow);
}

#[test]
fn one_rollback_takes_the_place_of_another_only_where_that_is_said() {
    let state = holding(None);
    let again = state.rolled_back(rollback(None), "bad".into(), at(1));
    assert_eq!(again, Err(HoldError::InPlace(7)));
    let instead = Rollback { of: 5, replace: true, ..rollback(None) };
    let state = state.rolled_back(instead, "bad".into(), at(1)).unwrap();
    assert!(state.is_pending());
    assert_eq!(HoldState::default().resumed(), Err(HoldError::NoHold));
}

/// What happens, in any order.
#[derive(Debug, Clone)]
enum Event {
    Say(u32),
    /// To one of the maps that were in force; the crash comes before it is, or before that is
    /// stored.
    RollBack {
        to: usize,
        lasts: Option<i64>,
        replace: bool,
        crash: Option<bool>,
    },
    Resume,
    Reject,
    Approve,
    Time(i64),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let lasts = prop_oneof![Just(None), (1..40i64).prop_map(Some)];
    let crash = prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)];
    prop_oneof![
        4 => (0..7u32).prop_map(Event::Say),
        3 => (0..9usize, lasts, any::<bool>(), crash)
            .prop_map(|(to, lasts, replace, crash)| Event::RollBack { to, lasts, replace, crash }),
        1 => Just(Event::Resume),
        1 => Just(Event::Reject),
        2 => Just(Event::Approve),
        2 => (1..30i64).prop_map(Event::Time),
        1 => Just(Event::Restart),
    ]
}

/// A decider in little: maps are numbers, and the guard lets steps of one through.
struct Model {
    state: HoldState,
    gate: Gate<u32>,
    pending: Option<u32>,
    said: u32,
    now: i64,
    /// What outlives a crash: the store, with the map that a rollback is to, and the map file.
    stored: (HoldState, u32),
    file: u32,
    /// Each map that was in force.
    were: Vec<u32>,
    /// Approved by a person.
    approved: Option<u32>,
}

impl Model {
    fn decide(&mut self) {
        let (before, had_hold) = (self.file, self.state.hold.is_some());
        let rejected = self.state.rejected.clone();
        if let Some(base) = self.pending.take() {
            self.accept(base);
            self.state.note_in_force(1);
        } else {
            let (answer, accepted) = (self.said.to_string(), self.file.to_string());
            let course = self.state.observe(&answer, Some(&accepted), at(self.now));
            let limits = match course {
                Course::Follow if self.said.abs_diff(self.file) <= 1 => Ok(()),
                Course::Follow => Err("too much".to_owned()),
                Course::Stay => {
                    self.gate.settle();
                    self.stored.0 = self.state.clone();
                    return assert_eq!(self.gate.held(), None);
                }
                Course::Hold(reason) => Err(reason),
            };
            let passes = limits.is_ok();
            let held = |id, reason| HeldChange {
                id,
                of: HeldChange::MAP.to_owned(),
                reason,
                since: at(0),
                entries_in_force: 0,
                entries_held: 0,
                counts: ChangeCounts::default(),
                applied: ChangeCounts::default(),
            };
            if self.said == self.file {
                self.gate.settle();
            } else {
                match self.gate.submit(limits, || answer.clone(), held) {
                    Verdict::Held(_) => {}
                    verdict => {
                        if verdict == Verdict::Approved {
                            assert_eq!(self.approved, Some(self.said));
                            self.state.note_approved();
                        }
                        assert!(passes || verdict == Verdict::Approved);
                        assert!(!had_hold || verdict == Verdict::Approved, "not by itself");
                        assert!(rejected.is_none_or(|it| it.answer != answer), "it was rejected");
                        self.gate.release();
                        self.accept(self.said);
                    }
                }
            }
            assert!(self.file == before || self.file == self.said);
        }
        self.stored.0 = self.state.clone();
    }

    fn accept(&mut self, map: u32) {
        (self.file, self.approved) = (map, None);
        self.gate.accept(map);
        self.were.push(map);
    }

    fn restart(&mut self) {
        self.gate = Gate::default();
        self.gate.resume(Some(self.file));
        self.state = self.stored.0.clone();
        self.approved = None;
        self.pending = self.state.is_pending().then_some(self.stored.1);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Say(map) => self.said = map,
            Event::Time(seconds) => self.now += seconds,
            Event::Restart => self.restart(),
            Event::RollBack { to, lasts, replace, crash } => {
                let base = self.were[to % self.were.len()];
                let until = lasts.map(|lasts| at(self.now + lasts));
                let order = Rollback { of: 1, until, note: Note::default(), replace };
                let order = self.state.rolled_back(order, self.said.to_string(), at(self.now));
                let Ok(state) = order else { return assert!(self.state.hold.is_some()) };
                self.stored = (state.clone(), base);
                if crash == Some(false) {
                    return self.restart();
                }
                self.gate.settle();
                (self.state, self.pending) = (state.clone(), Some(base));
                self.decide();
                assert_eq!(self.file, base);
                if crash == Some(true) {
                    self.stored.0 = state;
                    self.restart();
                }
            }
            Event::Resume => match self.state.resumed() {
                Ok(state) => {
                    (self.stored.0, self.state, self.pending) = (state.clone(), state, None)
                }
                Err(error) => assert_eq!(error, HoldError::NoHold),
            },
            Event::Reject if self.gate.held().is_some() => {
                let answer = self.said.to_string();
                let held = self.gate.held().cloned().unwrap();
                let state = self.state.rejecting(answer, &held, Note::default(), at(self.now));
                let state = state.unwrap();
                (self.stored.0, self.state) = (state.clone(), state);
                self.gate.settle();
            }
            Event::Approve => {
                let held = self.gate.held().map(|held| held.id.clone());
                if let Some(id) = held {
                    assert_eq!(self.state.check_approval(), Ok(()), "nothing is held on hold");
                    self.gate.approve(&id).unwrap();
                    self.approved = id.parse().ok();
                }
            }
            Event::Reject => {}
        }
    }
}

proptest! {
    #[test]
    fn no_map_comes_into_force_that_nobody_has_let_through(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut model = Model {
            state: HoldState::default(),
            gate: Gate::default(),
            pending: None,
            said: 3,
            now: 0,
            stored: (HoldState::default(), 0),
            file: 3,
            were: vec![3],
            approved: None,
        };
        model.restart();
        for event in events {
            let on_hold = model.state.hold.is_some();
            let by_a_person = matches!(event, Event::Resume | Event::Approve);
            model.take(event);
            model.decide();
            let is_over = on_hold && model.state.hold.is_none();
            prop_assert!(!is_over || by_a_person, "a hold ended by itself");
            prop_assert!(!model.state.is_pending(), "a rollback is in force at once");
        }
    }
}
