//! Servers of a portmap, from a real name server.

use serde_json::{Value, json};

use super::{PATIENCE, Site, free_port};
use crate::support::dns::{Bind, Dnsmasq};
use crate::support::master::Master;
use crate::support::scene::newest;

fn source(address: &str) -> String {
    format!(
        "[[source]]\nname = \"dns\"\ntype = \"dns\"\nservers = [\"{address}\"]\nmin_ttl = \"1s\"\n\
            max_ttl = \"1s\"\n"
    )
}

impl Site {
    /// What status says of a backend.
    fn backend(&self, name: &str) -> Value {
        let status = self.managed.mapsmith.get("/v1/status").1;
        let backends = status["backends"].as_array().expect("backends");
        backends.iter().find(|backend| backend["name"] == name).cloned().unwrap_or_default()
    }
}

#[test]
fn a_name_with_a_port_is_its_addresses_and_one_without_its_srv_records() {
    let [web, api] = ["web", "api"].map(Master::start);
    let records = [
        "host-record=web.example.test,127.0.0.1".to_owned(),
        format!("srv-host=api.example.test,web.example.test,{},0,10", api.address().port()),
        format!("srv-host=_api._tcp.example.test,web.example.test,{},0,10", api.address().port()),
    ];
    let dns = Dnsmasq::start(&records.each_ref().map(String::as_str));
    let [by_name, by_srv, by_service] = [(); 3].map(|()| free_port());
    let portmap = format!(
        "http://{by_name}:Web.Example.Test:{} http://{by_srv}:api.example.test \
            tcp://{by_service}:_api._tcp.example.test",
        web.address().port()
    );
    let site = Site::start(newest(), &portmap, &source(&dns.address()));
    site.wait_for_answer(by_name, "web");
    site.wait_for_answer(by_srv, "api");
    site.wait_for_answer(by_service, "api");
}

#[test]
fn so_many_servers_as_max_rs_says_are_taken_and_those_in_force_stay() {
    let masters = Master::at_one_port(40);
    let port_of_servers = masters[0].address().port();
    let records: Vec<_> =
        masters.iter().map(|it| format!("web.example.test. 1 A {}", it.address().ip())).collect();
    let bind = Bind::start(&records.iter().map(String::as_str).collect::<Vec<_>>());
    let port = free_port();
    let portmap = format!("http://{port}:web.example.test:{port_of_servers}");
    let site = Site::start(newest(), &portmap, &source(&bind.address()));
    let backend = format!("be-{port}");
    let wait_for = |count: usize, beyond: usize| {
        let what = format!("{count} servers, and {beyond} beyond");
        site.managed.mapsmith.wait_for(&what, PATIENCE, |_| {
            let status = site.backend(&backend);
            let servers = status["servers"].as_array()?;
            let left_out = status["beyond_max"].as_u64().unwrap_or_default();
            let is_so = servers.len() == count && left_out == beyond as u64;
            is_so.then(|| servers.iter().map(|it| it["name"].to_string()).collect::<Vec<_>>())
        })
    };
    // 32 unless the metadata says otherwise.
    let before = wait_for(32, 8);
    bind.update(&["add web.example.test. 1 A 127.0.0.0"]);
    assert_eq!(wait_for(32, 9), before, "a lower address takes nobody's place");
    site.say(&json!({"loadbalancer": "true", "portmap": portmap, "max_rs": "36"}));
    wait_for(36, 5);
    let gone: Vec<_> =
        (1..=6).map(|host| format!("delete web.example.test. A 127.0.0.{host}")).collect();
    bind.update(&gone.iter().map(String::as_str).collect::<Vec<_>>());
    let after = wait_for(35, 0);
    assert!(!after.iter().any(|name| name.contains("\"127.0.0.1:")), "{after:?}");
}
