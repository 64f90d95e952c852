//! Entries that point nowhere: known before the commit, and kept, left out or held as the settings
//! say.

use serde_json::json;

use crate::support::haproxy::{Gateway, Plan};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, entries, gateway_settings, in_sync, memory, metric, newest, oldest_and_newest,
    printed, reload, source_settings,
};

const SCHEDULE: &str =
    "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers = \"100ms\"\n";

/// A registry whose `n2` has a master that HAProxy does not have.
fn registry() -> Registry {
    Registry::start(&[("n1", "master1"), ("n2", "gone")])
}

fn start(gateway: &Gateway, registry: &Registry, references: &str) -> Mapsmith {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{SCHEDULE}{references}{}{source}", gateway_settings(gateway)))
        .start()
}

fn with_master(plan: Plan, master: &Master) -> Plan {
    plan.master(master.name(), master.address())
}

#[test]
fn an_entry_without_a_backend_is_kept_counted_and_shown() {
    for binary in oldest_and_newest() {
        let (master, registry) = (Master::start("master1"), registry());
        let gateway = with_master(Gateway::plan(binary), &master).start();
        let mapsmith = start(&gateway, &registry, "");
        in_sync(&mapsmith);
        let status = mapsmith.wait_for("the dangling entry is shown", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            (status["references"]["unknown"] == json!({ "gone": 1 })).then_some(status)
        });
        assert_eq!(status["references"]["unknown_are"], "guard");
        assert_eq!(memory(&gateway), entries(&[("n1", "master1"), ("n2", "gone")]));
        assert_eq!(
            metric(&mapsmith, "mapsmith_references_dangling_entries{kind=\"unknown\"}"),
            Some(1.0)
        );
        let (code, text) = printed(&mapsmith.cli(&["explain", "n2"]));
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(
                "gone: an instance has no backend or server of the name; such entries are kept"
            ),
            "{text}"
        );
    }
}

#[test]
fn an_entry_that_is_left_out_never_gets_into_memory_and_comes_back_with_its_backend() {
    for binary in oldest_and_newest() {
        let (master, registry) = (Master::start("master1"), registry());
        let mut gateway = with_master(Gateway::plan(binary), &master).start();
        let mapsmith = start(&gateway, &registry, "[references]\nunknown = \"leave_out\"\n");
        in_sync(&mapsmith);
        assert_eq!(memory(&gateway), entries(&[("n1", "master1")]));
        assert_eq!(gateway.request("n2").0, 404, "the default applies");
        assert_eq!(mapsmith.get("/v1/status").1["revision"], 1, "it never was in a revision");

        let late = Master::start("gone");
        gateway.restart_as(|plan| with_master(plan, &late));
        mapsmith.wait_for("the entry comes back with its backend", BOUND, |_| {
            (memory(&gateway) == entries(&[("n1", "master1"), ("n2", "gone")])).then_some(())
        });
        assert_eq!(gateway.request("n2"), (200, "gone".to_owned()));
    }
}

#[test]
fn a_revision_with_an_entry_that_points_nowhere_is_held_until_it_is_approved() {
    for binary in oldest_and_newest() {
        let (master, registry) = (Master::start("master1"), registry());
        registry.knows(&[("n1", "master1")]);
        let gateway = with_master(Gateway::plan(binary), &master).start();
        let mapsmith = start(&gateway, &registry, "[references]\nunknown = \"hold\"\n");
        in_sync(&mapsmith);
        registry.knows(&[("n1", "master1"), ("n2", "gone")]);
        let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, 409, "{problem:#}");
        let held = mapsmith.get("/v1/held").1[0].clone();
        assert!(held["reason"].as_str().is_some_and(|reason| reason.contains("gone")), "{held:#}");
        assert_eq!(memory(&gateway), entries(&[("n1", "master1")]));

        let (code, text) =
            printed(&mapsmith.cli(&["approve", held["id"].as_str().expect("an id")]));
        assert_eq!(code, 0, "{text}");
        let both = entries(&[("n1", "master1"), ("n2", "gone")]);
        mapsmith.wait_for("the approved map is in memory", BOUND, |_| {
            (memory(&gateway) == both).then_some(())
        });
        // A further change that brings no new such master passes.
        registry.knows(&[("n1", "master1"), ("n2", "gone"), ("n3", "master1")]);
        reload(&mapsmith);
        assert_eq!(memory(&gateway).len(), 3);
    }
}

#[test]
fn what_the_daemon_would_hold_for_where_it_points_to_is_held_by_plan_and_sync_too() {
    for binary in oldest_and_newest() {
        let (master, registry) = (Master::start("master1"), Registry::start(&[("n1", "master1")]));
        let gateway = with_master(Gateway::plan(binary), &master).start();
        let source = source_settings("registry", &registry.url());
        let settings = gateway_settings(&gateway);
        let config =
            Mapsmith::config(&format!("[references]\nunknown = \"hold\"\n{settings}{source}"));
        let (code, text) = printed(&config.cli(&["sync"]));
        assert_eq!(code, 0, "{text}");
        registry.knows(&[("n1", "master1"), ("n2", "gone")]);
        let (planned, plan) = printed(&config.cli(&["plan"]));
        let (synced, sync) = printed(&config.cli(&["sync"]));
        for (code, text) in [(planned, &plan), (synced, &sync)] {
            assert!(code == 4 && text.contains("gone"), "HAProxy {:?}: {code}: {text}", binary);
        }
        assert!(plan.contains("n2: no route -> gone"), "what an approval would do: {plan}");
        assert_eq!(memory(&gateway), entries(&[("n1", "master1")]));
    }
}

#[test]
fn a_registry_that_renames_half_the_masters_is_held_until_haproxy_has_them() {
    for binary in oldest_and_newest() {
        let (one, two) = (Master::start("master1"), Master::start("master2"));
        let said = |second: &str, count: usize| -> Vec<(String, String)> {
            let master = |node| if node % 2 == 0 { "master1" } else { second };
            (0..count).map(|node| (format!("n{node:03}"), master(node).to_owned())).collect()
        };
        let registry = Registry::start(&borrowed(&said("master2", 40)));
        let mut gateway = with_master(with_master(Gateway::plan(binary), &one), &two).start();
        let mapsmith = start(&gateway, &registry, "[guard]\nmax_moved = \"100%\"\n");
        in_sync(&mapsmith);
        // A single one is kept and shown.
        let mut single = said("master2", 40);
        single[0].1 = "gone".to_owned();
        registry.knows(&borrowed(&single));
        reload(&mapsmith);
        assert_eq!(memory(&gateway), single);

        registry.knows(&borrowed(&said("Master2.example", 40)));
        let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, 409, "{problem:#}");
        let held = mapsmith.get("/v1/held").1[0].clone();
        let reason = held["reason"].as_str().expect("a reason");
        for words in [
            "lead 20 of 40 entries (50.0%)",
            "1 of 40 are led there now",
            "guard.max_removed",
            "Master2.example",
        ] {
            assert!(reason.contains(words), "{words:?} is not in {reason}");
        }
        assert_eq!(memory(&gateway), single, "every node is served as before");
        let (code, text) = printed(&mapsmith.configuration().cli(&["plan"]));
        assert!(code == 4 && text.contains("lead 20 of 40 entries"), "{code}: {text}");

        let renamed = Master::start("Master2.example");
        gateway.restart_as(|plan| with_master(plan, &renamed));
        mapsmith.wait_for("the renamed master has its nodes", BOUND, |_| {
            (memory(&gateway) == said("Master2.example", 40)).then_some(())
        });
        assert_eq!(mapsmith.get("/v1/held").1, json!([]));
    }
}

#[test]
fn entries_of_a_master_that_is_not_ready_are_told_from_those_of_an_unknown_one() {
    for binary in oldest_and_newest() {
        let (one, two) = (Master::start("master1"), Master::start("master2"));
        let registry = Registry::start(&[("n1", "master1"), ("n2", "master2")]);
        let gateway = with_master(with_master(Gateway::plan(binary), &one), &two).start();
        let mapsmith = start(&gateway, &registry, "[references]\nnot_ready = \"leave_out\"\n");
        in_sync(&mapsmith);
        gateway.command("disable server master2/master2");
        mapsmith.wait_for("the entries of the disabled master are left out", BOUND, |mapsmith| {
            let references = mapsmith.get("/v1/status").1["references"].clone();
            let rejected = memory(&gateway) == entries(&[("n1", "master1")]);
            (rejected && references["not_ready"] == json!({ "master2": 1 })).then_some(())
        });
        gateway.command("enable server master2/master2");
        mapsmith.wait_for("they come back with it", BOUND, |_| {
            (memory(&gateway).len() == 2).then_some(())
        });
    }
}

#[test]
fn an_override_to_a_master_that_haproxy_does_not_have_is_told_as_held_and_can_be_approved() {
    let (one, two) = (Master::start("master1"), Master::start("master2"));
    let registry = Registry::start(&[("n1", "master1"), ("n2", "master1")]);
    let gateway = with_master(with_master(Gateway::plan(newest()), &one), &two).start();
    let mapsmith = start(
        &gateway,
        &registry,
        "[references]\nunknown = \"hold\"\n[store]\npath = \"mapsmith.db\"\n",
    );
    in_sync(&mapsmith);
    let (code, text) = printed(&mapsmith.cli(&["pin", "n1", "gone", "--force"]));
    assert!(
        code == 4
            && text.contains("node n1 is pinned to gone")
            && text.contains("it is stored, and held back"),
        "{text}"
    );
    assert_eq!(
        memory(&gateway),
        entries(&[("n1", "master1"), ("n2", "master1")]),
        "the node stays where it was"
    );
    // Others are not kept waiting by it.
    let (code, text) = printed(&mapsmith.cli(&["pin", "n2", "master2"]));
    assert_eq!(code, 0, "{text}");
    assert_eq!(memory(&gateway), entries(&[("n1", "master1"), ("n2", "master2")]));
    let (code, text) = printed(&mapsmith.cli(&["explain", "n1"]));
    assert!(code == 0 && text.contains("such entries are held back"), "{text}");

    let held = mapsmith.get("/v1/held").1;
    let (code, text) = printed(&mapsmith.cli(&["approve", held[0]["id"].as_str().expect("an id")]));
    assert_eq!(code, 0, "{text}");
    mapsmith.wait_for("the approved pin is in memory", BOUND, |_| {
        (memory(&gateway) == entries(&[("n1", "gone"), ("n2", "master2")])).then_some(())
    });
    let (code, text) = printed(&mapsmith.cli(&["unpin", "n1"]));
    assert_eq!(code, 0, "{text}");
    assert_eq!(mapsmith.get("/v1/held").1, json!([]));
}

#[test]
fn servers_that_a_restarted_haproxy_gets_back_take_no_entry_away_meanwhile() {
    for binary in oldest_and_newest() {
        let (one, two) = (Master::start("master1"), Master::start("master2"));
        let registry = Registry::start(&[("n1", "master1"), ("n2", "master2")]);
        let plan = with_master(Gateway::plan(binary), &one);
        let mut gateway = plan.more("backend app\n    balance roundrobin\n").start();
        let backend = format!(
            "[[backend]]\nname = \"app\"\nservers = [{{ name = \"master2\", address = {:?} }}]\n",
            two.address().to_string()
        );
        let references = "[references]\nunknown = \"leave_out\"\nnot_ready = \"leave_out\"\n";
        let damping = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n";
        let mapsmith = start(&gateway, &registry, &format!("{references}{damping}{backend}"));
        let both = entries(&[("n1", "master1"), ("n2", "master2")]);
        mapsmith.wait_for("the added server's node is routed", BOUND, |_| {
            (memory(&gateway) == both).then_some(())
        });
        let revision = mapsmith.get("/v1/status").1["revision"].clone();
        let pid = |mapsmith: &Mapsmith| {
            mapsmith.get("/v1/status").1["instances"][0]["process"]["pid"].clone()
        };
        // Later than the rest after the last change of what the map may point to.
        mapsmith.wait_for("the gateway has run for a while", BOUND, |_| {
            let info = gateway.command("show info");
            let uptime: u64 =
                info.lines().find_map(|line| line.strip_prefix("Uptime_sec: "))?.parse().ok()?;
            (uptime >= 3).then_some(())
        });
        let before = pid(&mapsmith);
        gateway.restart();
        mapsmith.wait_for("the server is back", BOUND, |mapsmith| {
            let servers = mapsmith.get("/v1/status").1["instances"][0]["servers"]["state"].clone();
            let there = gateway.command("show servers state app").contains("master2");
            (pid(mapsmith) != before && servers == "in_sync" && there).then_some(())
        });
        reload(&mapsmith);
        assert_eq!(mapsmith.get("/v1/status").1["revision"], revision, "{}", mapsmith.log());
        assert_eq!(memory(&gateway), both);
    }
}
