use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::objects::{Edits, Spec};
use crate::overrides::Note;

fn spec_of(value: Value) -> Spec {
    value.as_object().unwrap().clone()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (String, Vec<String>) {
    let Refusal { message, validation } = result.unwrap_err();
    (message, validation.map(|validation| validation.keys).unwrap_or_default())
}

/// What is declared: by this API where it `said` so, else by another one.
fn declared(objects: &[(ObjectKind, &str, Value, Option<Value>)]) -> Objects {
    let mut all = Objects::default();
    for (kind, name, spec, said) in objects {
        let (key, spec) = (ObjectKey::new(*kind, *name), spec_of(spec.clone()));
        let edits = match said {
            Some(said) => Edits::put_said(&all, key, &spec, spec_of(said.clone()), "old"),
            None => Edits::put(&all, key, &spec, None, "anna"),
        };
        all = edits.unwrap().after(&all, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
    }
    all
}

use ObjectKind::{Backend as BackendKind, Frontend as FrontendKind};

#[test]
fn a_frontend_and_a_backend_may_have_one_key() {
    let objects = Objects::default();
    let frontend = frontend_key(&objects, "foo").unwrap();
    let backend = backend_key("foo").unwrap();
    assert_eq!((&*frontend.name, &*backend.name), ("frontend:foo", "foo"));
    for key in ["a b", "", "ü", "a\nb", &"x".repeat(250)] {
        let (message, keys) = refusal(frontend_key(&objects, key));
        assert!(message.contains("can't name a section"), "{message}");
        assert_eq!(keys, ["key"]);
    }
    assert!(backend_key("frontend:foo").is_err(), "it would be the frontend foo");
}

#[test]
fn what_others_declared_is_there_by_its_name() {
    let web = json!({"bind": [":80"], "default_backend": "app"});
    let objects = declared(&[
        (FrontendKind, "web", web.clone(), None),
        (FrontendKind, "both", web.clone(), None),
        (FrontendKind, "frontend:both", web.clone(), None),
        (FrontendKind, "frontend:a", web, None),
        (BackendKind, "app", json!({"servers": []}), None),
    ]);
    let keys: Vec<_> = all(&objects, FrontendKind).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "both", "web"], "each key once");
    for (key, name) in [("web", "web"), ("both", "frontend:both"), ("c", "frontend:c")] {
        assert_eq!(frontend_key(&objects, key).unwrap().name, name);
    }
}

#[test]
fn the_first_fault_of_a_body_is_named_as_aqueduct_did() {
    let frontend = json!({"key": "a", "bind": "*:80", "backend": "b"});
    let with = |key: &str, value: Value| {
        let mut body = frontend.clone();
        body[key] = value;
        refusal(body::frontend(&body))
    };
    for (key, value, message, at) in [
        ("bind", json!(80), "bind must be a string", "bind"),
        ("bind", json!(""), "bind is not allowed to be empty", "bind"),
        ("backend", json!(null), "backend must be a string", "backend"),
        ("mode", json!(7), "mode must be one of http, tcp", "mode"),
        ("natives", json!("x"), "natives must be an array", "natives"),
        ("natives", json!(["x", 1]), "1 must be a string", "natives.1"),
        ("id", json!("frontend/a"), "id is not allowed", "id"),
        (
            "natives",
            json!(["a\nfrontend b"]),
            "natives must not contain a line break or a control character",
            "natives",
        ),
        (
            "rules",
            json!([{"type": "weird", "x": {"y\n": 1}}]),
            "rules must not contain a line break or a control character",
            "rules",
        ),
    ] {
        assert_eq!(with(key, value), (message.to_owned(), vec![at.to_owned()]));
    }
    for body in [json!(null), json!([]), json!("x")] {
        assert_eq!(refusal(body::frontend(&body)).0, "value must be an object");
    }
    assert!(
        body::frontend(&json!({"_type": "frontend", "key": "a", "bind": "b", "backend": "c"}))
            .is_ok()
    );
    let health = |health: Value| {
        body::backend(&json!({"key": "a", "type": "static", "host": "h", "health": health}))
    };
    for (value, message, at) in [
        (json!({"bogus": 1}), "bogus is not allowed", "health.bogus"),
        (json!(7), "health must be an object", "health"),
        (json!({"interval": "x"}), "interval must be a number", "health.interval"),
        (json!({"interval": 0.5}), "interval must be larger than or equal to 1", "health.interval"),
        (
            json!({"interval": 1e300}),
            "interval must be less than or equal to 86400000",
            "health.interval",
        ),
    ] {
        assert_eq!(refusal(health(value)), (message.to_owned(), vec![at.to_owned()]));
    }
    assert_eq!(health(json!({"interval": "700"})).unwrap().health.unwrap().interval, 700);
    assert_eq!(refusal(body::switch(&json!({"name": "a"}))).0, "version is required");
    assert_eq!(refusal(body::switch(&json!({"version": "1", "x": 1}))).0, "x is not allowed");
}

fn frontend_spec(more: Value) -> Result<Spec, Refusal> {
    let mut body = json!({"key": "a", "bind": "*:80", "backend": "live"});
    body.as_object_mut().unwrap().extend(spec_of(more));
    spec::frontend(&body::frontend(&body).unwrap())
}

fn backend_spec(more: Value) -> Result<Spec, Refusal> {
    let mut body = json!({"key": "live", "type": "static"});
    body.as_object_mut().unwrap().extend(spec_of(more));
    spec::backend("live", &body::backend(&body).unwrap(), "registrations")
}

#[test]
fn a_frontend_is_what_it_was_there() {
    let plain = json!({"bind": ["*:80"], "forwarded_for": false, "default_backend": "live"});
    assert_eq!(Value::Object(frontend_spec(json!({})).unwrap()), plain);
    let rule = json!({"type": "path", "operation": "path_beg", "value": "/x/", "backend": "x"});
    let weird = json!({"type": "weird", "operation": "x", "value": "y", "backend": "z"});
    let spec = frontend_spec(json!({
        "bind": "10.0.0.1:80, *:443 ssl crt /x.pem",
        "rules": [rule, weird, {"type": "header", "header": "host", "operation": "hdr_dom",
            "value": "-i a.test", "backend": "y"}],
        "natives": ["maxconn 5", "  ", "# nothing"],
    }));
    let spec = spec.unwrap();
    let natives: Vec<_> =
        spec["natives"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let [bind, path, to_x, header, to_y, maxconn] = natives[..] else {
        panic!("{natives:?}");
    };
    assert_eq!((&spec["bind"], &spec["keep_alive"]), (&json!([]), &json!("client")));
    assert_eq!(bind, "bind 10.0.0.1:80, *:443 ssl crt /x.pem");
    let name = path.strip_suffix(" path_beg /x/").unwrap().strip_prefix("acl ").unwrap();
    assert!(name.starts_with("path_"), "{name}");
    assert_eq!(to_x, format!("use_backend x if {name}"));
    assert!(header.starts_with("acl header_") && header.ends_with(" hdr_dom(host) -i a.test"));
    assert!(to_y.starts_with("use_backend y if header_"), "{to_y}");
    assert_eq!(maxconn, "maxconn 5");
    let targets: Vec<_> = crate::objects::targets(&spec).into_iter().collect();
    assert_eq!(targets, ["live", "x", "y"], "it waits for all of them");
    let again = frontend_spec(json!({"rules": [rule]})).unwrap();
    assert!(again["natives"].to_string().contains(path), "the same name each time");
    let tcp = frontend_spec(json!({"mode": "tcp", "keepalive": "close"})).unwrap();
    assert_eq!((&tcp["mode"], tcp.get("keep_alive")), (&json!("tcp"), None));
    for (more, at) in [
        (json!({"backend": "a b"}), "backend"),
        (
            json!({"rules": [{"type": "path", "operation": "path", "backend": "x"}]}),
            "rules.0.value",
        ),
        (json!({"natives": ["frontend x"]}), "natives"),
        (json!({"natives": ["'open"]}), "natives"),
        (
            json!({"rules": [{"type": "url", "operation": "url", "value": "/", "backend": "x if"}]}),
            "rules.0.backend",
        ),
    ] {
        assert_eq!(refusal(frontend_spec(more.clone())).1, [at], "{more}");
    }
}

#[test]
fn a_backend_is_what_it_was_there() {
    let plain = json!({"balance": "roundrobin", "check": {"interval": "2000ms"}, "servers": []});
    assert_eq!(Value::Object(backend_spec(json!({})).unwrap()), plain);
    let spec = backend_spec(json!({
        "balance": "hdr(X-Key)",
        "host": "foo.test",
        "health": {"uri": "/c", "httpVersion": "HTTP/1.1", "interval": 700},
        "members": [
            {"host": "10.0.0.1", "port": "80"},
            {"host": "::1", "port": 81, "meta": {"a": 1}},
            {"host": "10.0.0.1", "port": 80},
        ],
    }));
    let expected = json!({
        "balance": {"header": "X-Key"},
        "host": "foo.test",
        "check": {"interval": "700ms", "method": "GET", "uri": "/c", "version": "1.1",
            "host": "foo.test"},
        "servers": [
            {"name": "live_10.0.0.1:80", "address": "10.0.0.1:80"},
            {"name": "live_::1:81", "address": "[::1]:81"},
        ],
    });
    assert_eq!(Value::Object(spec.unwrap()), expected);
    let dynamic = |more: Value| {
        let mut body = json!({"type": "dynamic", "members": [{"host": "a", "port": 1}]});
        body.as_object_mut().unwrap().extend(spec_of(more));
        backend_spec(body).unwrap()
    };
    let from = dynamic(json!({"name": "myapp", "version": "1.0.0"}));
    let expected = json!({"source": "registrations", "name": "myapp", "version": "1.0.0"});
    assert_eq!((&from["from"], from.get("servers")), (&expected, None));
    assert_eq!(dynamic(json!({"name": "myapp"}))["servers"], json!([]));
    let tcp = backend_spec(json!({"mode": "tcp", "host": "a", "balance": "first"})).unwrap();
    assert_eq!(tcp["natives"], json!(["balance first"]));
    assert!(tcp.get("host").is_none());
    for (member, at) in [
        (json!({"port": 80}), "members.0.host"),
        (json!({"host": "a"}), "members.0.port"),
        (json!({"host": "a", "port": "80x"}), "members.0.port"),
        (json!({"host": "a", "port": 65536}), "members.0.port"),
        (json!("a:80"), "members.0.host"),
    ] {
        assert_eq!(refusal(backend_spec(json!({"members": [member]}))).1, [at], "{member}");
    }
}

#[test]
fn what_another_api_declared_is_shown_in_aqueducts_words() {
    let web = json!({
        "bind": [":80", {"address": ":443", "certificate": ["site"]}],
        "mode": "http",
        "keep_alive": "none",
        "default_backend": "app",
        "rules": [
            {"path_beg": ["/x/"], "backend": "x"},
            {"header": "host", "hdr_dom": "a.test", "backend": "y"},
            {"path": "/a", "method": "GET", "backend": "z"},
            {"path": "/b", "deny": 403},
        ],
        "natives": ["maxconn 5"],
    });
    let app = json!({
        "servers": [{"name": "a", "address": "10.0.0.1:80"}, {"name": "b", "address": "[::1]:1"}],
        "check": {"uri": "/c", "interval": "3s", "host": "h"},
    });
    let objects = declared(&[(FrontendKind, "web", web, None), (BackendKind, "app", app, None)]);
    let shown_web =
        shown::frontend("web", objects.get(&ObjectKey::new(FrontendKind, "web")).unwrap());
    assert_eq!(
        shown_web,
        json!({
            "id": "frontend/web", "_type": "frontend", "key": "web", "bind": ":80,:443",
            "backend": "app", "mode": "http", "keepalive": "close", "natives": ["maxconn 5"],
            "rules": [
                {"type": "path", "operation": "path_beg", "value": "/x/", "backend": "x"},
                {"type": "header", "header": "host", "operation": "hdr_dom", "value": "a.test",
                    "backend": "y"},
            ],
        })
    );
    let backend = objects.get(&ObjectKey::new(BackendKind, "app")).unwrap();
    assert_eq!(
        shown::backend("app", backend, None),
        json!({
            "id": "backend/app", "_type": "backend", "key": "app", "type": "static",
            "balance": "roundrobin", "host": null, "mode": "http", "natives": [],
            "members": [{"host": "10.0.0.1", "port": 80}, {"host": "::1", "port": 1}],
            "health": {"method": "GET", "uri": "/c", "httpVersion": "HTTP/1.1", "interval": 3000},
        })
    );
}

#[test]
fn what_was_said_is_shown_until_somebody_says_something_else() {
    let said =
        json!({"type": "static", "balance": "first", "members": [{"host": "a", "port": "1"}]});
    let spec = json!({"servers": [], "natives": ["stats auth admin:secret", "balance first"]});
    let mut with_natives = said.clone();
    with_natives["natives"] = json!(["stats auth admin:secret"]);
    let objects = declared(&[(BackendKind, "app", spec.clone(), Some(with_natives))]);
    let key = ObjectKey::new(BackendKind, "app");
    let object = objects.get(&key).unwrap();
    let first = shown::backend("app", object, None);
    assert_eq!((&first["balance"], &first["members"]), (&json!("first"), &said["members"]));
    let natives: Vec<String> = serde_json::from_value(first["natives"].clone()).unwrap();
    assert!(natives[0].ends_with("***") && !natives[0].contains("secret"), "{natives:?}");
    let restored = shown::natives(&natives, Some(object)).unwrap();
    assert_eq!(restored, ["stats auth admin:secret"], "what was hidden is meant again");
    assert!(shown::natives(&natives, None).is_err());

    let other = Edits::put(&objects, key.clone(), &spec_of(json!({"servers": []})), None, "anna");
    let after = other.unwrap().after(&objects, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
    let object = after.get(&key).unwrap();
    assert_eq!(shown::backend("app", object, None)["balance"], "roundrobin");
    let same = Edits::put(&objects, key, &spec_of(spec), None, "anna").unwrap();
    assert!(same.is_empty(), "{same:?}");
}

#[test]
fn a_backend_has_at_most_so_many_members_and_of_those_that_are_the_same_one() {
    use crate::server::MOST_SERVERS;
    let members = |count: usize| -> Vec<Value> {
        (0..count).map(|at| json!({"host": format!("h{at}"), "port": 80})).collect()
    };
    let made = |members: Vec<Value>| {
        let body = json!({"key": "live", "type": "static", "members": members});
        spec::backend("live", &body::backend(&body).unwrap(), "registrations")
    };
    let most = made(members(MOST_SERVERS)).unwrap();
    assert_eq!(most["servers"].as_array().map(Vec::len), Some(MOST_SERVERS));
    let mut twice = members(3);
    twice.extend(members(2));
    assert_eq!(made(twice).unwrap()["servers"].as_array().map(Vec::len), Some(3));
    let (message, keys) = refusal(made(members(MOST_SERVERS + 1)));
    assert_eq!(
        (message.as_str(), keys),
        ("members must be at most 10000 of a backend, and has 10001", vec!["members".to_owned()])
    );
}
