//! Whether a master can be stopped, while its nodes and then its sessions leave.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use super::{Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, in_sync, newest, printed};

#[test]
fn a_drained_master_can_be_stopped_once_its_sessions_have_ended() {
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    let plan = Gateway::plan(newest()).master("m1", address).master("m2", address);
    let gateway = plan.master("m3", address).start();
    let registry = Registry::start(&[("n1", "m1"), ("n2", "m2"), ("n3", "m3"), ("n4", "m2")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    let mut scene = Scene { gateway, registry, mapsmith };

    let before = scene.get("/v1/masters/m1");
    assert_eq!(
        (&before["nodes"], &before["share"], &before["can_stop"], &before["why"]),
        (&json!(1), &json!(0.25), &json!(false), &json!("1 node is routed to it; drain it first"))
    );
    let mut client = TcpStream::connect(scene.gateway.http_address()).expect("a connection");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Node-Name: n1\r\n\r\n";
    client.write_all(request).expect("a request");
    let because = |mapsmith: &Mapsmith, begins: &str| {
        let report = mapsmith.get("/v1/masters/m1").1;
        let why = report["why"].as_str().unwrap_or_default().to_owned();
        why.starts_with(begins).then_some(report)
    };
    scene.mapsmith.wait_for("the session is there", BOUND, |mapsmith| {
        (mapsmith.get("/v1/masters/m1").1["instances"][0]["sessions"] == 1).then_some(())
    });
    scene.order("POST", "masters/m1/drain", json!({"to": "m2", "reason": "kernel"}));
    let held = scene
        .mapsmith
        .wait_for("it keeps m1", BOUND, |mapsmith| because(mapsmith, "1 session on edge1"));
    assert_eq!(
        (&held["nodes"], &held["can_stop"], &held["drained"]["reason"]),
        (&json!(0), &json!(false), &json!("kernel"))
    );
    let (code, text) = printed(&scene.mapsmith.cli(&["master", "m1"]));
    assert_eq!(code, 0);
    assert!(text.starts_with("master m1 can't be stopped: 1 session on edge1"), "{text}");
    assert!(text.contains("drained to m2 by local") && text.contains("(kernel)"), "{text}");

    // The system ends what was never accepted.
    drop(silent);
    scene.mapsmith.wait_for("the session has ended", BOUND, |mapsmith| {
        because(mapsmith, "the last session on edge1 began")
    });
    scene.order("POST", "masters/m3/drain", Value::Null);
    let unused = scene.get("/v1/masters/m3");
    assert_eq!((&unused["nodes"], &unused["can_stop"]), (&json!(0), &json!(true)), "{unused:#}");
    scene.refused("GET", "/v1/masters/m9", "", 404);

    scene.gateway.kill();
    let gone = scene.get("/v1/masters/m3");
    assert_eq!(gone["can_stop"], false);
    let why = gone["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("unknown: edge1 has not been seen"), "{why}");
}
