use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::Note;
use crate::events::{EventKind, Happening};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn key(version: &str, port: u16) -> MemberKey {
    MemberKey::new("web", version, "10.0.0.3", &port.to_string()).unwrap()
}

fn member(version: &str, port: u16, ttl: Option<u64>) -> Member {
    let (key, ttl) = (key(version, port), ttl.map(seconds));
    Member { key, meta: Meta::new(), ttl, since: at(1), by: None }
}

fn register(members: &mut Members, new: &Member) -> Effect {
    let batch = members.prepare(&[MemberChange::Register(new.clone())]);
    let effect = batch.effects[0];
    members.apply(batch);
    effect
}

/// Whole seconds pass, as the task that looks sees them.
fn pass(members: &mut Members, from: u64, count: u64) -> u64 {
    for second in from..=from + count {
        members.advance(seconds(second));
    }
    from + count
}

fn servers(members: &Members, version: &str) -> Vec<String> {
    members.list("web", [version]).servers.into_iter().map(|server| server.name).collect()
}

#[test]
fn a_member_is_known_by_its_address_however_it_is_written() {
    let same =
        [("10.0.0.3", "10.0.0.3:80"), ("[fe80::1]", "fe80::1:80"), ("FE80::1", "fe80::1:80")];
    for (host, server) in same.into_iter().chain([("Web.Example", "web.example:80")]) {
        assert_eq!(MemberKey::new("web", "1.0.0", host, "80").unwrap().server(), server);
    }
    for (name, version, host, port) in [
        ("", "1", "h", "80"),
        ("..", "1", "h", "80"),
        ("a b", "1", "h", "80"),
        ("a/b", "1", "h", "80"),
        ("web", "1\n", "h", "80"),
        ("web", "1", "", "80"),
        ("web", "1", "a b", "80"),
        ("web", "1", "h:81", "80"),
        ("web", "1", "0.0.0.0", "80"),
        ("web", "1", "h", "0"),
        ("web", "1", "h", "+80"),
        ("web", "1", "h", "65536"),
        ("web", "1", "h", "http"),
    ] {
        let made = MemberKey::new(name, version, host, port);
        assert!(made.is_err(), "{name:?} {version:?} {host:?} {port:?}: {made:?}");
    }
    assert!(check_name("name", &"x".repeat(LONGEST_NAME + 1)).is_err());
    let large = Meta::from_iter([("a".to_owned(), "x".repeat(LARGEST_META).into())]);
    assert_eq!(Member { meta: large, ..member("1", 80, None) }.check(), Err(InvalidMember::Meta));
    assert_eq!(member("1", 80, Some(0)).check(), Err(InvalidMember::Ttl));
    assert_eq!(member("1", 80, Some(10)).check(), Ok(()));
}

#[test]
fn a_member_is_registered_heard_of_changed_and_gone() {
    let mut members = Members::default();
    let first = member("1", 80, Some(10));
    assert!(!members.check_in(&first), "it is news");
    assert_eq!(register(&mut members, &first), Effect::Registered);
    assert!(members.check_in(&first));
    assert_eq!(register(&mut members, &first), Effect::CheckedIn);
    let meta = Meta::from_iter([("rack".to_owned(), "b2".into())]);
    let changed = Member { meta, since: at(9), ..first.clone() };
    assert!(!members.check_in(&changed));
    assert_eq!(register(&mut members, &changed), Effect::Changed);
    assert_eq!(members.get(&first.key).unwrap().member.since, at(1), "it was there all along");
    assert_eq!(servers(&members, "1"), ["10.0.0.3:80"]);

    // What comes together counts in its order.
    let changes = [
        MemberChange::Unregister(first.key.clone()),
        MemberChange::Unregister(first.key.clone()),
        MemberChange::Register(first.clone()),
        MemberChange::Register(first.clone()),
        MemberChange::Register(member("2", 81, None)),
    ];
    let batch = members.prepare(&changes);
    let effects = [
        Effect::Unregistered,
        Effect::Unknown,
        Effect::Registered,
        Effect::CheckedIn,
        Effect::Registered,
    ];
    assert_eq!(batch.effects, effects);
    assert_eq!(batch.writes.len(), 2, "{batch:?}");
    let touched = members.apply(batch);
    assert_eq!(touched.len(), 2);
    let counts = members.versions("web");
    assert_eq!(counts.iter().map(|it| it.members).collect::<Vec<_>>(), [1, 1]);

    let gone = members.prepare(&[MemberChange::Unregister(key("2", 81))]);
    members.apply(gone);
    assert_eq!(members.left("web", ["1", "2"]), ["10.0.0.3:81".to_owned()].into());
    assert!(members.left("web", ["1"]).is_empty());
    assert!(servers(&members, "2").is_empty());
}

#[test]
fn who_is_silent_for_too_long_is_expired_and_comes_back_with_its_next_word() {
    let mut members = Members::default();
    let (short, long) = (member("1", 80, Some(10)), member("1", 81, None));
    register(&mut members, &short);
    register(&mut members, &long);
    let now = pass(&mut members, 0, 9);
    assert!(members.due().is_empty());
    assert!(members.check_in(&short));
    let now = pass(&mut members, now, 9);
    assert!(members.due().is_empty());
    pass(&mut members, now, 1);
    assert_eq!(members.due(), std::slice::from_ref(&short.key));
    members.expire(std::slice::from_ref(&short.key), at(100));
    assert!(members.due().is_empty(), "once");
    assert_eq!(servers(&members, "1"), ["10.0.0.3:81"]);
    assert_eq!(members.known("web", ["1"]).len(), 2, "it is known still");
    assert_eq!(members.lifetime(members.get(&short.key).unwrap()), Lifetime::ExpiredAt(at(100)));
    assert!(!members.check_in(&short), "that it is back is news");
    assert_eq!(register(&mut members, &short), Effect::Registered);
    assert_eq!(servers(&members, "1").len(), 2);

    members.expire(std::slice::from_ref(&short.key), at(100));
    assert!(members.forgettable(at(101)).is_empty());
    let old = members.forgettable(at(100 + 24 * 60 * 60));
    assert_eq!(old, std::slice::from_ref(&short.key));
    members.forget(&old);
    assert_eq!(members.len(), 1);
}

#[test]
fn time_without_mapsmith_is_nobodys_silence() {
    let mut members = Members::default();
    members.advance(seconds(0));
    register(&mut members, &member("1", 80, Some(10)));
    // The clock jumps, both ways; or the program was stopped.
    for jump in [3_000, 2_000, 9_999_999, 0, 5_000] {
        members.advance(seconds(jump));
    }
    assert!(members.due().is_empty(), "five looks are five seconds at most");

    // A start gives everybody the time to be heard of.
    let stored =
        [(Some(seconds(0)), 10), (Some(seconds(1)), 100), (None, 3), (Some(seconds(90)), 100)];
    for (left, ttl) in stored {
        let mut members = Members::default();
        members.restore(member("1", 80, Some(ttl)), left, None);
        let Lifetime::Left(has) = members.lifetime(members.get(&key("1", 80)).unwrap()) else {
            panic!("it has an end")
        };
        assert!(has >= seconds(10) && has >= seconds(ttl) / 2, "{left:?} of {ttl}: {has:?}");
        assert!(has <= seconds(ttl.max(10)), "{left:?} of {ttl}: {has:?}");
    }
}

#[test]
fn lifetimes_are_stored_only_where_they_are_far_from_what_is_stored() {
    let mut members = Members::default();
    let (often, seldom) = (member("1", 80, Some(10)), member("1", 81, Some(3600)));
    register(&mut members, &often);
    register(&mut members, &seldom);
    let mut now = 0;
    for _ in 0..200 {
        now = pass(&mut members, now, 3);
        assert!(members.check_in(&often));
        assert!(members.lifetimes_to_store().is_empty());
    }
    now = pass(&mut members, now, 400);
    let due = members.lifetimes_to_store();
    let names: Vec<_> = due.iter().map(|(key, _)| key.port).collect();
    assert_eq!(names, [81], "whoever is due is no news");
    members.lifetimes_stored(&due);
    assert!(members.lifetimes_to_store().is_empty());
    // Back from a long silence: a crash must not take that away.
    now = pass(&mut members, now, 800);
    assert!(members.check_in(&seldom));
    pass(&mut members, now, 1);
    let due = members.lifetimes_to_store();
    assert!(due.iter().any(|(key, left)| key.port == 81 && *left > seconds(3590)), "{due:?}");
}

#[test]
fn members_are_found_page_by_page() {
    let mut members = Members::default();
    for (version, port) in [("1", 80), ("1", 81), ("2", 80)] {
        register(&mut members, &member(version, port, None));
    }
    let mut other = member("1", 80, None);
    other.key.name = "api".to_owned();
    register(&mut members, &other);
    let paths = |name: Option<&str>, version: Option<&str>, after: Option<&MemberKey>| {
        let found = members.of(name, version, after);
        found.map(|kept| kept.member.key.to_string()).collect::<Vec<_>>()
    };
    let all = ["api/1/10.0.0.3/80", "web/1/10.0.0.3/80", "web/1/10.0.0.3/81", "web/2/10.0.0.3/80"];
    assert_eq!(paths(None, None, None), all);
    assert_eq!(paths(None, None, Some(&key("1", 80))), all[2..]);
    assert_eq!(paths(Some("web"), None, None), all[1..]);
    assert_eq!(paths(Some("web"), Some("1"), Some(&key("1", 80))), all[2..3]);
    assert_eq!(paths(Some("web"), Some("1"), Some(&other.key)), all[1..3]);
    assert!(paths(Some("we"), None, None).is_empty());
}

#[test]
fn too_many_members_are_refused_and_those_that_are_there_are_heard() {
    let mut members = Members::default();
    for port in 1..=u16::try_from(MOST_MEMBERS).unwrap() {
        members.restore(member("1", port, None), None, None);
    }
    assert_eq!(register(&mut members, &member("1", 20_000, None)), Effect::Full);
    assert_eq!(register(&mut members, &member("1", 1, None)), Effect::CheckedIn);
    let changes =
        [MemberChange::Unregister(key("1", 1)), MemberChange::Register(member("1", 20_000, None))];
    assert_eq!(members.prepare(&changes).effects, [Effect::Unregistered, Effect::Registered]);
}

#[test]
fn one_token_takes_a_quarter_of_the_places_and_those_that_expired_first_make_room() {
    let mut members = Members::default();
    let ports = 1..=u16::try_from(MOST_BY_GRANT).unwrap();
    let of = |by: &str, port: u16| Member { by: Some(by.to_owned()), ..member("1", port, None) };
    ports.for_each(|port| members.restore(of("ci", port), None, None));
    let register = |members: &Members, new: Vec<Member>| {
        let changes: Vec<_> = new.into_iter().map(MemberChange::RegisterByGrant).collect();
        members.prepare(&changes).effects
    };
    let new = vec![of("ci", 20_000), of("ci", 1), of("other", 20_001), of("ci", 20_002)];
    let full = [Effect::FullOfOne, Effect::CheckedIn, Effect::Registered, Effect::FullOfOne];
    assert_eq!(register(&members, new), full);
    let other = Member { meta: Meta::from_iter([("a".into(), 1.into())]), ..of("ci", 1) };
    assert_eq!(register(&members, vec![other]), [Effect::Changed]);
    let changes = [
        MemberChange::Unregister(key("1", 1)),
        MemberChange::RegisterByGrant(of("ci", 20_000)),
        MemberChange::RegisterByGrant(of("ci", 20_001)),
        MemberChange::Register(of("ci", 20_002)),
    ];
    let effects = members.prepare(&changes).effects;
    let expected =
        [Effect::Unregistered, Effect::Registered, Effect::FullOfOne, Effect::Registered];
    assert_eq!(effects, expected);

    members.restore(of("other", 30_000), None, Some(at(1)));
    for (port, second) in [(7, 9), (8, 3), (9, 5)] {
        members.expire(&[key("1", port)], at(second));
    }
    let room = |by: Option<&str>| {
        let is_kept = |kept: &Kept| kept.member.key.port == 9;
        members.room(by, is_kept).into_iter().map(|key| key.port).collect::<Vec<_>>()
    };
    assert_eq!(room(Some("ci")), [8, 7], "another one's expired members are not its room");
    assert_eq!(room(None), [30_000, 8, 7]);
    let gone = members.room(Some("ci"), |_| false);
    members.forget(&gone);
    assert_eq!(register(&members, vec![of("ci", 20_000)]), [Effect::Registered]);
}

#[test]
fn of_those_that_were_taken_away_only_so_many_are_remembered() {
    let mut members = Members::default();
    let mut leave = |second: u64, ports: std::ops::Range<u16>| {
        members.advance(seconds(second));
        let members_of = |port| member("1", port, None);
        let come = ports.clone().map(|port| MemberChange::Register(members_of(port)));
        let go = ports.map(|port| MemberChange::Unregister(key("1", port)));
        let batch = members.prepare(&come.chain(go).collect::<Vec<_>>());
        members.apply(batch);
        members.left("web", ["1"])
    };
    assert_eq!(leave(0, 1..101).len(), 100);
    assert_eq!(leave(1, 101..10_001).len(), MOST_MEMBERS);
    let left = leave(2, 20_000..20_050);
    assert_eq!(left.len(), MOST_MEMBERS);
    assert!(left.contains("10.0.0.3:20049") && left.contains("10.0.0.3:101"));
    let oldest = (1..101).filter(|port| left.contains(&format!("10.0.0.3:{port}"))).count();
    assert_eq!(oldest, 50, "those of long ago are forgotten first");
}

fn switched(version: &BackendVersion, to: &str) -> BackendVersion {
    version.switched(to, None, at(5), Note::default()).unwrap()
}

#[test]
fn a_switch_has_both_versions_until_the_new_one_is_ready_and_previous_is_the_way_back() {
    let first = BackendVersion::declared("app", "web", "1", at(1));
    assert_eq!(first.versions().collect::<Vec<_>>(), ["1"]);
    assert_eq!(first.switched("1", None, at(2), Note::default()), None, "it has that");
    let joining = switched(&first, "2");
    assert_eq!(joining.versions().collect::<Vec<_>>(), ["2", "1"]);
    assert_eq!((joining.phase, joining.previous.as_deref()), (SwitchPhase::Joining, Some("1")));
    assert!(joining.is_switched());
    let leaving = joining.next();
    assert_eq!(leaving.versions().collect::<Vec<_>>(), ["2"]);
    let done = leaving.next();
    assert_eq!((done.phase, done.previous.as_deref()), (SwitchPhase::Settled, Some("1")));
    let back = switched(&done, "1");
    assert_eq!(back.versions().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(back.previous.as_deref(), Some("2"));

    // Another order before the first has come about: what serves stays, what never did is no way
    // back.
    let third = switched(&joining, "3");
    assert_eq!(third.versions().collect::<Vec<_>>(), ["3", "1", "2"]);
    assert_eq!(third.previous.as_deref(), Some("1"));
    let home = switched(&joining, "1");
    assert_eq!(home.versions().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(home.previous.as_deref(), Some("2"));
    let eager = joining.switched("2", Some(1), at(6), Note::default()).unwrap();
    assert_eq!((eager.min_ready, eager.since), (Some(1), joining.since), "the same, with less");
}

#[test]
fn an_order_stays_until_the_settings_say_something_else_than_they_did() {
    let done = switched(&BackendVersion::declared("app", "web", "1", at(1)), "2").next().next();
    assert_eq!(done.clone().with_declared("web", "1", at(9)), done);
    let caught_up = done.clone().with_declared("web", "2", at(9));
    assert_eq!((caught_up.phase, caught_up.is_switched()), (SwitchPhase::Settled, false));
    let newer = done.clone().with_declared("web", "3", at(9));
    assert_eq!((newer.version.as_str(), newer.phase), ("3", SwitchPhase::Joining));
    assert_eq!((newer.previous.as_deref(), newer.is_switched()), (Some("2"), false));
    assert_eq!(newer.note.by.as_deref(), Some("settings"));
    let other = done.with_declared("api", "1", at(9));
    assert_eq!((other.phase, other.previous), (SwitchPhase::Settled, None));
}

#[test]
fn the_old_members_leave_once_the_new_ones_are_ready_wherever_they_can_be() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let members: BTreeSet<String> = names(&["a", "b"]);
    let servers = |ready: &[&str], others: &[(&str, &str)]| {
        let ready = ready.iter().map(|name| ((*name).to_owned(), None));
        let others = others.iter().map(|(name, why)| ((*name).to_owned(), Some((*why).to_owned())));
        Seen::Servers(ready.chain(others).collect())
    };
    let all = |first: Seen| {
        vec![("edge1".to_owned(), first), ("edge2".to_owned(), servers(&["a", "b", "old"], &[]))]
    };
    let ready = |first: &[&str]| all(servers(first, &[]));
    let joining = switched(&BackendVersion::declared("app", "web", "1", at(1)), "2");
    let check = |instances: &[(String, Seen)], min_ready, waited| {
        let version = BackendVersion { min_ready, ..joining.clone() };
        readiness(&version, &members, instances, waited)
    };
    assert_eq!(check(&ready(&["a", "b"]), None, seconds(0)), Readiness::Ready);
    let waits = |readiness: Readiness| match readiness {
        Readiness::Waits(why) => why,
        Readiness::Ready => panic!("it is ready"),
    };
    let down = all(servers(&["a"], &[("b", "DOWN, Layer4 timeout"), ("old", "MAINT")]));
    let why = waits(check(&down, None, seconds(999)));
    let words = "1 of 2 members of web 2 are ready in edge1 (b: DOWN, Layer4 timeout)";
    assert_eq!(why, words);
    waits(check(&ready(&["a"]), Some(1), seconds(1)));
    assert_eq!(check(&ready(&["a"]), Some(1), SETTLE), Readiness::Ready);
    let why = waits(check(&ready(&["old"]), Some(1), SETTLE));
    assert!(why.contains("(a: HAProxy does not have it yet; b: HAProxy does"), "{why}");
    let why = waits(check(&ready(&["a", "b"]), Some(3), SETTLE));
    assert_eq!(why, "2 members of web 2 are registered, and at least 3 must be");
    assert_eq!(check(&all(Seen::Unreachable), None, seconds(0)), Readiness::Ready);
    let nowhere = [("edge1".to_owned(), Seen::Unreachable)];
    assert_eq!(waits(check(&nowhere, None, SETTLE)), "no instance can be reached");
    let nobody = readiness(&joining, &BTreeSet::new(), &ready(&["a"]), SETTLE);
    assert_eq!(waits(nobody), "no members of web 2 are registered");
    let many: BTreeSet<String> = (0..9).map(|number| format!("m{number}")).collect();
    let why = waits(readiness(&joining, &many, &ready(&[]), SETTLE));
    assert!(why.contains("m2: HAProxy does not have it yet; 6 more)"), "{why}");
}

#[test]
fn a_list_keeps_what_is_known_of_its_version_and_nothing_else_once_the_old_one_leaves() {
    let mut members = Members::default();
    for (version, port) in [("1", 80), ("1", 81), ("2", 81), ("2", 82)] {
        register(&mut members, &member(version, port, Some(10)));
    }
    members.expire(&[key("2", 82)], at(9));
    let joining = switched(&BackendVersion::declared("app", "web", "1", at(1)), "2");
    let names = |listing: &MemberListing| {
        listing.list.servers.iter().map(|server| server.port).collect::<Vec<_>>()
    };
    let both = listing(&members, &joining, 1);
    assert_eq!((names(&both), both.joining, both.keep), (vec![80, 81], true, None));
    let alone = listing(&members, &joining.next(), 2);
    assert_eq!((alone.order, alone.joining), (2, false));
    assert_eq!(names(&alone), [81]);
    let keep = alone.keep.unwrap();
    assert!(keep.contains("10.0.0.3:82"), "what is expired is the guard's case: {keep:?}");
    assert!(!keep.contains("10.0.0.3:80"));
}

#[test]
fn beyond_twenty_a_second_events_are_counted() {
    let news = |count: usize, state: &str| {
        let one = Happening::new(at(1), EventKind::Registration, "m", "it is".to_owned());
        vec![one.in_state(state); count]
    };
    let mut pacer = EventPacer::default();
    assert_eq!(pacer.take(news(15, "registered"), seconds(1), at(1)).len(), 15);
    assert_eq!(pacer.take(news(15, "registered"), seconds(1), at(1)).len(), 5);
    assert_eq!(pacer.take(news(3, "expired"), seconds(1), at(1)).len(), 0);
    assert!(pacer.is_behind());
    let told = pacer.take(news(1, "expired"), seconds(2), at(2));
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].text, "more members: 10 registered, 3 expired");
    assert!(!pacer.is_behind());
}

proptest! {
    /// Whatever the clock does, and whenever it is looked: nobody is expired who was not silent for
    /// the whole of their time, as far as it was listened to.
    #[test]
    fn nobody_expires_before_their_time(
        steps in proptest::collection::vec((0u64..20_000, any::<bool>()), 1..60),
        ttl in 1u64..20,
    ) {
        let mut members = Members::default();
        let mut clock = ListeningClock::default();
        let one = member("1", 80, Some(ttl));
        members.advance(seconds(0));
        clock.advance(seconds(0));
        register(&mut members, &one);
        let mut heard = clock.listened();
        for (now, speaks) in steps {
            let now = Duration::from_millis(now);
            members.advance(now);
            let before = clock.listened();
            clock.advance(now);
            prop_assert!(clock.listened() - before <= seconds(1));
            let due = !members.due().is_empty();
            prop_assert_eq!(due, clock.listened() - heard >= seconds(ttl));
            if speaks && members.check_in(&one) {
                heard = clock.listened();
            }
        }
    }

    /// Whatever is ordered in whatever order: both the target and all that serves are in, and the
    /// way back is never the version itself.
    #[test]
    fn a_switch_never_drops_what_serves(orders in proptest::collection::vec(0u8..6, 1..30)) {
        let mut version = BackendVersion::declared("app", "web", "0", at(1));
        let mut serving: BTreeSet<String> = ["0".to_owned()].into();
        for order in orders {
            version = match order {
                4 | 5 => version.next(),
                to => version
                    .switched(&to.to_string(), None, at(2), Note::default())
                    .unwrap_or(version),
            };
            if version.phase == SwitchPhase::Joining {
                serving.insert(version.version.clone());
                let has: BTreeSet<String> = version.versions().map(str::to_owned).collect();
                prop_assert_eq!(&has, &serving);
            } else {
                serving = [version.version.clone()].into();
            }
            prop_assert_ne!(version.previous.as_ref(), Some(&version.version));
        }
    }
}
