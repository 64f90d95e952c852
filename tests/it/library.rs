//! The examples of `haproxy-runtime`, as its users run them.

use crate::support::haproxy::{Gateway, installed};

#[allow(dead_code, reason = "an example's main is its own")]
#[path = "../../crates/haproxy-runtime/examples/servers.rs"]
mod servers;
#[allow(dead_code, reason = "an example's main is its own")]
#[path = "../../crates/haproxy-runtime/examples/swap_map.rs"]
mod swap_map;

#[tokio::test]
async fn the_librarys_examples_swap_a_map_and_list_and_drain_servers_in_every_haproxy() {
    for binary in installed() {
        let version = binary.version;
        let master = ([127, 0, 0, 1], 9).into();
        let gateway = Gateway::plan(binary).entry("old", "m1").master("m1", master).start();
        let address = gateway.runtime_address();
        let map = gateway.map_path();
        let live = swap_map::swap(&address, map, &[("n1", "m1"), ("n2", "m1")]).await;
        live.unwrap_or_else(|error| panic!("HAProxy {version:?}: {error}"));
        let mut memory = gateway.memory_map();
        memory.sort();
        let entry = |node: &str| (node.to_owned(), "m1".to_owned());
        assert_eq!(memory, [entry("n1"), entry("n2")], "HAProxy {version:?}");

        let client = servers::client(&address).expect("the address is one");
        let listed = servers::list(&client).await.expect("the servers are listed");
        let line = listed.lines().find(|line| line.contains("127.0.0.1:9"));
        let at = line.and_then(|line| line.split(' ').next()).expect("the master is listed");
        servers::drain(&client, at).await.expect("the server drains");
        let listed = servers::list(&client).await.expect("the servers are listed");
        let drains = |line: &str| line.starts_with(at) && line.ends_with("DRAIN");
        assert!(listed.lines().any(drains), "HAProxy {version:?}: {listed}");
    }
}
