//! Reloads while nodes move and servers come and go: no request fails, on new connections and on
//! kept ones, where a client may not be able to repeat it. Ten reloads of each HAProxy; two hundred
//! with `MAPSMITH_TEST_LONG`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::PATIENCE;
use super::gateway::Gateway;
use crate::support::haproxy::installed;
use crate::support::http::Connection;
use crate::support::master::Master;

const NODES: [&str; 2] = ["a", "b"];

/// Asks until it is to end; how many answers there were, and what was none.
fn ask(
    gateway: SocketAddr,
    keeps: bool,
    ending: &Arc<AtomicBool>,
) -> JoinHandle<(usize, Vec<String>)> {
    let ending = Arc::clone(ending);
    thread::spawn(move || {
        let (mut answered, mut failed, mut kept) = (0, Vec::new(), None);
        while !ending.load(Ordering::Relaxed) {
            match ask_once(gateway, NODES[answered % 2], kept.take()) {
                Ok(connection) => {
                    answered += 1;
                    kept = connection.filter(|_| keeps);
                }
                Err(error) => failed.push(error),
            }
        }
        (answered, failed)
    })
}

/// The connection, if it can bring another request.
fn ask_once(
    gateway: SocketAddr,
    node: &str,
    kept: Option<Connection>,
) -> Result<Option<Connection>, String> {
    let place = if kept.is_some() { "kept" } else { "new" };
    let mut connection = match kept {
        Some(kept) => kept,
        None => Connection::open(gateway).map_err(|error| format!("refused: {error}"))?,
    };
    match connection.request("GET", "/", &[("X-Node-Name", node)], "") {
        Ok(answer) if answer.status == 200 => Ok(answer.reusable.then_some(connection)),
        Ok(answer) => Err(format!("{place}: status {}: {}", answer.status, answer.body)),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

#[test]
fn reloads_while_nodes_move_and_servers_come_and_go_fail_no_request() {
    let long = std::env::var_os("MAPSMITH_TEST_LONG").is_some();
    let reloads = if long { 200 } else { 10 };
    for binary in installed() {
        let masters = ["one", "two", "three"].map(Master::start);
        let servers: Vec<_> = ["m1", "m2", "m3"].into_iter().zip(&masters).collect();
        let mut gateway = Gateway::start(binary, &servers);
        let ending = Arc::default();
        let clients = [true, true, false].map(|keeps| ask(gateway.address, keeps, &ending));
        for number in 1..=reloads {
            let (here, there) = if number % 2 == 0 { (0, 1) } else { (1, 0) };
            gateway.list_servers(&servers[..2 + here]);
            gateway.route(&[("a", servers[here].0), ("b", servers[there].0)]);
            gateway.change(&number.to_string());
            let name = masters[here].name();
            gateway.managed.mapsmith.wait_for("the moved node is routed", PATIENCE, |_| {
                (gateway.ask_for("a").as_deref() == Some(name)).then_some(())
            });
        }
        ending.store(true, Ordering::Relaxed);
        for client in clients {
            let (answered, failed) = client.join().expect("no panic");
            println!("{answered} answers, {} failed", failed.len());
            assert!(failed.is_empty() && answered > 10 * reloads, "of {answered}: {failed:?}");
        }
        gateway.managed.wait_for_state("in_force");
        assert_eq!(gateway.managed.ground.reloads() as usize, reloads);
    }
}
