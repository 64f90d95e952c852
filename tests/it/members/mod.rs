//! Members that are registered by name and version: they are served at once, kept over whatever
//! happens to Mapsmith, and gone once they are silent; and backends get another version of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::haproxy::{Binary, Gateway};
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, ready, servers, with_backend};
use crate::support::scene::{BOUND, complaints, metric, newest, oldest_and_newest, printed};

mod expiry;
mod switch;

const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";
const CHECKED: &str = "options = [\"check\", \"inter 100ms\", \"fastinter 100ms\"]\n";

/// A backend of members, and nothing else that is polled but the map.
struct Scene {
    gateway: Gateway,
    _pool: Pool,
    mapsmith: Mapsmith,
}

impl Scene {
    /// Of version 1, with more settings.
    fn start(binary: &'static Binary, more: &str, backend: &str) -> Self {
        let (gateway, pool, config) = Self::plan(binary, more, backend);
        Self { mapsmith: config.start(), gateway, _pool: pool }
    }

    fn plan(binary: &'static Binary, more: &str, backend: &str) -> (Gateway, Pool, Config) {
        println!("HAProxy {:?}", binary.version);
        let plan = Gateway::plan(binary).entry("node1", BACKEND);
        let gateway = with_backend(plan, "    balance roundrobin\n").start();
        let pool = Pool::start(&[]);
        let backend = format!(
            "from = {{ source = \"registrations\", name = \"web\", version = \"1\" }}\n{backend}"
        );
        let more = format!("{more}{STORE}");
        let config = pool.config_from(&gateway, &gateway.runtime_address(), &backend, &more);
        (gateway, pool, config)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.mapsmith.ask(method, path, &[], &body);
        (response.status, serde_json::from_str(&response.body).unwrap_or(Value::Null))
    }

    fn put(&self, version: &str, address: SocketAddr, query: &str, body: &Value) -> (u16, Value) {
        self.ask("PUT", &format!("{}{query}", path(version, address)), body)
    }

    /// Registers it, and it is in force.
    fn register(&self, version: &str, master: &Master, body: &Value) {
        let (status, report) = self.put(version, master.address(), "?wait=60s", body);
        assert!(status == 201 || status == 200, "{report:#}\n{}", self.mapsmith.log());
        assert_eq!(report["outcome"], "in_sync", "{report:#}\n{}", self.mapsmith.log());
    }

    /// Waits until these are ready in HAProxy, and no others are there.
    fn settles(&self, masters: &[&Master]) {
        let wanted: BTreeMap<_, _> = masters
            .iter()
            .map(|master| (master.address().to_string(), master.address().to_string()))
            .collect();
        self.mapsmith.wait_for(&format!("the servers are {wanted:?}"), BOUND, |_| {
            let all = servers(&self.gateway);
            (ready(&self.gateway) == wanted && all.len() == wanted.len()).then_some(())
        });
    }

    fn backend(&self) -> Value {
        let status = self.mapsmith.get("/v1/status").1;
        let backends = status["backends"].as_array().expect("backends").clone();
        let found = backends.into_iter().find(|backend| backend["name"] == BACKEND);
        found.unwrap_or_else(|| panic!("no backend: {status:#}"))
    }
}

fn path(version: &str, address: SocketAddr) -> String {
    format!("/v1/registrations/web/{version}/{}/{}", address.ip(), address.port())
}

#[test]
fn a_member_is_served_within_moments_and_after_a_crash_and_no_more_once_it_is_unregistered() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary, "", "");
        let masters = [Master::start("a"), Master::start("b")];
        let began = Instant::now();
        let body = json!({"meta": {"rack": "b2"}, "ttl": "1h"});
        let (status, report) = scene.put("1", masters[0].address(), "?wait=60s", &body);
        assert_eq!((status, &report["outcome"]), (201, &json!("in_sync")), "{report:#}");
        // Nothing is polled here within an hour.
        let took = began.elapsed();
        assert_eq!(scene.gateway.request("node1"), (200, "a".to_owned()));
        assert!(took < Duration::from_secs(9), "{took:?}\n{}", scene.mapsmith.log());
        assert_eq!(report["check_in"], "20m");
        let expires = report["expires_at"].as_str().unwrap_or_default();
        assert!(expires.starts_with("20"), "{report:#}");

        let revision = |scene: &Scene| scene.mapsmith.get("/v1/activity?topics=registration").1;
        let events = revision(&scene)["items"].as_array().expect("events").len();
        let (status, again) = scene.put("1", masters[0].address(), "?wait=60s", &body);
        assert_eq!((status, &again["effect"]), (200, &json!("checked_in")), "{again:#}");
        assert_eq!(revision(&scene)["items"].as_array().expect("events").len(), events);
        let audit = scene.mapsmith.get("/v1/audit").1;
        let rows = audit["items"].as_array().expect("rows").len();
        assert_eq!(rows, 1, "to be still there is no change: {audit:#}");

        // Another version is another list.
        let other = Master::start("other");
        scene.register("2", &other, &json!({}));
        scene.register("1", &masters[1], &json!({"ttl": "1h"}));
        scene.settles(&[&masters[0], &masters[1]]);

        scene.mapsmith.restart();
        scene.settles(&[&masters[0], &masters[1]]);
        let (status, page) = scene.ask("GET", "/v1/registrations/web/1?limit=1", &Value::Null);
        assert_eq!((status, &page["total"]), (200, &json!(2)), "{page:#}");
        assert_eq!(page["items"].as_array().expect("items").len(), 1);
        let next = format!("/v1/registrations?limit=2&after={}", page["next"].as_str().unwrap());
        let (_, page) = scene.ask("GET", &next, &Value::Null);
        let left: Vec<_> = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| (item["version"].clone(), item["state"].clone()))
            .collect();
        let kept = |version: &str| (json!(version), json!("registered"));
        assert_eq!(left, [kept("1"), kept("2")], "{page:#}");
        assert_eq!(metric(&scene.mapsmith, "mapsmith_members{state=\"registered\"}"), Some(3.0));

        let gone = format!("{}?wait=60s", path("1", masters[0].address()));
        assert_eq!(scene.ask("DELETE", &gone, &Value::Null).0, 204);
        scene.settles(&[&masters[1]]);
        assert_eq!(scene.ask("DELETE", &gone, &Value::Null).0, 404);
        assert_eq!(scene.ask("DELETE", &format!("{gone}&missing=ok"), &Value::Null).0, 204);
    }
}

#[test]
fn the_command_line_registers_shows_and_ends_members_and_refuses_what_can_be_none() {
    let scene = Scene::start(newest(), "", "");
    let (master, other) = (Master::start("a"), Master::start("b"));
    scene.register("1", &other, &json!({}));
    let (ip, port) = (master.address().ip().to_string(), master.address().port().to_string());
    let member = |verb: &str, more: &[&str]| {
        let arguments = [&["member", verb, "web", "1", &*ip, &*port][..], more].concat();
        let output = scene.mapsmith.cli(&arguments);
        let (code, text) = printed(&output);
        (code, text, complaints(&output))
    };
    let (code, text, _) = member("register", &["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("would be registered; nothing is stored"), "{text}");
    let more = ["--ttl", "1h", "--meta", "{\"rack\": \"b2\"}", "--reason", "new rack"];
    let (code, text, errors) = member("register", &more);
    assert_eq!(code, 0, "{text}{errors}");
    assert!(text.contains("is registered; in force in 1 of 1 instances"), "{text}");
    let listed = |arguments: &[&str]| printed(&scene.mapsmith.cli(arguments)).1;
    let text = listed(&["member", "list", "web"]);
    assert!(text.contains(&format!("{ip}:{port}")) && text.contains("{\"rack\":\"b2\"}"), "{text}");
    let long = json!({"meta": {"text": "x".repeat(8000)}, "ttl": "1h"});
    assert_eq!(scene.put("1", master.address(), "", &long).0, 200);
    let text = listed(&["member", "list", "web"]);
    assert!(text.contains("{\"text\":\"xxx") && text.len() < 500, "{text}");
    let text = listed(&["member", "list", "web", "--output", "json"]);
    assert!(text.contains(&"x".repeat(8000)), "{text}");
    let text = listed(&["member", "versions", BACKEND]);
    assert!(text.contains("2 members") && text.contains("in force"), "{text}");
    let (code, text, errors) = member("unregister", &[]);
    assert_eq!(code, 0, "{text}{errors}");
    assert!(text.contains(" is no longer registered"), "{text}");
    let (code, _, errors) = member("unregister", &[]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("there is no member web/1/"), "{errors}");
    assert_eq!(member("unregister", &["--missing-ok"]).0, 0);

    let long = "x".repeat(9000);
    for (place, body, words) in [
        ("web/1/10.0.0.3/0", json!({}), "port"),
        ("web/1/10.0.0.3/http", json!({}), "port"),
        ("web/1/0.0.0.0/80", json!({}), "0.0.0.0"),
        ("web/1/a%20b/80", json!({}), "address"),
        ("web/1%0A/10.0.0.3/80", json!({}), "version"),
        ("%2E%2E/1/10.0.0.3/80", json!({}), "name"),
        ("web/1/10.0.0.3/80", json!({"ttl": "0s"}), "ttl"),
        ("web/1/10.0.0.3/80", json!({"ttl": "25h"}), "ttl"),
        ("web/1/10.0.0.3/80", json!({"meta": {"a": long}}), "meta"),
        ("web/1/10.0.0.3/80", json!({"meta": []}), "meta"),
        ("web/1/10.0.0.3/80", json!({"weight": 1}), "weight"),
    ] {
        let (status, problem) = scene.ask("PUT", &format!("/v1/registrations/{place}"), &body);
        assert_eq!(status, 400, "{place}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{place}: {problem}");
    }
}

#[test]
fn a_token_for_members_registers_those_that_it_names_and_no_others() {
    let (gateway, pool, config) =
        Scene::plan(newest(), "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n", "");
    std::fs::write(config.directory().join("token"), "s3cret-of-the-file").unwrap();
    let scene = Scene { mapsmith: config.start(), gateway, _pool: pool };
    let ask = |token: &str, method: &str, path: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer)];
        scene.mapsmith.ask(method, path, &headers, &body.to_string())
    };
    let token = json!({"name": "ci", "role": "none", "grants": ["register:web/1"]});
    let made = ask("s3cret-of-the-file", "POST", "/v1/tokens", &token);
    let made: Value = serde_json::from_str(&made.body).unwrap();
    let token = made["token"].as_str().expect("a token");
    let mine = "/v1/registrations/web/1/10.0.0.3/8080";
    assert_eq!(ask(token, "PUT", mine, &json!({"ttl": "1h"})).status, 201);
    // Far more often than anything else may be changed.
    for _ in 0..60 {
        assert_eq!(ask(token, "PUT", mine, &json!({"ttl": "1h"})).status, 200);
    }
    for path in ["/v1/registrations/web/10/10.0.0.3/8080", "/v1/registrations/api/1/10.0.0.3/80"] {
        let refused = ask(token, "PUT", path, &json!({}));
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert_eq!(ask(token, "DELETE", path, &Value::Null).status, 403);
    }
    let version = json!({"version": "1"});
    assert_eq!(ask(token, "POST", "/v1/backends/app/switch", &version).status, 403);
    assert_eq!(ask(token, "GET", "/v1/registrations", &Value::Null).status, 403);
    assert_eq!(ask(token, "DELETE", mine, &Value::Null).status, 204);

    // However much it says, and whatever is refused of it: that has a share of its own, and the
    // rows of others stay.
    let database = scene.mapsmith.configuration().directory().join("mapsmith.db");
    let rows = |of: &str| -> Option<(i64, i64)> {
        let store = rusqlite::Connection::open(&database).ok()?;
        let query = format!("SELECT sum(share = 1), sum(share = 0) FROM audit WHERE {of}");
        store.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?))).ok()
    };
    scene.mapsmith.wait_for("each row is in its share", BOUND, |_| {
        let is_noted = rows("actor = 'ci'")? == (6, 0);
        (is_noted && rows("actor <> 'ci'")? == (0, 1)).then_some(())
    });
}

#[test]
fn one_token_does_not_take_everybodys_place_and_its_own_expired_members_make_room() {
    let (gateway, pool, config) =
        Scene::plan(newest(), "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n", "");
    std::fs::write(config.directory().join("token"), "s3cret-of-the-file").unwrap();
    let scene = Scene { mapsmith: config.start(), gateway, _pool: pool };
    let admin = "Bearer s3cret-of-the-file".to_owned();
    let ask = |bearer: &str, method: &str, path: &str, body: Value| {
        let headers = [("Authorization", bearer)];
        let response = scene.mapsmith.ask(method, path, &headers, &body.to_string());
        (response.status, serde_json::from_str::<Value>(&response.body).unwrap_or_default())
    };
    let body = json!({"name": "ci", "role": "none", "grants": ["register:bulk"]});
    let (_, made) = ask(&admin, "POST", "/v1/tokens", body);
    let token = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let path = |number: usize| format!("/v1/registrations/bulk/1/10.0.0.3/{number}");
    // The last of them is silent.
    let ttl = |number: usize| json!({"ttl": if number == 2500 { "1s" } else { "1h" }});
    std::thread::scope(|scope| {
        for first in 1..=10 {
            let (scene, token, path) = (&scene, &token, &path);
            scope.spawn(move || {
                let mut connection = scene.mapsmith.connect();
                for number in (first..=2500).step_by(10) {
                    let (headers, body) = ([("Authorization", &**token)], ttl(number).to_string());
                    let answer = connection.request("PUT", &path(number), &headers, &body);
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.status, 201, "{number}: {}", answer.body);
                }
            });
        }
    });
    scene.mapsmith.wait_for("one is expired", BOUND, |_| {
        let expired = ask(&admin, "GET", "/v1/registrations/bulk?expired=true", Value::Null).1;
        (expired["total"] == 1).then_some(())
    });
    let dry = format!("{}?dry_run=true", path(2501));
    let (status, would) = ask(&token, "PUT", &dry, json!({}));
    assert_eq!((status, &would["effect"]), (200, &json!("registered")), "{would:#}");
    assert_eq!(ask(&token, "PUT", &path(2501), json!({})).0, 201, "the silent one has made room");
    let expired = ask(&admin, "GET", "/v1/registrations/bulk?expired=true", Value::Null).1;
    assert_eq!(expired["total"], 0, "{expired:#}");
    for path in [path(2502), format!("{}?dry_run=true", path(2502))] {
        let (status, problem) = ask(&token, "PUT", &path, json!({}));
        assert_eq!(status, 409, "{problem:#}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("2500 members are registered by your token"), "{detail}");
    }
    assert_eq!(ask(&token, "PUT", &path(1), json!({"ttl": "1h"})).0, 200, "it is still there");
    assert_eq!(ask(&admin, "PUT", &path(2502), json!({})).0, 201, "others have room");
}
