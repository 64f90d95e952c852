//! A registry whose list comes and goes.

use super::{assert_none_failed, changes, damped, empty_backend, listed, looks_on, masters};
use crate::support::admin_proxy::AdminProxy;
use crate::support::load::Load;
use crate::support::pool::{Pool, list, ready, settles};
use crate::support::scene::oldest_and_newest;

#[test]
fn a_registry_that_is_empty_or_halved_or_flaps_does_not_make_haproxy_flap() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3", "m4"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters));
        let calm = damped("debounce = \"1s\"\nhold = \"1h\"\n");
        let mapsmith =
            pool.config(&gateway, &proxy.address(), "options = [\"check\"]", &calm).start();
        settles(&gateway, &mapsmith, &listed(&masters));
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
        let before = proxy.commands().len();
        // Half of it gone and back, each second: a reload waits for the quiet second.
        for turn in 0..6 {
            let half = if turn % 2 == 0 { &masters[..2] } else { &masters[..] };
            pool.lists(&listed(half));
            let (status, report) = mapsmith.post("/v1/reload?wait=30s");
            assert_eq!(status, 200, "{report:#}");
        }
        pool.lists(&[]);
        let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, 409, "{problem:#}");
        pool.lists(&listed(&masters[..2]));
        assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
        looks_on(&proxy, &mapsmith, 3);
        assert_eq!(changes(&proxy, before), Vec::<String>::new(), "HAProxy was told of it");
        assert_eq!(ready(&gateway), list(&listed(&masters)));
        assert_none_failed(&load.stop());
    }
}

#[test]
fn a_registry_that_flaps_without_any_hold_fails_no_request() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3", "m4"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "drain = \"30s\"", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
        for turn in 0..8 {
            let some = &masters[turn % 2 * 2..][..2];
            pool.lists(&listed(some));
            assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
        }
        pool.lists(&listed(&masters));
        settles(&gateway, &mapsmith, &listed(&masters));
        assert_none_failed(&load.stop());
    }
}
