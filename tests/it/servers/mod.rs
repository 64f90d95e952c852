//! The backends' server lists: what a registry lists is what HAProxy has, without a reload and
//! without a failed request.

mod checks;
mod dns;
mod drained;
mod flapping;
mod interrupted;
mod joining;
mod leaving;
mod others;
mod reload;
mod rolling;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Binary, Gateway};
use crate::support::http;
use crate::support::load::Answer;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, settles, with_backend};
use crate::support::scene::BOUND;

const ROUND_ROBIN: &str = "    balance roundrobin\n";

/// A gateway that sends its only node to a backend without servers.
fn empty_backend(binary: &Binary) -> Gateway {
    with_backend(Gateway::plan(binary).entry("node1", BACKEND), ROUND_ROBIN).start()
}

fn masters(names: &[&str]) -> Vec<Master> {
    names.iter().map(|name| Master::start(name)).collect()
}

/// The masters as a registry lists them.
fn listed(masters: &[Master]) -> Vec<(&str, SocketAddr)> {
    masters.iter().map(|master| (master.name(), master.address())).collect()
}

/// Who answers the node, in as many requests as there are servers.
fn answering(gateway: &Gateway, requests: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..requests)
        .map(|_| {
            let (status, name) = gateway.request("node1");
            assert_eq!(status, 200, "{name}");
            name
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A column of `show stat` for one of the backend's servers.
fn stat(gateway: &Gateway, server: &str, column: &str) -> String {
    let table = gateway.command(&format!("show stat {BACKEND} 4 -1"));
    let mut lines = table.lines();
    let columns: Vec<_> =
        lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let at = columns
        .iter()
        .position(|name| *name == column)
        .unwrap_or_else(|| panic!("no {column}: {table}"));
    let row = lines.find(|line| line.split(',').nth(1) == Some(server));
    row.and_then(|row| row.split(',').nth(at)).unwrap_or_default().to_owned()
}

/// Every answer under way was 200.
fn assert_none_failed(answers: &[Answer]) {
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).take(5).collect();
    assert!(
        failed.is_empty(),
        "of {} answers these failed, among others: {failed:?}",
        answers.len()
    );
    assert!(!answers.is_empty(), "the load did not run");
}

/// A server that takes a request and answers it when told to.
struct Slow {
    address: SocketAddr,
    answer: mpsc::Sender<()>,
    taken: mpsc::Receiver<()>,
}

impl Slow {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, wait) = mpsc::channel();
        let (took, taken) = mpsc::channel();
        thread::spawn(move || {
            // A health check connects and leaves; a request has a first line.
            for stream in listener.incoming() {
                let mut stream: TcpStream = stream.unwrap();
                let mut first = [0; 1];
                if stream.read(&mut first).unwrap_or(0) == 0 {
                    continue;
                }
                took.send(()).unwrap();
                if wait.recv().is_err() {
                    return;
                }
                // The client may be gone by now, which is what one of the tests is about.
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow",
                );
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        Self { address, answer, taken }
    }

    /// Has a request of the gateway's node under way here; it ends with its status and body.
    fn begin(&self, gateway: &Gateway) -> thread::JoinHandle<(u16, String)> {
        let gateway = gateway.http_address();
        let request = thread::spawn(move || {
            let answer = http::request(gateway, "GET", "/", &[("X-Node-Name", "node1")], "");
            answer.map_or((0, String::new()), |answer| (answer.status, answer.body))
        });
        self.taken.recv().expect("the request arrives");
        request
    }
}

/// A gateway with a slow server that has a request under way, and one that answers at once.
fn under_way(
    binary: &Binary,
    drain: &str,
) -> (Gateway, Pool, Mapsmith, Slow, Master, thread::JoinHandle<(u16, String)>) {
    let slow = Slow::start();
    let quick = Master::start("quick");
    let gateway = empty_backend(binary);
    let pool = Pool::start(&[("slow", slow.address)]);
    let mapsmith = pool
        .config(&gateway, &gateway.runtime_address(), &format!("drain = {drain:?}"), "")
        .start();
    settles(&gateway, &mapsmith, &[("slow", slow.address)]);
    let request = slow.begin(&gateway);
    (gateway, pool, mapsmith, slow, quick, request)
}

/// A schedule without polls of its own, and damping as a test wants it.
fn damped(damping: &str) -> String {
    format!(
        "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers = \"200ms\"\n\
         [damping]\nmax_removed = \"100%\"\nmax_delay = \"10s\"\n{damping}"
    )
}

/// The commands that change something, from the `from`th on.
fn changes(proxy: &AdminProxy, from: usize) -> Vec<String> {
    let commands = proxy.commands()[from..].to_vec();
    commands
        .into_iter()
        .map(|command| command.line)
        .filter(|line| !line.starts_with("show "))
        .collect()
}

/// Waits until Mapsmith has looked at the servers so many times more.
fn looks_on(proxy: &AdminProxy, mapsmith: &Mapsmith, times: usize) {
    let looks = || {
        proxy
            .commands()
            .iter()
            .filter(|command| command.line.starts_with("show servers state"))
            .count()
    };
    let before = looks();
    mapsmith.wait_for("more looks at the servers", BOUND, |_| {
        (looks() >= before + times).then_some(())
    });
}
