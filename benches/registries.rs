//! From a change in each kind of registry to the first request that its new server answers:
//! `scripts/bench registries [--quick] [KIND...]`.
//!
//! The daemon between a real registry and a HAProxy, a master in this process for each change, and
//! no damping. A change is a server more. It counts from before its writer begins; then HAProxy is
//! asked every millisecond whether the server is there and ready; then the new server is asked for
//! by name until it answers. Between every two changes the floor: the same commands sent by the
//! simplest client, with the same questions after them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::{Daemon, Gateway, PATIENCE, haproxies, status};
use serde_json::json;
use testkit::consul::{Consul, Service};
use testkit::dns::Bind;
use testkit::etcd::Etcd;
use testkit::master::Master;
use testkit::registry::Registry;
use testkit::zookeeper::ZooKeeper;

const CHANGES: usize = 50;
const QUICK_CHANGES: usize = 5;
/// Between two questions for what is to come.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// The longest rest between two changes, which begin at random moments.
const LONGEST_REST: Duration = Duration::from_millis(1500);

/// A registry whose list of servers grows.
trait Site {
    /// The `[[source]]` without its name, the backend's `from` beside the source, and how often the
    /// source is polled.
    fn settings(&self) -> (String, String, &'static str);
    /// Adds the last of these servers; the others are there.
    fn add(&self, servers: &[SocketAddr]);
}

/// A kind's name, and how its registry is started, with a folder of its own.
type Kind = (&'static str, fn(&Path) -> Box<dyn Site>);

/// Every kind that is measured. Those that tell of their changes are polled by nobody else.
const KINDS: [Kind; 6] = [
    ("file", |folder| Box::new(InFile(folder.join("servers.json")))),
    ("http_json", |_| Box::new(OverHttp(Registry::start(&[])))),
    ("consul", |folder| {
        let consul = Consul::start();
        let token = folder.join("token");
        fs::write(&token, consul.management_token()).expect("the token can be written");
        Box::new(InConsul(consul, token))
    }),
    ("zookeeper", |_| Box::new(InZooKeeper(ZooKeeper::start()))),
    ("etcd", |_| Box::new(InEtcd(Etcd::start()))),
    ("dns", |_| Box::new(InDns(Bind::start(&["host.example.test. 1 A 127.0.0.1"])))),
];

const NEVER: &str = "1h";
const EVERY_SECOND: &str = "1s";

fn rows(servers: &[SocketAddr]) -> String {
    let row = |server: &SocketAddr| json!({"address": server.ip(), "port": server.port()});
    json!(servers.iter().map(row).collect::<Vec<_>>()).to_string()
}

struct InFile(PathBuf);

impl Site for InFile {
    fn settings(&self) -> (String, String, &'static str) {
        (format!("type = \"file\"\npath = {:?}", self.0), String::new(), NEVER)
    }

    fn add(&self, servers: &[SocketAddr]) {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, rows(servers)).expect("the file can be written");
        fs::rename(&fresh, &self.0).expect("the file can be put in place");
    }
}

struct OverHttp(Registry);

impl Site for OverHttp {
    fn settings(&self) -> (String, String, &'static str) {
        let source = format!("type = \"http_json\"\nurl = \"{}\"", self.0.url());
        (source, String::new(), EVERY_SECOND)
    }

    fn add(&self, servers: &[SocketAddr]) {
        self.0.answers(200, &rows(servers));
    }
}

struct InConsul(Consul, PathBuf);

impl Site for InConsul {
    fn settings(&self) -> (String, String, &'static str) {
        let source =
            format!("type = \"consul\"\nurl = {:?}\ntoken_file = {:?}", self.0.url(), self.1);
        (source, ", service = \"web\"".to_owned(), NEVER)
    }

    fn add(&self, servers: &[SocketAddr]) {
        let Some(new) = servers.last() else { return };
        let (id, address) = (format!("web{}", servers.len()), new.ip().to_string());
        self.0.register(&Service::new(&id, "web", &address, new.port()));
    }
}

struct InZooKeeper(ZooKeeper);

impl Site for InZooKeeper {
    fn settings(&self) -> (String, String, &'static str) {
        let source = format!("type = \"zookeeper\"\nservers = [\"{}\"]", self.0.address());
        (source, ", format = \"proxymgr\", path = \"/web\"".to_owned(), NEVER)
    }

    fn add(&self, servers: &[SocketAddr]) {
        let Some(new) = servers.last() else { return };
        let row = json!({"address": new.ip(), "port": new.port()}).to_string();
        self.0.create(&format!("/web/n{}", servers.len()), &row);
    }
}

struct InEtcd(Etcd);

impl Site for InEtcd {
    fn settings(&self) -> (String, String, &'static str) {
        let source = format!("type = \"etcd\"\nendpoints = [\"{}\"]", self.0.url());
        (source, ", prefix = \"/web/\", format = \"address\"".to_owned(), NEVER)
    }

    fn add(&self, servers: &[SocketAddr]) {
        let Some(new) = servers.last() else { return };
        self.0.put(&format!("/web/n{}", servers.len()), &new.to_string());
    }
}

struct InDns(Bind);

impl Site for InDns {
    fn settings(&self) -> (String, String, &'static str) {
        let address = self.0.address();
        let source = format!("type = \"dns\"\nservers = [\"{address}\"]\nmin_ttl = \"1s\"");
        (source, ", srv = \"_web._tcp.example.test\"".to_owned(), NEVER)
    }

    fn add(&self, servers: &[SocketAddr]) {
        let Some(new) = servers.last() else { return };
        let record = format!("SRV 0 1 {} host.example.test.", new.port());
        self.0.update(&[&format!("add _web._tcp.example.test. 1 {record}")]);
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let changes = if quick { QUICK_CHANGES } else { CHANGES };
    let binary = haproxies().pop().ok_or_else(|| anyhow::anyhow!("no HAProxy: scripts/setup"))?;
    println!("milliseconds from before the registry's write; {changes} changes of one server each");
    println!("               write       ready           first request");
    println!("                 p50      p50      p99      p50      p99");
    for (kind, start) in KINDS {
        if named.is_empty() || named.iter().any(|name| *name == kind) {
            measure(kind, start, &binary, changes)?;
        }
    }
    Ok(())
}

/// How long each part of a change took, from its beginning.
struct Took {
    write: Duration,
    ready: Duration,
    answered: Duration,
}

fn measure(
    kind: &str,
    start: fn(&Path) -> Box<dyn Site>,
    binary: &Path,
    changes: usize,
) -> anyhow::Result<()> {
    let sections = |root: &str| {
        let backend = |name: &str| {
            format!(
                "backend {name}\n  balance roundrobin\n  use-server %[req.hdr(x-server)] if TRUE\n"
            )
        };
        format!(
            "frontend gateway\n  bind unix@{root}/http.sock\n  http-request set-header x-master \
                %[str(node1),map_str({root}/n.map,none)]\n  \
                use_backend %[req.hdr(x-backend)]\n{}{}",
            backend("web"),
            backend("floor")
        )
    };
    let map = |root: &Path| fs::write(root.join("n.map"), "node1 web\n");
    let gateway = Gateway::start(binary, 2, map, sections)?;
    let root = gateway.folder.path();
    let site = start(root);
    let masters: Vec<_> =
        (0..=2 * changes).map(|number| Master::start(&format!("m{number}"))).collect();
    let mut servers = vec![masters[0].address()];
    site.add(&servers);
    write_settings(root, site.as_ref())?;
    let mut daemon = Daemon::start(root)?;
    let api = daemon.api(&root.join("log"))?;
    let begun = Instant::now();
    while status(&api)?["instances"][0]["servers"]["state"] != "in_sync" {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "not in sync: {:#}", status(&api)?);
        thread::sleep(ASK_EVERY);
    }
    let (mut found, mut floor) = (Vec::new(), Vec::new());
    for pair in masters[1..].chunks_exact(2) {
        thread::sleep(LONGEST_REST.mul_f64(fastrand::f64()));
        servers.push(pair[0].address());
        found.push(change(&gateway, "web", &pair[0], || site.add(&servers))?);
        let at = format!("floor/{}", pair[1].name());
        let commands = format!("add server {at} {};enable server {at}\n", pair[1].address());
        floor.push(change(&gateway, "floor", &pair[1], || {
            gateway.call(commands.as_bytes()).expect("HAProxy answers");
        })?);
    }
    print_row(kind, found);
    print_row("  floor", floor);
    Ok(())
}

/// A node map that nothing looks at, and the registry's list.
fn write_settings(root: &Path, site: &dyn Site) -> anyhow::Result<()> {
    let (source, from, poll) = site.settings();
    fs::write(root.join("nodes.json"), "{\"node1\": \"web\"}")?;
    let settings = format!(
        "[schedule]\npoll = \"{poll}\"\njitter = \"0s\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\n[map]\npath = \"{0}/n.map\"\n\
         [[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"{0}/nodes.json\"\n\
         [[source]]\nname = \"registry\"\n{source}\n\
         [[backend]]\nname = \"web\"\nfrom = {{ source = \"registry\"{from} }}\n\
         [[instance]]\nname = \"edge\"\nruntime = \"unix@{0}/admin.sock\"\n",
        root.display()
    );
    fs::write(root.join("mapsmith.toml"), settings)?;
    Ok(())
}

/// Makes a change, and waits until the server is ready and then until it has answered.
fn change(
    gateway: &Gateway,
    backend: &str,
    new: &Master,
    write: impl FnOnce(),
) -> anyhow::Result<Took> {
    let start = Instant::now();
    write();
    let written = start.elapsed();
    let name = until(|| ready_server(gateway, backend, new.address()))?;
    let ready = start.elapsed();
    until(|| (ask(gateway, backend, &name).ok()? == new.name()).then_some(()))?;
    Ok(Took { write: written, ready, answered: start.elapsed() })
}

fn until<T>(mut there: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(it) = there() {
            return Ok(it);
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "it did not come");
        thread::sleep(ASK_EVERY);
    }
}

/// The name of the server at this address, once HAProxy has it and nothing keeps it out.
fn ready_server(gateway: &Gateway, backend: &str, address: SocketAddr) -> Option<String> {
    let command = format!("show servers state {backend}\n");
    let listing = String::from_utf8_lossy(&gateway.call(command.as_bytes()).ok()?).into_owned();
    let mut lines = listing.lines().skip(1);
    let columns: Vec<_> = lines.next()?.trim_start_matches("# ").split(' ').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name);
    let (ip, port) = (at("srv_addr")?, at("srv_port")?);
    let (name, state, admin) = (at("srv_name")?, at("srv_op_state")?, at("srv_admin_state")?);
    lines.find_map(|line| {
        let values: Vec<_> = line.split(' ').collect();
        let is_it = *values.get(ip)? == address.ip().to_string()
            && *values.get(port)? == address.port().to_string();
        // Running, and in no maintenance.
        let is_ready = *values.get(state)? == "2" && *values.get(admin)? == "0";
        (is_it && is_ready).then(|| (*values.get(name).unwrap_or(&"")).to_owned())
    })
}

/// Who answers a request for this server.
fn ask(gateway: &Gateway, backend: &str, server: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(gateway.folder.path().join("http.sock"))?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nX-Backend: {backend}\r\n\
         X-Server: {server}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).unwrap_or_default())
}

fn print_row(name: &str, found: Vec<Took>) {
    let figure = |of: fn(&Took) -> Duration, part: f64| {
        let mut all: Vec<_> = found.iter().map(of).collect();
        all.sort_unstable();
        let at = ((all.len() as f64 * part).ceil() as usize).clamp(1, all.len()) - 1;
        format!("{:>9.1}", all[at].as_secs_f64() * 1000.0)
    };
    println!(
        "  {name:<9}{}{}{}{}{}",
        figure(|took| took.write, 0.5),
        figure(|took| took.ready, 0.5),
        figure(|took| took.ready, 0.99),
        figure(|took| took.answered, 0.5),
        figure(|took| took.answered, 0.99)
    );
}
