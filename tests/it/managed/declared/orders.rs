//! What is ordered of servers, and the backends that it is about.

use super::*;
use crate::support::scene::printed;

#[test]
fn a_backend_that_is_made_anew_takes_none_of_the_orders_of_the_one_before() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let one = "/v1/backends/app/servers/one";
    let drain = json!({"state": "drain", "reason": "kernel"});
    let (status, report) = scene.ask("PUT", &format!("{one}?wait=30s&force=true"), &drain);
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
    scene.ask("DELETE", "/v1/frontends/web?wait=30s", &Value::Null);
    let (status, report) = scene.ask("DELETE", "/v1/backends/app?wait=30s", &Value::Null);
    assert_eq!(status, 204, "{report:#}");

    scene.put("backends/app", &scene.app());
    scene.put("frontends/web", &scene.web());
    scene.managed.wait_for_word("one");
    let (status, none) = scene.ask("GET", one, &Value::Null);
    assert_eq!(status, 404, "{none:#}");
    let backend = scene.get("/v1/backends/app");
    assert_eq!(backend["servers"][0]["override"], Value::Null, "{backend:#}");
    let audit = scene.get("/v1/audit?target=backends/app/servers/one");
    let methods: Vec<_> = audit["items"].as_array().into_iter().flatten().collect();
    let methods: Vec<_> = methods.into_iter().map(|row| &row["method"]).collect();
    assert_eq!(methods, ["DELETE", "PUT"], "its end is noted, too: {audit:#}");
}

#[test]
fn an_order_that_outlives_a_backend_of_the_settings_is_named_and_can_be_ended() {
    let ground = Ground::new(newest());
    let backend = |name: &str| {
        format!(
            "[[backend]]\nname = \"{name}\"\nservers = [{{ name = \"one\", address = \
                \"127.0.0.1:9\" }}]\n"
        )
    };
    let settings = bare(&ground);
    let config = Mapsmith::config(&format!("{settings}{}", backend("old")));
    let path = config.path();
    let mut scene = Scene {
        managed: Managed { mapsmith: config.start(), ground },
        origin: SocketAddr::from(([127, 0, 0, 1], free_port())),
    };
    scene.managed.wait_for_state("in_force");
    let one = "/v1/backends/old/servers/one";
    let (status, report) =
        scene.ask("PUT", &format!("{one}?wait=30s&force=true"), &json!({"state": "maint"}));
    assert_eq!(status, 200, "{report:#}\n{}", scene.managed.mapsmith.log());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"old\"", "\"new\"")).unwrap();
    scene.managed.mapsmith.hangup();
    let mapsmith = &scene.managed.mapsmith;
    mapsmith.wait_for("what is left is named", PATIENCE, |_| {
        let attention = scene.get("/v1/attention").to_string();
        attention.contains("mapsmith server reset old/one").then_some(())
    });
    let (_, status) = printed(&mapsmith.cli(&["status"]));
    assert!(status.contains("there is no backend old"), "{status}");
    let (code, text) = printed(&mapsmith.cli(&["server", "reset", "old/one", "--dry-run"]));
    assert!(code == 0 && text.contains("would end"), "{text}");
    let (code, text) = printed(&mapsmith.cli(&["server", "reset", "old/one"]));
    assert!(code == 0 && text.contains("there is no backend old now"), "{text}");
    mapsmith.wait_for("nothing is left", PATIENCE, |_| {
        (!scene.get("/v1/attention").to_string().contains("old/one")).then_some(())
    });
}

#[test]
fn a_slip_in_a_backends_name_takes_no_frontend_off_the_air() {
    let scene = Scene::start(newest(), "");
    scene.declare("one");
    let rules = json!({"rules": [{"path_beg": "/old", "backend": "appp"}]});
    let other = json!({"default_backend": "appp"});
    let mut web = scene.web();
    web["default_backend"] = json!("appp");
    for (method, path, body) in [
        ("PUT", "/v1/frontends/web/rules", &rules),
        ("PATCH", "/v1/frontends/web", &other),
        ("PUT", "/v1/frontends/web?dry_run=true", &web),
    ] {
        let (status, problem) = scene.ask(method, path, body);
        assert_eq!(status, 409, "{method} {path}: {problem:#}");
        let said = "frontends/web sends requests to appp, which is no backend then, and would not \
            listen any more";
        assert!(detail(&problem).contains(said), "{problem:#}");
    }
    assert_eq!(scene.managed.ground.word().as_deref(), Some("one"));
    let (status, report) = scene.ask("PUT", "/v1/frontends/web?force=true", &web);
    assert_eq!((status, &report["pending"]), (200, &json!(["frontends/web"])), "{report:#}");
    scene.managed.mapsmith.wait_for("that it waits is named", PATIENCE, |_| {
        let attention = scene.get("/v1/attention").to_string();
        attention
            .contains("frontends/web listens nowhere: it waits for backends: appp")
            .then_some(())
    });
    scene.put("backends/appp", &scene.app());
    scene.managed.wait_for_word("one");
}

#[test]
fn an_order_that_runs_out_while_mapsmith_is_down_leaves_no_server_out() {
    let mut scene = Scene::start(newest(), "");
    scene.declare("one");
    let one = "/v1/backends/app/servers/one";
    for order in [json!({"state": "maint", "for": "1s"}), json!({"state": "drain"})] {
        let (status, report) = scene.ask("PUT", &format!("{one}?wait=30s&force=true"), &order);
        assert_eq!(status, 200, "{report:#}");
        if order["for"].is_null() {
            assert_eq!(scene.ask("DELETE", one, &Value::Null).0, 202);
        }
        scene.managed.mapsmith.kill();
        let until = report["override"]["until"].as_str().map(|at| at.parse().unwrap());
        eventually("the order is over", PATIENCE, || {
            until.is_none_or(|until: jiff::Timestamp| until < jiff::Timestamp::now()).then_some(())
        });
        scene.managed.mapsmith.restart();
        scene.managed.wait_for_state("in_force");
        scene.managed.mapsmith.wait_for("it is ready again", PATIENCE, |_| {
            let backend = scene.get("/v1/backends/app");
            (backend["servers"][0]["instances"][0]["state"] == "ready").then_some(())
        });
        scene.managed.wait_for_word("one");
    }
}

#[test]
fn whoever_declares_a_backend_is_not_refused_over_frontends_that_wait_for_one_address() {
    let scene = Scene::start(newest(), "");
    let port = free_port();
    let waiting =
        |backend: &str| json!({"bind": [format!("127.0.0.1:{port}")], "default_backend": backend});
    for (name, backend) in [("s3", "nope"), ("s4", "nope2")] {
        let report = scene.put(&format!("frontends/{name}"), &waiting(backend));
        let message = report["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("waits for backend {backend}")), "{report:#}");
    }
    scene.put("backends/nope2", &json!({"servers": []}));
    let report = scene.put("backends/nope", &json!({"servers": []}));
    assert_eq!(report["message"], "backends/nope added; HAProxy runs with it", "{report:#}");
    let state = |name: &str| scene.get(&format!("/v1/frontends/{name}"))["status"].clone();
    assert_eq!(state("s3")["state"], "in_force", "{:#}", state("s3"));
    assert_eq!(state("s4")["state"], "set_aside", "{:#}", state("s4"));
    let said = state("s4")["detail"].to_string();
    assert!(said.contains("the frontend s3 listens at"), "{said}");
    let attention = scene.get("/v1/attention").to_string();
    assert!(
        attention.contains("frontends/s4, which the API declares, is set aside"),
        "{attention}"
    );

    let edited = json!({"maxconn": 70});
    let (status, report) = scene.ask("PATCH", "/v1/frontends/s3?wait=30s", &edited);
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "its own: {report:#}");

    // One that is declared where another one listens is refused as ever.
    let (status, problem) = scene.ask("PUT", "/v1/frontends/s5", &waiting("nope"));
    assert_eq!(status, 422, "{problem:#}");
    assert!(detail(&problem).contains("frontends/s5: bind[0]: the frontend s"), "{problem:#}");
    let (status, gone) = scene.ask("DELETE", "/v1/frontends/s3?wait=30s", &Value::Null);
    assert_eq!(status, 204, "{gone:#}");
    assert_eq!(state("s4")["state"], "in_force", "the address is free: {:#}", state("s4"));
}
