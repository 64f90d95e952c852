//! What others do with a backend's servers is theirs: an operator, an agent, another Mapsmith.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::{
    ROUND_ROBIN, assert_none_failed, changes, empty_backend, listed, looks_on, masters, stat,
};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Gateway, installed};
use crate::support::load::Load;
use crate::support::pool::{BACKEND, Pool, instance, ready, servers, settles, with_backend};
use crate::support::scene::{BOUND, newest, oldest_and_newest};

#[test]
fn a_server_that_an_operator_disabled_stays_so_and_is_shown() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "options = [\"check\"]", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));

        gateway.command(&format!("disable server {BACKEND}/m1"));
        mapsmith.wait_for("Mapsmith shows who was disabled by hand", BOUND, |mapsmith| {
            let external = instance(mapsmith)["servers"]["external"].to_string();
            (external.contains("m1") && external.contains("maintenance")).then_some(())
        });
        // A change of the list goes on around it, a restart of Mapsmith too.
        let more = [listed(&masters), vec![("m3", masters[1].address())]].concat();
        pool.lists(&more);
        mapsmith.wait_for("the new server is ready", BOUND, |_| {
            ready(&gateway).contains_key("m3").then_some(())
        });
        assert_eq!(servers(&gateway)["m1"].1, 1, "still in maintenance");
        drop(mapsmith);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "options = [\"check\"]", "").start();
        mapsmith.wait_for("a fresh Mapsmith shows it too", BOUND, |mapsmith| {
            instance(mapsmith)["servers"]["external"].to_string().contains("m1").then_some(())
        });
        assert_eq!(servers(&gateway)["m1"].1, 1, "still in maintenance");

        gateway.command(&format!("enable server {BACKEND}/m1"));
        settles(&gateway, &mapsmith, &more);
    }
}

#[test]
fn a_weight_that_an_agent_sets_is_left_to_it_and_told() {
    for binary in installed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        // An agent that gives a third of the weight, until the test's process ends.
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(b"30%\n")))
        });
        let masters = masters(&["m1"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&[]);
        let address = masters[0].address();
        pool.writes(&format!(
            r#"[{{ "name": "m1", "address": "{}", "port": {}, "weight": 100,
                  "options": ["agent-check", "agent-port {port}", "agent-inter 200ms"] }}]"#,
            address.ip(),
            address.port()
        ));
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        mapsmith.wait_for("the agent's weight is told", BOUND, |mapsmith| {
            let servers = instance(mapsmith)["servers"].clone();
            let told = servers["by_agent"]
                .to_string()
                .contains("app/m1: weight 30 by its agent, 100 is listed");
            (told && servers["state"] == "in_sync").then_some(())
        });
        let before = proxy.commands().len();
        looks_on(&proxy, &mapsmith, 5);
        assert_eq!(changes(&proxy, before), Vec::<String>::new(), "HAProxy {:?}", binary.version);
        assert_eq!(stat(&gateway, "m1", "weight"), "30");
    }
}

#[test]
fn only_what_is_declared_and_owned_is_touched() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "stranger", "m3"]);
        let stranger = format!("{ROUND_ROBIN}    server stranger {}\n", masters[1].address());
        let other = format!("backend other\n    server m3 {}\n", masters[2].address());
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &stranger)
            .more(&other)
            .start();
        let pool = Pool::start(&listed(&masters[..1]));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        mapsmith.wait_for("ours is there, and the stranger is counted", BOUND, |mapsmith| {
            let status = instance(mapsmith);
            (ready(&gateway).contains_key("m1") && status["servers"]["foreign"] == 1).then_some(())
        });
        assert!(ready(&gateway).contains_key("stranger"));
        drop(mapsmith);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "manage = \"all\"", "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        assert!(
            gateway.command("show servers state other").contains(" m3 "),
            "another backend is nobody's business"
        );
    }
}

#[test]
fn two_mapsmiths_that_have_heard_different_lists_do_not_fight_over_a_server() {
    let masters = masters(&["m1", "m2"]);
    let gateway = empty_backend(newest());
    let pools = [Pool::start(&listed(&masters)), Pool::start(&listed(&masters))];
    let proxies = [
        AdminProxy::start(&gateway.runtime_address()),
        AdminProxy::start(&gateway.runtime_address()),
    ];
    let first = pools[0].config(&gateway, &proxies[0].address(), "", "").start();
    settles(&gateway, &first, &listed(&masters));
    // Each has a map file of its own: of one file only one of them would be the keeper.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("node-master.map");
    let second = pools[1].config(&gateway, &proxies[1].address(), "", "");
    let second = second
        .variable("MAPSMITH__MAP__FILE", file.to_str().expect("a folder named in UTF-8"))
        .start();
    settles(&gateway, &second, &listed(&masters));
    let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);

    // Only the first has heard that it goes; it is deleted, and the second brings it back, once.
    pools[0].lists(&listed(&masters[..1]));
    let deletions = || {
        let all = proxies.iter().flat_map(|proxy| proxy.commands());
        all.filter(|command| command.line.starts_with("del server")).count()
    };
    first.wait_for("the second has brought it back", BOUND, |_| {
        (deletions() > 0 && ready(&gateway).contains_key("m2")).then_some(())
    });
    let before = deletions();
    looks_on(&proxies[0], &first, 10);
    looks_on(&proxies[1], &second, 10);
    assert_eq!(deletions(), before, "{}", first.log());
    // The second hears it too.
    pools[1].lists(&listed(&masters[..1]));
    settles(&gateway, &second, &listed(&masters[..1]));
    settles(&gateway, &first, &listed(&masters[..1]));
    assert_none_failed(&load.stop());
}
