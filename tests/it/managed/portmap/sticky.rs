//! Two gateways with one portmap: a client that comes back by the other one keeps its server.

use serde_json::json;

use super::{Ground, PATIENCE, Site, free_port};
use crate::render::running::ask;
use crate::support::dns::Bind;
use crate::support::eventually;
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

/// A listener of the portmap at one address of loopback, so that two gateways have the same port.
fn gateway(
    at: u8,
    binary: &'static crate::support::haproxy::Binary,
    portmap: &str,
    dns: &str,
) -> Site {
    let ground = Ground::new(binary);
    let metadata = ground.file("metadata.json");
    super::write(&metadata, &json!({"loadbalancer": "true", "portmap": portmap}));
    let place = format!("path = {:?}", metadata.display().to_string());
    let more = format!(
        "[[source]]\nname = \"dns\"\ntype = \"dns\"\nservers = [\"{dns}\"]\nmin_ttl = \"1s\"\n"
    );
    let text =
        super::settings(&place, &more).replace("\"127.0.0.1\"\n", &format!("\"127.0.0.{at}\"\n"));
    let settings = ground.settings("own", &text);
    let mapsmith = super::Mapsmith::config(&settings).start();
    let managed = super::Managed { mapsmith, ground };
    managed.wait_for_state("in_force");
    Site { managed, metadata }
}

#[test]
fn a_clients_cookie_of_one_gateway_leads_to_the_same_server_by_the_other() {
    let masters = Master::at_one_port(6);
    let records: Vec<_> =
        masters.iter().map(|it| format!("web.example.test. 1 A {}", it.address().ip())).collect();
    let bind = Bind::start(&records.iter().map(String::as_str).collect::<Vec<_>>());
    let port = free_port();
    let portmap = format!("http://{port}:web.example.test:{}", masters[0].address().port());
    let [old, new] = oldest_and_newest();
    // Another service beside it, and another order, change nothing.
    let other = format!("tcp://{}:web.example.test:1 {portmap}{{check:/}}", free_port());
    let gateways =
        [gateway(1, old, &portmap, &bind.address()), gateway(2, new, &other, &bind.address())];
    let at = |gateway: u8| ([127, 0, 0, gateway], port).into();
    for (index, _) in gateways.iter().enumerate() {
        let address = at(index as u8 + 1);
        eventually("the gateway has its servers", PATIENCE, || {
            std::net::TcpStream::connect(address).ok()?;
            (ask(address, "GET /", &[]).status == 200).then_some(())
        });
    }
    let mut servers = std::collections::BTreeSet::new();
    for round in 0..12 {
        let (first, second) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        let reply = ask(at(first), "GET /", &[]);
        let cookie = reply.header("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("its name and value").to_owned();
        assert!(cookie.starts_with("CLOUD-TRITONCOMPUTE-RS="), "{cookie}");
        for _ in 0..3 {
            let back = ask(at(second), "GET /", &[("Cookie", &cookie)]);
            assert_eq!((back.status, &back.body), (200, &reply.body), "{cookie}");
        }
        servers.insert(reply.body);
    }
    assert!(servers.len() > 1, "all requests went to {servers:?}");
}
