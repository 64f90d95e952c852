//! What old clients change is changed whole or not at all, and beside what others change.

use std::thread;

use serde_json::{Value, json};

use super::Scene;
use super::members::Registry;
use crate::managed::PATIENCE;
use crate::support::scene::newest;

impl Scene {
    /// What is declared, by the API of Mapsmith.
    fn declared(&self, backend: &str) -> Value {
        self.managed.mapsmith.wait_for(&format!("{backend} is answered"), PATIENCE, |mapsmith| {
            let response = mapsmith.try_ask("GET", &format!("/v1/backends/{backend}")).ok()?;
            let report: Value = serde_json::from_str(&response.body).ok()?;
            report.get("config").cloned()
        })
    }

    /// Whether it has this version of its members, as far as that is told.
    fn has_version(&self, backend: &str, version: &str) {
        let path = format!("/v1/backends/{backend}/versions");
        self.managed.mapsmith.wait_for(&format!("{backend} has {version}"), PATIENCE, |mapsmith| {
            let response = mapsmith.try_ask("GET", &path).ok()?;
            let versions: Value = serde_json::from_str(&response.body).ok()?;
            (versions["current"]["version"] == version).then_some(())
        });
    }
}

#[test]
fn a_declaration_that_leads_back_to_a_version_is_one_change_with_it() {
    let it = Registry::start(newest());
    let live = |balance: &str| {
        json!({"key": "live", "type": "dynamic", "name": "myapp", "version": "1.0.0",
            "balance": balance})
    };
    it.scene.put("/backends/live", &live("roundrobin"));
    it.scene.has_version("live", "1.0.0");
    let (old, new) = ("/myapp/1.0.0/10.0.0.1/80", "/myapp/1.1.0/10.0.0.2/80");
    it.change("POST", old, &json!({"secondsToExpire": 600}));
    it.change("POST", new, &json!({"secondsToExpire": 600}));
    let switched = it.scene.ask("POST", "/backends/live", &json!({"version": "1.1.0"}));
    assert_eq!(switched, (200, 200.into()));
    it.scene.has_version("live", "1.1.0");
    // Nobody is registered for what it was declared with: nothing of it happens.
    it.change("DELETE", old, &Value::Null);
    let before = it.scene.declared("live")["status"]["etag"].clone();
    let (status, answer) = it.scene.ask("PUT", "/backends/live", &live("leastconn"));
    assert_eq!((status, &answer["error"]), (409, &json!("Conflict")), "{answer:#}");
    let after = it.scene.declared("live");
    assert_eq!(
        (&after["status"]["etag"], &after["balance"]),
        (&before, &json!("roundrobin")),
        "{after:#}"
    );
    let shown = it.scene.ask("GET", "/backends/live", &Value::Null).1;
    assert_eq!((&shown["balance"], &shown["version"]), (&json!("roundrobin"), &json!("1.1.0")));
    // Else all of it does, and one row of the audit and an event of each say so.
    it.change("POST", old, &json!({"secondsToExpire": 600}));
    it.scene.put("/backends/live", &live("leastconn"));
    it.scene.has_version("live", "1.0.0");
    assert_eq!(it.scene.declared("live")["balance"], "leastconn");
    let audit = it.scene.managed.mapsmith.get("/v1/audit?target=backends/live").1;
    let statuses: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|row| row["status"].clone()).collect();
    assert_eq!(statuses, [json!(200), json!(409), json!(200), json!(200)], "{audit:#}");
    let events = it.scene.managed.mapsmith.get("/v1/activity?limit=1000").1.to_string();
    assert!(events.contains("live is switched from version 1.1.0 to 1.0.0"), "{events}");
    assert!(events.contains("backends/live is changed"), "{events}");
    // It outlives the restart of all that follows it.
    it.scene.managed.wait_for_state("in_force");
    let shown = it.scene.ask("GET", "/backends/live", &Value::Null).1;
    assert_eq!((&shown["balance"], &shown["version"]), (&json!("leastconn"), &json!("1.0.0")));
}

#[test]
fn an_operator_switches_what_is_registered_and_declares_nothing() {
    let it = Registry::with(newest(), "role = \"operator\"");
    let from = json!({"source": "registrations", "name": "myapp", "version": "1"});
    for (backend, spec) in [("live", json!({"from": from})), ("fixed", json!({"servers": []}))] {
        let path = format!("/v1/backends/{backend}?wait=30s");
        let response = it.scene.managed.mapsmith.ask("PUT", &path, &[], &spec.to_string());
        assert_eq!(response.status, 201, "{}", response.body);
    }
    let post =
        |backend: &str, body: Value| it.scene.ask("POST", &format!("/backends/{backend}"), &body);
    let refused = |(status, answer): (u16, Value)| {
        assert_eq!((status, &answer["statusCode"]), (403, &json!(403)), "{answer:#}");
        assert_eq!(answer["error"], "Forbidden");
        let words = answer["message"].as_str().unwrap_or_default();
        assert!(
            words.contains("needs the role admin; compat.aqueduct.role is operator"),
            "{words}"
        );
    };
    // Where it has no members, or gets another name, that is another declaration.
    refused(post("live", json!({"version": "2"})));
    refused(post("live", json!({"name": "other", "version": "2"})));
    refused(post("fixed", json!({"name": "other", "version": "2"})));
    refused(it.scene.ask("PUT", "/backends/new", &json!({"key": "new", "type": "static"})));
    refused(it.scene.ask("DELETE", "/backends/fixed", &Value::Null));
    let live = it.scene.declared("live");
    assert_eq!(
        (&live["from"], &live["status"]["changed_by"]),
        (&from, &json!("local")),
        "{live:#}"
    );
    for version in ["1", "2"] {
        let id = format!("/myapp/{version}/10.0.0.1/80");
        it.change("POST", &id, &json!({"secondsToExpire": 600}));
    }
    assert_eq!(post("live", json!({"version": "2"})), (200, 200.into()));
    it.scene.has_version("live", "2");
    refused(post("live", json!({"name": "other", "version": "2"})));
    assert_eq!(it.scene.declared("live")["from"], from);
}

#[test]
fn what_others_change_at_the_same_time_is_not_lost() {
    let scene = Scene::start(newest());
    let from = json!({"source": "registrations", "name": "myapp", "version": "0"});
    let path = "/v1/backends/live?wait=30s";
    let spec = json!({"from": from, "natives": ["option tcp-check"]}).to_string();
    let response = scene.managed.mapsmith.ask("PUT", path, &[], &spec);
    assert_eq!(response.status, 201, "{}", response.body);
    for number in 1..=6 {
        let balance = json!({"header": format!("X-{number}")});
        let body = json!({"balance": balance}).to_string();
        let version = number.to_string();
        thread::scope(|scope| {
            let patched = scope.spawn(|| {
                let path = "/v1/backends/live";
                scene.managed.mapsmith.ask("PATCH", path, &[], &body)
            });
            let switched = scene.ask("POST", "/backends/live", &json!({"version": version}));
            assert_eq!(switched, (200, 200.into()), "{}", scene.managed.mapsmith.log());
            let patched = patched.join().expect("an answer");
            assert_eq!(patched.status, 200, "{}", patched.body);
        });
        let live = scene.declared("live");
        assert_eq!(
            (&live["from"]["version"], &live["balance"]),
            (&json!(version), &balance),
            "{live:#}"
        );
    }
}

#[test]
fn a_backend_of_too_many_members_is_refused_with_the_most_that_there_may_be() {
    let scene = Scene::start(newest());
    let members: Vec<_> =
        (0..10_001).map(|at| json!({"host": format!("h{at}"), "port": 1})).collect();
    let body = json!({"key": "a", "type": "static", "members": members});
    let (status, answer) = scene.ask("PUT", "/backends/a", &body);
    assert_eq!((status, &answer["error"]), (400, &json!("Bad Request")), "{answer:#}");
    let words = "members must be at most 10000 of a backend, and has 10001";
    assert_eq!(answer["message"], words);
    assert_eq!(answer["validation"], json!({"source": "payload", "keys": ["members"]}));
}
