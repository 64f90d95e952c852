//! A requested reload is answered once the servers are in HAProxy, or says why they are not.

use super::{damped, empty_backend, listed, masters, under_way};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::Gateway;
use crate::support::pool::{BACKEND, Pool, list, ready, settles, with_backend};
use crate::support::scene::{newest, oldest_and_newest};

#[test]
fn a_reload_is_answered_once_the_servers_are_in_haproxy() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters[..1]));
        // A change waits for quiet first.
        let quiet = damped("debounce = \"500ms\"\nhold = \"0s\"\n");
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", &quiet).start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        for count in [3, 2, 3] {
            pool.lists(&listed(&masters[..count]));
            let (status, report) = mapsmith.post("/v1/reload?wait=30s");
            assert_eq!(status, 200, "{report:#}");
            let there = ready(&gateway);
            assert!(
                list(&listed(&masters[..count]))
                    .iter()
                    .all(|server| there.get(server.0) == Some(server.1)),
                "{there:?}"
            );
            assert_eq!(report["instances"][0]["servers"]["verified"], true, "{report:#}");
        }
    }
}

#[test]
fn a_reload_does_not_wait_for_a_server_to_drain() {
    let (gateway, pool, mapsmith, slow, quick, request) = under_way(newest(), "10m");
    pool.lists(&[("quick", quick.address())]);
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 200, "{report:#}");
    assert!(ready(&gateway).contains_key("quick") && !request.is_finished());
    slow.answer.send(()).unwrap();
    assert_eq!(request.join().unwrap().0, 200);
}

#[test]
fn a_reload_says_which_instance_lacks_its_servers_and_why() {
    let masters = masters(&["m1", "m2"]);
    let gateway =
        with_backend(Gateway::plan(newest()).entry("node1", BACKEND), "    balance static-rr\n")
            .start();
    let pool = Pool::start(&listed(&masters[..1]));
    let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    let message = report["message"].to_string();
    assert!(
        status == 202 && message.contains("edge1") && message.contains("static-rr"),
        "{report:#}"
    );

    // And one whose commands are not answered.
    let gateway = empty_backend(newest());
    let proxy = AdminProxy::start(&gateway.runtime_address());
    let pool = Pool::start(&listed(&masters[..1]));
    let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
    settles(&gateway, &mapsmith, &listed(&masters[..1]));
    proxy.hold("add server", 1);
    pool.lists(&listed(&masters));
    let (status, report) = mapsmith.post("/v1/reload?wait=1s");
    assert!(status == 202 && report["message"].to_string().contains("edge1"), "{report:#}");
    proxy.wait_held();
    proxy.forward();
    settles(&gateway, &mapsmith, &listed(&masters));
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
}
