//! HAProxy, Mapsmith or the socket fails in the middle of a change.

use super::{ROUND_ROBIN, Slow, answering, damped, empty_backend, listed, masters};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::Gateway;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, instance, servers, settles, with_backend};
use crate::support::scene::{BOUND, newest, oldest_and_newest, version_3_0};

#[test]
fn a_haproxy_that_restarts_in_the_middle_of_any_step_gets_the_servers_all_the_same() {
    // A prefix of the command at which HAProxy is killed and started again, and what is listed
    // before and after.
    for (prefix, before, after) in [
        ("add server", 1, 3),
        ("set server", 3, 2),
        ("del server", 3, 1),
        ("show servers state", 2, 3),
    ] {
        for killed_first in [true, false] {
            let masters = masters(&["m1", "m2", "m3"]);
            let mut gateway = empty_backend(version_3_0());
            let proxy = AdminProxy::start(&gateway.runtime_address());
            let pool = Pool::start(&listed(&masters[..before]));
            let mapsmith =
                pool.config(&gateway, &proxy.address(), "options = [\"check\"]", "").start();
            settles(&gateway, &mapsmith, &listed(&masters[..before]));
            proxy.hold(prefix, 1);
            pool.lists(&listed(&masters[..after]));
            proxy.wait_held();
            if killed_first {
                gateway.restart();
                proxy.forward();
            } else {
                // Carried out, and then the process goes with all that it was told at runtime.
                proxy.forward();
                gateway.restart();
            }
            settles(&gateway, &mapsmith, &listed(&masters[..after]));
            // What was added to the new process waits for its check.
            let what = format!("{prefix}: requests are answered");
            mapsmith.wait_for(&what, BOUND, |_| (gateway.request("node1").0 == 200).then_some(()));
        }
    }
}

#[test]
fn a_reply_cut_short_is_looked_into_and_nothing_is_done_twice() {
    for prefix in ["add server", "set server", "del server", "show servers state"] {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(newest());
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters[..1]));
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        proxy.cut(prefix, 1, 3);
        pool.lists(&listed(&masters));
        settles(&gateway, &mapsmith, &listed(&masters));
        pool.lists(&listed(&masters[1..]));
        settles(&gateway, &mapsmith, &listed(&masters[1..]));
        // HAProxy has carried a command out before its reply is cut.
        let what = format!("the reply to {prefix:?} is cut");
        mapsmith.wait_for(&what, BOUND, |_| (proxy.shortened() == 1).then_some(()));
        settles(&gateway, &mapsmith, &listed(&masters[1..]));
        assert_eq!(gateway.request("node1").0, 200);
    }
}

#[test]
fn servers_that_cannot_be_seen_from_the_first_look_on_are_told_and_asked_for_no_more_often_than_the_map()
 {
    let masters = masters(&["m1"]);
    let gateway = empty_backend(newest());
    let proxy = AdminProxy::start(&gateway.runtime_address());
    for _ in 0..30 {
        proxy.cut("show servers state", 1, 20);
    }
    let pool = Pool::start(&listed(&masters));
    // What can't be seen must not be waited for before the map.
    let blind = damped("debounce = \"0s\"\nhold = \"0s\"\n[references]\nunknown = \"keep\"\n");
    let mapsmith = pool.config(&gateway, &proxy.address(), "", &blind).start();
    let status = mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        let status = instance(mapsmith);
        (status["servers"]["state"] == "failed" && status["state"] == "in_sync").then_some(status)
    });
    assert!(
        status["servers"]["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{status:#}"
    );
    settles(&gateway, &mapsmith, &listed(&masters));
    let commands = proxy.commands();
    let count =
        |prefix: &str| commands.iter().filter(|command| command.line.starts_with(prefix)).count();
    // A failed look ends the cycle's look at the servers, and each cycle begins with a probe.
    let (looks, probes) = (count("show servers state"), count("show info"));
    assert!(looks <= probes + 10, "{looks} looks in {probes} cycles");
    assert_eq!(
        mapsmith.log().matches("the answer was cut").count(),
        1,
        "one line for one condition: {}",
        mapsmith.log()
    );
}

#[test]
fn a_mapsmith_killed_between_the_steps_of_a_change_goes_on_with_it() {
    for binary in oldest_and_newest() {
        // Before HAProxy has the command, and after; of an addition, and of each step of a removal.
        for (prefix, nth, before, after) in
            [("add server", 1, 1, 3), ("set server", 2, 3, 1), ("del server", 1, 3, 1)]
        {
            for arrives in [true, false] {
                let masters = masters(&["m1", "m2", "m3"]);
                let gateway = empty_backend(binary);
                let proxy = AdminProxy::start(&gateway.runtime_address());
                let pool = Pool::start(&listed(&masters[..before]));
                let mut mapsmith =
                    pool.config(&gateway, &proxy.address(), "manage = \"all\"", "").start();
                settles(&gateway, &mapsmith, &listed(&masters[..before]));
                proxy.hold(prefix, nth);
                pool.lists(&listed(&masters[..after]));
                proxy.wait_held();
                mapsmith.kill();
                if arrives {
                    proxy.forward()
                } else {
                    proxy.lose()
                }
                mapsmith.restart();
                settles(&gateway, &mapsmith, &listed(&masters[..after]));
                assert_eq!(gateway.request("node1").0, 200, "{prefix}");
            }
        }
    }
}

#[test]
fn a_haproxy_reloaded_while_a_server_drains_gets_the_same_list_again() {
    for binary in oldest_and_newest() {
        let slow = Slow::start();
        let quick = Master::start("quick");
        let lines = format!("{ROUND_ROBIN}    server slow {}\n", slow.address);
        let mut gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &lines)
            .master_worker()
            .start();
        let pool = Pool::start(&[("slow", slow.address)]);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "drain = \"10m\"", "").start();
        settles(&gateway, &mapsmith, &[("slow", slow.address)]);
        let request = slow.begin(&gateway);
        pool.lists(&[("quick", quick.address())]);
        mapsmith.wait_for("it drains", BOUND, |_| {
            (servers(&gateway).get("slow")?.1 != 0).then_some(())
        });
        gateway.reload();
        // The new worker has the configuration's server, ready, and no session on it.
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
        assert_eq!(answering(&gateway, 3), ["quick"]);
        slow.answer.send(()).unwrap();
        assert_eq!(
            request.join().unwrap(),
            (200, "slow".to_owned()),
            "the old worker ends what it has"
        );
    }
}

#[test]
fn a_server_that_a_killed_mapsmith_was_taking_away_serves_again_once_it_is_listed() {
    for command in ["state maint", "del server"] {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(newest());
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters));
        let store = "[store]\npath = \"mapsmith.db\"\n";
        let all = "manage = \"all\"";
        let mut mapsmith = pool.config(&gateway, &proxy.address(), all, store).start();
        settles(&gateway, &mapsmith, &listed(&masters));
        // It is drained by then, or in maintenance, and nothing that outlives Mapsmith says by whom.
        match command {
            "del server" => proxy.hold("del server", 1),
            state => proxy.hold(&format!("set server {BACKEND}/m2 {state}"), 1),
        }
        pool.lists(&listed(&masters[..1]));
        proxy.wait_held();
        mapsmith.kill();
        proxy.lose();
        assert_ne!(servers(&gateway)["m2"].1, 0, "{command}: it was on its way out");
        pool.lists(&listed(&masters));
        mapsmith.restart();
        settles(&gateway, &mapsmith, &listed(&masters));
        assert_eq!(answering(&gateway, 4), ["m1", "m2"], "{command}");
    }
}
