//! Learned routes: a request whose map entry is stale reaches the right master all the same, and
//! what HAProxy learned by it is shown, looked up early, and forgotten once the registries have
//! spoken.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::haproxy::{Binary, Gateway, Plan, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::owners::{Census, Owners};
use crate::support::puppetdb::PuppetDb;
use crate::support::random::{self, Random};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, gateway_settings, in_sync, instance_settings, metric, newest,
    oldest_and_newest, printed, reload, source_settings,
};
use crate::support::{eventually, free_port, http};

const LEARNED: &str = "[learned]\ntable = \"puppet\"\n";

fn masters(owners: &Owners) -> [Master; 3] {
    ["master1", "master2", "master3"].map(|name| Master::owning(name, owners))
}

fn plan(binary: &Binary, masters: &[Master]) -> Plan {
    masters.iter().fold(Gateway::plan(binary).redispatch(), |plan, master| {
        plan.master(master.name(), master.address())
    })
}

/// Settings for a gateway and a registry, with `[learned]` and the guard out of the way: it has
/// tests of its own.
fn settings(gateway: &Gateway, sources: &str) -> String {
    let guard = "[guard]\nmax_moved = \"100%\"\nmax_removed = \"100%\"\n[damping]\nhold = \"0s\"\n";
    format!("{ON_REQUEST}{LEARNED}{guard}{}{sources}", gateway_settings(gateway))
}

/// What `GET /v1/learned` says of the first instance.
fn report(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/learned").1[0].clone()
}

/// Waits until Mapsmith shows exactly these learned routes of its first instance.
fn shows(mapsmith: &Mapsmith, routes: &[(&str, &str)]) -> Value {
    mapsmith.wait_for(&format!("the learned routes are {routes:?}"), BOUND, |mapsmith| {
        let report = report(mapsmith);
        let shown: Vec<_> = report["nodes"]
            .as_array()?
            .iter()
            .map(|route| (route["node"].as_str(), route["master"].as_str()))
            .collect();
        let expected: Vec<_> =
            routes.iter().map(|(node, master)| (Some(*node), Some(*master))).collect();
        (shown == expected).then_some(report)
    })
}

/// Waits until Mapsmith has seen so many routes gone, by reason.
fn has_forgotten(mapsmith: &Mapsmith, counts: &Value) {
    mapsmith.wait_for(&format!("{counts} are forgotten"), BOUND, |mapsmith| {
        (report(mapsmith)["forgotten"] == *counts).then_some(())
    });
}

/// Waits until the stick table is empty.
fn forgets(mapsmith: &Mapsmith, gateway: &Gateway) {
    mapsmith.wait_for("no learned route is left in HAProxy", BOUND, |_| {
        gateway.learned().is_empty().then_some(())
    });
}

/// A request must be answered by this master, after so many masters have refused it.
#[track_caller]
fn asks(
    gateway: &Gateway,
    owners: &Owners,
    node: &str,
    master: &str,
    hops: std::ops::RangeInclusive<usize>,
) {
    let before = owners.refused();
    assert_eq!(
        gateway.request(node),
        (200, master.to_owned()),
        "{node}\n{}",
        gateway.command("show table puppet")
    );
    let refused = owners.refused() - before;
    assert!(hops.contains(&refused), "{node} was refused by {refused} masters, not by {hops:?}");
}

#[test]
fn a_stale_entry_is_answered_by_the_true_owner_and_the_map_follows_by_an_early_look() {
    for binary in oldest_and_newest() {
        let owners = Owners::new(&[("n1", "master1"), ("n2", "master2")]);
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&borrowed(&owners.all()));
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
                .start();
        in_sync(&mapsmith);
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
            "mapsmith_source_poll_duration_seconds_count{source=\"puppetdb\",kind=\"look\"}"
        ) >= Some(1.0)
    );
}

#[test]
fn a_newer_answer_of_the_registry_that_says_something_else_counts_more_than_a_learned_route() {
    let owners = Owners::new(&[("n1", "master1")]);
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&borrowed(&owners.all()));
    let mapsmith =
        Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
            .start();
    in_sync(&mapsmith);
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
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
                .start();
        in_sync(&mapsmith);
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
    let mapsmith =
        Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
            .start();
    in_sync(&mapsmith);
    assert_eq!(gateway.request("new"), (200, "master2".to_owned()));
    asks(&gateway, &owners, "new", "master2", 0..=0);
    shows(&mapsmith, &[("new", "master2")]);
    reload(&mapsmith);
    asks(&gateway, &owners, "new", "master2", 0..=0);
    registry.knows(&borrowed(&owners.all()));
    forgets(&mapsmith, &gateway);
}

#[test]
fn a_moved_node_is_always_answered_while_the_registry_lags_and_nothing_learned_is_left_in_the_end()
{
    let long = std::env::var_os("MAPSMITH_TEST_LONG").is_some();
    let (moving, lag) = if long { (60, 10) } else { (5, 2) };
    let (moving, lag) = (Duration::from_secs(moving), Duration::from_secs(lag));
    for binary in oldest_and_newest() {
        let names: Vec<_> = (0..200).map(|number| format!("n{number:03}")).collect();
        let at_first: Vec<_> = names.iter().map(|name| (name.as_str(), "master1")).collect();
        let owners = Owners::new(&at_first);
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&at_first);
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
                .start();
        in_sync(&mapsmith);
        let census = Census::start(&[gateway.http_address()], &names, &owners, 4);

        // What the registry will know, and when.
        let mut news = std::collections::VecDeque::new();
        let (start, mut moves, mut random) = (Instant::now(), 0, Random::new(random::seed()));
        while start.elapsed() < moving || !news.is_empty() {
            if start.elapsed() < moving {
                let (node, master) = (random.below(names.len()), random.below(masters.len()));
                owners.moves(&names[node], masters[master].name());
                news.push_back((Instant::now() + lag, owners.all()));
                moves += 1;
            }
            let mut told = None;
            while news.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                told = news.pop_front();
            }
            if let Some((_, known)) = told {
                registry.knows(&borrowed(&known));
            }
            // The pace of the moves, not a wait for anything.
            thread::sleep(Duration::from_millis(25));
        }
        registry.knows(&borrowed(&owners.all()));
        mapsmith.wait_for(
            "the map is the registry's and no learned route is left under load",
            BOUND,
            |_| {
                let mut memory = gateway.memory_map();
                memory.sort();
                (memory == owners.all() && gateway.learned().is_empty()).then_some(())
            },
        );
        let hops = owners.refused();
        let found = census.stop();
        assert!(
            found.wrong.is_empty(),
            "{} of {} wrong: {:#?}",
            found.wrong.len(),
            found.requests,
            &found.wrong[..found.wrong.len().min(20)]
        );
        assert!(
            hops > 0 && found.requests > moves,
            "{hops} hops, {} requests, {moves} moves",
            found.requests
        );
        assert_eq!(gateway.learned(), [], "what the map has is not learned");
        println!(
            "HAProxy {:?}: {moves} moves of {} nodes, {} requests, all answered by the true \
                owner; {hops} hops more ({:.3} %)",
            binary.version,
            names.len(),
            found.requests,
            100.0 * hops as f64 / found.requests as f64
        );
    }
}

#[test]
fn what_one_gateway_learns_its_peer_uses_and_both_forget_it() {
    for binary in oldest_and_newest() {
        let owners = Owners::new(&[("n1", "master1"), ("n2", "master1")]);
        let masters = masters(&owners);
        let peers = [("gateway1", free_port()), ("gateway2", free_port())];
        let first = plan(binary, &masters).peers("gateway1", &peers).start();
        let second = plan(binary, &masters).map_of(&first).peers("gateway2", &peers).start();
        let registry = Registry::start(&borrowed(&owners.all()));
        let other = instance_settings("edge2", &second.runtime_address());
        let text = settings(&first, &source_settings("registry", &registry.url())) + &other;
        let mapsmith = Mapsmith::config(&text).start();
        mapsmith.wait_for("both are in sync", BOUND, |mapsmith| {
            mapsmith.get("/readyz").1["missing"].as_array()?.is_empty().then_some(())
        });
        // Peers take a moment to find each other; only then is a use of a route told.
        owners.moves("n1", "master2");
        eventually("what the first one learned is with the second", BOUND, || {
            first.request("n1");
            second.learned().contains(&("n1".to_owned(), "master2".to_owned())).then_some(())
        });
        asks(&second, &owners, "n1", "master2", 0..=0);

        // Under load, so that each use tells the other one what it is just forgetting.
        let names = ["n1".to_owned(), "n2".to_owned()];
        let census =
            Census::start(&[first.http_address(), second.http_address()], &names, &owners, 2);
        registry.knows(&borrowed(&owners.all()));
        mapsmith.wait_for("both have forgotten it", BOUND, |_| {
            (first.learned().is_empty() && second.learned().is_empty()).then_some(())
        });
        let found = census.stop();
        assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
        forgets(&mapsmith, &first);
        forgets(&mapsmith, &second);
    }
}

#[test]
fn keys_that_can_be_no_node_are_counted_and_harm_nothing() {
    for binary in oldest_and_newest() {
        let odd = ["a b", "#a", "a<<"];
        let valid = ["x;y", "b\\c", "k=v", "q\"z"];
        let owners = Owners::new(&[("n1", "master1")]);
        odd.iter().chain(&valid).for_each(|node| owners.moves(node, "master2"));
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&[("n1", "master1")]);
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
                .start();
        in_sync(&mapsmith);
        for node in odd.iter().chain(&valid) {
            assert_eq!(gateway.request(node).0, 200, "{node}");
        }
        let mut routes = valid.map(|node| (node, "master2"));
        routes.sort();
        let shown = shows(&mapsmith, &routes);
        assert_eq!(shown["malformed"], 3, "{shown:#}");
        // The valid ones among them are forgotten like any other.
        let known: Vec<_> =
            valid.iter().map(|node| (*node, "master2")).chain([("n1", "master1")]).collect();
        registry.knows(&known);
        shows(&mapsmith, &[]);
        assert_eq!(gateway.learned().len(), 3, "{}", gateway.command("show table puppet"));
        assert_eq!(gateway.request("n1"), (200, "master1".to_owned()));
    }
}

#[test]
fn no_more_routes_are_kept_than_the_settings_allow() {
    let names: Vec<_> = (0..12).map(|number| format!("n{number:02}")).collect();
    let owners =
        Owners::new(&names.iter().map(|name| (name.as_str(), "master2")).collect::<Vec<_>>());
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&[("other", "master1")]);
    let text = settings(&gateway, &source_settings("registry", &registry.url()))
        .replace(LEARNED, &format!("{LEARNED}max = 5\n"));
    let mapsmith = Mapsmith::config(&text).start();
    in_sync(&mapsmith);
    for name in &names {
        assert_eq!(gateway.request(name), (200, "master2".to_owned()));
    }
    let report = mapsmith.wait_for("all are counted", BOUND, |mapsmith| {
        let report = report(mapsmith);
        (report["truncated"] == 7).then_some(report)
    });
    assert_eq!(
        (&report["routes"], report["nodes"].as_array().map(Vec::len)),
        (&json!(5), Some(5)),
        "{report:#}"
    );
    let (_, text) = printed(&mapsmith.cli(&["status"]));
    assert!(text.contains("learned routes: 5, and 7 more that were not read"), "{text}");
    // Room for the next ones comes with those that are settled.
    let known = [owners.all(), vec![("other".to_owned(), "master1".to_owned())]].concat();
    registry.knows(&borrowed(&known));
    forgets(&mapsmith, &gateway);
}

#[test]
fn a_stick_table_that_haproxy_does_not_have_is_told_and_the_map_is_kept_all_the_same() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("n1", "master1")]);
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &source_settings("registry", &registry.url())))
                .start();
        in_sync(&mapsmith);
        let told = mapsmith.wait_for("the status tells", BOUND, |mapsmith| {
            mapsmith.get("/v1/status").1["instances"][0]["learned"]["error"]
                .as_str()
                .map(str::to_owned)
        });
        assert!(
            told.contains("show table puppet") && told.contains("has no stick table"),
            "{told}"
        );
        registry.knows(&[("n1", "master2")]);
        reload(&mapsmith);
        assert_eq!(gateway.memory_map(), [("n1".to_owned(), "master2".to_owned())]);
        let (code, text) = printed(&mapsmith.cli(&["status"]));
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("stick table"), "{text}");
        assert_eq!(
            mapsmith.log().matches("cannot update learned routes").count(),
            1,
            "{}",
            mapsmith.log()
        );
    }
}

#[test]
fn without_the_setting_nothing_is_read() {
    let owners = Owners::new(&[("n1", "master2")]);
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&[("n1", "master1")]);
    let text =
        settings(&gateway, &source_settings("registry", &registry.url())).replace(LEARNED, "");
    let mapsmith = Mapsmith::config(&text).start();
    in_sync(&mapsmith);
    asks(&gateway, &owners, "n1", "master2", 1..=28);
    registry.knows(&[("n1", "master2")]);
    reload(&mapsmith);
    assert_eq!(gateway.learned(), [("n1".to_owned(), "master2".to_owned())]);
    assert_eq!(mapsmith.get("/v1/learned"), (200, json!([])));
}

#[test]
fn each_request_that_has_no_owner_has_its_written_answer() {
    for binary in installed() {
        let owners = Owners::new(&[("n1", "master1"), ("n2", "master2")]);
        let mut masters = Vec::from(masters(&owners));
        let gateway = plan(binary, &masters).entry("n1", "master1").entry("n2", "master1").start();
        let ask = |headers: &[(&str, &str)]| {
            let response = http::request(gateway.http_address(), "GET", "/", headers, "")
                .expect("the gateway answers");
            (response.status, response.body)
        };
        assert_eq!(ask(&[]), (400, "name the node in X-Node-Name".to_owned()));
        assert_eq!(ask(&[("X-Node-Name", "")]), (400, "name the node in X-Node-Name".to_owned()));
        // Every master is asked, and none of them has it: the last one's answer.
        assert_eq!(ask(&[("X-Node-Name", "nobody's")]).0, 404);
        assert_eq!(gateway.learned(), [], "a refusal teaches nothing");

        // Its master is dead: whoever owns the node by now answers, be it learned or not.
        masters.remove(0);
        owners.moves("n1", "master3");
        for _ in 0..2 {
            assert_eq!(
                gateway.request("n1"),
                (200, "master3".to_owned()),
                "HAProxy {:?}",
                binary.version
            );
            assert_eq!(
                gateway.request("n2"),
                (200, "master2".to_owned()),
                "HAProxy {:?}",
                binary.version
            );
        }
        masters.clear();
        assert_eq!(
            gateway.request("n1"),
            (503, "no master answers".to_owned()),
            "HAProxy {:?}",
            binary.version
        );
        assert_eq!(
            gateway.request("nobody's"),
            (503, "no master answers".to_owned()),
            "HAProxy {:?}",
            binary.version
        );
    }
}

#[test]
fn where_every_haproxy_is_new_enough_421_says_what_is_meant_and_a_true_404_is_the_masters_own() {
    for binary in installed().iter().filter(|binary| binary.version >= (3, 2)) {
        let owners = Owners::new(&[("n1", "master2")]).misdirected();
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).misdirected_is_421().entry("n1", "master1").start();
        asks(&gateway, &owners, "n1", "master2", 1..=28);
        asks(&gateway, &owners, "n1", "master2", 0..=0);
        assert_eq!(gateway.request("nobody's").0, 421);
    }
}

#[test]
fn what_was_learned_undoes_neither_a_drain_nor_a_pin() {
    for binary in oldest_and_newest() {
        // Every master answers for every node that it is asked for, until it is told otherwise.
        let owners = Owners::new(&[("n1", "master2"), ("n2", "master2")]);
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&[("n1", "master1"), ("n2", "master1")]);
        let text = settings(&gateway, &source_settings("registry", &registry.url()))
            + "[store]\npath = \"mapsmith.db\"\n";
        let mapsmith = Mapsmith::config(&text).start();
        in_sync(&mapsmith);
        asks(&gateway, &owners, "n1", "master2", 1..=28);
        asks(&gateway, &owners, "n2", "master2", 1..=28);
        shows(&mapsmith, &[("n1", "master2"), ("n2", "master2")]);

        // The map has no node of it, and stays; what leads there is what was learned.
        owners.moves("n1", "master1");
        let (code, text) = printed(&mapsmith.cli(&["drain", "master2"]));
        assert_eq!(code, 0, "{text}");
        forgets(&mapsmith, &gateway);
        has_forgotten(&mapsmith, &json!({"overridden": 2}));
        asks(&gateway, &owners, "n1", "master1", 0..=0);

        // Its owner is the drained master all the same: the request is answered, and nothing of it
        // stays.
        asks(&gateway, &owners, "n2", "master2", 1..=28);
        forgets(&mapsmith, &gateway);
        let asked = registry.asked();
        let (code, text) = printed(&mapsmith.cli(&["undrain", "master2"]));
        assert_eq!(code, 0, "{text}");
        assert_eq!(registry.asked(), asked, "no registry is asked for what an operator ordered");

        let (code, text) = printed(&mapsmith.cli(&["pin", "n2", "master3"]));
        assert_eq!(code, 0, "{text}");
        asks(&gateway, &owners, "n2", "master2", 1..=28);
        forgets(&mapsmith, &gateway);
        assert_eq!(report(&mapsmith)["nodes"], json!([]));
    }
}
