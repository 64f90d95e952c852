//! What is declared is kept elsewhere and brought back, and its secrets are shown to few.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use serde_json::{Value, json};

use super::{PATIENCE, Scene, bare, detail};
use crate::support::eventually;
use crate::support::scene::{complaints, newest, printed};

/// `admin:geheim`.
const CREDENTIAL: &str = "YWRtaW46Z2VoZWlt";

/// With an owner of its own, and a credential; the server's agent gets it, too.
fn with_credential(scene: &Scene) -> Value {
    let mut app = scene.app();
    app["owner"] = json!("deploy");
    app["natives"] =
        json!([format!("http-request set-header Authorization \"Basic {CREDENTIAL}\"")]);
    let sent = format!("agent-send password={CREDENTIAL}");
    app["servers"][0]["options"] = json!(["agent-check", "agent-port 9", sent]);
    app
}

/// All that is declared, but for how it stands.
fn declared(scene: &Scene) -> Value {
    let mut config = scene.get("/v1/config");
    for kind in ["frontends", "backends"] {
        for object in config[kind].as_array_mut().expect("a list") {
            object.as_object_mut().expect("an object").remove("status");
        }
    }
    json!({"frontends": config["frontends"], "backends": config["backends"]})
}

fn tag(scene: &Scene) -> String {
    format!("\"{}\"", scene.get("/v1/config")["status"]["etag"].as_str().expect("a tag"))
}

fn delete_all(scene: &Scene) {
    for name in scene.names() {
        let path = format!("/v1/{name}?force=true&wait=30s");
        assert_eq!(scene.ask("DELETE", &path, &Value::Null).0, 204, "{name}");
    }
    assert!(scene.names().is_empty());
    assert_eq!(scene.managed.ground.word(), None);
}

#[test]
fn what_is_exported_brings_all_back_with_owners_and_secrets() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let app = with_credential(&scene);
    let (status, problem) = scene.ask("PUT", "/v1/backends/app", &app);
    assert_eq!((status, problem["type"].as_str()), (409, Some("/v1/problems/conflict")));
    assert!(detail(&problem).contains("backends/app is local's"), "{problem:#}");
    scene.put("backends/app?force=true", &app);
    let before = declared(&scene);
    assert!(before.to_string().contains(CREDENTIAL), "it is an admin who asks: {before:#}");

    // By the command line.
    let cli = |arguments: &[&str]| {
        let output = scene.managed.mapsmith.cli(arguments);
        let (code, text) = printed(&output);
        (code, text + &complaints(&output))
    };
    let file = scene.managed.ground.file("backup.json");
    let path = file.to_str().expect("a path");
    fs::write(&file, "old").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode");
    let (code, said) = cli(&["config", "export", path]);
    assert!(code == 0 && said.contains("3 objects"), "{said}");
    let mode = fs::metadata(&file).expect("the file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (code, said) = cli(&["config", "export", "-"]);
    assert!(code == 0 && said.contains(CREDENTIAL) && !said.contains("in_force"), "{said}");
    delete_all(&scene);
    let (code, said) = cli(&["config", "apply", path, "--reason", "a restore"]);
    assert_eq!(code, 0, "{said}");
    scene.managed.wait_for_word("one");
    assert_eq!(declared(&scene), before);
    let now = tag(&scene);
    let (code, said) = cli(&["config", "apply", path]);
    assert!(code == 0 && said.contains("nothing changes"), "{said}");
    assert_eq!(tag(&scene), now);

    // An answer as it is.
    let answer = scene.ask_with("GET", "/v1/config", &[], "").body;
    delete_all(&scene);
    let path = "/v1/config?wait=30s";
    let put = scene.ask_with("PUT", path, &[("If-Match", &tag(&scene))], &answer);
    assert_eq!(put.status, 200, "{}", put.body);
    scene.managed.wait_for_word("one");
    assert_eq!(declared(&scene), before);

    // What another owner declares is not taken by accident.
    let all = json!({"owner": "ben", "backends": [{"name": "app", "servers": []}]}).to_string();
    let put = scene.ask_with("PUT", path, &[("If-Match", &tag(&scene))], &all);
    assert_eq!(put.status, 409, "{}", put.body);
    assert!(put.body.contains("backends/app is deploy's"), "{}", put.body);
    assert_eq!(declared(&scene), before);
}

#[test]
fn credentials_are_for_admins_alone_and_stand_for_themselves() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let report = scene.put("backends/app?force=true", &with_credential(&scene));
    assert!(!report.to_string().contains(CREDENTIAL), "{report:#}");
    let mut web = scene.web();
    web["rules"] = json!([{"path": "/x", "set_header": {"name": "X-Api-Key", "value": "geheim"}}]);
    let report = scene.put("frontends/web", &web);
    assert!(!report.to_string().contains("geheim"), "{report:#}");

    let token = json!({"name": "viewer", "role": "viewer"});
    let (status, made) = scene.ask("POST", "/v1/tokens", &token);
    assert_eq!(status, 201, "{made:#}");
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let viewed = |path: &str| {
        let seen = scene.ask_with("GET", path, &[("Authorization", &bearer)], "");
        assert_eq!(seen.status, 200, "{path}: {}", seen.body);
        assert!(!seen.body.contains(CREDENTIAL), "{path}: {}", seen.body);
        assert!(!seen.body.contains("geheim"), "{path}: {}", seen.body);
        seen.body
    };
    for path in ["frontends", "frontends/web/rules", "haproxy/config", "audit", "activity"] {
        viewed(&format!("/v1/{path}"));
    }
    // The status is the same for all, and so nobody's who shall not see it.
    for status in [viewed("/v1/status"), scene.get("/v1/status").to_string()] {
        assert!(status.contains(r#""agent-send password=***""#), "{status}");
        assert!(!status.contains(CREDENTIAL), "{status}");
    }
    // Neither's answer is ever taken for the other's, and both name the same state.
    for path in ["config", "frontends/web", "frontends/web/rules", "backends/app"] {
        let path = format!("/v1/{path}");
        let read = |headers: &[(&str, &str)]| scene.ask_with("GET", &path, headers, "");
        let [full, masked] = [read(&[]), read(&[("Authorization", &bearer)])];
        for answer in [&full, &masked] {
            let kept = answer.header("cache-control").unwrap_or_default();
            assert!(kept.contains("no-store"), "{path}: {kept}");
        }
        let [full, masked] = [full, masked].map(|it| it.header("etag").expect("a tag").to_owned());
        let known = |headers: &[(&str, &str)]| read(headers).status == 304;
        assert!(known(&[("If-None-Match", &full)]) && !known(&[("If-None-Match", &masked)]));
        let viewer = ("Authorization", bearer.as_str());
        assert!(known(&[viewer, ("If-None-Match", &masked)]), "{path}");
        assert!(!known(&[viewer, ("If-None-Match", &full)]), "{path}");
    }
    let seen = scene.ask_with("GET", "/v1/backends/app", &[("Authorization", &bearer)], "");
    let masked = seen.header("etag").expect("a tag");
    let force = "/v1/backends/app?force=true&dry_run=true";
    let body = with_credential(&scene).to_string();
    assert_eq!(scene.ask_with("PUT", force, &[("If-Match", masked)], &body).status, 200);
    let config = viewed("/v1/config");
    let app: Value = serde_json::from_str(&viewed("/v1/backends/app")).expect("JSON");
    assert_eq!(app["config"]["natives"], json!(["http-request set-header Authorization ***"]));
    assert_eq!(app["from"], "api", "{app:#}");
    let status = scene.get("/v1/status");
    assert_eq!(status["backends"][0]["from"], "api", "{status:#}");

    // What a viewer has seen stands for what is stored, and for nothing that is not.
    let before = declared(&scene);
    let put = scene.ask_with("PUT", "/v1/config", &[("If-Match", &tag(&scene))], &config);
    assert!(put.status == 200 && put.body.contains("nothing changes"), "{}", put.body);
    let (status, problem) = scene.ask("PUT", "/v1/backends/other", &app["config"]);
    assert_eq!(status, 400, "the name is another one: {problem:#}");
    let mut other = app["config"].clone();
    other["name"] = json!("other");
    let (status, problem) = scene.ask("PUT", "/v1/backends/other", &other);
    assert_eq!(status, 400, "{problem:#}");
    assert!(detail(&problem).contains("natives[0]: *** stands for a secret"), "{problem:#}");
    assert_eq!(declared(&scene), before);

    // Nor do HAProxy's words tell it.
    let mut app = scene.app();
    let line = format!("http-request set-header Authorization Basic {CREDENTIAL}");
    app["natives"] = json!([line]);
    let (status, problem) = scene.ask("PUT", "/v1/backends/app", &app);
    assert_eq!(status, 422, "{problem:#}");
    assert!(!problem.to_string().contains(CREDENTIAL), "{problem:#}");
    assert!(detail(&problem).contains("***"), "{problem:#}");
    let file = scene.managed.ground.file("haproxy.cfg");
    let mode = fs::metadata(&file).expect("HAProxy's file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{}", file.display());
}

/// A port that whoever else wants it can have, too.
fn shared_port() -> (OwnedFd, u16) {
    // No other process is to have it, too.
    let flags = SocketFlags::CLOEXEC;
    let shared = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let shared = shared.expect("a socket");
    set_socket_reuseport(&shared, true).expect("it is shared");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    bind(&shared, &any).expect("a port");
    listen(&shared, 1).expect("it listens");
    let listener = std::net::TcpListener::from(shared);
    let port = listener.local_addr().expect("an address").port();
    (listener.into(), port)
}

#[test]
fn a_change_names_who_else_listens_at_a_frontends_port() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let (_other, port) = shared_port();
    let me = format!("(process {}) listens at 127.0.0.1:{port} too", std::process::id());
    for backend in ["app", "later"] {
        let more = json!({"bind": [format!("127.0.0.1:{port}")], "default_backend": backend});
        let (status, report) = scene.ask("PUT", "/v1/frontends/more?dry_run=true", &more);
        assert_eq!(status, 200, "{report:#}");
        let warnings = report["warnings"].as_array().expect("a list");
        let about = |it: &&Value| it["resource"] == "frontends/more" && it["setting"] == "bind[0]";
        let warning = warnings.iter().find(about);
        let text = warning.and_then(|it| it["detail"].as_str()).unwrap_or_default();
        assert!(text.contains(&me), "{report:#}");
    }
    // HAProxy's own ports are no others'.
    let (status, report) = scene.ask("PUT", "/v1/frontends/web?dry_run=true", &scene.web());
    assert_eq!((status, &report["warnings"]), (200, &json!([])), "{report:#}");

    let own = format!(
        "{}[[frontend]]\nname = \"more\"\nbind = [\"127.0.0.1:{port}\"]\n\
        rules = [{{ return = {{ status = 200, body = \"more\" }} }}]\n",
        bare(&scene.managed.ground)
    );
    scene.managed.write_settings(&own);
    let (code, text) = printed(&scene.managed.mapsmith.configuration().cli(&["check"]));
    let line = text.lines().find(|line| line.contains("haproxy ports"));
    let is_named = line.is_some_and(|line| {
        line.starts_with("warn") && line.contains("frontend more bind[0]") && line.contains(&me)
    });
    assert!(code == 0 && is_named, "{code}: {text}");
}

#[test]
fn a_frontend_that_waits_for_its_backend_leaves_its_port_to_the_settings_file() {
    let mut scene = Scene::start(newest(), "");
    scene.put("frontends/origin", &scene.origin("one"));
    let pending = scene.put("frontends/web", &scene.web());
    assert_eq!(pending["pending"], json!(["frontends/web"]), "{pending:#}");
    let own = format!(
        "{}[[frontend]]\nname = \"own\"\nbind = [\"{}\"]\nrules = \
        [{{ return = {{ status = 200, body = \"own\" }} }}]\n",
        bare(&scene.managed.ground),
        scene.managed.ground.web
    );
    let state = |scene: &Scene, expected: &str| {
        eventually("the frontend's state", PATIENCE, || {
            let web = scene.ask("GET", "/v1/frontends/web", &Value::Null).1;
            (web["status"]["state"] == expected).then_some(web)
        })
    };
    scene.managed.write_settings(&own);
    scene.managed.mapsmith.hangup();
    scene.managed.wait_for_word("own");
    let web = state(&scene, "set_aside");
    let why = web["status"]["detail"].as_str().unwrap_or_default();
    assert!(why.contains("the frontend own listens at"), "{web:#}");
    let attention = scene.get("/v1/attention").to_string();
    assert!(attention.contains("frontends/web") && attention.contains(why), "{attention}");
    let (_, text) = printed(&scene.managed.mapsmith.cli(&["status"]));
    assert!(text.contains("frontends/web"), "{text}");
    // Its backend changes nothing for it, and others do not wait for it.
    scene.put("backends/app", &scene.app());
    assert_eq!(state(&scene, "set_aside")["status"]["detail"], web["status"]["detail"]);
    assert_eq!(scene.managed.ground.word().as_deref(), Some("own"));
    scene.managed.write_settings(&bare(&scene.managed.ground));
    scene.managed.mapsmith.hangup();
    scene.managed.wait_for_word("one");
    state(&scene, "in_force");
}

#[test]
fn an_address_that_this_machine_can_not_have_is_refused_and_nothing_is_stored() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    for (bind, told) in [
        // For documentation alone (RFC 5737).
        ("192.0.2.1:21397", "192.0.2.1:21397 is no address of this machine"),
        ("unix@/nonexistent/x.sock", "has no folder: /nonexistent is not there"),
    ] {
        let far = json!({"bind": [bind], "default_backend": "app"});
        for path in ["/v1/frontends/far?dry_run=true", "/v1/frontends/far"] {
            let (status, problem) = scene.ask("PUT", path, &far);
            assert_eq!(status, 422, "{path}: {problem:#}");
            assert!(detail(&problem).contains(told), "{path}: {problem:#}");
        }
        assert_eq!(scene.ask("GET", "/v1/frontends/far", &Value::Null).0, 404);
    }
    // What comes later is not to blame for it.
    scene.put("frontends/origin", &scene.origin("two"));
    scene.managed.wait_for_word("two");
}
