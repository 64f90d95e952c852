//! `examples/proxymgr.toml`, started as it stands against a real ZooKeeper, with free ports and a
//! folder of the test's.

use std::net::SocketAddr;

use serde_json::json;

use super::{Ground, Managed, Mapsmith, ZooKeeper, answer, declare, example, free_port, register};
use crate::support::master::Master;
use crate::support::scene::newest;

#[test]
fn proxymgrs_example_serves_the_services_of_its_path() {
    let [web, api] = ["web", "api"].map(Master::start);
    let zookeeper = ZooKeeper::start();
    let [port, second] = [(); 2].map(|()| free_port());
    // As ProxyMgr's README has it, but for its addresses.
    let service = json!({
        "type": "zookeeper",
        "server": zookeeper.address().to_string(),
        "path": "/services/testservice",
        "port": port,
        "listen_options": ["mode http"],
        "server_options": ["check inter 2000"],
    });
    declare(&zookeeper, "testservice", &service);
    register(&zookeeper, "testservice", &web);
    let ground = Ground::new(newest());
    let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let folder = ground.path().display();
    let text = example(&[
        ("\"127.0.0.1:2181\"", &format!("\"{}\"", zookeeper.address())),
        ("\"127.0.0.1:8405\"", &format!("\"{metrics}\"")),
        ("\"/var/lib/mapsmith/haproxy\"", &format!("\"{folder}\"")),
        ("\"/var/lib/mapsmith/mapsmith.db\"", &format!("\"{folder}/mapsmith.db\"")),
        ("\"/etc/mapsmith/lists\"", &format!("\"{folder}/lists\"")),
    ]);
    let program = ground.binary.path.to_str().expect("a path in UTF-8");
    let config = Mapsmith::config(&text).variable("MAPSMITH__HAPROXY__BINARY", program);
    let managed = Managed { mapsmith: config.start(), ground };
    let answered = |port: u16, name: &str| {
        managed.mapsmith.wait_for(&format!("{name} answers"), super::PATIENCE, |_| {
            (answer(port).ok()? == name).then_some(())
        });
    };
    answered(port, "web");
    register(&zookeeper, "api", &api);
    let mut other = service.clone();
    (other["port"], other["path"]) = (json!(second), json!("/services/api"));
    declare(&zookeeper, "api", &other);
    answered(second, "api");
    answered(port, "web");
}
