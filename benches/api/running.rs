//! A daemon of 100,000 nodes and two HAProxys: what its API's answers take, how soon a registered
//! node is routed, and what those cost who only follow.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::common::maps::{Registry, nodes};
use crate::common::{Daemon, Gateway, PATIENCE, haproxies, processor};
use crate::crowd;
use crate::figures::{quantile, row};

const ENTRIES: usize = 100_000;
/// How many requests of a kind are asked one after the other.
const ASKED: usize = 500;
/// How many nodes are registered one by one.
const REGISTERED: usize = 200;
/// How many a second, and for how many seconds.
const RATE: usize = 1000;
const SECONDS: usize = 10;
/// How many of the clients look whether a node is routed, and after how many requests each.
const LOOKERS: usize = 4;
const LOOKS: usize = 5;
/// Streams of each of so many tokens.
const STREAMS: usize = 20;
const TOKENS: usize = 25;
/// How long cost is taken for.
const WHILE: Duration = Duration::from_secs(10);
pub const TOKEN: &str = "a token of this benchmark";

pub fn measure() -> anyhow::Result<()> {
    let binary = haproxies().pop().context("no HAProxy: run scripts/setup")?;
    let maps = tempfile::tempdir()?;
    let map = maps.path().join("n.map");
    fs::write(&map, "")?;
    let gateways = [gateway(&binary, &map)?, gateway(&binary, &map)?];
    let registry = Registry::start(&[nodes(ENTRIES, 0)])?;
    let folder = tempfile::tempdir()?;
    let mut daemon = start(folder.path(), &map, &gateways, &registry)?;
    let url = daemon.api(&folder.path().join("log"))?;
    let mut api = Connection::open(&url)?;
    api.expect("POST", "/v1/reload?wait=60s", "")?;
    let held = |gateway: &Gateway| Entry::open(gateway, &map)?.value("node0000000.example.test");
    for gateway in &gateways {
        anyhow::ensure!(held(gateway)?.is_some(), "a HAProxy does not have the map");
    }
    println!(
        "\na daemon of {ENTRIES} nodes and two HAProxys {}; milliseconds, p50 / p99",
        gateways[0].version
    );
    measure_answers(&mut api)?;
    measure_registrations(&mut api, &gateways, &map)?;
    measure_rate(&url, &daemon, &gateways, &map)?;
    drop(daemon);
    measure_streams(&gateways, &map, &registry)
}

/// A HAProxy with this map, which is one file of all.
pub fn gateway(binary: &Path, map: &Path) -> anyhow::Result<Gateway> {
    Gateway::start(
        binary,
        1,
        |_| Ok(()),
        |root| {
            format!(
                "frontend gateway\n  bind unix@{root}/http.sock\n  use_backend \
                 %[req.hdr(X-Node-Name),lower,map_str({},none)]\nbackend none\n",
                map.display()
            )
        },
    )
}

/// A daemon that writes the map file of the first HAProxy.
fn start(
    root: &Path,
    map: &Path,
    gateways: &[Gateway],
    registry: &Registry,
) -> anyhow::Result<Daemon> {
    start_with(root, map, gateways, registry, "[api]\nlisten = \"127.0.0.1:0\"\n")
}

/// `more` are settings, of the API among them.
pub fn start_with(
    root: &Path,
    map: &Path,
    gateways: &[Gateway],
    registry: &Registry,
    more: &str,
) -> anyhow::Result<Daemon> {
    let instances = (1..).zip(gateways).map(|(number, gateway)| {
        format!(
            "[[instance]]\nname = \"edge{number}\"\nruntime = \"unix@{}\"\n",
            gateway.socket().display()
        )
    });
    fs::write(
        root.join("mapsmith.toml"),
        format!(
            "{more}[schedule]\npoll = \"1h\"\n[map]\npath = {:?}\n[store]\npath = \
             \"mapsmith.db\"\n[damping]\nhold = \"0s\"\n[[source]]\nname = \"puppetdb\"\ntype = \
             \"puppetdb\"\nurl = {:?}\n[[source]]\nname = \"registered\"\ntype = \
             \"registrations\"\npriority = 10\n{}",
            map.display().to_string(),
            registry.url,
            instances.collect::<String>()
        ),
    )?;
    Ok(Daemon::start(root)?)
}

/// A connection to the API that is kept.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        self.ask_with(method, path, "", body)
    }

    /// `headers` are whole lines.
    fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).context("no status")?;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    pub fn expect(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let answer = self.ask(method, path, body)?;
        Self::good(method, path, answer)
    }

    /// Where this revision is in force.
    pub fn expect_if(&mut self, method: &str, path: &str, revision: u64) -> anyhow::Result<()> {
        let condition = match method {
            "GET" => String::new(),
            _ => format!("If-Match: \"{revision:x}\"\r\n"),
        };
        let answer = self.ask_with(method, path, &condition, "")?;
        Self::good(method, path, answer)
    }

    fn good(method: &str, path: &str, (status, answer): (u16, Vec<u8>)) -> anyhow::Result<()> {
        let answer = String::from_utf8_lossy(&answer);
        anyhow::ensure!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        Ok(())
    }
}

/// A connection of the Runtime API that looks up nodes.
struct Entry {
    stream: BufReader<UnixStream>,
    map: String,
}

impl Entry {
    fn open(gateway: &Gateway, map: &Path) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(gateway.socket())?;
        stream.write_all(b"prompt\n")?;
        let mut entry = Self { stream: BufReader::new(stream), map: map.display().to_string() };
        entry.answer()?;
        Ok(entry)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n> ") {
            let read = self.stream.read_until(b' ', &mut answer)?;
            anyhow::ensure!(read > 0, "HAProxy has closed the connection");
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn command(&mut self, line: &str) -> anyhow::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        self.answer()
    }

    /// The master that HAProxy would route the node to.
    fn value(&mut self, node: &str) -> anyhow::Result<Option<String>> {
        let line = format!("get map {} {node}", self.map);
        let answer = self.command(&line)?;
        let value = answer.split("value=\"").nth(1).and_then(|rest| rest.split('"').next());
        Ok(value.map(str::to_owned))
    }
}

fn measure_answers(api: &mut Connection) -> anyhow::Result<()> {
    let mut took = |paths: &mut dyn FnMut(usize) -> String| -> anyhow::Result<Vec<Duration>> {
        (0..ASKED)
            .map(|number| {
                let path = paths(number);
                let start = Instant::now();
                api.expect("GET", &path, "")?;
                Ok(start.elapsed())
            })
            .collect()
    };
    let floor = took(&mut |_| "/healthz".to_owned())?;
    let median = quantile(&floor, 0.5);
    row("/healthz, the floor", &floor, None);
    let node = |number: usize| format!("node{:07}.example.test", number * 199 % ENTRIES);
    for (name, mut path) in [
        (
            "explain",
            Box::new(|number| format!("/v1/nodes/{}", node(number))) as Box<dyn FnMut(_) -> _>,
        ),
        ("a page of nodes by prefix", Box::new(|_| "/v1/nodes?prefix=node00".to_owned())),
        ("by a part of the name", Box::new(|number| format!("/v1/nodes?contains={number}7"))),
        ("status", Box::new(|_| "/v1/status".to_owned())),
    ] {
        row(name, &took(&mut path)?, Some(median));
    }
    Ok(())
}

/// From before the request until both HAProxys route by it, and the same commands by hand.
fn measure_registrations(
    api: &mut Connection,
    gateways: &[Gateway],
    map: &Path,
) -> anyhow::Result<()> {
    let mut entries = gateways
        .iter()
        .map(|gateway| Entry::open(gateway, map))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (mut routed, mut floor) = (Vec::new(), Vec::new());
    for number in 0..REGISTERED {
        let (node, other) = (format!("new{number}.example.test"), format!("old{number}.test"));
        let start = Instant::now();
        api.expect("PUT", &format!("/v1/nodes/{node}?force=true"), "{\"master\": \"puppet01\"}")?;
        for entry in &mut entries {
            while entry.value(&node)?.is_none() {
                thread::yield_now();
            }
        }
        routed.push(start.elapsed());
        let start = Instant::now();
        for entry in &mut entries {
            let line = format!("add map {} {other} puppet01", entry.map);
            entry.command(&line)?;
            anyhow::ensure!(entry.value(&other)?.is_some(), "it is not there");
            let line = format!("del map {} {other}", entry.map);
            entry.command(&line)?;
        }
        floor.push(start.elapsed());
    }
    row("add, look, delete, by hand", &floor, None);
    row("registered until routed in both", &routed, Some(quantile(&floor, 0.5)));
    Ok(())
}

/// So many a second, in batches and one by one. Each is asked for at its time, however long the
/// others take.
fn measure_rate(
    url: &str,
    daemon: &Daemon,
    gateways: &[Gateway],
    map: &Path,
) -> anyhow::Result<()> {
    for (name, clients, batch) in
        [("registered in batches of 100", 1, 100), ("registered one by one, of 50 clients", 50, 1)]
    {
        let (begin, used) = (Instant::now(), processor(daemon.0.id()));
        let routed = thread::scope(|scope| {
            let register =
                |client| move || register(url, &gateways[1], map, begin, (client, clients), batch);
            let clients: Vec<_> =
                (0..clients).map(|client| scope.spawn(register(client))).collect();
            let ended = clients.into_iter().map(|it| it.join().expect("a client"));
            ended.collect::<anyhow::Result<Vec<_>>>()
        })?;
        let (took, used) = (begin.elapsed(), processor(daemon.0.id()) - used);
        let each = used.as_secs_f64() * 1000.0 / (RATE * SECONDS) as f64;
        row(name, &routed.concat(), None);
        println!(
            "    {:.0} a second; {each:.2} of the daemon's processor time each",
            (RATE * SECONDS) as f64 / took.as_secs_f64()
        );
    }
    Ok(())
}

/// One client's part; how long some of it took, from its time until it was routed.
fn register(
    url: &str,
    gateway: &Gateway,
    map: &Path,
    begin: Instant,
    (client, clients): (usize, usize),
    batch: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut api = Connection::open(url)?;
    // HAProxy's socket takes ten connections, Mapsmith's among them.
    let mut entry = (client < LOOKERS).then(|| Entry::open(gateway, map)).transpose()?;
    let mut routed = Vec::new();
    let requests = RATE * SECONDS / batch / clients;
    for number in 0..requests {
        let first = (number * clients + client) * batch;
        let due = Duration::from_secs_f64(first as f64 / RATE as f64);
        thread::sleep(due.saturating_sub(begin.elapsed()));
        let node = |at: usize| format!("{clients}x{}.example.test", first + at);
        match batch {
            1 => api.expect(
                "PUT",
                &format!("/v1/nodes/{}?force=true", node(0)),
                "{\"master\": \"puppet01\"}",
            )?,
            _ => {
                let all = (0..batch).map(|at| json!({"node": node(at), "master": "puppet01"}));
                let all: Vec<Value> = all.collect();
                api.expect("POST", "/v1/nodes?force=true", &json!(all).to_string())?;
            }
        }
        // Looking costs HAProxy's time, too.
        if let Some(entry) = entry.as_mut().filter(|_| number % LOOKS == 0) {
            while entry.value(&node(batch - 1))?.is_none() {
                anyhow::ensure!(begin.elapsed() < PATIENCE, "{} is not routed", node(batch - 1));
                thread::yield_now();
            }
            routed.push(begin.elapsed() - due);
        }
    }
    Ok(routed)
}

/// Clients of many streams each, which they all have over one connection.
#[derive(Default)]
struct Followers {
    clients: Vec<Child>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Followers {
    fn start(&mut self, url: &str, token: &str, ca: &Path) -> anyhow::Result<()> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--http2", "--parallel", "--header"]);
        curl.arg(format!("Authorization: Bearer {token}")).arg("--cacert").arg(ca);
        curl.args(vec![format!("{url}/v1/events"); STREAMS]).stdout(Stdio::piped());
        // Of transfers side by side it draws a meter, silent or not.
        curl.stderr(Stdio::null());
        let mut client = curl.spawn().context("curl is missing: run scripts/setup")?;
        let stdout = client.stdout.take().context("its output")?;
        let texts = Arc::clone(&self.texts);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                texts.lock().expect("nobody fails while holding it").push(line);
            }
        });
        self.clients.push(client);
        Ok(())
    }

    /// Waits until every stream has had this line.
    async fn have(&self, line: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        let count = || {
            let texts = self.texts.lock().expect("nobody fails while holding it");
            texts.iter().filter(|text| *text == line).count()
        };
        while count() < STREAMS * TOKENS {
            anyhow::ensure!(start.elapsed() < PATIENCE, "{} streams have {line:?}", count());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        for client in &mut self.clients {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// What a daemon costs without streams and with many, and how soon all have an event.
fn measure_streams(gateways: &[Gateway], map: &Path, registry: &Registry) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(root.join("cert.pem"), made.cert.pem())?;
    fs::write(root.join("key.pem"), made.signing_key.serialize_pem())?;
    fs::write(root.join("token"), TOKEN)?;
    let api = "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n[api.tls]\ncert = \
        \"cert.pem\"\nkey = \"key.pem\"\n";
    let mut daemon = start_with(root, map, gateways, registry, api)?;
    let address = daemon.api(&root.join("log"))?;
    let url = address.replace("http://127.0.0.1", "https://localhost");
    let ca = Certificate::from_pem(made.cert.pem().as_bytes())?;
    // The daemon closes what is idle for longer.
    let idle = Duration::from_secs(5);
    let client = || Client::builder().tls_certs_only([ca.clone()]).pool_idle_timeout(idle).build();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let admin = client()?;
        let ready = || async {
            let answer = admin.get(format!("{url}/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let idle = cost(&daemon).await?;
        let mut followers = Followers::default();
        for number in 0..TOKENS {
            followers.start(&url, &token(&admin, &url, number).await?, &root.join("cert.pem"))?;
        }
        followers.have("event: hello").await?;
        let followed = cost(&daemon).await?;
        let order = admin.put(format!("{url}/v1/overrides/node0000001.example.test?force=true"));
        let start = Instant::now();
        let order = order.bearer_auth(TOKEN).json(&json!({"master": "puppet02"})).send().await?;
        anyhow::ensure!(order.status().is_success(), "{}", order.text().await?);
        followers.have("event: override").await?;
        let all_have_it = start.elapsed().as_secs_f64() * 1000.0;
        println!("\n{} streams of events over {TOKENS} connections of HTTP/2", STREAMS * TOKENS);
        println!("  an order until all have its event   {all_have_it:>8.1}");
        println!(
            "  memory {:.0} MB, {:.2} x that without streams; processor time {:.2} % of one, \
                without {:.2} %",
            followed.0 / 1024.0,
            followed.0 / idle.0,
            followed.1 * 100.0,
            idle.1 * 100.0
        );
        drop(followers);
        crowd::measure(&daemon, &admin, &url, root).await
    })
}

pub async fn token(admin: &Client, url: &str, number: usize) -> anyhow::Result<String> {
    let body = json!({"name": format!("follower{number}"), "role": "viewer"});
    let asked = admin.post(format!("{url}/v1/tokens")).bearer_auth(TOKEN).json(&body);
    let made: Value = asked.send().await?.error_for_status()?.json().await?;
    // No more than ten changes a second are taken of one.
    tokio::time::sleep(Duration::from_millis(100)).await;
    made["token"].as_str().map(str::to_owned).context("a token")
}

/// A daemon's memory in KiB, and which part of a processor it uses.
pub async fn cost(daemon: &Daemon) -> anyhow::Result<(f64, f64)> {
    let before = processor(daemon.0.id());
    tokio::time::sleep(WHILE).await;
    let used = processor(daemon.0.id()) - before;
    Ok((daemon.memory("VmRSS:")? as f64, used.as_secs_f64() / WHILE.as_secs_f64()))
}
