//! Nodes move while registries lag, peers share what they learn, and overrides hold.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{asks, forgets, has_forgotten, masters, plan, report, settings, shows, start};
use crate::support::mapsmith::Mapsmith;
use crate::support::owners::{Census, Owners};
use crate::support::random::{self, Random};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, in_sync, instance_settings, oldest_and_newest, printed, source_settings,
};
use crate::support::{eventually, free_port};

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
        let mapsmith = start(&gateway, &registry);
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
