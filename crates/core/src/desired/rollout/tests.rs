use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn begun(then: Then) -> Rollout {
    let instances = CanaryInstances::Named(vec!["e1".to_owned()]);
    let terms = Terms { instances, bake: Duration::from_secs(100), then };
    let subject = Subject::Rollback { of: 3 };
    let chosen = (vec!["e1".to_owned()], &terms);
    Rollout::begin(subject, Note::default(), chosen, (5, 6), at(0))
}

fn fleet(states: &[Option<u64>]) -> Vec<InstanceView> {
    let view = |(at, revision): (usize, &Option<u64>)| InstanceView {
        name: format!("e{}", at + 1),
        state: match revision {
            Some(revision) => InstanceState::InSync { revision: *revision },
            None => InstanceState::Unreachable {
                since: Timestamp::UNIX_EPOCH,
                error: "refused".to_owned(),
            },
        },
    };
    states.iter().enumerate().map(view).collect()
}

/// What it comes to over these seconds, where `fleet` is what its instance and the other hold.
fn watched(rollout: &mut Rollout, seconds: std::ops::Range<i64>, states: [Option<u64>; 2]) {
    for second in seconds {
        rollout.observe(&fleet(&states), at(second));
    }
}

#[test]
fn it_bakes_from_when_its_instances_have_it_and_is_promoted_then() {
    let mut rollout = begun(Then::Auto);
    watched(&mut rollout, 0..10, [Some(5), Some(5)]);
    assert_eq!((rollout.state, rollout.ends), (State::Waiting, None));
    watched(&mut rollout, 10..109, [Some(6), Some(5)]);
    assert_eq!((rollout.state, rollout.ends), (State::Baking, Some(at(110))));
    let views = fleet(&[Some(6), Some(5)]);
    assert_eq!(rollout.observe(&views, at(109)), Observation::Unchanged);
    assert_eq!(rollout.observe(&views, at(110)), Observation::Baked);
    let mut rollout = rollout.promote(Note::default(), at(110)).unwrap();
    assert!(rollout.is_promotion_pending() && rollout.is_canary());
    rollout.note_in_force(6, at(111));
    assert!(!rollout.is_canary() && !rollout.holds_sources() && rollout.is_open());
    assert_eq!(rollout.observe(&views, at(112)), Observation::Unchanged);
    assert_eq!(rollout.observe(&fleet(&[Some(6), Some(7)]), at(113)), Observation::Changed);
    assert_eq!(rollout.state, State::InForce);
    assert!(rollout.abort(Note::default(), None, at(114)).is_err(), "it is over");
}

#[test]
fn one_that_is_behind_for_a_while_or_at_the_end_is_a_matter_for_a_person() {
    let mut rollout = begun(Then::Auto);
    watched(&mut rollout, 0..50, [Some(6), Some(5)]);
    watched(&mut rollout, 50..79, [None, Some(5)]);
    assert_eq!(rollout.state, State::Baking, "a HAProxy may start again");
    watched(&mut rollout, 79..85, [Some(6), Some(5)]);
    watched(&mut rollout, 85..99, [Some(6), Some(5)]);
    watched(&mut rollout, 99..129, [Some(5), Some(5)]);
    assert_eq!(rollout.state, State::Baking, "nothing is promoted of which nothing is seen");
    watched(&mut rollout, 129..131, [Some(5), Some(5)]);
    assert_eq!(rollout.state, State::Paused);
    let why = format!("at {:.0} e1 did not hold the canary: in sync with revision 5", at(129));
    assert_eq!(rollout.why.as_ref(), Some(&why), "by now it may hold it again");
    watched(&mut rollout, 131..699, [Some(6), Some(5)]);
    assert_eq!((rollout.state, rollout.needs_a_person()), (State::Paused, true));
    watched(&mut rollout, 699..702, [Some(6), Some(5)]);
    assert_eq!((rollout.state, rollout.is_canary()), (State::Stuck, true), "it stays all the same");
    assert!(rollout.promote(Note::default(), at(702)).is_ok());
    assert_eq!(rollout.abort(Note::default(), None, at(702)).unwrap().state, State::Aborted);
}

#[test]
fn one_that_stays_says_so_when_the_settings_lose_its_instance() {
    let mut rollout = begun(Then::Auto);
    watched(&mut rollout, 0..40, [Some(5), Some(5)]);
    assert_eq!(rollout.state, State::Paused);
    let left = &fleet(&[Some(6), Some(5)])[1..];
    assert_eq!(rollout.observe(left, at(50)), Observation::Changed);
    let why = rollout.why.clone().unwrap();
    assert!(why.ends_with("; the settings have no instance e1"), "{why}");
    assert_eq!(rollout.observe(left, at(51)), Observation::Unchanged);
}

#[test]
fn one_that_is_to_wait_is_promoted_by_nobody_but_a_person() {
    let mut rollout = begun(Then::Wait);
    watched(&mut rollout, 0..500, [Some(6), Some(5)]);
    assert_eq!(rollout.state, State::Paused);
    assert_eq!(rollout.promote(Note::default(), at(500)).unwrap().state, State::Promoting);
}

#[test]
fn an_abort_is_possible_until_the_last_instance_has_it_and_so_is_an_end_without_it() {
    let mut promoted = begun(Then::Auto).promote(Note::default(), at(1)).unwrap();
    let mut early = promoted.abort(Note::default(), None, at(2)).unwrap();
    assert_eq!((early.state, early.is_canary()), (State::Aborting, false), "a file may say it");
    assert!(early.holds_sources() && early.promote(Note::default(), at(2)).is_err());
    early.note_in_force(9, at(3));
    assert_eq!(early.state, State::Aborted);
    promoted.note_in_force(6, at(2));
    watched(&mut promoted, 2..600, [Some(6), None]);
    assert_eq!(promoted.state, State::Promoting);
    watched(&mut promoted, 600..603, [Some(6), None]);
    assert!(promoted.state == State::Stuck && promoted.why.as_ref().unwrap().contains("e2: unre"));
    assert_eq!(promoted.abort(Note::default(), None, at(9)).unwrap().state, State::Aborting);
    assert_eq!(promoted.promote(Note::default(), at(9)).unwrap().state, State::InForce);
    watched(&mut promoted, 603..604, [Some(6), Some(6)]);
    assert_eq!(promoted.state, State::InForce, "it has come back");
}

#[test]
fn what_it_is_to_the_sources_hold() {
    let plan = Plan {
        answer: "said".to_owned(),
        hold_seconds: Some(60),
        stable: Fingerprint(1),
        canary: Fingerprint(2),
        hold_before: HoldState::default(),
    };
    let (none, note) = (HoldState::default(), Note::default());
    let back = begun(Then::Auto);
    let held = back.hold_promoted(&none, &plan, at(10));
    assert_eq!(held.hold.as_ref().unwrap().until, Some(at(70)), "it begins with the promotion");
    assert_eq!(held.rejected.as_ref().unwrap().answer, "said");
    let promoted = back.promote(note.clone(), at(10)).unwrap();
    let answer = Some("other".to_owned());
    assert_eq!(promoted.hold_aborted(&held, &plan, answer.clone(), &note, at(11)), none);

    let approved = Rollout { subject: Subject::Approve { held: "x".to_owned() }, ..back };
    assert_eq!(approved.hold_promoted(&none, &plan, at(10)), none);
    let aborted = approved.hold_aborted(&none, &plan, answer.clone(), &note, at(10));
    assert_eq!(aborted.aborted.as_ref().unwrap().answer, "said");
    let later = approved.promote(note.clone(), at(10)).unwrap();
    let later = later.hold_aborted(&none, &plan, answer, &note, at(10));
    assert_eq!(later.aborted.unwrap().answer, "other", "what came on top of it goes too");
}
