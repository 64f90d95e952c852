//! Orders that are refused, with what to do instead.

use serde_json::json;

use super::{STORE, Scene, config, fleet, with};
use crate::support::haproxy::Gateway;
use crate::support::master::Master;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, complaints, entries, in_sync, newest, nodes, oldest_and_newest, printed,
};

#[test]
fn an_order_that_names_a_master_nobody_knows_is_refused_unless_it_is_forced() {
    for binary in oldest_and_newest() {
        let said = fleet(6, &["master1", "master2"]);
        let (one, two, spare) =
            (Master::start("master1"), Master::start("master2"), Master::start("spare"));
        let plan = [&one, &two, &spare].into_iter().fold(Gateway::plan(binary), |plan, master| {
            plan.master(master.name(), master.address())
        });
        let gateway = plan.start();
        let registry = Registry::start(&borrowed(&said));
        let mapsmith = config(&gateway, &registry, STORE).start();
        in_sync(&mapsmith);
        let scene = Scene { gateway, registry, mapsmith };
        for (order, name, hint) in [
            (["pin", "n000", "Master2"].as_slice(), "Master2", "is it master2?"),
            (&["pin", "n000", "mastre2"], "mastre2", "nodes are routed to: master1, master2"),
            (
                &["drain", "master1", "--to", "mastre2"],
                "mastre2",
                "no HAProxy has a backend or server of the name",
            ),
            (&["drain", "mastre1"], "mastre1", "--force"),
        ] {
            let output = scene.mapsmith.cli(order);
            let told = complaints(&output);
            assert_eq!(output.status.code(), Some(1), "{order:?}: {told}");
            assert!(
                told.contains(&format!("{name:?} is not a known master")) && told.contains(hint),
                "{order:?}: {told}"
            );
        }
        let told = scene.refused(
            "POST",
            "/v1/masters/master1/drain?wait=60s",
            r#"{"to": "mastre2"}"#,
            409,
        );
        assert!(told.contains("force=true"), "{told}");
        assert_eq!(scene.mapsmith.get("/v1/overrides").1["number"], 0, "nothing was stored");
        scene.holds(&said);

        // A server of HAProxy that no node is routed to is known; so is what nodes are routed to
        // and HAProxy does not have.
        for (order, moved) in [
            (["pin", "n000", "spare"].as_slice(), vec![("n000", "spare")]),
            (&["pin", "n000", "nowhere", "--force"], vec![("n000", "nowhere")]),
            (&["pin", "n001", "nowhere"], vec![("n000", "nowhere"), ("n001", "nowhere")]),
            (&["unpin", "n000"], vec![("n001", "nowhere")]),
        ] {
            let (code, text) = printed(&scene.mapsmith.cli(order));
            assert_eq!(code, 0, "{order:?}: {text}");
            scene.holds(&with(&said, &moved));
        }
    }
}

#[test]
fn before_any_haproxy_was_looked_at_only_masters_of_the_map_are_taken() {
    let mut gateway = Gateway::plan(newest()).entry("n000", "m1").entry("n001", "m2").start();
    gateway.kill();
    let registry = Registry::start(&[("n000", "m1"), ("n001", "m2")]);
    let mapsmith = config(&gateway, &registry, STORE).start();
    mapsmith.wait_for("the map is known", BOUND, |mapsmith| {
        (mapsmith.get("/v1/status").1["entries"] == 2).then_some(())
    });
    let scene = Scene { gateway, registry, mapsmith };
    let told = scene.refused("PUT", "/v1/overrides/n000", r#"{"master": "m3"}"#, 409);
    assert!(told.contains("no HAProxy has been observed yet"), "{told}");
    let (status, answer) = scene.ask("PUT", "/v1/overrides/n000", r#"{"master": "m2"}"#);
    assert_eq!(status, 202, "{answer:#}");
}

#[test]
fn without_a_store_overrides_are_refused_with_what_to_do() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("n000", "m1")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    let scene = Scene { gateway, registry, mapsmith };
    for (method, path, body) in [
        ("GET", "/v1/overrides", ""),
        ("GET", "/v1/overrides/n000", ""),
        ("PUT", "/v1/overrides/n000", r#"{"master": "m2"}"#),
        ("DELETE", "/v1/overrides/n000", ""),
        ("POST", "/v1/masters/m1/drain", ""),
        ("DELETE", "/v1/masters/m1/drain", ""),
    ] {
        let told = scene.refused(method, path, body, 409);
        assert!(told.contains("set `path` in `[store]`"), "{told}");
    }
    let output = scene.mapsmith.cli(&["pin", "n000", "m2"]);
    assert!(
        output.status.code() == Some(1) && complaints(&output).contains("[store]"),
        "{}",
        complaints(&output)
    );
    scene.holds(&entries(&[("n000", "m1")]));
}

#[test]
fn what_can_be_no_override_is_refused_and_nothing_is_stored() {
    let scene = Scene::start(&nodes(1, "m1"));
    for (method, path, body, part) in [
        ("PUT", "overrides/a%20b", r#"{"master": "m2"}"#, "is not a valid node name"),
        ("PUT", "overrides/n", r#"{"master": "m 2"}"#, "is not a valid master name"),
        ("PUT", "overrides/n", r#"{"master": ""}"#, "is not a valid master name"),
        ("PUT", "overrides/n", r#"{"master": "m2\nclear map"}"#, "is not a valid master name"),
        ("PUT", "overrides/n", "", "send {\"master\""),
        ("PUT", "overrides/n", r#"{"master": "m2", "force": true}"#, "force"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "soon"}"#, "is not a duration"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "0s"}"#, "is not a duration"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "400days"}"#, "a year at most"),
        ("PUT", "overrides/n?wait=never", r#"{"master": "m2"}"#, "wait must be"),
        (
            "PUT",
            "overrides/n?force=perhaps",
            r#"{"master": "m2"}"#,
            "wait, force, dry_run and reason",
        ),
        ("DELETE", "overrides/n?force=true", "", "the parameters are wait, kind (pin"),
        ("GET", "status?verbose=1", "", "this path takes no parameters"),
        ("GET", "nodes/n?wait=1s", "", "this path takes no parameters"),
        ("GET", "learned?x", "", "unknown field `x`"),
        ("GET", "held?id=1", "", "this path takes no parameters"),
        ("GET", "overrides?node=n", "", "this path takes no parameters"),
        ("GET", "overrides/n?force=true", "", "this path takes no parameters"),
        ("POST", "held/approve?id=1", r#"{"id": "1"}"#, "the parameters are dry_run and reason"),
        ("POST", "masters/m%3B1%0A/drain", "", "is not a valid master name"),
        ("POST", "masters/m1/drain", r#"{"to": "m1"}"#, "to itself"),
        ("POST", "masters/m1/drain", r##"{"to": "#m2"}"##, "is not a valid master name"),
        ("POST", "masters/m1/drain", "[", "send {\"to\""),
    ] {
        let told = scene.refused(method, &format!("/v1/{path}"), body, 400);
        assert!(told.contains(part), "{method} {path} {body}: {part:?} is not in {told}");
    }
    let page = [("Origin", "https://evil.example")];
    assert_eq!(
        scene.mapsmith.ask("PUT", "/v1/overrides/n", &page, r#"{"master": "m2"}"#).status,
        403
    );
    assert_eq!(scene.mapsmith.ask("POST", "/v1/masters/m1/drain", &page, "").status, 403);
    assert_eq!(
        scene.mapsmith.get("/v1/overrides").1,
        json!({"number": 0, "pins": [], "blocked": [], "drained": [], "servers": []})
    );
}
