//! The backends' server lists: what a registry lists is what HAProxy has, without a reload and
//! without a failed request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Binary, Gateway, installed};
use crate::support::load::{Answer, Load};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, instance, list, ready, servers, settles, with_backend};
use crate::support::scene::{BOUND, metric, newest, oldest_and_newest, version_3_0};

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

#[test]
fn an_empty_backend_gets_the_servers_that_the_registry_lists_and_a_second_pass_sends_nothing() {
    for binary in installed() {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters));
        let mapsmith = pool
            .config(&gateway, &proxy.address(), "options = [\"check\", \"maxconn 50\"]", "")
            .start();
        settles(&gateway, &mapsmith, &listed(&masters));
        assert_eq!(answering(&gateway, 9), ["m1", "m2", "m3"]);

        let before = proxy.commands().len();
        let steps = metric(&mapsmith, "mapsmith_server_steps_total{haproxy=\"edge1\"}");
        assert!(steps.is_some_and(|steps| steps >= 3.0), "{steps:?}");
        mapsmith.wait_for("three more looks at the servers", BOUND, |_| {
            let looks = proxy.commands()[before..]
                .iter()
                .filter(|command| command.line.starts_with("show servers state"))
                .count();
            (looks >= 3).then_some(())
        });
        let sent = proxy.commands()[before..].to_vec();
        assert!(sent.iter().all(|command| command.line.starts_with("show ")), "{sent:?}");
        assert_eq!(metric(&mapsmith, "mapsmith_server_steps_total{haproxy=\"edge1\"}"), steps);
    }
}

#[test]
fn what_can_be_changed_in_place_is_changed_in_place() {
    for binary in oldest_and_newest() {
        let masters = masters(&["old", "new"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&[("s1", masters[0].address())]);
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        settles(&gateway, &mapsmith, &[("s1", masters[0].address())]);
        assert_eq!(answering(&gateway, 2), ["old"]);

        let before = proxy.commands().len();
        pool.lists(&[("s1", masters[1].address())]);
        settles(&gateway, &mapsmith, &[("s1", masters[1].address())]);
        assert_eq!(answering(&gateway, 2), ["new"]);
        let address = masters[1].address();
        let text = format!(
            r#"[{{ "name": "s1", "address": "{}", "port": {}, "weight": 7, "options": ["maxconn 9"] }}]"#,
            address.ip(),
            address.port()
        );
        pool.writes(&text);
        mapsmith.wait_for("weight and maxconn follow", BOUND, |_| {
            let state =
                gateway.command(&format!("show stat {BACKEND} 4 -1;show servers state {BACKEND}"));
            (state.contains(",s1,")
                && stat(&gateway, "s1", "weight") == "7"
                && stat(&gateway, "s1", "slim") == "9")
                .then_some(())
        });
        let sent = proxy.commands()[before..].to_vec();
        let gone = sent.iter().find(|command| {
            command.line.contains("del server") || command.line.contains("add server")
        });
        assert_eq!(gone, None, "the same server with a new address is a change");
    }
}

#[test]
fn servers_come_and_go_behind_a_socket_with_severity_output() {
    for binary in installed() {
        for level in ["admin severity-output number", "admin severity-output string"] {
            let masters = masters(&["m1", "m2"]);
            let gateway = with_backend(
                Gateway::plan(binary).level(level).entry("node1", BACKEND),
                ROUND_ROBIN,
            )
            .start();
            let pool = Pool::start(&listed(&masters));
            let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
            settles(&gateway, &mapsmith, &listed(&masters));
            let moved = [("m1", masters[1].address())];
            pool.lists(&moved);
            settles(&gateway, &mapsmith, &moved);
            assert_eq!(
                metric(&mapsmith, "mapsmith_server_refusals_total{haproxy=\"edge1\"}"),
                Some(0.0),
                "{}",
                mapsmith.log()
            );
        }
    }
}

#[test]
fn a_server_that_the_configuration_gives_by_name_follows_its_list() {
    for binary in oldest_and_newest() {
        let masters = masters(&["old", "new"]);
        let by_name = format!("    server s1 localhost:{}\n", masters[0].address().port());
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &by_name).start();
        assert_eq!(gateway.request("node1"), (200, "old".to_owned()));
        let pool = Pool::start(&[("s1", masters[1].address())]);
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        settles(&gateway, &mapsmith, &[("s1", masters[1].address())]);
        assert_eq!(gateway.request("node1"), (200, "new".to_owned()));
    }
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

/// The load takes what processor time there is, so one of these tests runs at a time.
static ROLLING: Mutex<()> = Mutex::new(());

/// Twenty servers, each replaced by one at a new address while requests come in all the time.
fn rolling_replacement(version: (u32, u32), keep_names: bool) {
    let Some(binary) = installed().iter().find(|binary| binary.version == version) else {
        println!("HAProxy {version:?} is not installed here");
        return;
    };
    let _alone = ROLLING.lock().unwrap_or_else(PoisonError::into_inner);
    const SERVERS: usize = 20;
    let names: Vec<String> = (0..SERVERS).map(|number| format!("s{number}")).collect();
    let mut running: Vec<Master> = (0..SERVERS).map(|_| Master::start("old")).collect();
    let gateway = empty_backend(binary);
    let list = |running: &[Master]| -> Vec<(String, SocketAddr)> {
        let name = |at: usize| {
            if keep_names { names[at].clone() } else { running[at].address().to_string() }
        };
        running.iter().enumerate().map(|(at, master)| (name(at), master.address())).collect()
    };
    // Where names are not kept the registry gives none, and they follow the addresses.
    let given = |list: &[(String, SocketAddr)]| -> Vec<(String, SocketAddr)> {
        list.iter()
            .map(|(name, address)| {
                (if keep_names { name.clone() } else { String::new() }, *address)
            })
            .collect()
    };
    let pool = Pool::start(&[]);
    let write = |running: &[Master]| {
        let given = given(&list(running));
        pool.lists(
            &given.iter().map(|(name, address)| (name.as_str(), *address)).collect::<Vec<_>>(),
        );
    };
    write(&running);
    let mapsmith = pool
        .config(
            &gateway,
            &gateway.runtime_address(),
            "options = [\"check\", \"inter 100ms\"]\ndrain = \"30s\"",
            "",
        )
        .start();
    let settled = |running: &[Master]| {
        let wanted = list(running);
        settles(
            &gateway,
            &mapsmith,
            &wanted.iter().map(|(name, address)| (name.as_str(), *address)).collect::<Vec<_>>(),
        );
    };
    settled(&running);
    let pid = gateway.pid();
    let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
    let mut retired = Vec::new();
    for at in 0..SERVERS {
        let old = std::mem::replace(&mut running[at], Master::start("new"));
        write(&running);
        // The file's watch alone starts a poll a second at most.
        assert_eq!(mapsmith.post("/v1/reload").0, 202);
        settled(&running);
        if keep_names {
            // Its address is no server's any more; requests that were under way on it go on to
            // their end.
            retired.push(old);
        } else {
            // The server is gone from HAProxy, so nothing can be under way on it.
            drop(old);
        }
    }
    let before = load.answered();
    mapsmith
        .wait_for("the load goes on", BOUND, |_| (load.answered() > before + 100).then_some(()));
    let answers = load.stop();
    assert_none_failed(&answers);
    assert!(
        answers.iter().any(|answer| answer.master == "old")
            && answers.iter().any(|answer| answer.master == "new")
    );
    assert_eq!(answering(&gateway, SERVERS), ["new"]);
    assert_eq!(gateway.pid(), pid, "no reload");
    println!("{version:?}: {} answers, none failed", answers.len());
}

#[test]
fn twenty_servers_move_to_new_addresses_without_a_failed_request_on_2_6() {
    rolling_replacement((2, 6), true);
}

#[test]
fn twenty_servers_move_to_new_addresses_without_a_failed_request_on_3_0() {
    rolling_replacement((3, 0), true);
}

#[test]
fn twenty_servers_move_to_new_addresses_without_a_failed_request_on_3_2() {
    rolling_replacement((3, 2), true);
}

#[test]
fn twenty_servers_are_replaced_by_others_without_a_failed_request_on_2_6() {
    rolling_replacement((2, 6), false);
}

#[test]
fn twenty_servers_are_replaced_by_others_without_a_failed_request_on_3_0() {
    rolling_replacement((3, 0), false);
}

#[test]
fn twenty_servers_are_replaced_by_others_without_a_failed_request_on_3_2() {
    rolling_replacement((3, 2), false);
}

#[test]
fn a_server_that_an_operator_disabled_stays_so_and_is_shown() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "options = [\"check\"]", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));

        gateway.command(&format!("disable server {BACKEND}/m1"));
        mapsmith.wait_for("Mapsmith shows who was disabled by hand", BOUND, |mapsmith| {
            let external = instance(mapsmith)["servers"]["external"].to_string();
            (external.contains("m1") && external.contains("maintenance")).then_some(())
        });
        // A change of the list goes on around it, a restart of Mapsmith too.
        let more = [listed(&masters), vec![("m3", masters[1].address())]].concat();
        pool.lists(&more);
        mapsmith.wait_for("the new server is ready", BOUND, |_| {
            ready(&gateway).contains_key("m3").then_some(())
        });
        assert_eq!(servers(&gateway)["m1"].1, 1, "still in maintenance");
        drop(mapsmith);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "options = [\"check\"]", "").start();
        mapsmith.wait_for("a fresh Mapsmith shows it too", BOUND, |mapsmith| {
            instance(mapsmith)["servers"]["external"].to_string().contains("m1").then_some(())
        });
        assert_eq!(servers(&gateway)["m1"].1, 1, "still in maintenance");

        gateway.command(&format!("enable server {BACKEND}/m1"));
        settles(&gateway, &mapsmith, &more);
    }
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
}

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

#[test]
fn a_weight_that_an_agent_sets_is_left_to_it_and_told() {
    for binary in installed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        // An agent that gives a third of the weight, until the test's process ends.
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(b"30%\n")))
        });
        let masters = masters(&["m1"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&[]);
        let address = masters[0].address();
        pool.writes(&format!(
            r#"[{{ "name": "m1", "address": "{}", "port": {}, "weight": 100,
                  "options": ["agent-check", "agent-port {port}", "agent-inter 200ms"] }}]"#,
            address.ip(),
            address.port()
        ));
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        mapsmith.wait_for("the agent's weight is told", BOUND, |mapsmith| {
            let servers = instance(mapsmith)["servers"].clone();
            let told = servers["by_agent"]
                .to_string()
                .contains("app/m1: weight 30 by its agent, 100 is listed");
            (told && servers["state"] == "in_sync").then_some(())
        });
        let before = proxy.commands().len();
        looks_on(&proxy, &mapsmith, 5);
        assert_eq!(changes(&proxy, before), Vec::<String>::new(), "HAProxy {:?}", binary.version);
        assert_eq!(stat(&gateway, "m1", "weight"), "30");
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
    let http = gateway.http_address();
    let request = thread::spawn(move || {
        let answer =
            crate::support::http::request(http, "GET", "/", &[("X-Node-Name", "node1")], "");
        answer.map_or((0, String::new()), |answer| (answer.status, answer.body))
    });
    slow.taken.recv().expect("the request arrives");
    (gateway, pool, mapsmith, slow, quick, request)
}

#[test]
fn a_removed_server_finishes_what_it_has_under_way_before_it_goes() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, slow, quick, request) = under_way(binary, "10m");
        pool.lists(&[("quick", quick.address())]);
        mapsmith.wait_for("the server drains, with its session told", BOUND, |mapsmith| {
            let removing = instance(mapsmith)["servers"]["removing"].to_string();
            (removing.contains("slow") && removing.contains('1')).then_some(())
        });
        assert_eq!(answering(&gateway, 4), ["quick"], "new requests go elsewhere");
        assert!(servers(&gateway).contains_key("slow"), "it waits for its request");
        assert!(!request.is_finished());
        slow.answer.send(()).unwrap();
        assert_eq!(request.join().unwrap(), (200, "slow".to_owned()));
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
    }
}

#[test]
fn a_removed_server_goes_when_the_bound_is_over_though_a_request_is_under_way() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, _slow, quick, request) = under_way(binary, "1s");
        pool.lists(&[("quick", quick.address())]);
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
        let (status, _) = request.join().unwrap();
        assert_ne!(status, 200, "its session was shut");
    }
}

#[test]
fn a_server_that_comes_back_while_it_drains_is_ready_again() {
    for binary in oldest_and_newest() {
        let (gateway, pool, mapsmith, slow, quick, request) = under_way(binary, "10m");
        let both = [("quick", quick.address()), ("slow", slow.address)];
        pool.lists(&both[..1]);
        mapsmith.wait_for("it drains", BOUND, |_| {
            (servers(&gateway).get("slow")?.1 != 0).then_some(())
        });
        pool.lists(&both);
        settles(&gateway, &mapsmith, &both);
        slow.answer.send(()).unwrap();
        assert_eq!(request.join().unwrap(), (200, "slow".to_owned()));
    }
}

#[test]
fn a_server_that_the_map_routes_nodes_to_stays_until_they_have_gone_elsewhere() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        pool.routes("node1", "m1");
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));
        pool.lists(&listed(&masters[1..]));
        mapsmith.wait_for("it is known why the server stays", BOUND, |mapsmith| {
            let removing = instance(mapsmith)["servers"]["removing"].to_string();
            (removing.contains("app/m1") && removing.contains("the map still routes nodes to it"))
                .then_some(())
        });
        assert!(ready(&gateway).contains_key("m1"), "it serves on");
        pool.routes("node1", "m2");
        settles(&gateway, &mapsmith, &listed(&masters[1..]));
    }
}

#[test]
fn a_static_algorithm_needs_a_reload_and_says_so_and_the_map_goes_on() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1"]);
        let gateway = with_backend(Gateway::plan(binary), "    balance static-rr\n").start();
        let pool = Pool::start(&listed(&masters));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        let status = mapsmith.wait_for("a reload is needed", BOUND, |mapsmith| {
            let status = instance(mapsmith);
            (status["servers"]["state"] == "needs_reload" && status["state"] == "in_sync")
                .then_some(status)
        });
        let cause = status["servers"]["needs_reload"].to_string();
        assert!(
            cause.contains("app") && cause.contains("m1") && cause.contains("static-rr"),
            "{cause}"
        );
        assert_eq!(gateway.memory_map(), [("node1".to_owned(), BACKEND.to_owned())]);
    }
}

#[test]
fn free_slots_of_a_template_serve_where_no_server_can_be_added() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3"]);
        let lines = "    balance source\n    server-template slot 1-3 127.0.0.1:1 disabled\n";
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), lines).start();
        let pool = Pool::start(&listed(&masters[..2]));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "slots = \"slot\"", "").start();
        let addresses = |masters: &[Master]| -> Vec<String> {
            let mut addresses: Vec<_> =
                masters.iter().map(|master| master.address().to_string()).collect();
            addresses.sort();
            addresses
        };
        let served = |wanted: &[Master]| {
            mapsmith.wait_for("the slots serve", BOUND, |mapsmith| {
                let mut seen: Vec<_> = ready(&gateway).into_values().collect();
                seen.sort();
                (seen == addresses(wanted) && instance(mapsmith)["servers"]["state"] == "in_sync")
                    .then_some(())
            });
        };
        served(&masters[..2]);
        assert_eq!(gateway.request("node1").0, 200);
        let before = ready(&gateway);
        pool.lists(&listed(&masters));
        served(&masters);
        assert!(
            before.iter().all(|slot| ready(&gateway).get(slot.0) == Some(slot.1)),
            "nobody changed slots"
        );
        pool.lists(&listed(&masters[1..]));
        served(&masters[1..]);
    }
}

#[test]
fn a_missing_backend_is_made_where_haproxy_can_and_named_where_it_cannot() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1"]);
        let defaults = "defaults masters\n    mode http\n    balance roundrobin\n    timeout \
            connect 5s\n    timeout server 60s\n";
        let gateway = Gateway::plan(binary).entry("node1", BACKEND).more(defaults).start();
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "defaults = \"masters\"", "").start();
        if binary.version >= (3, 4) {
            settles(&gateway, &mapsmith, &listed(&masters));
            assert_eq!(gateway.request("node1"), (200, "m1".to_owned()));
        } else {
            let status = mapsmith.wait_for("a reload is needed", BOUND, |mapsmith| {
                let status = instance(mapsmith);
                (status["servers"]["state"] == "needs_reload").then_some(status)
            });
            let cause = status["servers"]["needs_reload"].to_string();
            assert!(cause.contains("app") && cause.contains("3.4"), "{cause}");
        }
    }
}

#[test]
fn a_haproxy_that_restarts_in_the_middle_of_any_step_gets_the_servers_all_the_same() {
    // A prefix of the command at which HAProxy is killed and started again, and what is listed
    // before and after.
    for (prefix, before, after) in [
        ("add server", 1, 3),
        ("set server", 3, 2),
        ("del server", 3, 1),
        ("show servers state", 2, 3),
    ] {
        for killed_first in [true, false] {
            let masters = masters(&["m1", "m2", "m3"]);
            let mut gateway = empty_backend(version_3_0());
            let proxy = AdminProxy::start(&gateway.runtime_address());
            let pool = Pool::start(&listed(&masters[..before]));
            let mapsmith =
                pool.config(&gateway, &proxy.address(), "options = [\"check\"]", "").start();
            settles(&gateway, &mapsmith, &listed(&masters[..before]));
            proxy.hold(prefix, 1);
            pool.lists(&listed(&masters[..after]));
            proxy.wait_held();
            if killed_first {
                gateway.restart();
                proxy.forward();
            } else {
                // Carried out, and then the process goes with all that it was told at runtime.
                proxy.forward();
                gateway.restart();
            }
            settles(&gateway, &mapsmith, &listed(&masters[..after]));
            // What was added to the new process waits for its check.
            let what = format!("{prefix}: requests are answered");
            mapsmith.wait_for(&what, BOUND, |_| (gateway.request("node1").0 == 200).then_some(()));
        }
    }
}

#[test]
fn a_reply_cut_short_is_looked_into_and_nothing_is_done_twice() {
    for prefix in ["add server", "set server", "del server", "show servers state"] {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(newest());
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters[..1]));
        let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        proxy.cut(prefix, 1, 3);
        pool.lists(&listed(&masters));
        settles(&gateway, &mapsmith, &listed(&masters));
        pool.lists(&listed(&masters[1..]));
        settles(&gateway, &mapsmith, &listed(&masters[1..]));
        assert_eq!(proxy.shortened(), 1, "{prefix}");
        assert_eq!(gateway.request("node1").0, 200);
    }
}

#[test]
fn only_what_is_declared_and_owned_is_touched() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "stranger", "m3"]);
        let stranger = format!("{ROUND_ROBIN}    server stranger {}\n", masters[1].address());
        let other = format!("backend other\n    server m3 {}\n", masters[2].address());
        let gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &stranger)
            .more(&other)
            .start();
        let pool = Pool::start(&listed(&masters[..1]));
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
        mapsmith.wait_for("ours is there, and the stranger is counted", BOUND, |mapsmith| {
            let status = instance(mapsmith);
            (ready(&gateway).contains_key("m1") && status["servers"]["foreign"] == 1).then_some(())
        });
        assert!(ready(&gateway).contains_key("stranger"));
        drop(mapsmith);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "manage = \"all\"", "").start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        assert!(
            gateway.command("show servers state other").contains(" m3 "),
            "another backend is nobody's business"
        );
    }
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

#[test]
fn a_reload_is_answered_once_the_servers_are_in_haproxy() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters[..1]));
        // A change waits for quiet first.
        let quiet = damped("debounce = \"500ms\"\nhold = \"0s\"\n");
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", &quiet).start();
        settles(&gateway, &mapsmith, &listed(&masters[..1]));
        for count in [3, 2, 3] {
            pool.lists(&listed(&masters[..count]));
            let (status, report) = mapsmith.post("/v1/reload?wait=30s");
            assert_eq!(status, 200, "{report:#}");
            let there = ready(&gateway);
            assert!(
                list(&listed(&masters[..count]))
                    .iter()
                    .all(|server| there.get(server.0) == Some(server.1)),
                "{there:?}"
            );
            assert_eq!(report["instances"][0]["servers"]["verified"], true, "{report:#}");
        }
    }
}

#[test]
fn a_reload_does_not_wait_for_a_server_to_drain() {
    let (gateway, pool, mapsmith, slow, quick, request) = under_way(newest(), "10m");
    pool.lists(&[("quick", quick.address())]);
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 200, "{report:#}");
    assert!(ready(&gateway).contains_key("quick") && !request.is_finished());
    slow.answer.send(()).unwrap();
    assert_eq!(request.join().unwrap().0, 200);
}

#[test]
fn a_reload_says_which_instance_lacks_its_servers_and_why() {
    let masters = masters(&["m1", "m2"]);
    let gateway =
        with_backend(Gateway::plan(newest()).entry("node1", BACKEND), "    balance static-rr\n")
            .start();
    let pool = Pool::start(&listed(&masters[..1]));
    let mapsmith = pool.config(&gateway, &gateway.runtime_address(), "", "").start();
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    let message = report["message"].to_string();
    assert!(
        status == 202 && message.contains("edge1") && message.contains("static-rr"),
        "{report:#}"
    );

    // And one whose commands are not answered.
    let gateway = empty_backend(newest());
    let proxy = AdminProxy::start(&gateway.runtime_address());
    let pool = Pool::start(&listed(&masters[..1]));
    let mapsmith = pool.config(&gateway, &proxy.address(), "", "").start();
    settles(&gateway, &mapsmith, &listed(&masters[..1]));
    proxy.hold("add server", 1);
    pool.lists(&listed(&masters));
    let (status, report) = mapsmith.post("/v1/reload?wait=1s");
    assert!(status == 202 && report["message"].to_string().contains("edge1"), "{report:#}");
    proxy.wait_held();
    proxy.forward();
    settles(&gateway, &mapsmith, &listed(&masters));
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
}

#[test]
fn servers_that_cannot_be_seen_from_the_first_look_on_are_told_and_asked_for_no_more_often_than_the_map()
 {
    let masters = masters(&["m1"]);
    let gateway = empty_backend(newest());
    let proxy = AdminProxy::start(&gateway.runtime_address());
    for _ in 0..30 {
        proxy.cut("show servers state", 1, 20);
    }
    let pool = Pool::start(&listed(&masters));
    // What can't be seen must not be waited for before the map.
    let blind = damped("debounce = \"0s\"\nhold = \"0s\"\n[references]\nunknown = \"keep\"\n");
    let mapsmith = pool.config(&gateway, &proxy.address(), "", &blind).start();
    let status = mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        let status = instance(mapsmith);
        (status["servers"]["state"] == "failed" && status["state"] == "in_sync").then_some(status)
    });
    assert!(
        status["servers"]["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{status:#}"
    );
    settles(&gateway, &mapsmith, &listed(&masters));
    let commands = proxy.commands();
    let count =
        |prefix: &str| commands.iter().filter(|command| command.line.starts_with(prefix)).count();
    // A failed look ends the cycle's look at the servers, and each cycle begins with a probe.
    let (looks, probes) = (count("show servers state"), count("show info"));
    assert!(looks <= probes + 10, "{looks} looks in {probes} cycles");
    assert_eq!(
        mapsmith.log().matches("the answer was cut").count(),
        1,
        "one line for one condition: {}",
        mapsmith.log()
    );
}

#[test]
fn a_registry_that_is_empty_or_halved_or_flaps_does_not_make_haproxy_flap() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3", "m4"]);
        let gateway = empty_backend(binary);
        let proxy = AdminProxy::start(&gateway.runtime_address());
        let pool = Pool::start(&listed(&masters));
        let calm = damped("debounce = \"1s\"\nhold = \"1h\"\n");
        let mapsmith =
            pool.config(&gateway, &proxy.address(), "options = [\"check\"]", &calm).start();
        settles(&gateway, &mapsmith, &listed(&masters));
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
        let before = proxy.commands().len();
        // Half of it gone and back, each second: a reload waits for the quiet second.
        for turn in 0..6 {
            let half = if turn % 2 == 0 { &masters[..2] } else { &masters[..] };
            pool.lists(&listed(half));
            let (status, report) = mapsmith.post("/v1/reload?wait=30s");
            assert_eq!(status, 200, "{report:#}");
        }
        pool.lists(&[]);
        let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, 409, "{problem:#}");
        pool.lists(&listed(&masters[..2]));
        assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
        looks_on(&proxy, &mapsmith, 3);
        assert_eq!(changes(&proxy, before), Vec::<String>::new(), "HAProxy was told of it");
        assert_eq!(ready(&gateway), list(&listed(&masters)));
        assert_none_failed(&load.stop());
    }
}

#[test]
fn a_registry_that_flaps_without_any_hold_fails_no_request() {
    for binary in oldest_and_newest() {
        let masters = masters(&["m1", "m2", "m3", "m4"]);
        let gateway = empty_backend(binary);
        let pool = Pool::start(&listed(&masters));
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "drain = \"30s\"", "").start();
        settles(&gateway, &mapsmith, &listed(&masters));
        let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
        for turn in 0..8 {
            let some = &masters[turn % 2 * 2..][..2];
            pool.lists(&listed(some));
            assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200);
        }
        pool.lists(&listed(&masters));
        settles(&gateway, &mapsmith, &listed(&masters));
        assert_none_failed(&load.stop());
    }
}

#[test]
fn a_mapsmith_killed_between_the_steps_of_a_change_goes_on_with_it() {
    for binary in oldest_and_newest() {
        // Before HAProxy has the command, and after; of an addition, and of each step of a removal.
        for (prefix, nth, before, after) in
            [("add server", 1, 1, 3), ("set server", 2, 3, 1), ("del server", 1, 3, 1)]
        {
            for arrives in [true, false] {
                let masters = masters(&["m1", "m2", "m3"]);
                let gateway = empty_backend(binary);
                let proxy = AdminProxy::start(&gateway.runtime_address());
                let pool = Pool::start(&listed(&masters[..before]));
                let mut mapsmith =
                    pool.config(&gateway, &proxy.address(), "manage = \"all\"", "").start();
                settles(&gateway, &mapsmith, &listed(&masters[..before]));
                proxy.hold(prefix, nth);
                pool.lists(&listed(&masters[..after]));
                proxy.wait_held();
                mapsmith.kill();
                if arrives {
                    proxy.forward()
                } else {
                    proxy.lose()
                }
                mapsmith.restart();
                settles(&gateway, &mapsmith, &listed(&masters[..after]));
                assert_eq!(gateway.request("node1").0, 200, "{prefix}");
            }
        }
    }
}

#[test]
fn a_haproxy_reloaded_while_a_server_drains_gets_the_same_list_again() {
    for binary in oldest_and_newest() {
        let slow = Slow::start();
        let quick = Master::start("quick");
        let lines = format!("{ROUND_ROBIN}    server slow {}\n", slow.address);
        let mut gateway = with_backend(Gateway::plan(binary).entry("node1", BACKEND), &lines)
            .master_worker()
            .start();
        let pool = Pool::start(&[("slow", slow.address)]);
        let mapsmith =
            pool.config(&gateway, &gateway.runtime_address(), "drain = \"10m\"", "").start();
        settles(&gateway, &mapsmith, &[("slow", slow.address)]);
        let http = gateway.http_address();
        let request = thread::spawn(move || {
            let answer =
                crate::support::http::request(http, "GET", "/", &[("X-Node-Name", "node1")], "");
            answer.map_or((0, String::new()), |answer| (answer.status, answer.body))
        });
        slow.taken.recv().expect("the request arrives");
        pool.lists(&[("quick", quick.address())]);
        mapsmith.wait_for("it drains", BOUND, |_| {
            (servers(&gateway).get("slow")?.1 != 0).then_some(())
        });
        gateway.reload();
        // The new worker has the configuration's server, ready, and no session on it.
        settles(&gateway, &mapsmith, &[("quick", quick.address())]);
        assert_eq!(answering(&gateway, 3), ["quick"]);
        slow.answer.send(()).unwrap();
        assert_eq!(
            request.join().unwrap(),
            (200, "slow".to_owned()),
            "the old worker ends what it has"
        );
    }
}

#[test]
fn two_mapsmiths_that_have_heard_different_lists_do_not_fight_over_a_server() {
    let masters = masters(&["m1", "m2"]);
    let gateway = empty_backend(newest());
    let pools = [Pool::start(&listed(&masters)), Pool::start(&listed(&masters))];
    let proxies = [
        AdminProxy::start(&gateway.runtime_address()),
        AdminProxy::start(&gateway.runtime_address()),
    ];
    let first = pools[0].config(&gateway, &proxies[0].address(), "", "").start();
    settles(&gateway, &first, &listed(&masters));
    // Each has a map file of its own: of one file only one of them would be the keeper.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("node-master.map");
    let second = pools[1].config(&gateway, &proxies[1].address(), "", "");
    let second = second
        .variable("MAPSMITH__MAP__FILE", file.to_str().expect("a folder named in UTF-8"))
        .start();
    settles(&gateway, &second, &listed(&masters));
    let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);

    // Only the first has heard that it goes; it is deleted, and the second brings it back, once.
    pools[0].lists(&listed(&masters[..1]));
    let deletions = || {
        let all = proxies.iter().flat_map(|proxy| proxy.commands());
        all.filter(|command| command.line.starts_with("del server")).count()
    };
    first.wait_for("the second has brought it back", BOUND, |_| {
        (deletions() > 0 && ready(&gateway).contains_key("m2")).then_some(())
    });
    let before = deletions();
    looks_on(&proxies[0], &first, 10);
    looks_on(&proxies[1], &second, 10);
    assert_eq!(deletions(), before, "{}", first.log());
    // The second hears it too.
    pools[1].lists(&listed(&masters[..1]));
    settles(&gateway, &second, &listed(&masters[..1]));
    settles(&gateway, &first, &listed(&masters[..1]));
    assert_none_failed(&load.stop());
}
