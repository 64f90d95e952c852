//! That the servers of `support` do what they promise.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::haproxy::{Gateway, ask, installed};
use crate::support::load::Load;
use crate::support::mapsmith::{Mapsmith, cli};
use crate::support::master::Master;
use crate::support::{eventually, http, promtool, run};

const BOUND: Duration = Duration::from_secs(30);

/// In the child process of the test that kills it, this names where that child is to be killed.
const CHILD: &str = "MAPSMITH_TEST_CHILD";

#[test]
fn the_machines_own_haproxy_and_the_3_0_are_there() {
    let versions: Vec<_> = installed().iter().map(|binary| binary.version).collect();
    assert!(versions.contains(&(3, 0)), "{versions:?}");
    assert!(versions.is_sorted());
}

#[test]
fn promtool_runs() {
    assert!(run(promtool(), &["--version"]).contains("promtool"));
}

#[test]
fn a_gateway_routes_by_its_map_and_answers_404_for_what_is_not_in_it() {
    for binary in installed() {
        let (first, second) = (Master::start("master1"), Master::start("master2"));
        let gateway = Gateway::plan(binary)
            .threads(1)
            .master(first.name(), first.address())
            .master(second.name(), second.address())
            .entry("node1", "master1")
            .entry("node2", "master2")
            .start();
        assert_eq!(gateway.request("node1"), (200, "master1".to_owned()));
        assert_eq!(gateway.request("NODE2"), (200, "master2".to_owned()));
        assert_eq!(gateway.request("node3"), (404, "none".to_owned()));
        drop(first);
        // While its last connections end there may be an answer that breaks off: 502.
        eventually("nobody answers for it", BOUND, || {
            (gateway.request("node1").0 == 503).then_some(())
        });
    }
}

#[test]
fn a_killed_gateway_comes_back_at_its_addresses_with_what_its_map_file_holds() {
    for binary in installed() {
        let mut gateway = Gateway::plan(binary).tcp_socket().entry("node1", "master1").start();
        let addresses =
            (gateway.runtime_address(), gateway.tcp_runtime_address(), gateway.http_address());
        let old = gateway.pid();
        gateway.command(&format!("set map {} node1 master2", gateway.map_path()));
        gateway.kill();
        assert!(ask(&gateway.runtime_address(), "show info").is_err());
        std::fs::write(gateway.map_path(), "node1 master3\n").unwrap();
        gateway.restart();
        assert_ne!(gateway.pid(), old);
        assert_eq!(gateway.memory_map(), [("node1".to_owned(), "master3".to_owned())]);
        assert_eq!(
            addresses,
            (gateway.runtime_address(), gateway.tcp_runtime_address(), gateway.http_address())
        );
        assert_eq!(ask(&gateway.tcp_runtime_address(), "show cli level").unwrap(), "admin\n\n");
    }
}

#[test]
fn a_reload_starts_a_worker_that_has_read_the_file_and_counts_versions_anew() {
    for binary in installed() {
        let mut gateway = Gateway::plan(binary).master_worker().entry("node1", "master1").start();
        let map = gateway.map_path().to_owned();
        assert_eq!(gateway.command(&format!("prepare map {map}")), "New version created: 1\n\n");
        assert_eq!(gateway.command(&format!("commit map @1 {map}")), "\n");
        let old = gateway.pid();
        std::fs::write(&map, "node1 master2\n").unwrap();
        gateway.reload();
        assert_ne!(gateway.pid(), old);
        assert_eq!(gateway.memory_map(), [("node1".to_owned(), "master2".to_owned())]);
        assert!(gateway.command("show map").contains("curr_ver=0 next_ver=0 entry_cnt=1"));
    }
}

#[test]
fn a_frozen_gateway_accepts_and_answers_only_when_it_goes_on() {
    for binary in installed() {
        let mut gateway = Gateway::plan(binary).start();
        gateway.stop_process();
        let address = gateway.runtime_address();
        let asking = std::thread::spawn(move || ask(&address, "show cli level"));
        // Connected, and the process is stopped: whatever the asking thread does, it can't have an
        // answer.
        assert!(
            std::os::unix::net::UnixStream::connect(
                gateway.runtime_address().trim_start_matches("unix@")
            )
            .is_ok()
        );
        assert!(!asking.is_finished());
        gateway.continue_process();
        assert_eq!(asking.join().unwrap().unwrap(), "admin\n\n");
    }
}

#[test]
fn load_sees_every_answer_of_a_map_that_is_swapped_under_it() {
    for binary in installed() {
        let masters = [Master::start("master1"), Master::start("master2")];
        let nodes: Vec<String> = (0..100).map(|number| format!("node{number}")).collect();
        let mut plan = Gateway::plan(binary);
        for master in &masters {
            plan = plan.master(master.name(), master.address());
        }
        for node in &nodes {
            plan = plan.entry(node, "master1");
        }
        let gateway = plan.start();
        let load = Load::start(gateway.http_address(), &nodes, 2);
        eventually("the load runs", BOUND, || (load.answered() > 100).then_some(()));
        let map = gateway.map_path();
        for (version, master) in [(1, "master2"), (2, "master1"), (3, "master2")] {
            let entries: String = nodes.iter().map(|node| format!("{node} {master}\n")).collect();
            let swap = format!("prepare map {map};add map @{version} {map} <<\n{entries}\n");
            assert_eq!(gateway.command(&swap), format!("New version created: {version}\n\n\n"));
            assert_eq!(gateway.command(&format!("commit map @{version} {map}")), "\n");
            let before = load.answered();
            eventually("the load goes on", BOUND, || {
                (load.answered() > before + 100).then_some(())
            });
        }
        let answers = load.stop();
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert!(answers.iter().any(|answer| answer.node == "node7" && answer.master == "master2"));
    }
}

#[test]
fn load_remembers_the_requests_that_nobody_answered() {
    let mut gateway = Gateway::plan(&installed()[0]).start();
    let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
    eventually("the load runs", BOUND, || (load.answered() > 10).then_some(()));
    gateway.kill();
    let before = load.answered();
    eventually("the load goes on", BOUND, || (load.answered() > before + 2).then_some(()));
    let answers = load.stop();
    assert_eq!(answers.first().map(|answer| answer.status), Some(404));
    assert_eq!(answers.last().map(|answer| answer.status), Some(0));
}

#[test]
fn the_http_client_reads_every_kind_of_body() {
    for (raw, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "body"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
            "body",
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody", "body"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = BufReader::new(stream.try_clone().unwrap());
            request.lines().find(|line| line.as_ref().unwrap().is_empty()).unwrap().unwrap();
            stream.write_all(raw.as_bytes()).unwrap();
        });
        assert_eq!(http::request(address, "GET", "/", &[], "").unwrap().body, expected);
        server.join().unwrap();
    }
}

#[test]
fn mapsmith_is_started_asked_and_ended_like_any_server() {
    let gateway = Gateway::plan(&installed()[0]).entry("node1", "master1").start();
    let source = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(source.path(), r#"{ "node1": "master1" }"#).unwrap();
    let settings = format!(
        "[schedule]\npoll = \"1h\"\n[map]\npath = \"{}\"\n[[source]]\nname = \"nodes\"\ntype \
            = \"file\"\npath = \"{}\"\n\
         [[instance]]\nname = \"edge1\"\nruntime = \"{}\"\n",
        gateway.map_path(),
        source.path().display(),
        gateway.runtime_address()
    );
    let config = Mapsmith::config(&settings);
    let planned = config.cli(&["plan"]);
    assert!(planned.status.success(), "{planned:?}");

    let mut mapsmith = config.start();
    assert!(mapsmith.api_url().starts_with("http://127.0.0.1:"));
    assert!(mapsmith.configuration().path().starts_with(mapsmith.configuration().directory()));
    mapsmith.wait_for("it is ready", BOUND, |mapsmith| {
        (mapsmith.get("/readyz").0 == 200).then_some(())
    });
    std::fs::write(source.path(), r#"{ "node1": "master2" }"#).unwrap();
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(
        (status, gateway.memory_map()),
        (200, vec![("node1".to_owned(), "master2".to_owned())]),
        "{report}"
    );
    assert!(mapsmith.cli(&["status"]).status.success());

    std::fs::write(source.path(), r#"{ "node1": "master3" }"#).unwrap();
    mapsmith.hangup();
    let looked_again = |_: &Mapsmith| (gateway.memory_map()[0].1 == "master3").then_some(());
    mapsmith.wait_for("it looks again", BOUND, looked_again);
    assert!(mapsmith.log().contains("API listening"));
    assert_eq!(mapsmith.sigterm(), 0);

    let mut killed = Mapsmith::config(&settings).start();
    killed.kill();
    assert!(killed.log().contains("API listening"));
    assert_eq!(cli(&["no-such-verb"], None).status.code(), Some(2));
}

#[test]
fn nothing_is_left_behind_when_the_test_process_is_killed() {
    if std::env::var_os(CHILD).is_some() {
        let gateway = Gateway::plan(&installed()[0]).master_worker().start();
        println!("{CHILD} {}", gateway.pid());
        // Killed here by the parent.
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "ground::servers::nothing_is_left_behind_when_the_test_process_is_killed",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let worker = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once(CHILD)?.1.trim().to_owned()));
    let worker = Path::new("/proc").join(worker.expect("the child starts a gateway"));
    assert!(worker.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("HAProxy ends with the test process", BOUND, || (!worker.exists()).then_some(()));
}
