//! A ZooKeeper that is about to take the place of files: it is compared with them, and whatever it
//! says or does changes nothing that HAProxy has.

use std::fs;

use serde_json::Value;

use super::address;
use crate::support::authority::Authority;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, settles, with_backend};
use crate::support::scene::{BOUND, entries, in_sync, memory, metric, newest, printed, reload};
use crate::support::zookeeper::ZooKeeper;

/// Waits until the shadow of the node map, or of the backend's list, has these counts.
fn differs(mapsmith: &Mapsmith, backend: Option<&str>, counts: &[(&str, u64)]) -> Value {
    mapsmith.wait_for(&format!("the shadow of {backend:?}: {counts:?}"), BOUND, |mapsmith| {
        let (_, status) = mapsmith.get("/v1/status");
        let shadows = status["shadows"].as_array()?.clone();
        let shadow = shadows.into_iter().find(|shadow| shadow["backend"].as_str() == backend)?;
        let found = shadow["differences"]["counts"].as_object()?;
        let is_so = |(kind, count): (&String, &Value)| {
            let wanted = counts.iter().find(|(wanted, _)| *wanted == kind);
            count.as_u64() == Some(wanted.map_or(0, |(_, count)| *count))
        };
        found.iter().all(is_so).then_some(shadow)
    })
}

#[test]
fn a_shadow_is_compared_as_it_changes_and_nothing_it_says_or_does_is_applied() {
    let (first, second) = (Master::start("first"), Master::start("second"));
    let plan = Gateway::plan(newest()).entry("node1", BACKEND);
    let gateway = with_backend(plan, "    balance roundrobin\n").start();
    let pool = Pool::start(&[("web1", first.address())]);
    let zookeeper = ZooKeeper::start();
    zookeeper.create("/nodes/node1", "elsewhere");
    zookeeper.create("/nodes/node2", BACKEND);
    zookeeper.create("/web/n1", &address(&second));
    let shadow = format!(
        "[[source]]\nname = \"zk\"\ntype = \"zookeeper\"\nservers = [\"{}\"]\npriority = 10\n\
         nodes = \"/nodes\"\ntimeout = \"5s\"\nsession_timeout = \"2s\"\nshadow = true\n",
        zookeeper.address(),
    );
    let list = "shadow_from = { source = \"zk\", format = \"proxymgr\", path = \"/web\" }";
    let config = pool.config(&gateway, &gateway.runtime_address(), list, &shadow);
    let (code, checked) = printed(&config.cli(&["check"]));
    let of_map = "shadow zk: 1 extra, 1 elsewhere, compared with the node map";
    let of_list = "path=/web: 1 missing, 1 extra, compared with backend app";
    assert!(code == 0 && checked.contains(of_map) && checked.contains(of_list), "{checked}");

    let mapsmith = config.start();
    let applied = entries(&[("node1", BACKEND)]);
    let web1 = [("web1", first.address())];
    settles(&gateway, &mapsmith, &web1);
    differs(&mapsmith, None, &[("extra", 1), ("elsewhere", 1)]);
    differs(&mapsmith, Some(BACKEND), &[("missing", 1), ("extra", 1)]);
    let (code, status) = printed(&mapsmith.cli(&["status"]));
    for line in [
        "elsewhere node1: app, shadow: elsewhere",
        "extra node2: none, shadow: app",
        "compared with the node map; answered",
    ] {
        assert!(code == 0 && status.contains(line), "{status}");
    }
    let (code, planned) = printed(&mapsmith.configuration().cli(&["plan"]));
    assert!(code == 0 && planned.contains("extra node2: none, shadow: app"), "{code}: {planned}");
    let series = "mapsmith_source_shadow_differences{source=\"zk\",kind=\"extra\"}";
    assert_eq!(metric(&mapsmith, series), Some(1.0));
    let age = |labels: &str| {
        metric(&mapsmith, &format!("mapsmith_source_answer_age_seconds{{source=\"zk\"{labels}}}"))
    };
    assert_eq!((age("").is_some(), age(",shadow=\"true\"").is_some()), (false, true));
    let revision = in_sync(&mapsmith)["revision"].clone();

    // It comes to agree, but for a name; then all of it is gone, and then ZooKeeper itself.
    zookeeper.set("/nodes/node1", BACKEND.as_bytes());
    zookeeper.delete("/nodes/node2");
    zookeeper.set("/web/n1", address(&first).as_bytes());
    differs(&mapsmith, None, &[]);
    differs(&mapsmith, Some(BACKEND), &[("renamed", 1)]);
    zookeeper.delete("/nodes/node1");
    zookeeper.delete("/web/n1");
    differs(&mapsmith, None, &[("missing", 1)]);
    differs(&mapsmith, Some(BACKEND), &[("missing", 1)]);
    zookeeper.kill();
    let report = reload(&mapsmith);
    assert_eq!(report["sources"].as_array().map(Vec::len), Some(2), "{report:#}");
    mapsmith.wait_for("the shadow fails", BOUND, |mapsmith| {
        mapsmith.get("/v1/status").1["shadows"][0]["error"].as_str().map(str::to_owned)
    });
    let status = in_sync(&mapsmith);
    assert_eq!((&status["revision"], &status["held"]), (&revision, &Value::Array(Vec::new())));
    settles(&gateway, &mapsmith, &web1);
    assert_eq!(memory(&gateway), applied);
    assert_eq!(gateway.request("node1"), (200, "first".to_owned()));
    let (code, status) = printed(&mapsmith.cli(&["status"]));
    assert_eq!(code, 0, "{status}");
    // What is applied goes on meanwhile.
    pool.lists(&[("web1", first.address()), ("web2", second.address())]);
    settles(&gateway, &mapsmith, &[web1[0], ("web2", second.address())]);
}

#[test]
fn a_shadow_that_can_not_even_be_made_keeps_nothing_from_starting_and_is_tried_again() {
    let first = Master::start("first");
    let plan = Gateway::plan(newest()).entry("node1", BACKEND);
    let gateway = with_backend(plan, "    balance roundrobin\n").start();
    let pool = Pool::start(&[("web1", first.address())]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("later.pem");
    let shadow = format!(
        "[[source]]\nname = \"new\"\ntype = \"http_json\"\nurl = \"https://[::1]:9/\"\n\
         ca = {ca:?}\nshadow = true\n"
    );
    let config = pool.config(&gateway, &gateway.runtime_address(), "", &shadow);
    let mapsmith = config.start();
    settles(&gateway, &mapsmith, &[("web1", first.address())]);
    in_sync(&mapsmith);
    let fails = |word: &str| {
        mapsmith.wait_for(&format!("the shadow's error says {word:?}"), BOUND, |mapsmith| {
            let (_, status) = mapsmith.get("/v1/status");
            status["shadows"][0]["error"].as_str()?.contains(word).then_some(())
        });
    };
    fails("later.pem");
    let failed = "mapsmith_source_poll_failures_total{source=\"new\",shadow=\"true\"}";
    assert!(metric(&mapsmith, failed) > Some(0.0));
    let (code, checked) = printed(&mapsmith.configuration().cli(&["check"]));
    assert!(code != 0 && checked.contains("FAIL  shadow new"), "{code}: {checked}");
    fs::copy(Authority::create(folder.path()).ca(), &ca).unwrap();
    reload(&mapsmith);
    fails("can't be reached");
}
