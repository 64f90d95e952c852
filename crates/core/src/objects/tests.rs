use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::secrets::hidden;
use super::*;

fn spec(value: Value) -> Spec {
    value.as_object().cloned().unwrap_or_default()
}

fn frontend(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::Frontend, name)
}

fn backend(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::Backend, name)
}

fn put(before: &Objects, key: ObjectKey, value: Value) -> Objects {
    let edits = Edits::put(before, key, &spec(value), None, "anna").unwrap();
    edits.after(before, Timestamp::UNIX_EPOCH, &Note::default()).unwrap()
}

fn names(frontends: &[&str], backends: &[&str]) -> FileNames {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    FileNames { frontends: set(frontends), backends: set(backends) }
}

#[test]
fn a_frontend_counts_once_every_backend_that_it_names_is_there() {
    let web = json!({
        "bind": [":80"], "default_backend": "app", "route": {"backend": "masters"},
        "rules": [{"path_beg": "/a", "backend": "api"}, {"path": "/b", "deny": 403}],
    });
    let mut objects = put(&Objects::default(), frontend("web"), web);
    let standing = |file: &FileNames, objects: &Objects| {
        standings(file, objects, &BTreeMap::new())[&frontend("web")].clone()
    };
    let waits_for = |names: &[&str]| Standing::Pending {
        waits_for: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let file = names(&[], &["masters"]);
    assert_eq!(standing(&file, &objects), waits_for(&["api", "app"]));
    objects = put(&objects, backend("api"), json!({"servers": []}));
    assert_eq!(standing(&file, &objects), waits_for(&["app"]));
    objects = put(&objects, backend("app"), json!({"servers": []}));
    assert_eq!(standing(&file, &objects), Standing::Declared);
    let refused = BTreeMap::from([(backend("app"), "it is wrong".to_owned())]);
    let found = standings(&file, &objects, &refused);
    assert_eq!(found[&frontend("web")], waits_for(&["app"]), "what is set aside is not there");
    assert_eq!(found[&backend("app")], Standing::SetAside { reason: "it is wrong".to_owned() });
}

#[test]
fn a_name_of_the_settings_file_is_the_files() {
    let objects = put(&Objects::default(), backend("web"), json!({"servers": []}));
    for (file, section) in
        [(names(&["web"], &[]), "[[frontend]]"), (names(&[], &["web"]), "[[backend]]")]
    {
        let found = standings(&file, &objects, &BTreeMap::new());
        let Standing::SetAside { reason } = &found[&backend("web")] else { panic!("{found:?}") };
        assert!(reason.contains(section), "{reason}");
    }
}

#[test]
fn what_is_so_already_is_no_change() {
    let before = put(&Objects::default(), backend("app"), json!({"servers": []}));
    let again = Edits::put(&before, backend("app"), &spec(json!({"servers": []})), None, "ben");
    let again = again.unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(again.after(&before, Timestamp::MAX, &Note::default()).unwrap(), before);
    let other = put(&before, backend("app"), json!({"servers": [], "balance": "leastconn"}));
    assert_eq!((other.number, other.items[&backend("app")].number), (2, 2));
    assert_eq!(other.items[&backend("app")].owner, "anna", "it stays whose it was");
}

#[test]
fn a_document_prunes_what_its_owner_has_beside_it_and_nothing_of_others() {
    let mut before = put(&Objects::default(), backend("of-anna"), json!({"servers": []}));
    let deploy = |objects: &[(&str, Value)], prune, before: &Objects| {
        let of = |(name, value): &(&str, Value)| {
            (backend(name), Item { spec: spec(value.clone()), owner: None })
        };
        let objects = objects.iter().map(of).collect();
        let document = Document { owner: "deploy".to_owned(), objects };
        let edits = Edits::of_document(before, &document, prune).unwrap();
        let after = edits.after(before, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        (edits.changes(before), after)
    };
    let (a, b) = (("a", json!({"servers": []})), ("b", json!({"servers": []})));
    (_, before) = deploy(&[a.clone(), b], false, &before);
    let (kept, _) = deploy(std::slice::from_ref(&a), false, &before);
    assert!(kept.is_empty(), "{kept:?}");
    let (changes, after) = deploy(&[a], true, &before);
    let told: Vec<_> = changes.iter().map(|it| (it.object.as_str(), it.action)).collect();
    assert_eq!(told, [("backends/b", Action::Delete)]);
    let left: Vec<_> = after.items.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["backends/a", "backends/of-anna"]);
}

#[test]
fn secrets_are_shown_to_nobody_and_come_back_as_they_were() {
    let said = json!({
        "servers": [], "cookie": {"name": "S", "key": "s3cret"},
        "natives": ["stats auth admin:pass1", "stats auth ben:pass2", "option redispatch"],
    });
    let before = put(&Objects::default(), backend("app"), said.clone());
    let shown = hidden(&spec(said.clone()));
    let text = Value::Object(shown.clone()).to_string();
    assert!(!text.contains("s3cret") && !text.contains("pass"), "{text}");
    let edits = Edits::put(&before, backend("app"), &shown, None, "anna").unwrap();
    assert!(edits.is_empty(), "what is read can be sent back: {edits:?}");
    let new = Edits::put(&before, backend("new"), &shown, None, "anna");
    assert!(matches!(new, Err(EditError::Secret { .. })), "{new:?}");
    let other = json!({"servers": [], "cookie": {"name": "S", "key": "other"}});
    let edits = Edits::put(&before, backend("app"), &spec(other), None, "anna").unwrap();
    let changes = format!("{:?}", edits.changes(&before));
    assert!(changes.contains("cookie") && !changes.contains("s3cret"), "{changes}");
    assert!(!changes.contains("other") && !changes.contains("pass"), "{changes}");
}

#[test]
fn a_document_is_of_many_owners_and_takes_nothing_over_unseen() {
    let before = put(&Objects::default(), backend("a"), json!({"servers": []}));
    let item = |owner: Option<&str>| Item {
        spec: spec(json!({"servers": []})),
        owner: owner.map(str::to_owned),
    };
    let objects = [(backend("a"), item(None)), (backend("b"), item(Some("ben")))];
    let document = Document { owner: "deploy".to_owned(), objects: objects.into() };
    let edits = Edits::of_document(&before, &document, false).unwrap();
    let taken: Vec<_> = edits.takeovers(&before).collect();
    assert_eq!(taken, [(&backend("a"), "anna")]);
    let after = edits.after(&before, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
    let owners: Vec<_> = after.items.values().map(|it| it.owner.as_str()).collect();
    assert_eq!(owners, ["deploy", "ben"]);
}

#[test]
fn a_hidden_secret_is_never_stored_as_one_and_never_another_ones() {
    let set = |path: &str, value: &str| json!({"path": path, "set_header": {"name": "Authorization", "value": value}});
    let said = json!({
        "bind": [":80"],
        "rules": [set("/a", "Basic one"), set("/b", "Basic two")],
        "natives": [
            "http-request set-header X-Api-Key k1 if { path /a }",
            "stats auth ann:p1",
            "stats auth ben:p2",
        ],
    });
    let before = put(&Objects::default(), frontend("web"), said.clone());
    let shown = hidden(&spec(said.clone()));
    let text = Value::Object(shown.clone()).to_string();
    for secret in ["one", "two", "k1", "p1", "p2"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let sent = |change: &dyn Fn(&mut Value)| {
        let mut sent = Value::Object(shown.clone());
        change(&mut sent);
        let sent = sent.as_object().cloned().unwrap();
        let edits = Edits::put(&before, frontend("web"), &sent, None, "anna")?;
        let after = edits.after(&before, Timestamp::UNIX_EPOCH, &Note::default())?;
        Ok::<_, EditError>(Value::Object(after.items[&frontend("web")].spec.clone()))
    };
    assert_eq!(sent(&|_| {}), Ok(said.clone()), "what is read can be sent back");
    // Two rules change places, and their secrets with them.
    let swapped = sent(&|it| it["rules"].as_array_mut().unwrap().reverse()).unwrap();
    let (rules, mut expected) = (&swapped["rules"], said["rules"].clone());
    expected.as_array_mut().unwrap().reverse();
    assert_eq!(*rules, expected);
    // What is changed beside one leaves it, and what comes before a line too.
    let changed = sent(&|it| it["rules"][0]["path"] = json!("/c")).unwrap();
    assert_eq!(changed["rules"][0], set("/c", "Basic one"));
    let more = sent(&|it| {
        it["natives"].as_array_mut().unwrap().insert(0, json!("option httplog"));
    });
    assert_eq!(more.unwrap()["natives"][1], said["natives"][0]);
    let remark = json!("# *** old ***");
    let remarked = sent(&|it| it["natives"] = json!([remark])).unwrap();
    assert_eq!(remarked["natives"], json!([remark]), "no secret, and no place of one");
    // Nobody can tell which one is meant, or there is none there.
    for change in [
        &(|it: &mut Value| drop(it["natives"].as_array_mut().unwrap().remove(1)))
            as &dyn Fn(&mut Value),
        &|it: &mut Value| it["natives"][0] = json!("http-request set-header X-Api-Key ***"),
        &|it: &mut Value| it["rules"][0]["set_header"]["name"] = json!("X-Token"),
        &|it: &mut Value| it["rules"][0]["set_header"]["name"] = json!("X-Plain"),
        &|it: &mut Value| it["natives"][0] = json!("http-request set-header X-Plain ***"),
        // One rule goes, and the other one is changed and now in its place.
        &|it: &mut Value| it["rules"] = json!([set("/c", "***")]),
        &|it: &mut Value| it["natives"][1] = json!("redirect prefix https://***@a.test"),
    ] {
        let refused = sent(change).unwrap_err();
        let EditError::Secret { text, .. } = &refused else { panic!("{refused:?}") };
        assert!(text.contains("send the secret"), "{text}");
    }
}

#[test]
fn there_is_a_bound_that_nothing_can_pass_and_anything_may_go_below() {
    let note = Note::default();
    let many = (0..=MOST_OBJECTS).map(|number| (backend(&number.to_string()), Item::default()));
    let document = Document { owner: "a".to_owned(), objects: many.collect() };
    let edits = Edits::of_document(&Objects::default(), &document, false).unwrap();
    let after = edits.after(&Objects::default(), Timestamp::UNIX_EPOCH, &note);
    assert_eq!(after, Err(EditError::TooMany(MOST_OBJECTS + 1)));
    let large = json!({"natives": ["x".repeat(MOST_BYTES)]});
    let edits = Edits::put(&Objects::default(), backend("a"), &spec(large), None, "a").unwrap();
    let after = edits.after(&Objects::default(), Timestamp::UNIX_EPOCH, &note);
    assert!(matches!(after, Err(EditError::TooLarge(_))), "{after:?}");
}

/// A change, as somebody may ask for it.
#[derive(Debug, Clone)]
enum Step {
    Frontend(u8, u8),
    Backend(u8),
    Delete(bool, u8),
    Document(Vec<u8>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(name, to)| Step::Frontend(name, to)),
        (0..4u8).prop_map(Step::Backend),
        (any::<bool>(), 0..4u8).prop_map(|(kind, name)| Step::Delete(kind, name)),
        (proptest::collection::vec(0..4u8, 0..4), any::<bool>())
            .prop_map(|(names, prune)| Step::Document(names, prune)),
    ]
}

fn edits(before: &Objects, step: &Step) -> Edits {
    match step {
        Step::Frontend(name, to) => {
            let said = spec(json!({"bind": [":80"], "default_backend": format!("b{to}")}));
            Edits::put(before, frontend(&format!("f{name}")), &said, None, "anna").unwrap()
        }
        Step::Backend(name) => {
            let said = spec(json!({"servers": []}));
            Edits::put(before, backend(&format!("b{name}")), &said, None, "anna").unwrap()
        }
        Step::Delete(true, name) => Edits::delete(before, frontend(&format!("f{name}"))),
        Step::Delete(false, name) => Edits::delete(before, backend(&format!("b{name}"))),
        Step::Document(names, prune) => {
            let said = Item { spec: spec(json!({"servers": []})), owner: None };
            let objects = names.iter().map(|name| (backend(&format!("b{name}")), said.clone()));
            let document = Document { owner: "deploy".to_owned(), objects: objects.collect() };
            Edits::of_document(before, &document, *prune).unwrap()
        }
    }
}

proptest! {
    /// Whatever is asked for in whatever order: what counts is whole, the file's names are the
    /// file's, and numbers only grow.
    #[test]
    fn what_counts_names_nothing_that_does_not(
        steps in proptest::collection::vec(step(), 0..20),
        file in proptest::collection::btree_set(0..4u8, 0..3),
    ) {
        let file = FileNames {
            frontends: BTreeSet::new(),
            backends: file.iter().map(|name| format!("b{name}")).collect(),
        };
        let mut objects = Objects::default();
        for step in &steps {
            let edits = edits(&objects, step);
            let after = edits.after(&objects, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
            let changes = edits.changes(&objects);
            prop_assert_eq!(changes.is_empty(), after == objects);
            prop_assert_eq!(after.number, objects.number + u64::from(!changes.is_empty()));
            for (key, object) in &after.items {
                let known = objects.get(key);
                let is_same = known == Some(object);
                prop_assert!(is_same || object.number == after.number);
                prop_assert_eq!(is_same, !changes.iter().any(|it| it.object == key.to_string()));
            }
            objects = after;
            let found = standings(&file, &objects, &BTreeMap::new());
            prop_assert_eq!(found.len(), objects.items.len());
            let counts = |key: &ObjectKey| found.get(key).is_some_and(Standing::counts);
            for (key, object) in &objects.items {
                let is_files = file.has(&key.name).is_some();
                prop_assert!(!(is_files && counts(key)));
                if key.kind == ObjectKind::Frontend {
                    let is_there =
                        |name: &&str| file.backends.contains(*name) || counts(&backend(name));
                    prop_assert_eq!(counts(key), targets(&object.spec).iter().all(is_there));
                } else {
                    prop_assert_eq!(counts(key), !is_files);
                }
            }
        }
    }
}

#[test]
fn a_patch_changes_the_keys_that_it_names() {
    // The cases of RFC 7396, appendix A, whose document is an object.
    for (before, patch, after) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let objects = put(&Objects::default(), backend("b"), before.clone());
        let edits = Edits::merge(&objects, backend("b"), spec(patch.clone()), None, "ben").unwrap();
        let changed = edits.after(&objects, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        let (spec, owner) =
            changed.get(&backend("b")).map(|it| (it.spec.clone(), it.owner.clone())).unwrap();
        assert_eq!(Value::Object(spec), after, "{before} {patch}");
        assert_eq!(owner, "anna", "who patches it does not take it over");
    }
}
