//! Services that a ZooKeeper declares, as ProxyMgr's `service_config` did: each is a port of a real
//! HAProxy, and nothing but the registry says so.

mod anew;
mod changes;
mod example;
mod faults;
mod verbs;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::Binary;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::zookeeper::ZooKeeper;
use crate::support::{eventually, free_port, http};

/// The path whose children are services.
const PATH: &str = "/service_config";

/// A ZooKeeper with services, and a HAProxy that serves them.
struct Site {
    zookeeper: ZooKeeper,
    managed: Managed,
}

impl Site {
    /// With a service `shop` of one server.
    fn start(binary: &'static Binary, web: &Master, port: u16, more: &str) -> Self {
        let zookeeper = ZooKeeper::start();
        let ground = Ground::new(binary);
        declare(&zookeeper, "shop", &service(&zookeeper, "shop", port));
        register(&zookeeper, "shop", web);
        let settings = ground.settings("own", &settings(&ground, &zookeeper, more));
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        managed.wait_for_state("in_force");
        let site = Self { zookeeper, managed };
        site.wait_for_answer(port, web.name());
        site
    }

    /// A service of this name, as it should be declared.
    fn service(&self, name: &str, port: u16) -> Value {
        service(&self.zookeeper, name, port)
    }

    fn declare(&self, name: &str, service: &Value) {
        declare(&self.zookeeper, name, service);
    }

    fn change(&self, name: &str, text: &str) {
        self.zookeeper.set(&format!("{PATH}/{name}"), text.as_bytes());
    }

    fn remove(&self, name: &str) {
        self.zookeeper.delete(&format!("{PATH}/{name}"));
    }

    /// Waits until new connections to this port are answered by this server.
    fn wait_for_answer(&self, port: u16, name: &str) {
        let what = format!("{name} answers on port {port}");
        self.managed
            .mapsmith
            .wait_for(&what, PATIENCE, |_| (answer(port).ok()? == name).then_some(()));
    }

    fn wait_until_closed(&self, port: u16) {
        self.managed.mapsmith.wait_for(&format!("port {port} is closed"), PATIENCE, |_| {
            TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
        });
    }

    /// What status says of services.
    fn status(&self) -> Value {
        eventually("the API answers", PATIENCE, || {
            let response = self.managed.mapsmith.try_ask("GET", "/v1/status").ok()?;
            let status: Value = serde_json::from_str(&response.body).ok()?;
            Some(status["services"].clone())
        })
    }

    /// Waits until the reason why this service is rejected has this part.
    fn wait_for_rejected(&self, name: &str, part: &str) -> Value {
        let what = format!("{name} is rejected: {part}");
        self.managed.mapsmith.wait_for(&what, PATIENCE, |_| {
            let status = self.status();
            let rejected = status["rejected"].as_array()?.iter();
            let mut of_name = rejected.filter(|rejected| rejected["name"] == name);
            let found = of_name.find(|one| one["reason"].to_string().contains(part));
            found.cloned()
        })
    }

    fn wait_until_none_is_rejected(&self) {
        self.managed.mapsmith.wait_for("no service is rejected", PATIENCE, |_| {
            self.status()["rejected"].is_null().then_some(())
        });
    }

    /// The file that HAProxy loads.
    fn file(&self) -> String {
        fs::read_to_string(self.managed.ground.file("haproxy.cfg")).expect("the file")
    }
}

/// Settings whose services are in this ZooKeeper.
fn settings(ground: &Ground, zookeeper: &ZooKeeper, more: &str) -> String {
    format!(
        "[[source]]\nname = \"zk\"\ntype = \"zookeeper\"\nservers = [\"{}\"]\n\
        [services]\nfrom = {{ source = \"zk\", path = \"{PATH}\" }}\nfiles = \"{}\"\n{more}\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n",
        zookeeper.address(),
        ground.file("lists").display(),
    )
}

fn service(zookeeper: &ZooKeeper, name: &str, port: u16) -> Value {
    json!({
        "type": "zookeeper",
        "server": zookeeper.address().to_string(),
        "path": format!("/services/{name}"),
        "port": port,
        "listen_options": ["mode http"],
        "server_options": ["check inter 2000"],
    })
}

fn declare(zookeeper: &ZooKeeper, name: &str, service: &Value) {
    zookeeper.create(&format!("{PATH}/{name}"), &service.to_string());
}

/// Registers a server of a service.
fn register(zookeeper: &ZooKeeper, service: &str, server: &Master) {
    let address = server.address();
    let data = json!({"address": address.ip().to_string(), "port": address.port()});
    zookeeper.create(&format!("/services/{service}/{}", server.name()), &data.to_string());
}

/// What a new connection to this port is answered.
pub(super) fn answer(port: u16) -> io::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Ok(http::request(address, "GET", "/", &[], "")?.body)
}

/// A client that asks on new connections, again and again.
pub(super) struct Client {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Client {
    pub(super) fn start(port: u16, expected: &'static str) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            let (mut asked, mut wrong) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                asked += 1;
                match answer(port) {
                    Ok(name) if name == expected => {}
                    other => wrong.push(format!("{other:?}")),
                }
            }
            (asked, wrong)
        });
        Self { ending, thread }
    }

    pub(super) fn assert_all_answered(self) {
        self.ending.store(true, Ordering::Relaxed);
        let (asked, wrong) = self.thread.join().expect("the client's thread");
        assert!(asked > 10 && wrong.is_empty(), "{} of {asked}: {wrong:?}", wrong.len());
    }
}

/// The example, with each text replaced.
fn example(replacements: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxymgr.toml");
    let mut text = fs::read_to_string(path).expect("the example");
    for (from, to) in replacements {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replace(from, to);
    }
    text
}
