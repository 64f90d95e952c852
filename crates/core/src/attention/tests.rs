use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use haproxy_runtime::RuntimeAddress;
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::certificate::{CertificateSource, IssuedCertificate, Renewal};
use crate::desired::hold::{EndReason, HoldEnd, HoldState};
use crate::desired::references::Targets;
use crate::desired::rollout::{CanaryInstances, Subject, Terms, Then};
use crate::members::BackendVersion;
use crate::revision::ChangeCounts;
use crate::snapshot::SourceState;
use crate::status::{InstanceState, KeptNode};

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now().checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

#[test]
fn a_frontend_that_waits_for_a_backend_is_named() {
    let waiting_frontends = vec![("frontends/web".to_owned(), vec!["appp".to_owned()])];
    let attention = attention(&Status { waiting_frontends, ..Status::default() }, now());
    let item = &attention.items[0];
    assert_eq!(
        (item.severity, item.kind, item.subject.as_str()),
        (Severity::Look, Kind::Config, "frontends/web")
    );
    assert!(item.text.ends_with("waits for backends: appp"), "{}", item.text);
}

#[test]
fn overrides_that_a_backend_has_left_are_named_with_the_way_to_end_them() {
    let left_over = [("old".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
    let status = Status { left_over, ..Status::default() };
    let attention = attention(&status, now());
    let item = &attention.items[0];
    assert_eq!(
        (item.severity, item.kind, item.subject.as_str()),
        (Severity::Look, Kind::Backend, "old")
    );
    assert!(item.text.contains("no backend old") && item.text.ends_with("a, b"), "{}", item.text);
    assert_eq!(item.actions[0].command.as_deref(), Some("mapsmith server reset old/a"));
    assert_eq!(item.actions[0].call.as_deref(), Some("DELETE /v1/backends/old/servers/a"));
}

fn instance(name: &str, state: InstanceState, since: i64) -> InstanceStatus {
    InstanceStatus {
        name: name.to_owned(),
        runtime: RuntimeAddress::Unix("/run/haproxy.sock".into()),
        state,
        state_since: ago(since),
        process: None,
        entries_in_memory: None,
        verified_at: None,
        drift_corrected: BTreeMap::new(),
        drift_at: None,
        last_apply: None,
        servers: None,
        tls_files: Vec::new(),
        learned: None,
    }
}

fn source(name: &str, answered: Option<i64>, error: Option<&str>) -> SourceStatus {
    let state =
        SourceState::<crate::EntryMap>::before_first_poll(name.to_owned(), "file".to_owned(), true);
    let (answered_at, error) = (answered.map(ago), error.map(str::to_owned));
    SourceStatus { answered_at, error, ..state.status }
}

fn held(of: &str, since: i64) -> HeldChange {
    HeldChange {
        id: "ab12".to_owned(),
        of: of.to_owned(),
        reason: "too many".to_owned(),
        since: ago(since),
        entries_in_force: 10,
        entries_held: 1,
        counts: ChangeCounts { added: 0, moved: 0, removed: 9 },
        applied: ChangeCounts::default(),
    }
}

fn kinds(status: &Status) -> Vec<(Severity, Kind, String)> {
    let found = attention(status, now());
    found.items.into_iter().map(|item| (item.severity, item.kind, item.subject)).collect()
}

fn sentence(status: &Status) -> String {
    let found = attention(status, now());
    assert_eq!(found.items.len(), 1, "{found:#?}");
    found.items[0].text.clone()
}

#[test]
fn a_crl_of_clients_that_is_late_is_told_of() {
    let with = |crl_until| {
        let api = ApiFiles { crl_until: Some(crl_until), ..ApiFiles::default() };
        kinds(&Status { api, ..Status::default() })
    };
    let expected = (Severity::Look, Kind::Api, "api.tls.client_crl".to_owned());
    assert_eq!((with(ago(1)), with(ago(-60))), (vec![expected], vec![]));
}

#[test]
fn nothing_needs_anybody_where_all_is_well() {
    let in_sync = instance("edge1", InstanceState::InSync { revision: 3 }, 100);
    let status = Status {
        instances: vec![in_sync],
        sources: vec![source("puppetdb", Some(5), None)],
        ..Status::default()
    };
    let found = attention(&status, now());
    assert_eq!(found, Attention::default());
    assert_eq!((found.worst, found.key()), (Severity::Fine, None));
}

#[test]
fn where_a_node_is_pinned_to_a_master_that_is_not_there_a_drain_is_no_remedy() {
    let entries = [("n1", "m7"), ("n2", "m7")].into_iter().collect();
    let dangling = Dangling::new(&entries, &[std::sync::Arc::new(Targets::default())]);
    let command = |pinned: &[&str]| {
        let nodes: Vec<_> = pinned.iter().map(|&node| node.to_owned()).collect();
        let pinned = nodes.iter().map(|_| ("m7".to_owned(), nodes.clone())).collect();
        let status = Status { dangling: dangling.clone(), pinned, ..Status::default() };
        let found = attention(&status, now()).items.remove(0);
        let action = found.actions.into_iter().next().expect("a remedy");
        (action.text, action.command.expect("a command"), action.call.expect("a call"))
    };
    let (_, drain, _) = command(&[]);
    assert_eq!(drain, "mapsmith drain m7");
    let (text, unpin, call) = command(&["n1"]);
    assert!(text.ends_with("unpin the nodes and drain the master for the others"), "{text}");
    assert_eq!((&*unpin, &*call), ("mapsmith unpin n1", "DELETE /v1/overrides/n1"));
    let (text, unpin, _) = command(&["n1", "n2"]);
    assert!(text.ends_with("or unpin the nodes") && unpin == "mapsmith unpin n1", "{text}");
}

#[test]
fn the_worst_comes_first_and_each_says_what_to_do() {
    let unreachable = InstanceState::Unreachable { since: ago(180), error: "refused".to_owned() };
    let kept = KeptNode { node: "n1".to_owned(), master: "m1".to_owned(), said: "m2".to_owned() };
    let status = Status {
        held: vec![held("map", 60)],
        flapping: KeptNodes { count: 1, nodes: vec![kept] },
        instances: vec![
            instance("edge2", InstanceState::Refused { reason: "level user".to_owned() }, 5),
            instance("edge1", unreachable, 180),
        ],
        stuck: vec!["m9".to_owned()],
        ..Status::default()
    };
    let found = kinds(&status);
    let expected = [
        (Severity::Act, Kind::HeldChange, "map"),
        (Severity::Act, Kind::InstanceUnreachable, "edge1"),
        (Severity::Act, Kind::InstanceRefused, "edge2"),
        (Severity::Act, Kind::DrainStuck, "m9"),
        (Severity::Look, Kind::NodesKept, "flapping"),
    ];
    assert_eq!(found, expected.map(|(severity, kind, subject)| (severity, kind, subject.into())));
    let json = serde_json::to_value(attention(&status, now())).unwrap();
    assert_eq!(
        (&json["worst"], &json["act"], &json["look"]),
        (&"act".into(), &4.into(), &1.into())
    );
    let first = &json["items"][0];
    assert_eq!(
        first["text"],
        "a change of the map is held: too many (0 added, 0 moved, 9 removed)"
    );
    assert_eq!(first["do"][1]["command"], "mapsmith approve ab12");
    assert_eq!(first["do"][1]["needs"], "operator");
}

#[test]
fn what_passes_by_itself_within_seconds_needs_nobody() {
    let behind = || InstanceState::Behind { wanted: 2, reason: "applying".to_owned() };
    let of =
        |state, since| Status { instances: vec![instance("e", state, since)], ..Status::default() };
    assert_eq!(kinds(&of(behind(), 2)), []);
    assert_eq!(kinds(&of(behind(), 20)).len(), 1);
    assert_eq!(kinds(&of(InstanceState::Starting, 2)), []);
    assert_eq!(kinds(&of(InstanceState::Starting, 60)).len(), 1);
    assert_eq!(kinds(&of(InstanceState::Connected, 60)), []);
}

#[test]
fn a_source_that_fails_is_worth_a_look_until_its_answer_is_old() {
    let of = |answered: Option<i64>, error, started| Status {
        started_at: ago(started),
        waiting_for: if answered.is_none() { vec!["s".to_owned()] } else { Vec::new() },
        sources: vec![source("s", answered, error)],
        ..Status::default()
    };
    let fails = of(Some(60), Some("503"), 9000);
    assert_eq!(kinds(&fails), [(Severity::Look, Kind::SourceFailed, "s".to_owned())]);
    assert_eq!(sentence(&fails), "s fails, its last good answer stays in force: 503");
    let stale = of(Some(16 * 60), Some("503"), 9000);
    assert_eq!(kinds(&stale), [(Severity::Act, Kind::SourceStale, "s".to_owned())]);
    assert_eq!(kinds(&of(Some(16 * 60), None, 9000)), [], "it is asked no more often");
    assert_eq!(kinds(&of(None, None, 3)), [], "it has just been asked");
    let silent = of(None, Some("503"), 100);
    assert_eq!(kinds(&silent), [(Severity::Act, Kind::SourceFailed, "s".to_owned())]);
}

#[test]
fn a_certificate_is_shown_in_time_for_how_long_it_lives() {
    const DAY: i64 = 24 * 3600;
    let certificate = |days_left: i64, lifetime: i64, error: Option<&str>| {
        let expires_at = ago(-days_left * DAY);
        let issued = IssuedCertificate {
            names: Vec::new(),
            issuer: String::new(),
            self_signed: false,
            issued_at: expires_at.checked_sub(SignedDuration::from_secs(lifetime * DAY)).unwrap(),
            expires_at,
        };
        let renewal = Renewal { error: error.map(str::to_owned), ..Renewal::default() };
        let certificate = CertificateStatus {
            name: "site".to_owned(),
            source: CertificateSource::Acme,
            path: "/site.pem".to_owned(),
            in_force: Some(issued),
            renewal: Some(renewal),
        };
        Status { certificates: vec![certificate], ..Status::default() }
    };
    let severity = |status: &Status| kinds(status).first().map(|(severity, ..)| *severity);
    assert_eq!(severity(&certificate(20, 90, None)), None);
    assert_eq!(severity(&certificate(10, 90, None)), Some(Severity::Look));
    assert_eq!(severity(&certificate(2, 90, None)), Some(Severity::Act));
    assert_eq!(severity(&certificate(-1, 90, None)), Some(Severity::Act));
    assert_eq!(severity(&certificate(3, 6, None)), None, "it lives for six days");
    assert_eq!(severity(&certificate(60, 90, Some("no"))), Some(Severity::Look));
    let text = sentence(&certificate(2, 90, Some("no")));
    assert_eq!(text, "the certificate site expires in 2 days, and can't be renewed: no");
}

#[test]
fn what_was_corrected_is_shown_for_an_hour() {
    let drifted = |seconds| {
        let in_sync = instance("e", InstanceState::InSync { revision: 1 }, 9000);
        let instance = InstanceStatus { drift_at: Some(ago(seconds)), ..in_sync };
        Status { instances: vec![instance], ..Status::default() }
    };
    assert_eq!(kinds(&drifted(100)), [(Severity::Look, Kind::DriftHealed, "e".to_owned())]);
    assert_eq!(kinds(&drifted(3700)), []);
}

#[test]
fn a_command_that_fails_is_shown_and_is_never_what_it_would_tell() {
    let failing = |failures| Status {
        notify: NotifyStatus { failures, failed_since: None, error: Some("exit 1".to_owned()) },
        ..Status::default()
    };
    assert_eq!(kinds(&failing(1)), [], "once may be chance");
    let found = attention(&failing(2), now());
    assert_eq!((found.worst, found.look, found.key()), (Severity::Look, 1, None));
}

#[test]
fn many_items_are_counted_and_cut() {
    let refused = || InstanceState::Refused { reason: "x\n".repeat(1000) };
    let instances = (0..300).map(|number| instance(&format!("e{number:03}"), refused(), 10));
    let status = Status { instances: instances.collect(), ..Status::default() };
    let found = attention(&status, now());
    assert_eq!((found.act, found.items.len()), (300, MOST_ITEMS));
    assert!(found.items[0].text.chars().count() <= LONGEST_TEXT + 3);
    assert!(!found.items[0].text.contains('\n'));
}

fn any_status() -> impl Strategy<Value = Status> {
    let instances = prop::collection::vec((0..5usize, 0..30i64, any::<bool>()), 0..6);
    let sources = prop::collection::vec((prop::option::of(0..2000i64), any::<bool>()), 0..4);
    let masters = prop::collection::btree_map("m[0-9]", 1..9usize, 0..4);
    (instances, sources, masters, 0..3usize, any::<bool>()).prop_map(
        |(instances, sources, unknown, helds, read_only)| Status {
            instances: instances
                .into_iter()
                .enumerate()
                .map(|(number, (state, since, drifted))| {
                    let state = match state {
                        0 => InstanceState::Starting,
                        1 => InstanceState::InSync { revision: 1 },
                        2 => InstanceState::Behind { wanted: 1, reason: "r".to_owned() },
                        3 => InstanceState::Refused { reason: "r".to_owned() },
                        _ => InstanceState::Unreachable { since: ago(since), error: "e".into() },
                    };
                    let drift_at = drifted.then(|| ago(since));
                    let instance = instance(&format!("e{number}"), state, since);
                    InstanceStatus { drift_at, ..instance }
                })
                .collect(),
            sources: sources
                .into_iter()
                .enumerate()
                .map(|(number, (answered, fails))| {
                    source(&format!("s{number}"), answered, fails.then_some("no"))
                })
                .collect(),
            dangling: {
                let nobody = std::sync::Arc::new(Targets::default());
                Dangling::new(
                    &unknown.keys().map(|master| (master.as_str(), master.as_str())).collect(),
                    &[nobody],
                )
            },
            held: (0..helds).map(|number| held("map", number as i64)).collect(),
            read_only: read_only.then(|| "another".to_owned()),
            ..Status::default()
        },
    )
}

proptest! {
    #[test]
    fn items_are_sorted_and_counted_and_the_worst_is_the_first(status in any_status()) {
        let found = attention(&status, now());
        prop_assert!(found.items.is_sorted_by_key(|item| (item.severity, item.kind)));
        prop_assert_eq!(found.items.len(), found.act + found.look);
        let worst = found.items.iter().map(|item| item.severity).min();
        prop_assert_eq!(found.worst, worst.unwrap_or(Severity::Fine));
        prop_assert!(found.items.iter().all(|item| item.severity != Severity::Fine));
        prop_assert!(found.items.iter().all(|item| !item.text.is_empty()));
    }
}

#[test]
fn a_hold_is_shown_until_it_ends_and_needs_somebody_in_its_last_minutes() {
    let held_back = |until: Option<i64>, ended: bool, held_change: bool| {
        let ended = ended.then_some(HoldEnd { at: ago(1), why: EndReason::TimeOver });
        let until = until.map(|seconds| ago(-seconds));
        let (since, note) = (ago(60), crate::Note::default());
        let hold = Hold { of: 7, revision: Some(9), since, until, note, ended };
        let hold = Some(HoldStatus { hold, waiting: ChangeCounts::default() });
        let held = held_change.then(|| held(HeldChange::MAP, 1)).into_iter().collect();
        let found = attention(&Status { hold, held, ..Status::default() }, now());
        let item = found.items.into_iter().find(|item| item.kind == Kind::Hold).unwrap();
        (item.severity, item.text)
    };
    let (severity, text) = held_back(Some(601), false, false);
    assert!(
        severity == Severity::Look && text.contains("back until 2023-11-14T22:23:21Z"),
        "{text}"
    );
    assert_eq!(held_back(Some(600), false, false).0, Severity::Act);
    assert_eq!(held_back(None, false, false).0, Severity::Look);
    assert_eq!(held_back(Some(-1), true, false).0, Severity::Look);
    let (severity, text) = held_back(Some(-1), true, true);
    assert!(severity == Severity::Act && text.contains("waits as a held change"), "{text}");
}

#[test]
fn a_rejection_is_a_quiet_line_with_who_why_how_many_and_the_way_back() {
    let note = crate::Note { reason: Some("site 7".to_owned()), by: Some("anna".to_owned()) };
    let state = HoldState::default();
    let state = state.rejecting("00ff".to_owned(), &held(HeldChange::MAP, 9), note, ago(60));
    let rejected_change = state.unwrap().rejected_change().cloned();
    let found = attention(&Status { rejected_change, ..Status::default() }, now());
    assert_eq!((found.worst, found.look, found.act), (Severity::Look, 1, 0));
    let item = &found.items[0];
    assert_eq!((item.kind, item.since), (Kind::RejectedChange, Some(ago(60))));
    assert!(item.text.contains("rejected by anna (site 7)"), "{}", item.text);
    assert!(item.text.ends_with("0 added, 0 moved, 9 removed"), "{}", item.text);
    let back = item.actions.last().unwrap();
    assert_eq!(back.command.as_deref(), Some("mapsmith unreject ab12"));
    assert_eq!(back.call.as_deref(), Some("DELETE /v1/held/ab12/reject"));
}

#[test]
fn a_rollout_is_shown_until_it_is_over_and_needs_somebody_where_it_waits_for_them() {
    let instances = CanaryInstances::Named(vec!["e1".to_owned()]);
    let terms = Terms { instances, bake: Duration::from_secs(60), then: Then::Wait };
    let (subject, chosen) = (Subject::Rollback { of: 3 }, (vec!["e1".to_owned()], &terms));
    let rollout = Rollout::begin(subject, crate::Note::default(), chosen, (5, 6), ago(0));
    let shown = |rollout: Rollout| {
        let status = Status { rollout: Some(rollout), ..Status::default() };
        attention(&status, now()).items.first().map(|item| (item.severity, item.text.clone()))
    };
    let waits = "the rollback to revision 3 goes to e1 first".to_owned();
    assert_eq!(shown(rollout.clone()), Some((Severity::Look, waits)));
    let mut paused = rollout.clone();
    for second in [0, 30] {
        paused.observe(&[], ago(-second));
    }
    let (severity, text) = shown(paused).unwrap();
    assert!(severity == Severity::Act && text.contains("the settings have no instance"), "{text}");
    let over = rollout.abort(crate::Note::default(), None, now()).unwrap();
    assert_eq!(shown(over), None);
}

#[test]
fn nothing_is_advised_that_a_rollout_on_its_way_refuses_or_that_was_ordered_already() {
    let (instances, note) = (vec!["e1".to_owned()], crate::Note::default());
    let named = CanaryInstances::Named(instances.clone());
    let terms = Terms { instances: named, bake: Duration::from_secs(60), then: Then::Wait };
    let subject = Subject::Rollback { of: 3 };
    let canary = Rollout::begin(subject, note.clone(), (instances, &terms), (5, 6), ago(0));
    let rejecting = HoldState::default();
    let rejecting =
        rejecting.rejecting("00ff".to_owned(), &held(HeldChange::MAP, 9), note.clone(), ago(60));
    let rejected_change = rejecting.unwrap().rejected_change().cloned();
    let (of, since) = (7, ago(60));
    let hold = Hold { of, revision: Some(9), since, until: None, note: note.clone(), ended: None };
    let hold = HoldStatus { hold, waiting: ChangeCounts::default() };
    let advised = |rollout: &Rollout| {
        let (hold, rollout) = (Some(hold.clone()), Some(rollout.clone()));
        let rejected_change = rejected_change.clone();
        let status = Status { hold, rejected_change, rollout, ..Status::default() };
        let actions = attention(&status, now()).items.into_iter().flat_map(|item| item.actions);
        let (done, said): (Vec<_>, Vec<_>) = actions.partition(|it| it.command.is_some());
        let said: BTreeSet<_> = said.into_iter().map(|it| it.text).collect();
        let done: Vec<_> = done.into_iter().filter_map(|it| it.command).collect();
        (done.join(", "), said.into_iter().filter(|it| it.contains("r6")).collect::<String>())
    };
    let choice = "mapsmith rollout promote, mapsmith rollout abort";
    let first = "First promote or abort the canary r6".to_owned();
    assert_eq!(advised(&canary), (choice.to_owned(), first));
    let mut promoted = canary.promote(note.clone(), now()).unwrap();
    let wait = "First wait until the canary r6 is over".to_owned();
    assert_eq!(advised(&promoted), (String::new(), wait.clone()));
    let aborting = promoted.abort(note, None, now()).unwrap();
    assert_eq!(advised(&aborting), (String::new(), wait));
    // Once it is in force the last instances get it, and the rest is as without a rollout.
    promoted.note_in_force(7, now());
    let rest = "mapsmith resume, mapsmith unreject ab12".to_owned();
    assert_eq!(advised(&promoted), (rest, String::new()));
}

#[test]
fn a_switch_to_a_version_that_nobody_registers_needs_somebody_after_a_while() {
    let settled = |since| BackendVersion::declared("app", "web", "1", since);
    let joining = |since: i64| {
        let declared = settled(ago(900)).with_declared("web", "9", ago(since));
        (declared, Some("no members of web 9 are registered".to_owned()))
    };
    let switches = |switches| Status { switches, ..Status::default() };
    assert_eq!(kinds(&switches(vec![(settled(ago(900)), None), joining(29)])), []);
    let late = switches(vec![joining(31)]);
    let text = "app does not get to version 9: no members of web 9 are registered";
    assert_eq!(sentence(&late), text);
    let actions = &attention(&late, now()).items[0].actions;
    assert!(format!("{actions:?}").contains("mapsmith switch app 1"), "{actions:?}");
}
