//! What is known of services over changes, refusals and beginnings anew.

use std::path::Path;

use mapsmith_core::SourceState;
use mapsmith_core::render::verdict::Remark;

use super::*;

const FILE: &str = r#"
    [haproxy]
    managed = true
    [[source]]
    name = "zk"
    type = "zookeeper"
    servers = ["zk1:2181"]
    [services]
    from = { source = "zk", path = "/service_config" }
    empty = "accept"
"#;

fn file() -> Settings {
    Settings::of_text(Path::new("/etc/mapsmith/a.toml"), FILE, []).unwrap()
}

fn text(port: u16) -> String {
    format!(r#"{{"type": "zookeeper", "path": "/a", "server": "h:2181", "port": {port}}}"#)
}

/// Services by their names and ports.
fn forms(services: &[(&str, u16)]) -> ServiceForms {
    services.iter().map(|(name, port)| ((*name).to_owned(), text(*port))).collect()
}

/// Takes what the registry says into force.
fn begin(known: &mut Known, services: &[(&str, u16)]) {
    let file = file();
    known.take(&file, &forms(services).into());
    known.go_by(known.next(&file).unwrap());
}

fn refused(name: &str, words: &str) -> Quarantined {
    let remark = Remark::alert(None, words.to_owned());
    Quarantined { object: object(name), remarks: vec![remark] }
}

#[tokio::test]
async fn each_service_is_waited_for_until_haproxy_has_it_and_never_again() {
    let mut known = Known::default();
    let awaits = |known: &Known, name: &str| known.first_lists().awaits(name, Instant::now());
    // Without a store nothing is known after a restart either.
    begin(&mut known, &[("a", 1)]);
    assert!(awaits(&known, "a"));
    let (now, left) = (Instant::now(), |known: &Known, now| known.first_lists().left(now));
    let first = left(&known, now);
    // The next changes make nobody wait longer.
    for port in 2..5 {
        begin(&mut known, &[("a", 1), ("b", port)]);
        assert!(awaits(&known, "a") && awaits(&known, "b"));
        assert_eq!(left(&known, now), first);
    }
    known.note_loaded();
    assert_eq!(left(&known, now), None);
    begin(&mut known, &[("a", 11), ("b", 2), ("c", 3)]);
    assert!(awaits(&known, "c") && !awaits(&known, "a") && !awaits(&known, "b"));
    assert!(left(&known, now) > first, "a wait of its own");
    // A SIGHUP does not begin it again.
    let known = known.under(&file(), &file());
    assert!(awaits(&known, "c") && !awaits(&known, "a"));
}

#[tokio::test]
async fn services_stay_when_they_come_from_another_place_and_the_guard_judges_what_that_says() {
    let file =
        Settings::of_text(Path::new("/a.toml"), &FILE.replace("accept", "keep"), []).unwrap();
    let change = |from: &str, to: &str| {
        let text = FILE.replace("accept", "keep").replace(from, to);
        Settings::of_text(Path::new("/a.toml"), &text, []).unwrap()
    };
    let source = || SourceState::<ServiceTexts>::before_first_poll("a".into(), "b".into(), true);
    let in_force = |known: &Known| -> Vec<String> {
        let shown = known.status(source().status).in_force.expect("services are known");
        shown.into_iter().map(|service| service.name).collect()
    };
    let all: Vec<_> = (0..32).map(|number| (format!("s{number:02}"), 1000 + number)).collect();
    let all: Vec<_> = all.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    let mut known = Known::default();
    known.take(&file, &forms(&all).into());
    known.go_by(known.next(&file).unwrap());
    known.note_loaded();
    for other in [
        change("\"zk1:2181\"", "\"zk1:2181\", \"zk2:2181\""),
        change("servers", "chroot = \"/b\"\nservers"),
        change("/service_config", "/other"),
    ] {
        let mut known = known.under(&file, &other);
        assert_eq!((in_force(&known).len(), known.good.len()), (32, 32), "before an answer");
        known.take(&other, &forms(&[("s00", 1000)]).into());
        known.go_by(known.next(&other).unwrap());
        let held = known.status(source().status).held.expect("it is held");
        assert!(held.reason.contains("remove 31 of the 32 services"), "{}", held.reason);
        assert_eq!(in_force(&known).len(), 32);
        known.approve(&held.id).unwrap();
        known.take(&other, &forms(&[("s00", 1000)]).into());
        known.go_by(known.next(&other).unwrap());
        assert_eq!(in_force(&known), ["s00"]);
    }
    let without = FILE.split_once("[[source]]").unwrap().0.to_owned()
        + "[[frontend]]\nname = \"a\"\nbind = [\"127.0.0.1:1\"]\ndefault_backend = \"b\"\n"
        + "[[backend]]\nname = \"b\"\nservers = []\n";
    let without = Settings::of_text(Path::new("/a.toml"), &without, []).unwrap();
    assert!(known.under(&file, &without).good.is_empty(), "there are to be none");
}

#[tokio::test]
async fn the_words_of_haproxy_are_about_the_form_that_the_registry_has() {
    let mut known = Known::default();
    begin(&mut known, &[("a", 1)]);
    known.note_loaded();
    for port in [3, 2] {
        begin(&mut known, &[("a", port)]);
        known.refuse(&[refused("a", &format!("no port {port}"))], false);
        known.go_by(known.next(&file()).unwrap());
        let quarantined = known.quarantined();
        assert_eq!(quarantined, [refused("a", &format!("no port {port}"))]);
    }
    begin(&mut known, &[("a", 4)]);
    assert_eq!(known.quarantined(), []);
}

#[tokio::test]
async fn a_service_that_goes_to_and_fro_between_refused_forms_is_bounded() {
    let mut known = Known::default();
    begin(&mut known, &[("a", 1)]);
    known.note_loaded();
    for port in 2..40 {
        begin(&mut known, &[("a", port)]);
        known.refuse(&[refused("a", "no")], false);
        known.go_by(known.next(&file()).unwrap());
        assert!(known.refused.len() <= MOST_REFUSED, "{} are kept", known.refused.len());
    }
    // The last ones are not tried at once, and nobody is woken for what the registry lacks.
    begin(&mut known, &[("a", 38)]);
    assert_eq!(known.forms(), Some(&forms(&[("a", 1)])));
    let until = known.refused[&("a".to_owned(), text(38))].until;
    assert_eq!(known.retry(), Some(until));
    begin(&mut known, &[("a", 1), ("b", 99)]);
    assert_eq!(known.retry(), None);
    begin(&mut known, &[("b", 99)]);
    assert!(known.refused.is_empty());
}

#[tokio::test]
async fn a_change_names_a_few_services_and_counts_the_rest() {
    let many: Vec<_> = (0..9).map(|at| (format!("s{at}"), 100 + at)).collect();
    let many: Vec<_> = many.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    let (mut before, mut after) = (Known::default(), Known::default());
    begin(&mut before, &[("a", 1), ("b", 2)]);
    begin(&mut after, &many);
    assert_eq!(after.news(&before), "new or changed: s0, s1, s2, s3, s4 and 4 more; gone: a, b");
    begin(&mut after, &[("a", 1), ("b", 3)]);
    assert_eq!(after.news(&before), "new or changed: b");
}

#[tokio::test]
async fn services_of_a_registry_are_none_of_a_portmap() {
    let mut known = Known::default();
    begin(&mut known, &[("a", 1)]);
    known.note_loaded();
    let portmap = "[haproxy]\nmanaged = true\n[[source]]\nname = \"md\"\ntype = \"metadata\"\n\
        environment = true\n[portmap]\nsource = \"md\"\n";
    let portmap = Settings::of_text(Path::new("/a.toml"), portmap, []).unwrap();
    let mut known = known.under(&file(), &portmap);
    assert!(known.good.is_empty() && known.next(&portmap).is_none(), "nothing is known");
    assert_ne!(Known::origin(&portmap), Some("md".to_owned()), "the store tells them apart");

    // What can't be followed makes nothing known, an order does.
    known.take(&portmap, &ServiceForms::new().into());
    assert!(known.next(&portmap).is_none() && known.kept.is_some());
    let off = ServiceForms::from([("loadbalancer".to_owned(), "false".to_owned())]);
    known.take(&portmap, &off.into());
    let next = known.next(&portmap).unwrap();
    assert!(next.forms.is_empty() && known.closed);
}

#[tokio::test]
async fn a_listener_whose_port_is_taken_comes_when_it_is_free_and_is_not_tried_before() {
    let text = "[haproxy]\nmanaged = true\n[[source]]\nname = \"md\"\ntype = \"metadata\"\n\
        environment = true\n[portmap]\nsource = \"md\"\n";
    let file = Settings::of_text(Path::new("/etc/mapsmith/a.toml"), text, []).unwrap();
    let keys = [
        ("loadbalancer", "true"),
        ("portmap", "http://80:192.0.2.1:8080"),
        ("metrics_acl", "10.0.0.0/8"),
    ];
    let keys: ServiceForms = keys.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
    let mut known = Known::default();
    known.take(&file, &keys.into());
    known.go_by(known.next(&file).unwrap());
    let listens = |known: &Known| !listeners_in(known.overlay.as_ref().unwrap()).is_empty();
    assert!(listens(&known));

    let said = refused("haproxy.metrics", "*:8405 is taken by another program");
    known.refuse(std::slice::from_ref(&said), false);
    let without = known.next(&file).unwrap();
    assert!(!known.goes_by(&without), "all begins anew without it");
    known.go_by(without);
    known.note_loaded();
    assert!(!listens(&known));
    assert_eq!(known.quarantined()[0].remarks, said.remarks);
    // As if its time had come.
    let is_due = |known: &mut Known| {
        known.refused.values_mut().for_each(|refusal| refusal.until = Instant::now());
    };
    for _ in 0..100 {
        is_due(&mut known);
        known.put_off(|address| Some(format!("{address} is taken")));
        assert!(known.goes_by(&known.next(&file).unwrap()), "nothing begins anew");
        let retry = known.retry().expect("it is looked at again");
        assert!(retry <= Instant::now() + PROBES, "not less and less often");
    }
    is_due(&mut known);
    known.put_off(|_| None);
    let with = known.next(&file).unwrap();
    assert!(!known.goes_by(&with));
    known.go_by(with);
    assert!(listens(&known));
    assert_eq!(known.quarantined(), []);
}

#[tokio::test]
async fn what_was_good_is_left_out_where_haproxy_does_not_start_with_it_and_else_stays() {
    for at_start in [true, false] {
        let mut known = Known::default();
        begin(&mut known, &[("a", 1), ("b", 2)]);
        known.note_loaded();
        known.refuse(&[refused("a", "no port")], at_start);
        let next = known.next(&file()).unwrap();
        assert_eq!(next.backends.contains_key("a"), !at_start, "at a start: {at_start}");
        assert!(next.backends.contains_key("b"));
        known.go_by(next);
        known.note_loaded();
        assert_eq!(known.retry().is_some(), at_start);
        known.refused.values_mut().for_each(|refusal| refusal.until = Instant::now());
        let next = known.next(&file()).unwrap();
        assert!(next.backends.contains_key("a"), "it is tried again");
        known.go_by(next);
        known.note_loaded();
        assert!(known.refused.is_empty(), "HAProxy has loaded it");
    }
}
