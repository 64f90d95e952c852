//! A removed server ends what it has begun before it goes.

use super::{answering, empty_backend, listed, masters, under_way};
use crate::support::pool::{Pool, instance, ready, servers, settles};
use crate::support::scene::{BOUND, oldest_and_newest};

#[test]
fn a_removed_server_finishes_what_it_has_under_way_before_it_goes() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, slow, quick, request) = under_way(binary, "10m");
        pool.lists(&[("quick", quick.address())]);
        mapsmith.wait_for("the server drains, with its session told", BOUND, |mapsmith| {
            let removing = instance(mapsmith)["servers"]["removing"].to_string();
            (removing.contains("slow") && removing.contains('1')).then_some(())
        });
        assert_eq!(answering(&gateway, 4), ["quick"], "new requests go elsewhere");
        assert!(servers(&gateway).contains_key("slow"), "it waits for its request");
        assert!(!request.is_finished());
        slow.answer.send(()).unwrap();
        assert_eq!(request.join().unwrap(), (200, "slow".to_owned()));
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
    }
}

#[test]
fn a_removed_server_goes_when_the_bound_is_over_though_a_request_is_under_way() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, _slow, quick, request) = under_way(binary, "1s");
        pool.lists(&[("quick", quick.address())]);
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
        let (status, _) = request.join().unwrap();
        assert_ne!(status, 200, "its session was shut");
    }
}

#[test]
fn a_server_that_comes_back_while_it_drains_is_ready_again() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, slow, quick, request) = under_way(binary, "10m");
        let both = [("quick", quick.address()), ("slow", slow.address)];
        pool.lists(&both[..1]);
        mapsmith.wait_for("it drains", BOUND, |_| {
            (servers(&gateway).get("slow")?.1 != 0).then_some(())
        });
        pool.lists(&both);
        settles(&gateway, &mapsmith, &both);
        slow.answer.send(()).unwrap();
        assert_eq!(request.join().unwrap(), (200, "slow".to_owned()));
    }
}

#[test]
fn a_server_that_the_map_routes_nodes_to_stays_until_they_have_gone_elsewhere() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        pool.routes("node1", "m1");
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));
        pool.lists(&listed(&masters[1..]));
        mapsmith.wait_for("it is known why the server stays", BOUND, |mapsmith| {
            let removing = instance(mapsmith)["servers"]["removing"].to_string();
            (removing.contains("app/m1") && removing.contains("the map still routes nodes to it"))
                .then_some(())
        });
        assert!(ready(&gateway).contains_key("m1"), "it serves on");
        pool.routes("node1", "m2");
        settles(&gateway, &mapsmith, &listed(&masters[1..]));
    }
}
