//! What clients of the API that say nothing, or only half of it, do to the routing: nothing.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use mapsmith::telemetry;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, entries, gateway_settings, in_sync, map_file, memory, metric,
    newest, reload, source_settings,
};

fn settings(gateway: &Gateway, registry: &Registry) -> String {
    format!(
        "{ON_REQUEST}{}{}",
        gateway_settings(gateway),
        source_settings("registry", &registry.url())
    )
}

/// What a client may send and then stop.
const HALVES: [&str; 5] = [
    "",
    "GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ",
    "POST /v1/held/approve HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{\"id\"",
    "GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n",
    // A whole request, after which the connection stays.
    "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
];

#[test]
fn clients_that_stop_half_way_take_nothing_from_the_routing_and_have_an_end() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    // More connections than descriptors; a quarter of them is the API's.
    let (descriptors, clients) = (160, 200);
    let mut mapsmith =
        Mapsmith::config(&settings(&gateway, &registry)).open_files(64, descriptors).start();
    in_sync(&mapsmith);

    let clients: Vec<_> = (0..clients)
        .map(|number: usize| {
            let mut client = TcpStream::connect(mapsmith.address()).expect("the kernel accepts it");
            // A client that is refused meanwhile can't send, and need not.
            let _ = client.write_all(HALVES[number % HALVES.len()].as_bytes());
            client
        })
        .collect();
    registry.knows(&[("a", "m2"), ("b", "m1")]);
    mapsmith.hangup();
    let expected = entries(&[("a", "m2"), ("b", "m1")]);
    mapsmith.wait_for("SIGHUP brings the change", BOUND, |_| {
        (memory(&gateway) == expected).then_some(())
    });
    assert_eq!(map_file(&gateway), expected);

    // They keep their ends open, and the API is there for others again.
    mapsmith.wait_for("only this client is left", BOUND, |mapsmith| {
        // While it is full, and the spare connections too, it is closed before the answer.
        let metrics = mapsmith.try_ask("GET", "/metrics").ok()?.body;
        metrics
            .lines()
            .any(|line| line == format!("{} 1", telemetry::API_CONNECTIONS))
            .then_some(())
    });
    let refused =
        metric(&mapsmith, telemetry::API_CONNECTIONS_REFUSED).expect("it is there from the start");
    assert!(
        refused >= (clients.len() - descriptors / 4) as f64,
        "{refused} of {} were refused",
        clients.len()
    );
    registry.knows(&[("a", "m1"), ("b", "m1")]);
    reload(&mapsmith);
    drop(clients);
}

#[test]
fn a_spare_connection_is_told_so_and_a_long_wait_for_an_answer_keeps_its_place() {
    let mut gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = Mapsmith::config(&settings(&gateway, &registry)).open_files(128, 128).start();
    in_sync(&mapsmith);
    gateway.stop_process();
    // Longer than any client may take for its request.
    let mut client = mapsmith.connect();
    let waiting = std::thread::spawn(move || {
        client.request("POST", "/v1/reload?wait=12s", &[], "").map(|answer| answer.status)
    });
    let mut clients = Vec::new();
    let response = mapsmith.wait_for("a connection too many", BOUND, |mapsmith| {
        let response = mapsmith.try_ask("GET", "/v1/status").ok()?;
        if response.status == 200 {
            clients.push(TcpStream::connect(mapsmith.address()).expect("the kernel accepts it"));
            return None;
        }
        Some(response)
    });
    assert_eq!(
        (response.status, response.content_type.as_str()),
        (503, "application/problem+json"),
        "{}",
        response.body
    );
    assert_eq!(response.retry_after.as_deref(), Some("1"));
    assert!(response.body.contains("serves 32 connections at once"), "{}", response.body);
    let complaint = complaints(&mapsmith.cli(&["status"]));
    assert!(complaint.contains("serves 32 connections at once"), "{complaint}");
    let alive = mapsmith.try_ask("GET", "/healthz").expect("an answer");
    assert_eq!((alive.status, alive.body.as_str()), (200, "ok\n"), "a supervisor restarts nothing");
    drop(clients);
    let status = waiting.join().expect("no panic");
    assert!(matches!(status, Ok(202)), "{status:?}");
    gateway.continue_process();
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    for (soft, hard) in [(64, 300), (300, 300)] {
        let mapsmith =
            Mapsmith::config(&settings(&gateway, &registry)).open_files(soft, hard).start();
        let limits =
            fs::read_to_string(format!("/proc/{}/limits", mapsmith.id())).expect("it runs");
        let open_files: Vec<_> =
            limits.lines().filter(|line| line.starts_with("Max open files")).collect();
        let hard = hard.to_string();
        let words: Vec<_> = open_files[0].split_whitespace().skip(3).take(2).collect();
        assert_eq!(words, [hard.as_str(), hard.as_str()], "{open_files:?}");
    }
}
