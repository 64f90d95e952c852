//! What a request is answered that no master owns, in writing.

use super::{asks, masters, plan};
use crate::support::haproxy::installed;
use crate::support::http;
use crate::support::owners::Owners;

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
