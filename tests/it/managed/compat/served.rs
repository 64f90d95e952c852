//! What old clients declare serves requests, and outlives a restart.

use serde_json::{Value, json};

use super::Scene;
use crate::managed::PATIENCE;
use crate::support::free_port;
use crate::support::master::Master;
use crate::support::scene::{newest, oldest_and_newest};

impl Scene {
    /// A frontend of this key, where clients come to.
    fn web(&self, more: &Value) -> Value {
        let mut body =
            json!({"key": "x", "bind": self.managed.ground.web.to_string(), "backend": "foo"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn wait_for_answer(&self, path: &str, status: u16, body: &str) {
        self.managed.mapsmith.wait_for(&format!("{path}: {status} {body}"), PATIENCE, |_| {
            let answer = self.managed.ground.get(path)?;
            (answer.status == status && answer.body.contains(body)).then_some(())
        });
    }
}

fn member(master: &Master) -> Value {
    let address = master.address();
    json!({"host": address.ip().to_string(), "port": address.port().to_string()})
}

#[test]
fn a_frontend_and_a_backend_of_one_key_serve_in_any_order_and_over_a_restart() {
    let (live, staged) = (Master::start("live"), Master::start("staged"));
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary);
        let rule = json!({"type": "path", "operation": "path_beg", "value": "/staged",
            "backend": "staged"});
        // It waits for both of its backends.
        scene.put("/frontends/foo", &scene.web(&json!({"rules": [rule]})));
        scene.put("/backends/foo", &json!({"key": "foo", "type": "static"}));
        let staged_body = json!({"key": "staged", "type": "static", "members": [member(&staged)]});
        scene.put("/backends/staged", &staged_body);
        scene.wait_for_answer("/staged", 200, "staged");
        // A backend without members is one.
        scene.wait_for_answer("/", 503, "");
        let members = json!([member(&live)]);
        scene.put("/backends/foo", &json!({"key": "foo", "type": "static", "members": members}));
        scene.wait_for_answer("/", 200, "live");
        let text = scene.ask("GET", "/haproxy/config", &Value::Null);
        let text = text.1.as_str().unwrap().to_owned();
        assert!(text.contains("frontend frontend:foo") && text.contains("backend foo"), "{text}");

        let shown = |scene: &Scene| scene.ask("GET", "/frontends/foo", &Value::Null);
        let before = shown(&scene);
        scene.managed.mapsmith.restart();
        scene.managed.wait_for_state("in_force");
        assert_eq!(shown(&scene), before, "what is stored is read back equal");
        scene.wait_for_answer("/", 200, "live");
        assert_eq!(scene.ask("GET", "/backends/foo/members", &Value::Null), (200, members));

        let (status, answer) = scene.ask("DELETE", "/backends/staged", &Value::Null);
        assert_eq!(status, 409, "{answer:#}");
        let words = answer["message"].as_str().unwrap();
        assert!(words.contains("frontends/frontend:foo sends requests to staged"), "{words}");
        for path in ["/frontends/foo", "/backends/staged", "/backends/foo"] {
            assert_eq!(scene.ask("DELETE", path, &Value::Null), (200, 200.into()));
            assert_eq!(scene.ask("GET", path, &Value::Null).0, 404);
        }
    }
}

#[test]
fn what_haproxy_refuses_is_told_in_its_words_also_of_a_frontend_that_waits() {
    let scene = Scene::start(newest());
    let refused = |path: &str, body: &Value, words: &str| {
        let (status, answer) = scene.ask("PUT", path, body);
        assert_eq!(status, 400, "{answer:#}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{words} is not in {message}");
    };
    let backend = json!({"key": "foo", "type": "static"});
    for _ in 0..2 {
        refused("/frontends/a", &scene.web(&json!({"natives": ["timeout client 3x"]})), "'x'");
        let rule = json!({"type": "path", "operation": "path_bag", "value": "/", "backend": "foo"});
        refused("/frontends/a", &scene.web(&json!({"rules": [rule]})), "path_bag");
        for (native, words) in [
            ("optoin x", "begins with \"optoin\", which is not listed"),
            ("http-request return status 200 content-type a file /etc/shadow", "reads a file"),
        ] {
            refused("/frontends/a", &scene.web(&json!({"natives": [native]})), words);
        }
        let rule = json!({"type": "path", "operation": "path -f /etc/shadow", "value": "/",
            "backend": "foo"});
        refused("/frontends/a", &scene.web(&json!({"rules": [rule]})), "reads a file");
        refused("/frontends/a", &scene.web(&json!({"bind": "here"})), "\"bind\"");
        scene.put("/backends/foo", &backend);
    }
    refused(
        "/backends/b",
        &json!({"key": "b", "type": "static", "balance": "best"}),
        "balance only supports",
    );
    refused("/frontends/a%20b", &scene.web(&json!({})), "can't name a section");
    refused("/backends/frontend:b", &backend, "can't name a section");
    let two = json!([{"host": "300.1.1.1", "port": 1}]);
    refused("/backends/b", &json!({"key": "b", "type": "static", "members": two}), "servers[0]");
    assert_eq!(scene.ask("GET", "/frontends", &Value::Null), (200, json!([])));
    let keys = scene.ask("GET", "/backends", &Value::Null).1;
    assert_eq!((keys.as_array().unwrap().len(), &keys[0]["key"]), (1, &json!("foo")));
    for (path, status) in
        [("/frontends/a%20b", 404), ("/frontends/%3Cb%3E", 404), ("/frontends/%ff", 400)]
    {
        let response = scene.send("GET", path, &[], "");
        assert_eq!(response.status, status, "{}", response.body);
        assert!(!response.body.contains('<'), "{}", response.body);
    }
}

#[test]
fn the_settings_files_objects_are_not_shown_and_others_of_the_api_are() {
    let port = free_port();
    let own = format!(
        "[[frontend]]\nname = \"own\"\nbind = [\"127.0.0.1:{port}\"]\ndefault_backend = \"kept\"\n\
        [[backend]]\nname = \"kept\"\nservers = []\nempty = \"accept\"\n"
    );
    let scene = Scene::with(newest(), "", &own);
    let live = Master::start("live");
    let app = json!({"servers": [{"name": "a", "address": live.address().to_string()}]});
    let path = "/v1/backends/app?wait=30s";
    let response = scene.managed.mapsmith.ask("PUT", path, &[], &app.to_string());
    assert_eq!(response.status, 201, "{}", response.body);
    let (_, shown) = scene.ask("GET", "/backends", &Value::Null);
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown:#}");
    let address = live.address();
    let members = json!([{"host": address.ip().to_string(), "port": address.port()}]);
    assert_eq!((&shown[0]["id"], &shown[0]["members"]), (&json!("backend/app"), &members));
    assert_eq!(scene.ask("GET", "/frontends", &Value::Null).1, json!([]));
    let body = json!({"key": "kept", "type": "static"});
    let (status, answer) = scene.ask("PUT", "/backends/kept", &body);
    assert_eq!((status, &answer["error"]), (409, &json!("Conflict")), "{answer:#}");
    // Frontends may lead to what the file has.
    scene.put("/frontends/web", &scene.web(&json!({"backend": "kept"})));
    scene.wait_for_answer("/", 503, "");
    scene.put("/frontends/web", &scene.web(&json!({"backend": "app"})));
    scene.wait_for_answer("/", 200, "live");
}
