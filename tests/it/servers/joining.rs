//! Servers come in, by every way that HAProxy has for them, and change in place where they can.

use serde_json::json;

use super::{ROUND_ROBIN, answering, empty_backend, listed, masters, stat};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Gateway, installed};
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, instance, ready, settles, with_backend};
use crate::support::scene::{BOUND, metric, oldest_and_newest};

#[test]
fn an_empty_backend_gets_the_servers_that_the_registry_lists_and_a_second_pass_sends_nothing() {
    for binary in installed() {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters));
        let mapsmith = pool
            .config(&gateway, &proxy.address(), "options = [\"check\", \"maxconn 50\"]", "")
            .start();
        settles(&gateway, &mapsmith, &listed(&masters));
        assert_eq!(answering(&gateway, 9), ["m1", "m2", "m3"]);

        let before = proxy.commands().len();
        let steps = metric(&mapsmith, "mapsmith_server_steps_total{haproxy=\"edge1\"}");
        assert!(steps.is_some_and(|steps| steps >= 3.0), "{steps:?}");
        mapsmith.wait_for("three more looks at the servers", BOUND, |_| {
            let looks = proxy.commands()[before..]
                .iter()
                .filter(|command| command.line.starts_with("show servers state"))
                .count();
            (looks >= 3).then_some(())
        });
        let sent = proxy.commands()[before..].to_vec();
        assert!(sent.iter().all(|command| command.line.starts_with("show ")), "{sent:?}");
        assert_eq!(metric(&mapsmith, "mapsmith_server_steps_total{haproxy=\"edge1\"}"), steps);
    }
}

#[test]
fn what_can_be_changed_in_place_is_changed_in_place() {
    for binary in oldest_and_newest() {
        let masters = masters(&["old", "new"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&[("s1", masters[0].address())]);
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        settles(&gateway, &mapsmith, &[("s1", masters[0].address())]);
        assert_eq!(answering(&gateway, 2), ["old"]);

        let before = proxy.commands().len();
        pool.lists(&[("s1", masters[1].address())]);
        settles(&gateway, &mapsmith, &[("s1", masters[1].address())]);
        assert_eq!(answering(&gateway, 2), ["new"]);
        let address = masters[1].address();
        let row = json!({
            "name": "s1",
            "address": address.ip().to_string(),
            "port": address.port(),
            "weight": 7,
            "options": ["maxconn 9"],
        });
        pool.writes(&json!([row]).to_string());
        mapsmith.wait_for("weight and maxconn follow", BOUND, |_| {
            let state =
                gateway.command(&format!("show stat {BACKEND} 4 -1;show servers state {BACKEND}"));
            (state.contains(",s1,")
                && stat(&gateway, "s1", "weight") == "7"
                && stat(&gateway, "s1", "slim") == "9")
                .then_some(())
        });
        let sent = proxy.commands()[before..].to_vec();
        let gone = sent.iter().find(|command| {
            command.line.contains("del server") || command.line.contains("add server")
        });
        assert_eq!(gone, None, "the same server with a new address is a change");
    }
}

#[test]
fn servers_come_and_go_behind_a_socket_with_severity_output() {
    for binary in installed() {
        for level in ["admin severity-output number", "admin severity-output string"] {
            let masters = masters(&["m1", "m2"]);
            let gateway = with_backend(
                Gateway::plan(binary).level(level).entry("node1", BACKEND),
                ROUND_ROBIN,
            )
            .start();
            let pool = Pool::start(&listed(&masters));
            let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
            settles(&gateway, &mapsmith, &listed(&masters));
            let moved = [("m1", masters[1].address())];
            pool.lists(&moved);
            settles(&gateway, &mapsmith, &moved);
            assert_eq!(
                metric(&mapsmith, "mapsmith_server_refusals_total{haproxy=\"edge1\"}"),
                Some(0.0),
                "{}",
                mapsmith.log()
            );
        }
    }
}

#[test]
fn a_server_that_the_configuration_gives_by_name_follows_its_list() {
    for binary in oldest_and_newest() {
        let masters = masters(&["old", "new"]);
        let by_name = format!("    server s1 localhost:{}\n", masters[0].address().port());
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &by_name).start();
        assert_eq!(gateway.request("node1"), (200, "old".to_owned()));
        let pool = Pool::start(&[("s1", masters[1].address())]);
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        settles(&gateway, &mapsmith, &[("s1", masters[1].address())]);
        assert_eq!(gateway.request("node1"), (200, "new".to_owned()));
    }
}

#[test]
fn a_static_algorithm_needs_a_reload_and_says_so_and_the_map_goes_on() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1"]);
        let gateway = with_backend(Gateway::plan(binary), "    balance static-rr\n").start();
        let pool = Pool::start(&listed(&masters));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        let status = mapsmith.wait_for("a reload is needed", BOUND, |mapsmith| {
            let status = instance(mapsmith);
            (status["servers"]["state"] == "needs_reload" && status["state"] == "in_sync")
                .then_some(status)
        });
        let cause = status["servers"]["needs_reload"].to_string();
        assert!(
            cause.contains("app") && cause.contains("m1") && cause.contains("static-rr"),
            "{cause}"
        );
        assert_eq!(gateway.memory_map(), [("node1".to_owned(), BACKEND.to_owned())]);
    }
}

#[test]
fn free_slots_of_a_template_serve_where_no_server_can_be_added() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3"]);
        let lines = "    balance source\n    server-template slot 1-3 127.0.0.1:1 disabled\n";
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), lines).start();
        let pool = Pool::start(&listed(&masters[..2]));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "slots = \"slot\"", "").start();
        let addresses = |masters: &[Master]| -> Vec<String> {
            let mut addresses: Vec<_> =
                masters.iter().map(|master| master.address().to_string()).collect();
            addresses.sort();
            addresses
        };
        let served = |wanted: &[Master]| {
            mapsmith.wait_for("the slots serve", BOUND, |mapsmith| {
                let mut seen: Vec<_> = ready(&gateway).into_values().collect();
                seen.sort();
                (seen == addresses(wanted) && instance(mapsmith)["servers"]["state"] == "in_sync")
                    .then_some(())
            });
        };
        served(&masters[..2]);
        assert_eq!(gateway.request("node1").0, 200);
        let before = ready(&gateway);
        pool.lists(&listed(&masters));
        served(&masters);
        assert!(
            before.iter().all(|slot| ready(&gateway).get(slot.0) == Some(slot.1)),
            "nobody changed slots"
        );
        pool.lists(&listed(&masters[1..]));
        served(&masters[1..]);
    }
}

#[test]
fn a_missing_backend_is_made_where_haproxy_can_and_named_where_it_cannot() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1"]);
        let defaults = "defaults masters\n    mode http\n    balance roundrobin\n    timeout \
            connect 5s\n    timeout server 60s\n";
        let gateway = Gateway::plan(binary).entry("node1", BACKEND).more(defaults).start();
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "defaults = \"masters\"", "").start();
        if binary.version >= (3, 4) {
            settles(&gateway, &mapsmith, &listed(&masters));
            assert_eq!(gateway.request("node1"), (200, "m1".to_owned()));
        } else {
            let status = mapsmith.wait_for("a reload is needed", BOUND, |mapsmith| {
                let status = instance(mapsmith);
                (status["servers"]["state"] == "needs_reload").then_some(status)
            });
            let cause = status["servers"]["needs_reload"].to_string();
            assert!(cause.contains("app") && cause.contains("3.4"), "{cause}");
        }
    }
}
