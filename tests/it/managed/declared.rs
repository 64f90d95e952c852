//! Frontends and backends that are declared through the API, beside those of the settings file.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::documented;
use crate::support::haproxy::Binary;
use crate::support::http::{self, Response};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::{complaints, newest, oldest_and_newest, printed};
use crate::support::{eventually, free_port};

mod answers;
mod kept;
mod orders;

/// `[haproxy]`, `[store]` and nothing else.
fn bare(ground: &Ground) -> String {
    let (folder, program) = (ground.path().display(), ground.binary.path.display());
    format!(
        "[haproxy]\nmanaged = true\nbinary = \"{program}\"\nfolder = \"{folder}\"\n\
        reload_interval = \"100ms\"\nhard_stop_after = \"20s\"\n\
        [schedule]\nobserve = \"200ms\"\nservers = \"200ms\"\n[store]\npath = \"mapsmith.db\"\n"
    )
}

struct Scene {
    managed: Managed,
    /// Where the frontend listens that answers by itself.
    origin: SocketAddr,
}

impl Scene {
    fn start(binary: &'static Binary, more: &str) -> Self {
        let ground = Ground::new(binary);
        let mapsmith = Mapsmith::config(&format!("{}{more}", bare(&ground))).start();
        let origin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { managed: Managed { mapsmith, ground }, origin }
    }

    /// A request, once the API answers: it is away for a moment while everything begins anew.
    fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let address = self.managed.mapsmith.address();
        eventually("the API answers", PATIENCE, || {
            http::request(address, method, path, headers, body).ok()
        })
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.ask_with(method, path, &[], &body.to_string());
        (response.status, serde_json::from_str(&response.body).unwrap_or_default())
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body:#}\n{}", self.managed.mapsmith.log());
        body
    }

    /// Declares something, and waits until HAProxy has it.
    fn put(&self, path: &str, body: &Value) -> Value {
        let and = if path.contains('?') { '&' } else { '?' };
        let (status, report) = self.ask("PUT", &format!("/v1/{path}{and}wait=30s"), body);
        assert!(matches!(status, 200 | 201), "{report:#}\n{}", self.managed.mapsmith.log());
        assert_eq!(report["outcome"], "in_sync", "{report:#}");
        report
    }

    fn origin(&self, word: &str) -> Value {
        json!({
            "bind": [self.origin.to_string()],
            "rules": [{"return": {"status": 200, "body": word}}],
        })
    }

    fn web(&self) -> Value {
        json!({"bind": [self.managed.ground.web.to_string()], "default_backend": "app"})
    }

    fn app(&self) -> Value {
        json!({"servers": [{"name": "one", "address": self.origin.to_string()}]})
    }

    /// With a frontend that leads to a backend, whose server is a frontend that answers.
    fn declare(&self, word: &str) {
        self.put("frontends/origin", &self.origin(word));
        self.put("backends/app", &self.app());
        self.put("frontends/web", &self.web());
        self.managed.wait_for_word(word);
    }

    fn names(&self) -> Vec<String> {
        let config = self.get("/v1/config");
        let of = |kind: &str| {
            let items = config[kind].as_array().cloned().unwrap_or_default();
            let kind = kind.to_owned();
            items.into_iter().map(move |it| format!("{kind}/{}", it["name"].as_str().unwrap()))
        };
        of("frontends").chain(of("backends")).collect()
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap_or_default()
}

#[test]
fn two_puts_serve_traffic_in_any_order_and_over_a_restart() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary, "");
        scene.put("frontends/origin", &scene.origin("one"));
        let pending = scene.put("frontends/web", &scene.web());
        assert_eq!(pending["pending"], json!(["frontends/web"]), "{pending:#}");
        let message = "frontends/web added; it is stored; frontends/web waits for backend app \
            and listens nowhere yet";
        assert_eq!(pending["message"], message, "{pending:#}");
        let web = scene.get("/v1/frontends/web");
        assert_eq!(web["status"]["state"], "pending", "{web:#}");
        let added = scene.put("backends/app", &scene.app());
        assert_eq!((&added["needs"], &added["pending"]), (&json!("reload"), &json!([])));
        scene.managed.wait_for_word("one");
        let web = scene.get("/v1/frontends/web");
        assert_eq!(web["status"]["state"], "in_force", "{web:#}");
        assert_eq!((&web["default_backend"], &web["owner"]), (&json!("app"), &json!("local")));
        let backend = scene.get("/v1/backends/app");
        assert_eq!(backend["config"]["status"]["origin"], "api", "{backend:#}");
        assert_eq!(backend["servers"][0]["server"], "one", "{backend:#}");

        scene.managed.mapsmith.restart();
        scene.managed.wait_for_state("in_force");
        scene.managed.wait_for_word("one");
        assert_eq!(scene.names(), ["frontends/origin", "frontends/web", "backends/app"]);
        let text = scene.ask_with("GET", "/v1/haproxy/config", &[], "").body;
        assert!(text.contains("frontend web") && text.contains("server one"), "{text}");
        let events = scene.get("/v1/activity?topics=config").to_string();
        assert!(events.contains("backends/app is added"), "{events}");
        let audit = scene.get("/v1/audit?target=frontends/web").to_string();
        assert!(audit.contains("\"PUT\""), "{audit}");
    }
}

#[test]
fn what_haproxy_refuses_is_told_in_its_words_and_changes_nothing() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
        scene.declare("one");
        let before = scene.get("/v1/config");
        let reloads = scene.managed.reloads();
        let mut web = scene.web();
        web["natives"] = json!(["timeout client 30s", "timeout client-fin 30x"]);
        let (status, problem) = scene.ask("PUT", "/v1/frontends/web?wait=30s", &web);
        assert_eq!(
            (status, problem["type"].as_str()),
            (422, Some("/v1/problems/refused-by-haproxy"))
        );
        let fault = &problem["errors"][0];
        assert_eq!(fault["resource"], "frontends/web", "{problem:#}");
        assert_eq!(
            (&fault["setting"], &fault["text"]),
            (&json!("natives[1]"), &json!("timeout client-fin 30x"))
        );
        assert!(detail(&problem).contains("'x'"), "{problem:#}");
        let options = json!({"servers": [{"name": "a", "address": "127.0.0.1:1"}],
            "options": ["chekc"]});
        let (status, problem) = scene.ask("PUT", "/v1/backends/other", &options);
        assert_eq!(status, 422, "{problem:#}");
        assert!(problem["errors"][0]["resource"] == "backends/other", "{problem:#}");
        for (path, body, said) in [
            ("frontends/x", json!({"bind": [":1"], "natives": ["a\nfrontend b"]}), "natives[0]"),
            ("frontends/x", json!({"bind": [":1"], "natives": ["frontend b"]}), "another section"),
            ("frontends/x", json!({"bind": [":1"], "bogus": 1}), "bogus: there is no such key"),
            ("backends/x", json!({"servers": [{"name": "a", "address": "b"}]}), "servers[0]"),
            ("backends/x", json!({}), "exactly one of servers, from and masters"),
        ] {
            let (status, problem) = scene.ask("PUT", &format!("/v1/{path}"), &body);
            assert_eq!(status, 422, "{problem:#}");
            assert!(detail(&problem).contains(said), "{said}: {problem:#}");
        }
        assert_eq!(scene.get("/v1/config"), before, "nothing is stored");
        assert_eq!(scene.managed.reloads(), reloads);
        assert_eq!(scene.managed.ground.word().as_deref(), Some("one"));
        let (status, report) = scene.ask("PUT", "/v1/frontends/web?dry_run=true", &scene.web());
        assert_eq!((status, &report["needs"]), (200, &json!("nothing")), "{report:#}");
    }
}

#[test]
fn the_settings_files_objects_are_the_files_also_when_it_takes_a_name() {
    let mut scene = Scene::start(newest(), "");
    scene.declare("one");
    let file = scene.managed.mapsmith.configuration().path();
    let port = free_port();
    let own = format!(
        "{}[[frontend]]\nname = \"own\"\nbind = [\"127.0.0.1:{port}\"]\nrules = \
        [{{ return = {{ status = 200, body = \"own\" }} }}]\n",
        bare(&scene.managed.ground)
    );
    scene.managed.write_settings(&own);
    scene.managed.mapsmith.hangup();
    eventually("the file's frontend is shown", PATIENCE, || {
        let own = scene.ask("GET", "/v1/frontends/own", &Value::Null).1;
        (own["status"]["state"] == "in_force").then_some(())
    });
    scene.managed.wait_for_word("one");
    for (method, path) in
        [("PUT", "frontends/own"), ("DELETE", "frontends/own"), ("PUT", "backends/own")]
    {
        let body = if path == "backends/own" { scene.app() } else { scene.web() };
        let (status, problem) = scene.ask(method, &format!("/v1/{path}"), &body);
        assert_eq!(
            (status, problem["type"].as_str()),
            (409, Some("/v1/problems/owned-by-settings"))
        );
        assert!(detail(&problem).contains(file.to_str().unwrap()), "{problem:#}");
    }
    // The file takes a name of the API's: what that declared is set aside until it is free again.
    scene.managed.write_settings(&own.replace("\"own\"\nbind", "\"web\"\nbind"));
    scene.managed.mapsmith.hangup();
    let set_aside = |scene: &Scene| {
        let found = eventually("it is set aside", PATIENCE, || {
            let config = scene.ask("GET", "/v1/config", &Value::Null).1;
            let frontends = config["frontends"].as_array().cloned().unwrap_or_default();
            frontends.into_iter().find(|it| it["status"]["state"] == "set_aside")
        });
        assert_eq!(found["name"], "web", "{found:#}");
    };
    set_aside(&scene);
    answers::a_document_with_it_is_not_in_sync(&scene);
    scene.managed.write_settings(&own);
    scene.managed.mapsmith.hangup();
    scene.managed.wait_for_word("one");
    // It can go, too, and the file's of that name stays.
    scene.managed.write_settings(&own.replace("\"own\"\nbind", "\"web\"\nbind"));
    scene.managed.mapsmith.hangup();
    set_aside(&scene);
    let (status, problem) = scene.ask("DELETE", "/v1/frontends/web?wait=30s", &Value::Null);
    assert_eq!(status, 204, "{problem:#}");
    let (status, web) = scene.ask("GET", "/v1/frontends/web", &Value::Null);
    assert_eq!((status, web["status"]["origin"].as_str()), (200, Some("settings")), "{web:#}");
}

#[test]
fn a_whole_configuration_is_applied_pruned_and_never_over_what_nobody_has_seen() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let tag = |scene: &Scene| {
        format!("\"{}\"", scene.get("/v1/config")["status"]["etag"].as_str().unwrap())
    };
    let mut origin = scene.origin("two");
    origin["name"] = json!("origin");
    let document = |more: Value| {
        let mut all = json!({"owner": "deploy", "frontends": [origin.clone()], "backends": more});
        all["status"] = json!({"anything": true});
        all.to_string()
    };
    let extra = json!([{"name": "extra", "servers": []}]);
    let put = |tag: &str, query: &str, body: &str| {
        let path = format!("/v1/config?{query}");
        let response = scene.ask_with("PUT", &path, &[("If-Match", tag)], body);
        let report: Value = serde_json::from_str(&response.body).unwrap_or_default();
        (response.status, report)
    };
    assert_eq!(scene.ask("PUT", "/v1/config", &json!({})).0, 428);
    let seen = tag(&scene);
    let (status, report) = put(&seen, "dry_run=true&force=true", &document(extra.clone()));
    assert_eq!((status, &report["stored"]), (200, &json!(false)), "{report:#}");
    let (status, problem) = put(&seen, "wait=30s", &document(extra.clone()));
    assert_eq!((status, problem["type"].as_str()), (409, Some("/v1/problems/conflict")));
    assert!(detail(&problem).contains("frontends/origin is local's"), "{problem:#}");
    let (status, report) = put(&seen, "force=true&wait=30s", &document(extra));
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
    scene.managed.wait_for_word("two");
    let (status, problem) = put(&seen, "wait=30s", &document(json!([])));
    assert_eq!((status, problem["type"].as_str()), (412, Some("/v1/problems/precondition-failed")));
    assert_eq!(problem["changed_by"], "local", "{problem:#}");
    let (status, report) = put(&tag(&scene), "prune=owner&wait=30s", &document(json!([])));
    let changes: Vec<_> = report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["object"].clone(), it["action"].clone()))
        .collect();
    assert_eq!((status, changes), (200, vec![(json!("backends/extra"), json!("delete"))]));
    assert_eq!(scene.names(), ["frontends/origin", "frontends/web", "backends/app"]);

    // One object, likewise.
    let web = scene.ask_with("GET", "/v1/frontends/web", &[], "");
    let old = web.header("etag").expect("an ETag").to_owned();
    let mut changed = scene.web();
    changed["maxconn"] = json!(77);
    scene.put("frontends/web", &changed);
    let late =
        scene.ask_with("PUT", "/v1/frontends/web", &[("If-Match", &old)], &scene.web().to_string());
    assert_eq!(late.status, 412, "{}", late.body);
    let new = scene.ask_with(
        "PUT",
        "/v1/frontends/web",
        &[("If-None-Match", "*")],
        &scene.web().to_string(),
    );
    assert_eq!(new.status, 412, "{}", new.body);
    let (status, problem) = scene.ask("DELETE", "/v1/backends/app", &Value::Null);
    assert_eq!(status, 409, "{problem:#}");
    assert!(detail(&problem).contains("frontends/web sends requests to app"), "{problem:#}");
    assert_eq!(scene.ask("DELETE", "/v1/frontends/web?wait=30s", &Value::Null).0, 204);
    assert_eq!(scene.ask("DELETE", "/v1/frontends/web", &Value::Null).0, 404);
    assert_eq!(scene.ask("DELETE", "/v1/backends/app?wait=30s", &Value::Null).0, 204);
    assert_eq!(scene.names(), ["frontends/origin"]);
}

#[test]
fn each_command_of_the_documents_configuration_does_what_it_says() {
    let scene = Scene::start(newest(), "");
    let (managed, folder) = (&scene.managed, tempfile::tempdir().expect("a folder"));
    let document = documented::document();
    let blocks = documented::blocks(&document, "### Configuration");
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    for block in blocks {
        let here = block
            .replace("127.0.0.1:7070", &managed.mapsmith.address().to_string())
            .replace("\":8080\"", &format!("\"{}\"", managed.ground.web));
        documented::run(&here, folder.path(), || managed.mapsmith.log());
    }
    assert_eq!(scene.names(), ["frontends/web", "backends/app"]);
}

#[test]
fn some_keys_of_what_is_declared_are_changed_and_the_others_stay() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let patch = |path: &str, headers: &[(&str, &str)], body: Value| {
        let path = format!("/v1/{path}?wait=30s");
        let response = scene.ask_with("PATCH", &path, headers, &body.to_string());
        let body: Value = serde_json::from_str(&response.body).unwrap_or_default();
        (response.status, body)
    };
    let merge = [("Content-Type", "application/merge-patch+json")];
    let check = json!({"check": {"uri": "/", "interval": "5s"}, "retries": 2});
    let (status, changed) = patch("backends/app", &merge, check);
    assert_eq!((status, &changed["outcome"]), (200, &json!("in_sync")), "{changed:#}");
    let (status, changed) =
        patch("backends/app", &[], json!({"check": {"interval": "6s"}, "retries": null}));
    assert_eq!(status, 200, "{changed:#}");
    let app = scene.get("/v1/backends/app")["config"].clone();
    assert_eq!(app["check"], json!({"uri": "/", "interval": "6s"}), "{app:#}");
    assert_eq!((&app["retries"], &app["servers"][0]["name"]), (&Value::Null, &json!("one")));
    scene.managed.wait_for_word("one");

    let (status, problem) = patch("frontends/web", &[], json!({"default_backend": 7}));
    assert_eq!(status, 422, "{problem:#}");
    let stale = [("If-Match", "\"0\"")];
    let (status, problem) = patch("frontends/web", &stale, json!({"maxconn": 5}));
    assert_eq!(status, 412, "{problem:#}");
    assert_eq!(patch("frontends/none", &[], json!({"maxconn": 5})).0, 404);
    assert_eq!(scene.get("/v1/frontends/web")["default_backend"], json!("app"));
}

#[test]
fn what_was_stored_before_a_crash_comes_into_force_after_it() {
    let mut scene = Scene::start(newest(), "");
    scene.declare("one");
    // Nobody waits, and Mapsmith is killed at once: what is stored is the truth.
    let (status, report) = scene.ask("PUT", "/v1/frontends/origin", &scene.origin("two"));
    assert_eq!((status, &report["outcome"]), (200, &json!("requested")), "{report:#}");
    scene.managed.mapsmith.restart();
    scene.managed.wait_for_word("two");
}

#[test]
fn an_operator_declares_by_files() {
    let scene = Scene::start(newest(), "");
    let file = scene.managed.ground.file("declared.toml");
    let text = format!(
        "[[frontend]]\nname = \"web\"\nbind = [\"{}\"]\n\
        rules = [{{ return = {{ status = 200, body = \"by file\" }} }}]\n",
        scene.managed.ground.web
    );
    let cli = |arguments: &[&str]| {
        let output = scene.managed.mapsmith.cli(arguments);
        let (code, text) = printed(&output);
        (code, text + &complaints(&output))
    };
    let path = file.to_str().unwrap();
    fs::write(&file, text.replace("rules", "natives = [\"timeout client x\"]\nrules")).unwrap();
    let (code, said) = cli(&["config", "check", path]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("'x'"), "{said}");
    fs::write(&file, &text).unwrap();
    assert_eq!(cli(&["config", "check", path]).0, 0);
    let (code, said) = cli(&["config", "apply", path, "--owner", "deploy", "--reason", "a test"]);
    assert_eq!(code, 0, "{said}");
    scene.managed.wait_for_word("by file");
    let said = cli(&["events", "--topics", "config"]).1;
    assert!(said.contains("(a test)"), "the reason is among the events: {said}");
    let (code, said) = cli(&["config", "show"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("frontends/web") && said.contains("deploy"), "{said}");
    let (_, shown) = cli(&["--output", "json", "config", "show"]);
    fs::write(scene.managed.ground.file("again.json"), &shown).unwrap();
    let again = scene.managed.ground.file("again.json");
    let (code, said) = cli(&["config", "apply", again.to_str().unwrap(), "--owner", "deploy"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing changes"), "{said}");
    fs::write(&file, "").unwrap();
    let (code, said) = cli(&["config", "check", path, "--owner", "deploy", "--prune"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("frontends/web deleted"), "{said}");
    assert_eq!(scene.names(), ["frontends/web"], "a check deletes nothing");
    let (code, said) = cli(&["config", "apply", path, "--owner", "deploy", "--prune"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("frontends/web deleted"), "{said}");
    let (code, said) = cli(&["config", "delete", "frontend", "web"]);
    assert_eq!(code, 1, "{said}");
    let (code, said) = cli(&["config", "delete", "frontend", "web", "--missing-ok"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said, "there is no frontends/web\n");
    let nope = ["config", "delete", "backend", "nope", "--missing-ok", "--dry-run"];
    let (code, said) = cli(&nope);
    assert_eq!((code, said.as_str()), (0, "there is no backends/nope\n"));
    let (_, said) = cli(&[&nope[..], &["--output", "json"]].concat());
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said, json!({"deleted": null, "missing": "backends/nope"}));
    assert!(scene.names().is_empty());
    fs::write(&file, &text).unwrap();
    assert_eq!(cli(&["config", "apply", path]).0, 0);
    let rendered = printed(&scene.managed.mapsmith.configuration().cli(&["render"])).1;
    assert!(rendered.contains("frontend web"), "{rendered}");
}

#[test]
fn a_backend_that_is_deleted_takes_its_switch_to_another_version_along() {
    let mut scene = Scene::start(newest(), "");
    let masters = [Master::start("old"), Master::start("new")];
    for (version, master) in ["1.0", "2.0"].iter().zip(&masters) {
        let (ip, port) = (master.address().ip(), master.address().port());
        let path = format!("/v1/registrations/web/{version}/{ip}/{port}");
        assert_eq!(scene.ask("PUT", &path, &json!({})).0, 201, "{path}");
    }
    let from = json!({"source": "registrations", "name": "web", "version": "1.0"});
    let live = json!({"from": from});
    let web = json!({"bind": [scene.managed.ground.web.to_string()], "default_backend": "live"});
    scene.put("frontends/web", &web);
    let switch = |scene: &Scene| {
        scene.put("backends/live", &live);
        scene.managed.wait_for_word("old");
        let order = json!({"version": "2.0"});
        let path = "/v1/backends/live/switch?wait=30s";
        let (status, report) = scene.ask("POST", path, &order);
        assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
        scene.managed.wait_for_word("new");
    };
    switch(&scene);
    let delete = "/v1/backends/live?force=true&wait=30s";
    assert_eq!(scene.ask("DELETE", delete, &Value::Null).0, 204);
    switch(&scene);
    // All begins anew once for both.
    assert_eq!(scene.ask("DELETE", "/v1/backends/live?force=true", &Value::Null).0, 204);
    switch(&scene);
    let web = json!({"name": "web", "bind": web["bind"], "default_backend": "live"});
    let all = json!({"owner": "local", "frontends": [web], "backends": []}).to_string();
    let tag = scene.get("/v1/config")["status"]["etag"].as_str().unwrap().to_owned();
    let path = "/v1/config?prune=owner&force=true&wait=30s";
    let pruned = scene.ask_with("PUT", path, &[("If-Match", &format!("\"{tag}\""))], &all);
    assert_eq!(pruned.status, 200, "{}", pruned.body);
    scene.put("backends/live", &live);
    scene.managed.wait_for_word("old");
    scene.managed.mapsmith.restart();
    scene.managed.wait_for_state("in_force");
    let current = scene.get("/v1/backends/live/versions")["current"].clone();
    assert_eq!((&current["version"], &current["phase"]), (&json!("1.0"), &json!("settled")));
    scene.managed.wait_for_word("old");
}

#[test]
fn where_haproxy_is_somebody_elses_nothing_can_be_declared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let mapsmith = Mapsmith::config(&format!(
        "[map]\npath = \"{path}/nodes.map\"\n[store]\npath = \"mapsmith.db\"\n\
        [[source]]\nname = \"s\"\ntype = \"file\"\npath = \"{path}/nodes.json\"\n\
        [[instance]]\nname = \"edge1\"\nruntime = \"unix@{path}/admin.sock\"\n\
        [[backend]]\nname = \"own\"\nservers = []\n"
    ))
    .start();
    // What of the file is in force there is not Mapsmith's to say.
    let backends = mapsmith.ask("GET", "/v1/backends", &[], "");
    assert!(backends.body.contains("\"own\"") && !backends.body.contains("\"status\""));
    let body = json!({"servers": []}).to_string();
    let response = mapsmith.ask("PUT", "/v1/backends/app", &[], &body);
    assert_eq!(response.status, 409, "{}", response.body);
    assert!(response.body.contains("not-managed") && response.body.contains("managed = true"));
}
