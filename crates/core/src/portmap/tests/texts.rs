//! What of metadata is an order, and what is not.

use crate::portmap::texts::Wanted;
use crate::services::{ServiceForms, ServiceTexts};

const WEB: &str = "http://80:web.test:8080";

fn metadata(keys: &[(&str, &str)]) -> ServiceTexts {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), Ok((*value).to_owned()));
    ServiceTexts { texts: keys.iter().map(text).collect() }
}

fn forms(texts: &[(&str, &str)]) -> ServiceForms {
    texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn wanted(keys: &[(&str, &str)], in_force: &[(&str, &str)]) -> Wanted {
    Wanted::new(&metadata(keys), &forms(in_force), false)
}

/// The services that would be in force, and the names of what is rejected.
fn names<'a>(wanted: &'a Wanted) -> (Vec<&'a str>, Vec<&'a str>) {
    let texts = wanted.services.as_ref().map(|texts| &texts.texts).into_iter().flatten();
    let (good, rejected): (Vec<_>, Vec<_>) = texts.partition(|(_, text)| text.is_ok());
    let names = |rows: &[(&'a String, &Result<String, String>)]| -> Vec<&'a str> {
        rows.iter().map(|(name, _)| name.as_str()).collect()
    };
    (names(&good), names(&rejected))
}

#[test]
fn services_are_known_by_their_ports_and_values_by_their_keys() {
    let keys =
        [("loadbalancer", "true"), ("portmap", "http://80:web.test:8080,tcp://25:mx.test:25")];
    let all = wanted(&[keys[0], keys[1], ("max_rs", "64")], &[]);
    assert_eq!(names(&all), (vec!["25", "80"], vec![]));
    assert_eq!(all.values["max_rs"], Ok("64".to_owned()));
    assert_eq!((all.kept, all.closed), (None, false));
    let ordered = Wanted::new(&metadata(&keys), &forms(&[]), true);
    assert_eq!(ordered.values["order"], Ok("80 25".to_owned()));
}

#[test]
fn false_is_an_order_to_close_every_listener() {
    let off = wanted(&[("loadbalancer", "false"), ("portmap", WEB)], &[("80", WEB)]);
    assert_eq!(names(&off), (vec![], vec![]));
    assert!(off.closed && off.kept.is_none() && off.services.is_some());
}

#[test]
fn what_is_gone_or_can_not_be_read_is_no_order() {
    for (keys, part) in [
        (&[][..], "loadbalancer is not set"),
        (&[("loadbalancer", "0"), ("portmap", WEB)], "neither true nor false"),
        (&[("loadbalancer", ""), ("portmap", WEB)], "neither true nor false"),
        (&[("loadbalancer", "true")], "portmap is not set"),
        (&[("loadbalancer", "true"), ("portmap", " ")], "portmap is empty"),
        (
            &[("loadbalancer", "true"), ("portmap", "htp://80:web.test:8080")],
            "no valid service: column 1, htp://80:web.test:8080: unsupported protocol",
        ),
    ] {
        let held = wanted(keys, &[("80", WEB), ("max_rs", "64")]);
        let texts = held.services.as_ref().unwrap();
        assert!(texts.texts.contains_key("80") && !held.closed, "{keys:?}: {held:?}");
        assert!(held.kept.as_ref().is_some_and(|why| why.contains(part)), "{held:?}");
        // Where nothing is known, nothing is made of it either.
        let unknown = wanted(keys, &[]);
        assert_eq!((unknown.services, unknown.kept.is_some()), (None, true), "{keys:?}");
    }
}

#[test]
fn a_piece_that_is_wrong_is_rejected_by_its_port_and_the_others_count() {
    let text = "http://80:web.test:8080 http://81:web.test:8080{rise:0} udp://53:a.test:53";
    let some = wanted(&[("loadbalancer", "true"), ("portmap", text)], &[("81", WEB)]);
    assert_eq!(names(&some), (vec!["80"], vec!["53", "81"]));
    let why = some.services.as_ref().unwrap().texts["53"].clone().unwrap_err();
    assert!(why.starts_with("column 57, udp://53:a.test:53: unsupported protocol"), "{why}");
    assert_eq!(some.kept, None);
    // A second one on a port does not take the first one's place.
    let text = "http://80:web.test:8080 http://80:other.test:8080";
    let twice = wanted(&[("loadbalancer", "true"), ("portmap", text)], &[]);
    assert_eq!(names(&twice), (vec!["80"], vec!["column 32"]));
}

#[test]
fn a_piece_whose_port_is_unknown_may_be_any_service_in_force() {
    let keys = [("loadbalancer", "true"), ("portmap", "http://80:web.test:8080 http//81:a.test:1")];
    let held = wanted(&keys, &[("80", WEB), ("81", "http://81:a.test:1")]);
    assert_eq!(names(&held), (vec!["80", "81"], vec!["column 25"]));
    assert!(held.kept.is_some_and(|why| why.contains("port 81, which stays")));
    // Where all are there, nothing has to stay.
    assert_eq!(wanted(&keys, &[("80", WEB)]).kept, None);
}

#[test]
fn a_service_that_is_left_out_goes() {
    let keys = [("loadbalancer", "true"), ("portmap", WEB)];
    let one = wanted(&keys, &[("80", WEB), ("81", "http://81:a.test:1")]);
    assert_eq!((names(&one).0, &one.kept), (vec!["80"], &None));
}

#[test]
fn of_ten_thousand_wrong_pieces_some_are_named() {
    let text = format!("http://80:web.test:8080 {}", "udp://53:a.test:53 ".repeat(10_000));
    let some = wanted(&[("loadbalancer", "true"), ("portmap", &text)], &[]);
    let (good, rejected) = names(&some);
    assert_eq!((good, rejected.len()), (vec!["80"], 51));
}
