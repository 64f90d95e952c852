//! Members that register as with Thalassa, and backends that take them as with Aqueduct.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};

use super::{Scene, aqueduct};
use crate::managed::PATIENCE;
use crate::support::haproxy::Binary;
use crate::support::http::{self, Response};
use crate::support::master::Master;
use crate::support::scene::newest;
use crate::support::{eventually, free_port};

pub(super) struct Registry {
    pub scene: Scene,
    /// Where Thalassa's clients ask.
    address: SocketAddr,
}

impl Registry {
    pub fn start(binary: &'static Binary) -> Self {
        Self::with(binary, "")
    }

    /// `keys` are more of Aqueduct's listener.
    pub fn with(binary: &'static Binary, keys: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let section = format!("[compat.thalassa]\nlisten = \"{address}\"\n");
        Self { scene: Scene::with(binary, keys, &section), address }
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        eventually("the registry answers", PATIENCE, || {
            http::request(self.address, method, path, &[], &text).ok()
        })
    }

    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send(method, path, body);
        (response.status, serde_json::from_str(&response.body).unwrap_or_default())
    }

    /// By its id, `/myapp/1.0.0/10.0.0.1/80`.
    pub fn change(&self, method: &str, id: &str, meta: &Value) {
        // While other settings come into force the store is closed for a moment.
        let path = format!("/registrations{id}");
        self.scene.managed.mapsmith.wait_for(&format!("{method} {path}"), PATIENCE, |_| {
            (self.ask(method, &path, meta) == (200, 200.into())).then_some(())
        });
    }

    fn register(&self, version: &str, master: &Master) {
        let address = master.address();
        let id = format!("/myapp/{version}/{}/{}", address.ip(), address.port());
        self.change("POST", &id, &json!({"secondsToExpire": 600}));
    }

    /// The ids of a backend's members.
    pub fn members(&self, backend: &str) -> BTreeSet<String> {
        let (_, members) =
            self.scene.ask("GET", &format!("/backends/{backend}/members"), &Value::Null);
        let members = members.as_array().cloned().unwrap_or_default();
        members.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn ids(value: &Value) -> BTreeSet<String> {
    let items = value.as_array().into_iter().flatten();
    let id = |item: &Value| item.as_str().or_else(|| item["id"].as_str()).map(str::to_owned);
    items.filter_map(id).collect()
}

#[test]
fn a_dynamic_backend_has_the_members_of_its_name_and_version() {
    let it = Registry::start(newest());
    let vectors = aqueduct();
    let cases = vectors["dynamic"].as_array().expect("cases");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let mut registered = ids(&case["registry"]);
        for backend in case["backends"].as_array().unwrap() {
            let key = backend["key"].as_str().unwrap();
            let mut body = backend.clone();
            body["members"] = json!([]);
            it.scene.put(&format!("/backends/{key}"), &body);
            registered.extend(ids(&backend["members"]));
        }
        registered.iter().for_each(|id| it.change("POST", id, &Value::Null));
        let event = &case["event"];
        if let Some(member) = event["online"]["id"].as_str() {
            it.change("POST", member, &Value::Null);
            registered.insert(member.to_owned());
        }
        if let Some(member) = event["offline"].as_str() {
            it.change("DELETE", member, &Value::Null);
        }
        if event["post"].is_object() {
            let live = it.scene.ask("POST", "/backends/live", &event["post"]);
            assert_eq!(live, (200, 200.into()), "{id}: {}", it.scene.managed.mapsmith.log());
        }
        for (key, expected) in case["after"].as_object().unwrap() {
            assert_eq!(it.members(key), ids(expected), "{id}: {key}");
        }
        registered.iter().for_each(|id| it.change("DELETE", id, &Value::Null));
        for key in case["after"].as_object().unwrap().keys() {
            let answer = it.scene.ask("DELETE", &format!("/backends/{key}"), &Value::Null);
            assert_eq!(answer, (200, 200.into()), "{id}");
        }
    }
}

#[test]
fn who_registers_is_served_and_a_version_switch_loses_no_request() {
    let mut it = Registry::start(newest());
    let (old, new) = (Master::start("old"), Master::start("new"));
    let live = json!({"key": "live", "type": "dynamic", "name": "myapp", "version": "1.0.0"});
    it.scene.put("/backends/live", &live);
    let web = it.scene.managed.ground.web.to_string();
    it.scene.put("/frontends/live", &json!({"key": "live", "bind": web, "backend": "live"}));
    let serves = |it: &Registry, status: u16, body: &str| {
        it.scene.managed.mapsmith.wait_for(&format!("{status} {body}"), PATIENCE, |_| {
            let answer = it.scene.managed.ground.get("/")?;
            (answer.status == status && answer.body.contains(body)).then_some(())
        });
    };
    serves(&it, 503, "");
    it.register("1.0.0", &old);
    serves(&it, 200, "old");
    let (status, refused) = it.scene.ask("POST", "/backends/live", &json!({"version": "1.1.0"}));
    assert_eq!(status, 409, "there is nobody to switch to: {refused:#}");
    it.register("1.1.0", &new);
    let web = it.scene.managed.ground.web;
    let asking = thread::spawn(move || {
        for _ in 0..2000 {
            let answer = http::request(web, "GET", "/", &[], "").expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            if answer.body.contains("new") {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("the new version never came");
    });
    let switched = it.scene.ask("POST", "/backends/live", &json!({"version": "1.1.0"}));
    assert_eq!(switched, (200, 200.into()));
    assert_eq!(it.members("live").len(), 1);
    asking.join().expect("every request is answered");
    let settled = "it is switched";
    it.scene.managed.mapsmith.wait_for(settled, PATIENCE, |mapsmith| {
        let (_, versions) = mapsmith.get("/v1/backends/live/versions");
        (versions["current"]["phase"] == "settled").then_some(())
    });
    let shown = it.scene.ask("GET", "/backends/live", &Value::Null).1;
    assert_eq!((&shown["name"], &shown["version"]), (&json!("myapp"), &json!("1.1.0")));
    it.scene.managed.mapsmith.restart();
    it.scene.managed.wait_for_state("in_force");
    serves(&it, 200, "new");
    assert_eq!(it.scene.ask("GET", "/backends/live", &Value::Null).1["version"], "1.1.0");
    // Whoever declares it as it was declared wants that version.
    it.scene.put("/backends/live", &live);
    assert_eq!(it.scene.ask("GET", "/backends/live", &Value::Null).1["version"], "1.0.0");
}

#[test]
fn a_list_that_is_sent_in_pieces_is_whole() {
    let it = Registry::start(newest());
    let live = json!({"key": "live", "type": "dynamic", "name": "many", "version": "2"});
    it.scene.put("/backends/live", &live);
    it.scene.put("/backends/other", &json!({"key": "other", "type": "static"}));
    // More than is looked at together, and more bytes than are sent at once.
    let meta = json!({"secondsToExpire": 600, "text": "x".repeat(3000)});
    let mut all = BTreeSet::new();
    for number in 0..80 {
        let id = format!("/many/2/10.0.{number}.1/80");
        it.change("POST", &id, &meta);
        all.insert(id);
    }
    it.change("POST", "/many/3/10.1.0.1/80", &Value::Null);
    it.change("POST", "/zebra/1/10.1.0.1/80", &Value::Null);
    for (path, others) in [("/many/2", 0), ("/many", 1), ("", 3)] {
        let (status, listed) = it.ask("GET", &format!("/registrations{path}"), &Value::Null);
        let listed = listed.as_array().cloned().unwrap_or_default();
        assert_eq!((status, listed.len()), (200, all.len() + others), "{path:?}: each once");
        assert!(ids(&listed.into()).is_superset(&all), "{path:?}");
    }
    assert_eq!(it.members("live"), all);
    let (_, backends) = it.scene.ask("GET", "/backends", &Value::Null);
    assert_eq!((&backends[0]["key"], ids(&backends[0]["members"])), (&json!("live"), all));
    assert_eq!((&backends[1]["key"], &backends[1]["members"]), (&json!("other"), &json!([])));
    let (_, alone) = it.scene.ask("GET", "/backends/live", &Value::Null);
    let keys =
        |backend: &Value| backend.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
    assert_eq!((keys(&alone), &alone["version"]), (keys(&backends[0]), &json!("2")));
}

#[test]
fn the_registry_answers_as_thalassa_did() {
    let it = Registry::start(newest());
    let vectors: Value = serde_json::from_str(include_str!("thalassa_api.json")).unwrap();
    let cases = vectors["registrations"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let part = |key: &str| case[key].as_str().unwrap();
        let (name, version) = (part("name"), part("version"));
        let path = format!("/registrations/{name}/{version}/{}/{}", part("host"), part("port"));
        let (status, answer) = it.ask("POST", &path, &case["meta"]);
        if case["advice"] == "refuse" {
            assert_eq!((status, &answer["error"]), (400, &json!("Bad Request")), "{answer:#}");
            continue;
        }
        assert_eq!((status, answer), (200, 200.into()));
        let (_, listed) = it.ask("GET", &format!("/registrations/{name}/{version}"), &Value::Null);
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
        for (key, value) in case["stored"].as_object().unwrap() {
            match key.as_str() {
                "lastKnown" => assert!(listed[0][key].as_i64() > Some(1_700_000_000_000)),
                _ => assert_eq!(&listed[0][key], value, "{key}"),
            }
        }
        assert_eq!(it.ask("DELETE", &path, &Value::Null), (200, 200.into()));
        assert_eq!(it.ask("DELETE", &path, &Value::Null), (200, 200.into()), "again");
    }
    for step in vectors["http"].as_array().unwrap() {
        let (method, path) = step["do"].as_str().unwrap().split_once(' ').unwrap();
        let body = if method == "POST" { &step["body"] } else { &Value::Null };
        let (status, answer) = it.ask(method, path, body);
        assert_eq!(step["status"], status, "{path}: {answer:#}");
        match path {
            "/registrations" => {
                let names: Vec<_> =
                    answer.as_array().unwrap().iter().map(|it| &it["name"]).collect();
                assert_eq!(names, ["foo", "thalassa"]);
            }
            "/registrations/foo/1.0.0" => assert_eq!(answer[0]["meta"]["myMeta"], "foo"),
            "/registrations/bogus" => assert_eq!(answer, json!([])),
            _ => {}
        }
    }
    let (_, itself) = it.ask("GET", "/registrations/thalassa", &Value::Null);
    assert_eq!(itself.as_array().map(Vec::len), Some(1), "{itself:#}");
    assert_eq!(it.ask("GET", "/status", &Value::Null).0, 200);
    assert_eq!(it.ask("GET", "/frontends", &Value::Null).0, 404, "that is another API");
    it.change("POST", "/short/1/10.0.0.9/80", &json!({"secondsToExpire": 1}));
    it.scene.managed.mapsmith.wait_for("it is reaped", PATIENCE, |_| {
        let (_, listed) = it.ask("GET", "/registrations/short/1", &Value::Null);
        (listed == json!([])).then_some(())
    });
    let audit = it.scene.managed.mapsmith.get("/v1/audit?actor=compat.thalassa").1;
    assert!(audit.to_string().contains("registrations/short/1/10.0.0.9/80"), "{audit:#}");
}
