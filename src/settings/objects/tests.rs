use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::objects::Edits;
use serde_json::json;

use super::*;
use crate::settings::WhenEmpty;

const FILE: &str = r#"
    [haproxy]
    managed = true
    [store]
    path = "s.db"
    [[frontend]]
    name = "own"
    bind = [":81"]
    maxconn = 7
    default_backend = "shared"
    [[backend]]
    name = "shared"
    servers = []
"#;

fn file(text: &str) -> SettingsFile {
    SettingsFile::of_text(Path::new("/etc/a.toml"), text.to_owned()).unwrap()
}

fn with(file: &SettingsFile, said: &[(ObjectKind, &str, serde_json::Value)]) -> SettingsFile {
    let mut objects = Objects::default();
    for (kind, name, spec) in said {
        let key = ObjectKey::new(*kind, *name);
        let spec = spec.as_object().unwrap();
        let edits = Edits::put(&objects, key, spec, None, "anna").unwrap();
        objects = edits.after(&objects, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
    }
    file.with_objects(Arc::new(objects)).unwrap()
}

fn set_aside(file: &SettingsFile, kind: ObjectKind, name: &str) -> String {
    match &file.declared().standings[&ObjectKey::new(kind, name)] {
        Standing::SetAside { reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

use ObjectKind::{Backend, Frontend};

#[test]
fn what_the_api_declares_stands_behind_what_the_file_says() {
    let file = file(FILE);
    let app = json!({"servers": [{"name": "a", "address": "127.0.0.1:1", "weight": 7}]});
    let web = json!({"bind": [":80", {"address": ":82"}], "default_backend": "app",
        "rules": [{"path": "7", "backend": "shared"}], "forwarded_for": false});
    let merged = with(&file, &[(Backend, "app", app), (Frontend, "web", web)]);
    let frontends: Vec<_> =
        merged.settings.frontends.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(frontends, ["own", "web"]);
    assert!(!merged.settings.frontends[1].forwarded_for);
    assert_eq!(merged.settings.backends[0].empty, WhenEmpty::Keep, "of the file");
    assert_eq!(merged.settings.backends[1].empty, WhenEmpty::Accept);
    assert_eq!(merged.settings.backends[1].name, "app");
    assert!(merged.declared().standings.values().all(Standing::counts));
    let again = merged.with_objects(Arc::default()).unwrap();
    assert_eq!(again.settings.frontends.len(), 1, "nothing of them stays");
    let own = &merged.declared().of_file[&ObjectKey::new(Frontend, "own")];
    let expected = json!({"bind": [":81"], "default_backend": "shared", "maxconn": 7});
    assert_eq!(serde_json::Value::Object(own.clone()), expected);
}

#[test]
fn a_file_without_frontends_will_do_where_they_can_be_declared() {
    let file = file("[haproxy]\nmanaged = true\n[store]\npath = \"s.db\"\n");
    let app = json!({"servers": []});
    let web = json!({"bind": [":80"], "default_backend": "app"});
    let merged = with(&file, &[(Frontend, "web", web.clone()), (Backend, "app", app)]);
    assert_eq!(merged.settings.frontends.len(), 1);
    let pending = with(&file, &[(Frontend, "web", web)]);
    assert!(pending.settings.frontends.is_empty());
}

#[test]
fn what_reads_files_or_listens_is_the_files_own_unless_it_says_otherwise() {
    let app = json!({"servers": [], "natives": ["server x 127.0.0.1:1 crt /k"]});
    let line = "http-request return status 200 content-type a file /etc/shadow";
    let web = json!({"bind": [":80"], "default_backend": "app", "natives": [line]});
    let maps = json!({"bind": [":82"], "default_backend": "shared",
        "rules": [{"map": {"file": "/m/a", "by": "src"}, "deny": 403}]});
    let said = [(Backend, "app", app), (Frontend, "web", web), (Frontend, "maps", maps)];
    let merged = with(&file(FILE), &said);
    for (kind, name, words) in [
        (Backend, "app", "natives[0]: the line"),
        (Frontend, "web", "has \"file\", which reads a file"),
        (Frontend, "maps", "rules[0].map.file: the API takes files alone that the settings"),
    ] {
        let reason = set_aside(&merged, kind, name);
        assert!(reason.contains(words) && reason.contains("api.natives"), "{reason}");
    }
    let open = with(&file(&format!("{FILE}[api]\nnatives = \"any\"\n")), &said);
    assert!(open.declared().standings.values().all(Standing::counts));
    // The file's own are as they were, and what they name may be named.
    let own = format!("{FILE}natives = [\"http-request deny if {{ src,map_ip(/m/a) 1 }}\"]\n");
    let merged = with(&file(&own), &said[2..]);
    assert!(merged.declared().standings.values().all(Standing::counts));
}

#[test]
fn of_two_that_listen_at_one_address_the_one_that_was_said_last_is_set_aside() {
    let web = |bind: &str| json!({"bind": [":70", bind], "default_backend": "shared"});
    let alone = |bind: &str| json!({"bind": [{"address": bind}], "default_backend": "shared"});
    for (first, last) in [("aaa", "web"), ("web", "aaa"), ("frontend:x", "aaa"), ("aaa", "b:b")] {
        for (one, other) in [(":82", ":82"), ("*:82", "0.0.0.0:82")] {
            let said = [(Frontend, first, alone(one)), (Frontend, last, web(other))];
            let merged = with(&file(FILE), &said);
            let reason = set_aside(&merged, Frontend, last);
            let expected = format!("bind[1]: the frontend {first} listens at ");
            assert!(reason.starts_with(&expected), "{first}, then {last}: {reason}");
            let first = &merged.declared().standings[&ObjectKey::new(Frontend, first)];
            assert!(first.counts(), "it listens already: {first:?}");
        }
    }
}

#[test]
fn of_the_files_frontend_and_one_at_its_address_the_objects_is_set_aside_and_no_other() {
    let bound = |bind: &str| json!({"bind": [bind], "default_backend": "shared"});
    // The file has taken the name of the one that was changed last, too.
    let said = [
        (Frontend, "other", bound(":79")),
        (Frontend, "taken", bound(":81")),
        (Frontend, "own", bound(":82")),
    ];
    let merged = with(&file(FILE), &said);
    let reason = set_aside(&merged, Frontend, "taken");
    assert!(reason.starts_with("bind[0]: the frontend own listens at "), "{reason}");
    set_aside(&merged, Frontend, "own");
    let other = &merged.declared().standings[&ObjectKey::new(Frontend, "other")];
    assert!(other.counts(), "{other:?}");
}

#[test]
fn each_fault_of_an_object_is_told_by_itself_with_its_key() {
    let wrong = json!({"servers": [], "balanse": "random", "retries": "x", "colour": 1});
    let lines = json!({"bind": ["fd@3"], "natives": ["a b", "log-format x", "c d"]});
    let merged = with(&file(FILE), &[(Backend, "wrong", wrong), (Frontend, "lines", lines)]);
    for (kind, name, expected) in [
        (Backend, "wrong", vec!["balanse", "colour", "retries"]),
        (Frontend, "lines", vec!["natives[0]", "natives[2]", "bind[0]"]),
    ] {
        let faults = &merged.declared().faults[&ObjectKey::new(kind, name)];
        let mut keys: Vec<_> = faults.iter().filter_map(|text| setting_of(text).0).collect();
        assert_eq!(keys.len(), faults.len(), "each has its key: {faults:?}");
        if kind == Backend {
            keys.sort_unstable();
        }
        assert_eq!(keys, expected, "{faults:?}");
    }
    assert_eq!(setting_of("a backend has the name a: b"), (None, "a backend has the name a: b"));
}

#[test]
fn a_frontend_that_waits_leaves_its_port_to_the_file_and_to_whoever_listens() {
    let waiting = |bind: &str| json!({"bind": [bind], "default_backend": "later"});
    let said = [
        (Frontend, "waits", waiting(":81")),
        (Frontend, "first", json!({"bind": [":82"], "default_backend": "shared"})),
        (Frontend, "beside", waiting(":82")),
        (Frontend, "beside2", waiting(":82")),
        (Frontend, "either", waiting(":84")),
        (Frontend, "or", waiting(":84")),
        (Frontend, "free", waiting(":83")),
    ];
    let merged = with(&file(FILE), &said);
    let names: Vec<_> = merged.settings.frontends.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["own", "first"], "the file's counts, and so does one that can listen");
    let reason = set_aside(&merged, Frontend, "waits");
    assert!(reason.contains("the frontend own listens at :81 too"), "{reason}");
    for name in ["beside", "beside2"] {
        let reason = set_aside(&merged, Frontend, name);
        assert!(reason.contains("the frontend first listens at :82 too"), "{reason}");
    }
    for name in ["free", "either", "or"] {
        let free = &merged.declared().standings[&ObjectKey::new(Frontend, name)];
        assert!(matches!(free, Standing::Pending { .. }), "{name}: {free:?}");
    }
    // The port is free again.
    let merged = with(&file(&FILE.replace(":81", ":91")), &said);
    let waits = &merged.declared().standings[&ObjectKey::new(Frontend, "waits")];
    assert!(matches!(waits, Standing::Pending { .. }), "{waits:?}");
}

#[test]
fn one_address_is_had_by_one_frontend_however_it_is_written() {
    for (one, other) in [
        ("127.0.0.1:81", "127.0.0.1:0081"),
        (":81", "0.0.0.0:081"),
        ("[::1]:81", "[0::1]:81"),
        ("127.0.0.1:81", "[::ffff:127.0.0.1]:81"),
        ("unix@/tmp/d/s.sock", "unix@/tmp/d/../d/s.sock"),
    ] {
        let bound = |bind: &[&str]| json!({"bind": bind, "default_backend": "shared"});
        let text = FILE.replace(":81", one);
        // Within the file.
        let twice = format!(
            "{text}[[frontend]]\nname = \"again\"\nbind = [\"{other}\"]\n\
            default_backend = \"shared\"\n"
        );
        let error = SettingsFile::of_text(Path::new("/etc/a.toml"), twice).unwrap_err();
        let told = format!("frontend[1].bind[0]: the frontend own listens at {other} too");
        assert!(error.to_string().contains(&told), "{error}");
        // Between the file and what the API declares.
        let merged = with(&file(&text), &[(Frontend, "web", bound(&[":90", other]))]);
        let reason = set_aside(&merged, Frontend, "web");
        assert_eq!(reason, format!("bind[1]: the frontend own listens at {other} too"));
        // Of two that the API declares it is the later one's fault, also where it comes first.
        let free = file(&FILE.replace(":81", ":91"));
        let said = [(Frontend, "z", bound(&[one])), (Frontend, "a", bound(&[":90", other]))];
        let reason = set_aside(&with(&free, &said), Frontend, "a");
        assert_eq!(reason, format!("bind[1]: the frontend z listens at {other} too"));
    }
}

#[test]
fn of_two_that_wait_for_one_address_the_one_that_was_said_first_has_it_whichever_backend_comes() {
    let waiting = |name: &str| json!({"bind": [":84"], "default_backend": name});
    let said = [(Frontend, "s3", waiting("nope")), (Frontend, "s4", waiting("nope2"))];
    let backend = |name| (Backend, name, json!({"servers": []}));
    let standing = |merged: &SettingsFile, name: &str| {
        merged.declared().standings[&ObjectKey::new(Frontend, name)].clone()
    };
    let merged = with(&file(FILE), &[said.as_slice(), &[backend("nope")]].concat());
    assert!(standing(&merged, "s3").counts(), "{:?}", standing(&merged, "s3"));
    let reason = set_aside(&merged, Frontend, "s4");
    assert_eq!(reason, "bind[0]: the frontend s3 listens at :84 too");
    assert!(is_of_address(&reason));

    let merged = with(&file(FILE), &[said.as_slice(), &[backend("nope2")]].concat());
    assert!(matches!(standing(&merged, "s3"), Standing::Pending { .. }));
    let reason = set_aside(&merged, Frontend, "s4");
    let first = "bind[0]: the frontend s3 was said first for :84, and waits for nope";
    assert_eq!(reason, first);
    assert!(is_of_address(&reason));
    assert!(merged.settings.backends.iter().any(|it| it.name == "nope2"), "the backend counts");

    // Another one that can't be anyway is no obstacle to it.
    let unfit = json!({"bind": [":84", ":81"], "default_backend": "nope"});
    let said = [(Frontend, "s3", unfit), said[1].clone(), backend("nope2")];
    let merged = with(&file(FILE), &said);
    assert!(set_aside(&merged, Frontend, "s3").contains("the frontend own listens at :81 too"));
    assert!(standing(&merged, "s4").counts(), "{:?}", standing(&merged, "s4"));
}

#[test]
fn whoever_listens_keeps_its_address_whatever_else_of_it_changes_and_whoever_comes_back() {
    let bound = |bind: &[&str], backend: &str| json!({"bind": bind, "default_backend": backend});
    let put = |objects: &Objects, idle: &[&str], name: &str, spec: &serde_json::Value| {
        let spec = spec.as_object().unwrap();
        let edits = Edits::put(objects, ObjectKey::new(Frontend, name), spec, None, "anna");
        let idle = idle.iter().map(|name| ObjectKey::new(Frontend, *name)).collect();
        let edits = edits.unwrap().before_idle(idle);
        edits.after(objects, Timestamp::UNIX_EPOCH, &Note::default()).unwrap()
    };
    let standing = |file: &SettingsFile, objects: &Objects, name: &str| {
        let merged = file.with_objects(Arc::new(objects.clone())).unwrap();
        merged.declared().standings[&ObjectKey::new(Frontend, name)].clone()
    };
    let shared = bound(&[":84"], "shared");
    let waiting = bound(&[":84"], "to_come");
    for (other, idle) in [(&shared, ["other"].as_slice()), (&waiting, &[])] {
        let first = put(&Objects::default(), &[], "first", &shared);
        let both = put(&first, &[], "other", other);
        let edited = json!({"bind": [":84"], "default_backend": "shared", "maxconn": 7});
        let edited = put(&both, idle, "first", &edited);
        let found = standing(&file(FILE), &edited, "first");
        assert!(found.counts(), "before {other}: {found:?}");
        let moved = put(&edited, idle, "first", &bound(&[":85", ":84"], "shared"));
        let found = standing(&file(FILE), &moved, "first");
        assert_eq!(found.counts(), !idle.is_empty(), "after one that waits: {found:?}");
    }

    // The settings file takes the port of one, and gives it back when another one is there.
    for back in [bound(&[":84", ":81"], "to_come"), bound(&[":84", ":81"], "shared")] {
        let away = put(&Objects::default(), &[], "back", &back);
        assert!(matches!(standing(&file(FILE), &away, "back"), Standing::SetAside { .. }));
        let served = put(&away, &["back"], "served", &shared);
        let free = file(&FILE.replace(":81", ":83"));
        let (found, other) = (standing(&free, &served, "served"), standing(&free, &served, "back"));
        assert!(found.counts(), "it serves, whoever comes back as {back}: {found:?}, {other:?}");
        assert!(matches!(other, Standing::SetAside { .. }), "{other:?}");
    }
}

#[test]
fn one_objects_fault_is_its_own() {
    let file = file(FILE);
    let good = json!({"servers": []});
    let merged = with(
        &file,
        &[
            (Backend, "good", good.clone()),
            (Backend, "misspelt", json!({"servers": [], "balanse": "random"})),
            (Backend, "sourceless", json!({"from": "nowhere"})),
            (Backend, "own", good.clone()),
            (Frontend, "good", json!({"bind": [":90"], "default_backend": "good"})),
            (Frontend, "taken", json!({"bind": [":81"], "default_backend": "good"})),
            (Frontend, "left", json!({"bind": [":91"], "default_backend": "misspelt"})),
            (Frontend, "natives", json!({"bind": [":92"], "natives": ["a\nfrontend x"]})),
            (Frontend, "fine", json!({"bind": [":93"], "default_backend": "good"})),
        ],
    );
    for (kind, name, said) in [
        (Backend, "misspelt", "balanse: there is no such key; did you mean balance?"),
        (Backend, "sourceless", "from: there is no source of the name \"nowhere\""),
        (Backend, "own", "the settings file has a [[frontend]] of the name own"),
        (Frontend, "good", "a backend has the name good too"),
        (Frontend, "taken", "the frontend own listens at :81 too"),
        (Frontend, "natives", "natives[0]: the line"),
    ] {
        let reason = set_aside(&merged, kind, name);
        assert!(reason.contains(said), "{name}: {reason}");
    }
    let left = &merged.declared().standings[&ObjectKey::new(Frontend, "left")];
    assert!(matches!(left, Standing::Pending { .. }), "{left:?}");
    let names: Vec<_> = merged.settings.frontends.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["own", "fine"]);
}

#[test]
fn a_document_that_is_not_there_is_not_looked_for_as_the_settings_file_is() {
    let missing = |error: SettingsError| error.to_string();
    let document = missing(read_document(Path::new("/nowhere/nofile.json")).unwrap_err());
    assert!(document.contains("can't be read"), "{document}");
    assert!(!document.contains("MAPSMITH_CONFIG"), "{document}");
    let settings = missing(SettingsFile::read(Path::new("/nowhere/a.toml")).unwrap_err());
    assert!(settings.contains("MAPSMITH_CONFIG"), "{settings}");
}
