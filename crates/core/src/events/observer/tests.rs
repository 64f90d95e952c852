use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::attention::{HoldStatus, Kind, Severity};
use crate::desired::hold::{EndReason, Hold, HoldEnd};
use crate::desired::rollout::{CanaryInstances, Subject, Terms, Then};
use crate::revision::ChangeCounts;
use crate::snapshot::SourceState;
use crate::status::BackendStatus;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn revision(number: u64) -> RevisionSummary {
    RevisionSummary {
        number,
        at: at(number as i64),
        sources: vec!["puppetdb".to_owned()],
        entries: 3,
        counts: ChangeCounts { added: 1, moved: 0, removed: 0 },
    }
}

fn source(name: &str, error: Option<&str>) -> SourceStatus {
    let state =
        SourceState::<crate::EntryMap>::before_first_poll(name.to_owned(), "file".to_owned(), true);
    let error = error.map(str::to_owned);
    SourceStatus { answered_at: Some(at(0)), error, ..state.status }
}

fn held(id: &str) -> HeldChange {
    HeldChange {
        id: id.to_owned(),
        of: HeldChange::MAP.to_owned(),
        reason: "too many".to_owned(),
        since: at(0),
        entries_in_force: 3,
        entries_held: 1,
        counts: ChangeCounts::default(),
        applied: ChangeCounts::default(),
    }
}

/// What a process knows at a moment.
#[derive(Debug, Clone)]
struct Moment {
    status: Status,
    revisions: Vec<RevisionSummary>,
}

impl Moment {
    /// The revisions from 1 to the last are known; none where that is 0.
    fn new(last: u64, fails: bool, held_id: Option<&str>) -> Self {
        let status = Status {
            sources: vec![source("puppetdb", fails.then_some("503"))],
            held: held_id.map(held).into_iter().collect(),
            map_decided: true,
            ..Status::default()
        };
        Self { status, revisions: (1..=last).map(revision).collect() }
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            status: &self.status,
            revision: self.revisions.last().map(|revision| revision.number),
            revisions: &self.revisions,
            attention: None,
        }
    }
}

/// Kind, subject and state of each.
fn words(news: &[Happening]) -> Vec<String> {
    let word = |it: &Happening| {
        format!("{} {} {}", it.kind, it.subject, it.state.as_deref().unwrap_or_default())
    };
    news.iter().map(word).collect()
}

#[test]
fn what_is_another_state_than_that_of_its_last_event_is_an_event() {
    let mut observer = Observer::default();
    let mut tell = |moment: &Moment| {
        let news = observer.news(&moment.observed(), at(100));
        observer.told(&news, &moment.observed());
        news
    };
    let first = tell(&Moment::new(2, false, None));
    assert_eq!(words(&first), ["revision 1 1", "revision 2 2", "source puppetdb ok"]);
    assert_eq!(first[0].text, "revision 1 by puppetdb: 1 added, 0 moved, 0 removed");
    assert_eq!(tell(&Moment::new(2, false, None)), []);
    let second = tell(&Moment::new(3, true, Some("ab")));
    assert_eq!(words(&second), ["revision 3 3", "held map ab", "source puppetdb failed"]);
    let third = tell(&Moment::new(3, true, None));
    assert_eq!(words(&third), ["held map none"]);
    assert_eq!(tell(&Moment::new(3, true, None)), []);
}

#[test]
fn a_revision_that_nobody_has_told_of_is_told_after_a_restart() {
    let observer = Observer::new([
        Happening::new(at(0), EventKind::Revision, "4", String::new()).in_state("4")
    ]);
    let after = Moment::new(0, false, None);
    let kept = [revision(5), revision(6)];
    let observed = Observed { revision: Some(6), revisions: &kept, ..after.observed() };
    let news = observer.news(&observed, at(1));
    assert_eq!(words(&news)[..2], ["revision 5 5", "revision 6 6"]);
    let same = Observed { revision: Some(4), ..after.observed() };
    assert_eq!(words(&observer.news(&same, at(1))), ["source puppetdb ok"]);
}

#[test]
fn a_number_that_no_map_in_force_ever_had_is_no_event() {
    let observer = Observer::new([
        Happening::new(at(0), EventKind::Revision, "4", String::new()).in_state("4")
    ]);
    let after = Moment::new(0, false, None);
    // 5 was the canary of a rollback that was aborted.
    let known = [revision(6)];
    let observed = Observed { revision: Some(6), revisions: &known, ..after.observed() };
    let unknown = Observed { revision: Some(6), ..after.observed() };
    for observed in [observed, unknown] {
        let news = observer.news(&observed, at(1));
        assert_eq!(words(&news), ["revision 6 6", "source puppetdb ok"]);
    }
}

#[test]
fn a_change_that_is_held_over_a_restart_is_told_once() {
    let before = Moment::new(0, false, Some("ab"));
    let told = Observer::default().news(&before.observed(), at(0));
    assert_eq!(words(&told), ["held map ab", "source puppetdb ok"]);
    let mut observer = Observer::new(told);
    // The sources are asked still, or have answered and nothing was decided.
    let mut starting = Moment::new(0, false, None);
    starting.status.map_decided = false;
    for moment in [&starting, &before] {
        let news = observer.news(&moment.observed(), at(1));
        assert_eq!(words(&news), Vec::<String>::new());
        observer.told(&news, &moment.observed());
    }
    // Seen held, it is known to be so no more, whatever else is not known.
    assert_eq!(words(&observer.news(&starting.observed(), at(2))), ["held map none"]);
    let observer = Observer::new(Observer::default().news(&before.observed(), at(0)));
    let gone = Moment::new(0, false, None);
    assert_eq!(words(&observer.news(&gone.observed(), at(1))), ["held map none"], "it ended");
}

#[test]
fn a_held_list_of_servers_is_over_once_the_list_is_known() {
    let of = format!("{}web", HeldChange::BACKEND);
    let event = Happening::new(at(0), EventKind::Held, &of, String::new()).in_state("ab");
    let observer = Observer::new([event]);
    let news = |waiting_for: Option<&str>, stored_since: Option<Timestamp>| {
        let backend = serde_json::json!({
            "name": "web", "from": "source consul", "servers": [], "waiting_for": waiting_for,
            "stored_since": stored_since, "rejected": [], "stale": [], "held": null,
            "change_due": null, "leaving": [],
        });
        let backend: BackendStatus = serde_json::from_value(backend).unwrap();
        let mut moment = Moment::new(0, false, None);
        moment.status.sources.clear();
        moment.status.backends = vec![backend];
        words(&observer.news(&moment.observed(), at(1)))
    };
    assert_eq!(news(Some("consul"), Some(at(0))), Vec::<String>::new());
    assert_eq!(news(None, None), ["held backend web none"]);
}

#[test]
fn a_hold_is_told_once_though_the_store_keeps_its_beginning_less_exactly() {
    let exactly = at(2).checked_add(SignedDuration::from_nanos(884_574_571)).unwrap();
    let stored = Timestamp::from_millisecond(exactly.as_millisecond()).unwrap();
    let news = |observer: &Observer, since| {
        let note = Note::default();
        let hold = Hold { of: 3, revision: Some(6), since, until: None, note, ended: None };
        let hold = Some(HoldStatus { hold, waiting: ChangeCounts::default() });
        let status = Status { hold, ..Status::default() };
        let observed =
            Observed { status: &status, revision: None, revisions: &[], attention: None };
        observer.news(&observed, at(9))
    };
    let told = news(&Observer::default(), exactly);
    assert_eq!(told.len(), 1);
    assert_eq!(news(&Observer::new(told), stored), []);
}

#[test]
fn the_worst_that_was_told_is_known_after_a_restart() {
    let key = Key {
        severity: Severity::Act,
        kind: Kind::InstanceUnreachable,
        subject: "edge1".to_owned(),
    };
    let moment = Moment::new(0, false, None);
    let worst = Some((Some(key.clone()), "edge1 is unreachable".to_owned()));
    let observed = Observed { attention: worst, ..moment.observed() };
    let news = Observer::default().news(&observed, at(1));
    assert_eq!(Observer::new(news).worst(), Some(key));
    assert_eq!(Observer::default().worst(), None);
}

fn any_moments() -> impl Strategy<Value = Vec<(u64, bool, Option<u8>)>> {
    prop::collection::vec((0..3u64, any::<bool>(), prop::option::of(0..3u8)), 1..20)
}

proptest! {
    /// Over a crash at any point, before or after the events were kept, each revision has one event
    /// and no state has two in a row.
    #[test]
    fn nothing_is_lost_or_doubled_over_crashes(
        moments in any_moments(),
        crashes in prop::collection::vec(0..3u8, 20),
    ) {
        let (mut kept, mut last): (Vec<Happening>, u64) = (Vec::new(), 0);
        let mut observer = Observer::default();
        for ((more, fails, id), crash) in moments.into_iter().zip(crashes) {
            last += more;
            let id = id.map(|id| format!("id{id}"));
            let moment = Moment::new(last, fails, id.as_deref());
            let news = observer.news(&moment.observed(), at(0));
            match crash {
                // They were not kept; the process that comes knows what is in the store.
                1 => observer = Observer::new(kept.clone()),
                2 => {
                    kept.extend(news);
                    observer = Observer::new(kept.clone());
                }
                _ => {
                    observer.told(&news, &moment.observed());
                    kept.extend(news);
                }
            }
        }
        let of = |kind| kept.iter().filter(move |it| it.kind == kind).map(|it| it.state.clone());
        let revisions: Vec<u64> =
            of(EventKind::Revision).map(|number| number.unwrap().parse().unwrap()).collect();
        prop_assert!(revisions.is_sorted_by(|a, b| a + 1 == *b), "{revisions:?}");
        for kind in [EventKind::Source, EventKind::Held] {
            let states: Vec<_> = of(kind).collect();
            prop_assert!(states.windows(2).all(|two| two[0] != two[1]), "{states:?}");
        }
    }
}

#[test]
fn a_hold_and_a_rollout_are_told_once_as_they_begin_and_end_also_over_a_restart() {
    let instances = CanaryInstances::Named(vec!["e1".to_owned()]);
    let terms = Terms { instances, bake: Duration::from_secs(60), then: Then::Auto };
    let (subject, chosen) = (Subject::Rollback { of: 3 }, (vec!["e1".to_owned()], &terms));
    let note = Note { reason: Some("site 7".to_owned()), by: Some("anna".to_owned()) };
    let rollout = Rollout::begin(subject, note.clone(), chosen, (5, 6), at(0));
    let aborted = rollout.abort(Note::default(), None, at(1)).unwrap();
    let (of, revision, since) = (3, Some(6), at(2));
    let hold = Hold { of, revision, since, until: None, note, ended: None };
    let over = HoldEnd { at: at(3), why: EndReason::OtherAnswer };
    let over = Hold { ended: Some(over), ..hold.clone() };
    let moments = [
        (Some(rollout), None),
        (Some(aborted.clone()), Some(hold)),
        (Some(aborted.clone()), Some(over)),
        (Some(aborted), None),
    ];
    let (mut told, mut all) = (Vec::<Happening>::new(), Vec::new());
    for (rollout, hold) in moments {
        let hold = hold.map(|hold| HoldStatus { hold, waiting: ChangeCounts::default() });
        let status = Status { rollout, hold, ..Status::default() };
        let observed =
            Observed { status: &status, revision: None, revisions: &[], attention: None };
        for _ in 0..2 {
            // Each time as after a restart.
            let news = Observer::new(told.clone()).news(&observed, at(9));
            all.extend(news.iter().map(|it| (it.kind, it.state.clone().unwrap(), it.by.clone())));
            told.extend(news);
        }
    }
    let anna = || Some("anna".to_owned());
    let expected = [
        (EventKind::Rollout, "waiting".to_owned(), anna()),
        (EventKind::Hold, at(2).to_string(), anna()),
        (EventKind::Rollout, "aborted".to_owned(), None),
        (EventKind::Hold, "over".to_owned(), None),
        (EventKind::Hold, "none".to_owned(), None),
    ];
    assert_eq!(all, expected);
}

#[test]
fn the_end_of_a_hold_that_was_ordered_is_told_once_by_the_order_alone() {
    let hold = |since| {
        let note = Note::default();
        let hold = Hold { of: 3, revision: Some(6), since, until: None, note, ended: None };
        Some(HoldStatus { hold, waiting: ChangeCounts::default() })
    };
    let mut observer = Observer::default();
    let look = |observer: &mut Observer, hold: Option<HoldStatus>| {
        let status = Status { hold, ..Status::default() };
        let observed =
            Observed { status: &status, revision: None, revisions: &[], attention: None };
        let news = observer.news(&observed, at(9));
        observer.told(&news, &observed);
        news.iter().map(|it| it.state.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(look(&mut observer, hold(at(2))), [at(2).to_string()]);
    observer.kept(&end_of_hold(at(3)));
    // What is seen may still be from before.
    assert_eq!(look(&mut observer, hold(at(2))), [""; 0]);
    assert_eq!(look(&mut observer, None), [""; 0], "the order has told it");
    assert_eq!(look(&mut observer, hold(at(4))), [at(4).to_string()], "another one is news");
    assert_eq!(look(&mut observer, None), ["none"], "nobody has ordered that");
}

#[test]
fn a_revision_of_no_source_is_by_none() {
    let told = |sources: &[&str]| {
        let revision = RevisionSummary {
            number: 9,
            at: at(1),
            sources: sources.iter().map(|it| (*it).to_owned()).collect(),
            entries: 0,
            counts: ChangeCounts::default(),
        };
        let status = Status::default();
        let revisions = [revision];
        let observed =
            Observed { status: &status, revision: Some(9), revisions: &revisions, attention: None };
        Observer::default().news(&observed, at(2)).remove(0).text
    };
    assert!(told(&[]).starts_with("revision 9: "), "{}", told(&[]));
    assert!(told(&["puppetdb"]).starts_with("revision 9 by puppetdb: "), "{}", told(&["puppetdb"]));
}
