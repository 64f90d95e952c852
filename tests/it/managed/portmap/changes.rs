//! Services that come, change and go, and orders to close all of them.

use std::io::ErrorKind::ConnectionReset as Reset;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde_json::json;

use super::{
    Client, Ground, Managed, Mapsmith, PATIENCE, Site, answer, free_port, service, settings,
};
use crate::support::eventually;
use crate::support::master::Master;
use crate::support::scene::{newest, oldest_and_newest};

#[test]
fn a_service_that_comes_changes_or_goes_is_served_so_and_the_others_fail_no_request() {
    for binary in oldest_and_newest() {
        let [web, api] = ["web", "api"].map(Master::start);
        let [port, first, second] = [(); 3].map(|()| free_port());
        let site = Site::start(binary, &service("http", port, &web), "");
        site.wait_for_answer(port, "web");
        let others = Client::start(port, "web");

        let both = |port_of_api| {
            format!("{},{}", service("http", port, &web), service("tcp", port_of_api, &api))
        };
        site.declare(&both(first));
        site.wait_for_answer(first, "api");
        let status = site.status();
        let shown = status["in_force"].as_array().expect("services in force");
        let name = first.to_string();
        let shown = shown.iter().find(|one| one["name"] == *name).expect("the new one");
        assert_eq!(
            shown,
            &json!({
                "name": first.to_string(),
                "type": "tcp",
                "bind": format!("127.0.0.1:{first}"),
                "servers": format!("{}", api.address()),
            })
        );
        site.declare(&both(second));
        site.wait_for_answer(second, "api");
        site.wait_until_closed(first);
        site.declare(&service("http", port, &web));
        site.wait_until_closed(second);
        others.assert_all_answered();
        assert_eq!(site.managed.ground.word().as_deref(), Some("own"), "of the settings");
    }
}

#[test]
fn false_closes_every_listener_and_true_opens_them_again() {
    let web = Master::start("web");
    let port = free_port();
    let site = Site::start(newest(), &service("http", port, &web), "");
    site.wait_for_answer(port, "web");
    let portmap = service("http", port, &web);
    site.say(&json!({"loadbalancer": "false", "portmap": portmap}));
    site.wait_until_closed(port);
    let status = site.status();
    assert_eq!((&status["closed"], &status["kept"]), (&json!(true), &json!(null)), "{status:#}");
    // What the settings declare is not the metadata's to close.
    assert_eq!(site.managed.ground.word().as_deref(), Some("own"));
    site.declare(&portmap);
    site.wait_for_answer(port, "web");
    assert!(site.status()["closed"].is_null());
    // Another portmap is an order too, though nothing is left of the one before.
    let other = free_port();
    site.declare(&service("http", other, &web));
    site.wait_for_answer(other, "web");
    site.wait_until_closed(port);
}

#[test]
fn variables_of_the_environment_are_metadata_too() {
    let web = Master::start("web");
    let port = free_port();
    let ground = Ground::new(newest());
    let settings = ground.settings("own", &settings("environment = true", ""));
    let config = Mapsmith::config(&settings)
        .variable("CLOUD_TRITONCOMPUTE_LOADBALANCER", "true")
        .variable("CLOUD_TRITONCOMPUTE_PORTMAP", &service("http", port, &web));
    let managed = Managed { mapsmith: config.start(), ground };
    managed
        .mapsmith
        .wait_for("web answers", PATIENCE, |_| (answer(port).ok()? == "web").then_some(()));
}

#[test]
fn values_beside_the_portmap_are_in_force_with_it() {
    let web = Master::start("web");
    let [port, metrics, closed] = [(); 3].map(|()| free_port());
    let site = Site::start(newest(), &service("http", port, &web), "");
    let say = |acl: &str, port_of_metrics: u16, timeouts: &str| {
        site.say(&json!({
            "loadbalancer": true,
            "portmap": service("http", port, &web),
            "metrics_acl": acl,
            "metrics_port": port_of_metrics,
            "timeouts": timeouts,
            "syslog": "127.0.0.1:5514",
        }));
    };
    let get = |port: u16, path: &str| {
        let at = ([127, 0, 0, 1], port).into();
        crate::support::http::request(at, "GET", path, &[], "").ok()
    };
    say("127.0.0.0/8", metrics, "{client:7s,server:9000ms}");
    site.managed.mapsmith.wait_for("HAProxy's metrics are read", PATIENCE, |_| {
        let answer = get(metrics, "/metrics")?;
        answer.body.contains("haproxy_process_").then_some(())
    });
    let file = site.file();
    for line in ["timeout client 7s", "timeout server 9s", "log 127.0.0.1:5514 len 4096 local0"] {
        assert!(file.contains(line), "{line}: {file}");
    }
    assert!(file.contains("log-send-hostname"), "{file}");
    say("192.0.2.0/24", metrics, "{client:7s}");
    site.managed.mapsmith.wait_for("nobody else may read them", PATIENCE, |_| {
        (get(metrics, "/metrics")?.status == 403).then_some(())
    });
    say("192.0.2.0/24", closed, "{client:soon}");
    site.wait_until_closed(metrics);
    let rejected = site.wait_for_rejected("timeouts", "invalid client timeout value");
    assert_eq!(rejected["keeps_last_good"], true, "{rejected}");
    assert!(site.file().contains("timeout client 7s"), "{}", site.file());
}

#[test]
fn a_silent_tcp_connection_ends_when_the_metadata_says_so() {
    for binary in oldest_and_newest() {
        // Whoever is connected is never told anything.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port_of_server = silent.local_addr().expect("its address").port();
        let port = free_port();
        let site = Site::start(binary, &format!("tcp://{port}:127.0.0.1:{port_of_server}"), "");
        site.say(&json!({
            "loadbalancer": "true",
            "portmap": format!("tcp://{port}:127.0.0.1:{port_of_server}"),
            "timeouts": "{client:1s,server:1s}",
        }));
        let file = || site.file().contains("timeout client 1s\n").then_some(());
        site.managed.mapsmith.wait_for("the timeouts are there", PATIENCE, |_| file());
        site.managed.wait_for_state("in_force");
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("HAProxy listens");
        client.write_all(b"hello").expect("HAProxy reads");
        client.set_read_timeout(Some(PATIENCE)).expect("a bound");
        let read = client.read(&mut [0; 1]);
        assert!(
            matches!(&read, Ok(0)) || read.as_ref().is_err_and(|error| error.kind() == Reset),
            "{read:?} on {binary:?}"
        );
    }
}

/// The delay of a minute that Moirai had is none here. What a busy machine adds is not bounded, so
/// the bound is far above what is printed.
#[test]
fn a_change_of_the_file_is_in_force_in_a_moment() {
    let [one, two] = ["one", "two"].map(Master::start);
    let port = free_port();
    let site = Site::start(newest(), &service("http", port, &one), "");
    site.wait_for_answer(port, "one");
    let mut times = Vec::new();
    for round in 0..6 {
        let server = if round % 2 == 0 { &two } else { &one };
        let start = Instant::now();
        site.declare(&service("http", port, server));
        eventually("the change is in force", PATIENCE, || {
            (answer(port).ok()? == server.name()).then_some(())
        });
        times.push(start.elapsed());
    }
    times.sort();
    println!("metadata to an answer: {times:?}");
    assert!(times[times.len() / 2].as_secs() < 10, "{times:?}");
}
