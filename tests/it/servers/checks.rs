//! No request goes to a server whose check has not passed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{answering, assert_none_failed, empty_backend, listed, masters, stat};
use crate::support::haproxy::{Gateway, installed};
use crate::support::load::Load;
use crate::support::pool::{BACKEND, Pool, instance, ready, settles, with_backend};
use crate::support::scene::{BOUND, oldest_and_newest};

/// A server whose health a test sets: while it is ill it answers 503 to everything, checks
/// (`OPTIONS`) included.
struct Ailing {
    address: SocketAddr,
    ill: Arc<AtomicBool>,
    /// Requests that are no checks, as long as it was ill.
    failed: Arc<AtomicUsize>,
}

impl Ailing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let ailing = Self { address, ill: Arc::new(AtomicBool::new(true)), failed: Arc::default() };
        let (ill, failed) = (ailing.ill.clone(), ailing.failed.clone());
        // It ends with the test's process; how HAProxy leaves a connection is its own affair.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve_ailing(stream, &ill, &failed);
            }
        });
        ailing
    }
}

fn serve_ailing(
    mut stream: TcpStream,
    ill: &AtomicBool,
    failed: &AtomicUsize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let status = if ill.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
    if status.starts_with('5') && !first.starts_with("OPTIONS") {
        failed.fetch_add(1, Ordering::SeqCst);
    }
    stream.write_all(
        format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\nailing")
            .as_bytes(),
    )
}

const HTTP_CHECKED: &str = "    balance roundrobin\n    option httpchk\n";

const CHECKED_OFTEN: &str = "options = [\"check\", \"inter 200ms\"]";

#[test]
fn a_new_server_gets_no_request_before_its_check_has_passed() {
    for binary in installed() {
        let masters = masters(&["m1"]);
        let gateway =
            with_backend(Gateway::plan(binary).entry("node1", BACKEND), HTTP_CHECKED).start();
        let pool = Pool::start(&listed(&masters));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), CHECKED_OFTEN, "").start();
        settles(&gateway, &mapsmith, &listed(&masters));
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 2);
        let ailing = Ailing::start();
        let both = [listed(&masters), vec![("ailing", ailing.address)]].concat();
        pool.lists(&both);
        mapsmith.wait_for("its check fails", BOUND, |_| {
            (stat(&gateway, "ailing", "check_status") == "L7STS").then_some(())
        });
        settles(&gateway, &mapsmith, &both);
        let before = load.answered();
        mapsmith.wait_for("the load goes on", BOUND, |_| {
            (load.answered() > before + 100).then_some(())
        });
        assert_none_failed(&load.stop());
        assert_eq!(ailing.failed.load(Ordering::SeqCst), 0, "HAProxy {:?}", binary.version);
        ailing.ill.store(false, Ordering::SeqCst);
        mapsmith.wait_for("it serves once its check passes", BOUND, |_| {
            answering(&gateway, 4).contains(&"ailing".to_owned()).then_some(())
        });
    }
}

#[test]
fn a_slot_that_is_taken_gets_no_request_before_its_check_has_passed() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1"]);
        let lines = "    balance source\n    option httpchk\n    server-template slot 1-2 \
            127.0.0.1:1 check inter 200ms disabled\n";
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), lines).start();
        let ailing = Ailing::start();
        let both = [listed(&masters), vec![("ailing", ailing.address)]].concat();
        let pool = Pool::start(&both);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "slots = \"slot\"", "").start();
        mapsmith.wait_for("both slots are taken", BOUND, |mapsmith| {
            (ready(&gateway).len() == 2 && instance(mapsmith)["servers"]["state"] == "in_sync")
                .then_some(())
        });
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 2);
        mapsmith.wait_for("the load goes on", BOUND, |_| (load.answered() > 100).then_some(()));
        assert_none_failed(&load.stop());
        assert_eq!(ailing.failed.load(Ordering::SeqCst), 0, "HAProxy {:?}", binary.version);
    }
}

#[test]
fn no_node_is_sent_to_a_new_server_before_its_check_has_passed() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters[..1]));
        let slowly = "options = [\"check\", \"inter 500ms\"]";
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), slowly, "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        pool.lists(&listed(&masters));
        pool.routes("node1", "m2");
        mapsmith.wait_for("the node is sent there", BOUND, |_| {
            let sent = gateway.memory_map() == [("node1".to_owned(), "m2".to_owned())];
            let status = if sent { stat(&gateway, "m2", "status") } else { String::new() };
            assert!(!sent || status.starts_with("UP"), "HAProxy {:?}: {status}", binary.version);
            sent.then_some(())
        });
        // One whose check fails is waited for no longer than that: where its nodes go then is the
        // configuration's affair.
        let ailing = Ailing::start();
        drop(mapsmith);
        let gateway =
            with_backend(Gateway::plan(binary).entry("node1", BACKEND), HTTP_CHECKED).start();
        let pool = Pool::start(&listed(&masters[..1]));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), CHECKED_OFTEN, "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        pool.lists(&[listed(&masters[..1]), vec![("ailing", ailing.address)]].concat());
        pool.routes("node1", "ailing");
        mapsmith.wait_for("the map goes in", BOUND, |_| {
            (gateway.memory_map() == [("node1".to_owned(), "ailing".to_owned())]).then_some(())
        });
    }
}
