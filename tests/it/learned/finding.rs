//! A stale entry is found by a request, shown, looked up and forgotten.

use serde_json::{Value, json};

use super::{asks, forgets, has_forgotten, masters, plan, settings, shows, start};
use crate::support::mapsmith::Mapsmith;
use crate::support::owners::Owners;
use crate::support::puppetdb::PuppetDb;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, in_sync, metric, newest, oldest_and_newest, printed, reload,
};

#[test]
fn a_stale_entry_is_answered_by_the_true_owner_and_the_map_follows_by_an_early_look() {
    for binary in oldest_and_newest() {
        let owners = Owners::new(&[("n1", "master1"), ("n2", "master2")]);
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&borrowed(&owners.all()));
        let mapsmith = start(&gateway, &registry);
        asks(&gateway, &owners, "n1", "master1", 0..=0);
        assert_eq!(gateway.learned(), [], "what the map has is not learned");

        owners.moves("n1", "master3");
        asks(&gateway, &owners, "n1", "master3", 1..=28);
        asks(&gateway, &owners, "n1", "master3", 0..=0);

        // The registry does not know it yet: the route is shown and stays.
        let shown = shows(&mapsmith, &[("n1", "master3")]);
        assert_eq!(
            (&shown["instance"], &shown["table"], &shown["routes"]),
            (&json!("edge1"), &json!("puppet"), &json!(1))
        );
        assert!(
            shown["nodes"][0]["since"].is_string() && shown["nodes"][0]["expires"].is_string(),
            "{shown:#}"
        );
        let (_, explained) = mapsmith.get("/v1/nodes/n1");
        assert_eq!(explained["instances"][0]["master"], "master1", "{explained:#}");
        assert_eq!(explained["instances"][0]["learned"]["master"], "master3", "{explained:#}");
        let (_, text) = printed(&mapsmith.cli(&["explain", "n1"]));
        assert!(text.contains("learned: master3, first seen"), "{text}");
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        assert!(text.contains("learned routes: 1, the oldest first seen"), "{text}");
        assert_eq!(metric(&mapsmith, "mapsmith_learned_routes{haproxy=\"edge1\"}"), Some(1.0));
        let asked = registry.asked();
        mapsmith.wait_for("the registry is asked for it again", BOUND, |_| {
            (registry.asked() > asked).then_some(())
        });
        assert_eq!(
            gateway.learned(),
            [("n1".to_owned(), "master3".to_owned())],
            "nothing has settled it"
        );

        // It is polled once an hour, and asked for this node within seconds.
        registry.knows(&borrowed(&owners.all()));
        forgets(&mapsmith, &gateway);
        assert!(gateway.memory_map().contains(&("n1".to_owned(), "master3".to_owned())));
        asks(&gateway, &owners, "n1", "master3", 0..=0);
        assert_eq!(gateway.learned(), [], "the map has it now");
        has_forgotten(&mapsmith, &json!({"agreed": 1}));
        let forgotten = |reason: &str| {
            metric(
                &mapsmith,
                &format!(
                    "mapsmith_learned_forgotten_total{{haproxy=\"edge1\",reason=\"{reason}\"}}"
                ),
            )
        };
        assert_eq!((forgotten("agreed"), forgotten("contradicted")), (Some(1.0), Some(0.0)));
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        assert!(!text.contains("learned routes"), "{text}");
    }
}

#[test]
fn puppetdb_is_asked_for_the_learned_nodes_alone() {
    let puppetdb = PuppetDb::shared();
    let owners = Owners::new(&[
        ("learned-moving", "master1"),
        ("learned-staying", "master2"),
        ("learned-leaving", "master2"),
    ]);
    for (node, master) in owners.all() {
        puppetdb.replace_facts(&node, &master, true);
    }
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let query = r#"factsets[certname, producer, producer_timestamp] { certname ~ "^learned-" }"#;
    let source = format!(
        "[[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = {:?}\nquery = {query:?}\n",
        puppetdb.url()
    );
    let mapsmith = Mapsmith::config(&settings(&gateway, &source)).start();
    let status = in_sync(&mapsmith);

    // Gone from PuppetDB: only a full poll may take it out of the map.
    puppetdb.deactivate("learned-leaving");
    owners.moves("learned-moving", "master2");
    puppetdb.replace_facts("learned-moving", "master2", true);
    asks(&gateway, &owners, "learned-moving", "master2", 1..=28);

    mapsmith.wait_for("the map follows", BOUND, |_| {
        gateway
            .memory_map()
            .contains(&("learned-moving".to_owned(), "master2".to_owned()))
            .then_some(())
    });
    forgets(&mapsmith, &gateway);
    assert_eq!(gateway.memory_map().len(), 3, "a look takes nothing away");
    let after = mapsmith.get("/v1/status").1;
    assert_eq!(
        after["sources"][0]["last_poll"], status["sources"][0]["last_poll"],
        "no poll was needed: {after:#}"
    );
    assert!(
        metric(
            &mapsmith,
            "mapsmith_source_poll_duration_seconds_count{source=\"puppetdb\",kind=\"lookup\"}"
        ) >= Some(1.0)
    );
}

#[test]
fn a_newer_answer_of_the_registry_that_says_something_else_counts_more_than_a_learned_route() {
    let owners = Owners::new(&[("n1", "master1")]);
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&borrowed(&owners.all()));
    let mapsmith = start(&gateway, &registry);
    owners.moves("n1", "master2");
    asks(&gateway, &owners, "n1", "master2", 1..=28);
    shows(&mapsmith, &[("n1", "master2")]);

    // It moved on before anybody asked again.
    owners.moves("n1", "master3");
    registry.knows(&borrowed(&owners.all()));
    forgets(&mapsmith, &gateway);
    asks(&gateway, &owners, "n1", "master3", 0..=0);
    has_forgotten(&mapsmith, &json!({"contradicted": 1}));
}

#[test]
fn a_second_move_is_found_the_same_way_and_is_a_route_of_its_own() {
    for binary in oldest_and_newest() {
        let owners = Owners::new(&[("n1", "master1")]);
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&borrowed(&owners.all()));
        let mapsmith = start(&gateway, &registry);
        owners.moves("n1", "master2");
        asks(&gateway, &owners, "n1", "master2", 1..=28);
        let first = shows(&mapsmith, &[("n1", "master2")]);
        owners.moves("n1", "master3");
        asks(&gateway, &owners, "n1", "master3", 1..=28);
        asks(&gateway, &owners, "n1", "master3", 0..=0);
        let second = shows(&mapsmith, &[("n1", "master3")]);
        let since = |report: &Value| {
            report["nodes"][0]["since"]
                .as_str()
                .and_then(|since| since.parse::<jiff::Timestamp>().ok())
        };
        assert!(since(&first).is_some() && since(&second) > since(&first), "{first:#} {second:#}");
        // Back where the map has it: the learned route corrects itself and is settled by that.
        owners.moves("n1", "master1");
        asks(&gateway, &owners, "n1", "master1", 1..=28);
        forgets(&mapsmith, &gateway);
        asks(&gateway, &owners, "n1", "master1", 0..=0);
    }
}

#[test]
fn a_node_that_no_registry_knows_is_found_and_stays_learned() {
    let owners = Owners::new(&[("n1", "master1"), ("new", "master2")]);
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&[("n1", "master1")]);
    let mapsmith = start(&gateway, &registry);
    assert_eq!(gateway.request("new"), (200, "master2".to_owned()));
    asks(&gateway, &owners, "new", "master2", 0..=0);
    shows(&mapsmith, &[("new", "master2")]);
    reload(&mapsmith);
    asks(&gateway, &owners, "new", "master2", 0..=0);
    registry.knows(&borrowed(&owners.all()));
    forgets(&mapsmith, &gateway);
}
