//! Whom a request reaches, and what it is answered where nobody owns its node.

use std::process::Command;

use super::{REDISPATCHING, SEPARATE, assert_unavailable, bare_plan, each, masters, plan, said};
use crate::support::haproxy::installed;
use crate::support::owner::Owner;
use crate::support::shipped::{BACKEND_PER_MASTER, REDISPATCH, path_of};

#[test]
fn haproxy_of_every_version_takes_both_files_without_a_warning() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let map = folder.path().join("node-master.map");
    std::fs::write(&map, "").expect("the map file can be written");
    for binary in installed() {
        for shape in [REDISPATCH, BACKEND_PER_MASTER] {
            let mut check = Command::new(&binary.path);
            check.arg("-c").arg("-f").arg(path_of(shape));
            let output = check.env("NODE_MASTER_MAP", &map).output().expect("HAProxy starts");
            let printed =
                String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let is_clean = output.status.success() && !printed.contains("WARNING");
            assert!(is_clean, "{:?} {shape}: {}\n{printed}", binary.version, output.status);
        }
    }
}

#[test]
fn a_request_that_names_no_node_or_several_is_told_to_name_one() {
    let long = "n".repeat(256);
    for binary in installed() {
        for shape in [REDISPATCHING, SEPARATE].concat() {
            let masters = masters();
            let gateway = plan(binary, shape, &masters).start();
            let wrong: [&[(&str, &str)]; 5] = [
                &[],
                &[("X-Node-Name", "web1"), ("X-Node-Name", "web2")],
                &[("X-Node-Name", "web1,web2")],
                &[("X-Node-Name", "")],
                &[("X-Node-Name", &long)],
            ];
            for headers in wrong {
                let text =
                    "Name one node, and only one, in the header X-Node-Name (at most 255 bytes).";
                assert_eq!(
                    said(&gateway.send("GET", "/", headers, "")),
                    (400, text),
                    "{shape}: {headers:?}"
                );
            }
            assert_eq!(said(&gateway.ask("GET", "/", "WEB1")), (200, "master1"));
            assert!(
                masters.iter().all(|master| master.misdirected() == 0),
                "no master heard of the others"
            );
        }
    }
}

#[test]
fn a_node_that_nobody_owns_is_looked_for_at_every_master_and_is_404_in_writing() {
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        let gateway =
            plan(binary, shape, &masters).entry("gone", "master1").entry("lost", "master9").start();
        let text = "No master owns the node stranger: it is not in the map, and each that could \
            be asked answered 404.";
        assert_eq!(said(&gateway.ask("GET", "/", "stranger")), (404, text));
        assert!(masters.iter().all(|master| master.misdirected() > 0), "each was asked");
        // It is in the map, so the masters' own answer is passed on: it may be the owner's.
        assert_eq!(gateway.ask("GET", "/", "gone").status, 404);
        // The map names no server; any master may own it.
        assert_eq!(gateway.ask("GET", "/", "lost").status, 404);
        masters[2].take("lost");
        assert_eq!(said(&gateway.ask("GET", "/", "lost")), (200, "master3"));
    }
}

#[test]
fn while_the_owner_is_down_its_nodes_are_told_so_and_the_others_are_served() {
    for (binary, shape) in each(REDISPATCHING) {
        let [first, second, third] = masters();
        let plan = bare_plan(binary, shape, [&first, &second, &third])
            .instead_of("inter 2s", "inter 200ms");
        let gateway = plan.entry("web1", "master1").entry("web2", "master2").start();
        assert_eq!(gateway.ask("GET", "/", "web1").status, 200);
        drop(first);
        let answer = gateway.wait_for("HAProxy knows that master1 is down", || {
            let answer = gateway.ask("POST", "/", "web1");
            // Until then another master's answer, that the node isn't its own, is all there is.
            assert_ne!(answer.status, 200, "{answer:?}");
            (answer.status == 503).then_some(answer)
        });
        assert_unavailable(
            &answer,
            "The master master1, which owns the node web1, is not available.",
        );
        assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master2"));
        // Another has taken the node over: it is found, the map's word notwithstanding.
        third.take("web1");
        assert_eq!(said(&gateway.ask("GET", "/", "web1")), (200, "master3"));

        drop((second, third));
        let answer = gateway.wait_for("HAProxy knows that all masters are down", || {
            let answer = gateway.ask("GET", "/", "web2");
            answer.body.contains("(0 up)").then_some(answer)
        });
        assert_unavailable(
            &answer,
            "No master takes the request for the node web2 now (0 up): try again later.",
        );
    }
}

#[test]
fn a_stale_entry_is_answered_by_the_owner_in_the_same_request_and_costs_one_search() {
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        // The map is behind: it has web2 still with master1.
        let plan = bare_plan(binary, shape, masters.each_ref()).threads(4);
        let gateway = plan.entry("web1", "master1").entry("web2", "master1").start();
        let asked_in_vain = || masters.iter().map(Owner::misdirected).sum::<usize>();

        assert_eq!(said(&gateway.ask("POST", "/nodes/web2/commands", "web2")), (200, "master2"));
        assert_eq!(masters[1].served(), ["POST /nodes/web2/commands"], "it ran once");
        let search = asked_in_vain();
        assert!(search > 0);
        // Every connection is taken by some thread of four: the table is the process's.
        for _ in 0..20 {
            assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master2"));
        }
        assert_eq!(asked_in_vain(), search, "the way is known");
        let table = gateway.command("show table puppet");
        assert!(
            table.contains("used:1\n")
                && table.contains("key=web2 ")
                && table.contains("server_key=master2"),
            "{table}"
        );

        // A second move is found the same way, though the first is remembered.
        masters[1].lose("web2");
        masters[2].take("web2");
        assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master3"));
        let search = asked_in_vain();
        assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master3"));
        assert_eq!(asked_in_vain(), search, "the way is known");

        // Forgotten by hand, it is what the map says that is tried first.
        gateway.command("clear table puppet key web2");
        let before = masters[0].misdirected();
        assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master3"));
        assert!(masters[0].misdirected() > before);
        // What the map has right is never remembered.
        assert_eq!(said(&gateway.ask("GET", "/", "web1")), (200, "master1"));
        assert!(!gateway.command("show table puppet").contains("key=web1 "));
    }
}

#[test]
fn what_is_no_nodes_own_is_asked_of_one_master_and_teaches_no_route() {
    let paths = [
        "/puppet-ca/v1/certificate_revocation_list/ca",
        "/puppet/v3/file_content/modules/site/motd",
        "/puppet/v3/file_metadata/modules/site/motd",
        "/puppet/v3/file_metadatas/plugins?recurse=true",
        "/puppet/v3/static_file_content/modules/site/files/motd",
    ];
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        // The map is behind for web2, and leaves web3 out.
        let plan = bare_plan(binary, shape, masters.each_ref());
        let gateway = plan.entry("web2", "master1").start();
        let asked = || masters.iter().map(Owner::misdirected).sum::<usize>();
        for (number, path) in paths.into_iter().enumerate() {
            assert_eq!(said(&gateway.ask("GET", path, "web2")), (404, "master1"));
            assert_eq!(asked(), number + 1, "the 404 is an answer");
        }
        // Each master has its turn, the owner of web3 too; a 404 is passed on as it is.
        let answers = [(); 3].map(|()| gateway.ask("GET", paths[1], "web3"));
        let mut answers = answers.each_ref().map(said);
        answers.sort_unstable();
        assert_eq!(answers, [(200, "master3"), (404, "master1"), (404, "master2")]);
        assert!(!gateway.command("show table puppet").contains("key="), "nothing is learned");
        assert_eq!(said(&gateway.ask("GET", "/puppet/v3/node/web2", "web2")), (200, "master2"));

        // A route that was learned serves them, and they leave it as it is.
        assert_eq!(said(&gateway.ask("GET", paths[1], "web2")), (200, "master2"));
        masters[1].lose("web2");
        assert_eq!(said(&gateway.ask("GET", paths[1], "web2")), (404, "master2"));
        assert!(gateway.command("show table puppet").contains("server_key=master2"));
    }
}

#[test]
fn many_stale_entries_at_once_are_all_found() {
    let nodes: Vec<String> = (0..40).map(|number| format!("node{number}")).collect();
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        let mut plan = bare_plan(binary, shape, masters.each_ref());
        for (number, node) in nodes.iter().enumerate() {
            plan = plan.entry(node, "master1");
            masters[1 + number % 2].take(node);
        }
        let gateway = plan.start();
        let requests: Vec<_> = nodes.iter().map(|node| gateway.start("GET", "/", node)).collect();
        for request in requests {
            let answer = request.join().expect("it does not panic").expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
        }
    }
}

#[test]
fn a_body_larger_than_a_buffer_is_not_sent_on_to_the_owner() {
    let body = "x".repeat(100_000);
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        let gateway = bare_plan(binary, shape, masters.each_ref()).entry("web2", "master1").start();
        let large = || gateway.send("POST", "/", &[("X-Node-Name", "web2")], &body);
        assert_eq!(said(&large()), (404, "master1"));
        assert_eq!(gateway.ask("GET", "/", "web2").status, 200);
        assert_eq!(said(&large()), (200, "master2"), "a small request has found the way");
    }
}

#[test]
fn servers_can_be_added_to_and_removed_from_the_shipped_backend_at_runtime() {
    for (binary, shape) in each(REDISPATCHING) {
        let masters = masters();
        let fourth = Owner::start("master4", &["web4"]);
        let gateway = plan(binary, shape, &masters).start();
        gateway
            .command(&format!("add server puppet/master4 {} check maxconn 10", fourth.address()));
        gateway.command("enable health puppet/master4; enable server puppet/master4");
        gateway.wait_for("the new master is asked", || {
            let answer = gateway.ask("GET", "/", "web4");
            (said(&answer) == (200, "master4")).then_some(())
        });
        // Nothing in the configuration names master3 so that HAProxy would have to keep it.
        gateway.command("set server puppet/master3 state maint");
        gateway.wait_for("the old master can go", || {
            gateway.command("del server puppet/master3").contains("Server deleted.").then_some(())
        });
        assert_eq!(said(&gateway.ask("GET", "/", "web1")), (200, "master1"));
    }
}

#[test]
fn with_a_backend_a_master_a_stand_in_serves_while_the_master_is_down() {
    // The oldest and the newest: a second between a failed connection and the next try adds up.
    let binaries = [installed().first(), installed().last()].into_iter().flatten();
    for (binary, shape) in binaries.flat_map(|binary| SEPARATE.map(|shape| (binary, shape))) {
        let [first, second, third] = masters();
        // Whoever stands in must be able to serve the node.
        second.take("web1");
        let plan = bare_plan(binary, shape, [&first, &second, &third])
            .instead_of("inter 2s", "inter 200ms");
        let gateway =
            plan.entry("web1", "master1").entry("web3", "master3").entry("lost", "master9").start();
        assert_eq!(said(&gateway.ask("GET", "/", "web1")), (200, "master1"));
        let text = "The node stranger is not in the map: no master is known for it.";
        assert_eq!(said(&gateway.ask("GET", "/", "stranger")), (404, text));
        let text = "The map sends the node lost to master9, but HAProxy has no such backend.";
        assert_eq!(said(&gateway.ask("GET", "/", "lost")), (503, text));

        drop(first);
        // The connection is tried again until the master is found down, in the same request.
        assert_eq!(said(&gateway.ask("POST", "/", "web1")), (200, "master2"));
        assert_eq!(said(&gateway.ask("GET", "/", "web1")), (200, "master2"));
        assert_eq!(said(&gateway.ask("GET", "/", "web3")), (200, "master3"));

        drop((second, third));
        let answer = gateway.wait_for("HAProxy knows that all masters are down", || {
            let answer = gateway.ask("GET", "/", "web1");
            let down = ["master1", "master2", "master3"]
                .map(|server| gateway.number("master1", server, "chkdown"));
            (answer.status == 503 && down.iter().all(|times| *times > 0)).then_some(answer)
        });
        let text = "Neither the master master1, which owns the node web1, nor a stand-in takes \
            the request now: try again later.";
        assert_unavailable(&answer, text);
    }
}
