//! `examples/zookeeper-registrar.toml`, started as it stands against a real ZooKeeper: with free
//! ports, a folder of the test's, checks that do not take half a minute, and no damping.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::{Ground, Managed, PATIENCE};
use crate::render::running::ask;
use crate::support::free_port;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::newest;
use crate::support::zookeeper::ZooKeeper;

/// The example, with each text replaced.
fn example(replacements: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/zookeeper-registrar.toml");
    let mut text = fs::read_to_string(path).expect("the example");
    for (from, to) in replacements {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn the_registrars_example_sends_each_request_to_a_host_that_is_registered() {
    let [secure, insecure, buckets, late] =
        ["secure", "insecure", "buckets", "late"].map(Master::start);
    let zookeeper = ZooKeeper::start();
    let manta = "/com/example/region/manta";
    let host = json!({"type": "host", "address": "127.0.0.1", "host": {"address": "127.0.0.1"}});
    let balancer = |ports: &[u16]| {
        let own = json!({"address": "127.0.0.1", "ports": ports});
        json!({"type": "load_balancer", "address": "127.0.0.1", "load_balancer": own}).to_string()
    };
    zookeeper.create(&format!("{manta}/4afa9ff4"), &host.to_string());
    zookeeper.create(&format!("{manta}/5c679a71"), &balancer(&[]));
    let ports = [buckets.address().port(), late.address().port()];
    let of_buckets = "/com/example/region/buckets-api/cdf37eb6";
    zookeeper.create(of_buckets, &balancer(&ports[..1]));

    let ground = Ground::new(newest());
    let [external, metrics] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let port = |master: &Master| format!("ports = [{}]", master.address().port());
    let folder = ground.path().display();
    let text = example(&[
        ("\"127.0.0.1:2181\"", &format!("\"{}\"", zookeeper.address())),
        ("\"127.0.0.1:8080\"", &format!("\"{}\"", ground.web)),
        ("\"127.0.0.1:8081\"", &format!("\"{external}\"")),
        ("\"127.0.0.1:8405\"", &format!("\"{metrics}\"")),
        ("\"/var/lib/mapsmith/haproxy\"", &format!("\"{folder}\"")),
        ("\"/var/lib/mapsmith/mapsmith.db\"", &format!("\"{folder}/mapsmith.db\"")),
        ("ports = [80]", &port(&secure)),
        ("ports = [81]", &port(&insecure)),
        ("interval = \"30s\"", "interval = \"200ms\""),
        ("debounce    = \"2s\"", "debounce    = \"0s\""),
    ]);
    let program = ground.binary.path.to_str().expect("a path in UTF-8");
    let config = Mapsmith::config(&text).variable("MAPSMITH__HAPROXY__BINARY", program);
    let managed = Managed { mapsmith: config.start(), ground };
    managed.wait_for_state("in_force");
    let web = managed.ground.web;
    let answered = |address, path: &str, name: &str| {
        managed.mapsmith.wait_for(&format!("{name} answers {path}"), PATIENCE, |_| {
            let reply = ask(address, &format!("GET {path}"), &[]);
            (reply.status == 200 && reply.body == name).then_some(())
        });
    };
    answered(web, "/", "secure");
    answered(external, "/", "insecure");
    answered(web, "/user/buckets/a", "buckets");
    // A record that names another port besides is another server.
    zookeeper.set(of_buckets, balancer(&ports).as_bytes());
    answered(web, "/user/buckets/a", "late");
    assert_eq!(managed.ground.reloads(), 0);
}
