//! What answers to a change, and what is read afterwards, say of what is in force.

use super::*;

#[test]
fn a_backend_is_changed_by_whoever_has_its_tag_and_read_once() {
    let scene = Scene::start(newest(), "");
    scene.put("backends/app", &scene.app());
    let read = |headers: &[(&str, &str)]| scene.ask_with("GET", "/v1/backends/app", headers, "");
    let first = read(&[]);
    let tag = first.header("etag").expect("an ETag").to_owned();
    let kept = first.header("cache-control").unwrap_or_default();
    assert!(kept.contains("no-store"), "its servers change without it: {kept}");
    assert_eq!(read(&[("If-None-Match", &tag)]).status, 304);
    let put = |headers: &[(&str, &str)], retries: u16| {
        let mut body = scene.app();
        body["retries"] = json!(retries);
        scene.ask_with("PUT", "/v1/backends/app", headers, &body.to_string()).status
    };
    assert_eq!(put(&[("If-Match", &tag)], 2), 200);
    assert_eq!(put(&[("If-Match", &tag)], 3), 412, "that is another state by now");
    assert_eq!(read(&[("If-None-Match", &tag)]).status, 200);
}

#[test]
fn a_weight_that_is_taken_out_of_a_declaration_is_in_force_no_more_without_a_reload() {
    let scene = Scene::start(newest(), "");
    let app = |weight: Option<u16>| {
        let mut one = json!({"name": "one", "address": scene.origin.to_string()});
        if let Some(weight) = weight {
            one["weight"] = json!(weight);
        }
        json!({"servers": [one, {"name": "two", "address": "127.0.0.1:9"}]})
    };
    let wait_for = |weight: u16| {
        scene.managed.mapsmith.wait_for(&format!("weight {weight}"), PATIENCE, |_| {
            let backend = scene.get("/v1/backends/app");
            (backend["servers"][0]["instances"][0]["weight"] == weight).then_some(())
        });
    };
    scene.put("backends/app", &app(Some(77)));
    wait_for(77);
    let changed = scene.put("backends/app", &app(None));
    assert_eq!(changed["needs"], "runtime", "{changed:#}");
    wait_for(1);
    scene.put("backends/app", &app(Some(9)));
    wait_for(9);
}

#[test]
fn a_declared_version_that_nobody_registers_is_behind_with_the_reason() {
    let scene = Scene::start(newest(), "");
    let master = Master::start("old");
    let (ip, port) = (master.address().ip(), master.address().port());
    let register = |version: &str| {
        let path = format!("/v1/registrations/web/{version}/{ip}/{port}");
        assert_eq!(scene.ask("PUT", &path, &json!({})).0, 201, "{path}");
    };
    register("1.0");
    let live = |version: &str| json!({"from": {"source": "registrations", "name": "web", "version": version}});
    scene.put("backends/live", &live("1.0"));
    let web = json!({"bind": [scene.managed.ground.web.to_string()], "default_backend": "live"});
    scene.put("frontends/web", &web);
    scene.managed.wait_for_word("old");
    let (status, report) = scene.ask("PATCH", "/v1/backends/live?wait=3s", &live("none"));
    assert_eq!((status, &report["outcome"]), (202, &json!("behind")), "{report:#}");
    let told = report["message"].as_str().unwrap_or_default();
    assert!(told.contains("no members of web none are registered"), "{report:#}");
    assert!(told.contains("the members of 1.0 stay"), "{report:#}");
    let current = scene.get("/v1/backends/live/versions")["current"].clone();
    assert_eq!((&current["phase"], &current["by"]), (&json!("joining"), &json!("local")));
    // Another change says nothing of it, and the version that there is ends it.
    let (status, report) = scene.ask("PATCH", "/v1/backends/live?wait=30s", &json!({"retries": 2}));
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
    let (status, report) = scene.ask("PATCH", "/v1/backends/live?wait=30s", &live("1.0"));
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
    scene.managed.wait_for_word("old");
}

#[test]
fn each_fault_is_named_with_its_key_of_what_is_being_changed() {
    let scene = Scene::start(newest(), "");
    scene.put("frontends/web", &scene.origin("one"));
    // It sorts before the one that listens there.
    let (status, problem) = scene.ask("PUT", "/v1/frontends/aaa", &scene.origin("two"));
    assert_eq!(status, 422, "{problem:#}");
    let error = &problem["errors"][0];
    assert_eq!(
        (&error["resource"], &error["setting"]),
        (&json!("frontends/aaa"), &json!("bind[0]")),
        "{problem:#}"
    );
    assert!(detail(error).contains("the frontend web listens at"), "{problem:#}");
    let wrong = json!({"servers": [], "balanse": "random", "colour": 1, "retries": "x"});
    let (status, problem) = scene.ask("PUT", "/v1/backends/app", &wrong);
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let mut keys: Vec<_> = errors.iter().map(|it| it["setting"].as_str().unwrap_or("")).collect();
    keys.sort_unstable();
    assert_eq!((status, keys), (422, vec!["balanse", "colour", "retries"]), "{problem:#}");
}

/// A pipeline that applies what is set aside must not go on as if HAProxy ran with it.
pub(super) fn a_document_with_it_is_not_in_sync(scene: &Scene) {
    let config = scene.get("/v1/config");
    let tag = format!("\"{}\"", config["status"]["etag"].as_str().unwrap());
    let document = json!({"owner": "local", "frontends": config["frontends"],
        "backends": config["backends"]})
    .to_string();
    let put = |query: &str| {
        let path = format!("/v1/config?{query}");
        let response = scene.ask_with("PUT", &path, &[("If-Match", &tag)], &document);
        let report: Value = serde_json::from_str(&response.body).unwrap_or_default();
        let message = report["message"].as_str().unwrap_or_default().to_owned();
        assert!(
            message.contains("frontends/web is set aside, and HAProxy runs without it: "),
            "{report:#}"
        );
        assert_eq!(report["changes"], json!([]), "{report:#}");
        (response.status, report["outcome"].clone())
    };
    assert_eq!(put("prune=owner&wait=30s"), (202, json!("behind")));
    assert_eq!(put("prune=owner&dry_run=true"), (200, Value::Null));
    let file = scene.managed.ground.file("all.json");
    fs::write(&file, &document).expect("the document is written");
    let apply = ["config", "apply", file.to_str().unwrap(), "--wait", "30s"];
    let (code, text) = printed(&scene.managed.mapsmith.cli(&apply));
    assert_eq!((code, text.contains("frontends/web is set aside")), (1, true), "{text}");
}
