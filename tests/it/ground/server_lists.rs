//! The facts about HAProxy's servers at runtime that the code relies on, one a test, in every
//! version that is installed: read through the client that relies on them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use haproxy_runtime::{
    BackendName, Refusal, RuntimeClient, RuntimeError, ServerCommand, ServerPath, ServerState,
    ServersClient,
};
use mapsmith_core::ObservedServers;
use mapsmith_core::server::{AdminState, ObservedServer, Server, ServerAddress, ServerOptions};

use crate::support::eventually;
use crate::support::haproxy::{Gateway, installed};

const BOUND: Duration = Duration::from_secs(30);

/// An address that nobody listens on: port 1 of the loopback address.
const NOBODY: &str = "127.0.0.1:1";

/// A gateway with more sections, and the client under test.
struct Scene {
    gateway: Gateway,
    client: ServersClient,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn observe(&self) -> ObservedServers {
        self.runtime.block_on(self.client.observe()).expect("a look")
    }

    fn server(&self, backend: &str, server: &str) -> ObservedServer {
        let seen = self.observe();
        seen[backend]
            .servers
            .get(server)
            .unwrap_or_else(|| panic!("no {backend}/{server} in {seen:?}"))
            .clone()
    }

    fn run(&self, commands: &[ServerCommand]) -> Vec<Result<(), Refusal>> {
        self.runtime.block_on(self.client.run(commands)).expect("a whole answer")
    }

    fn one(&self, command: ServerCommand) -> Result<(), Refusal> {
        self.run(&[command]).remove(0)
    }

    fn wait(
        &self,
        at: &ServerPath,
        delay: Duration,
    ) -> Result<Result<bool, Refusal>, RuntimeError> {
        self.runtime.block_on(self.client.wait_removable(at, delay))
    }

    fn version(&self) -> (u32, u32) {
        self.gateway.version()
    }
}

/// Runs a check against every installed HAProxy with these sections. Node `node1` is served by
/// backend `b`.
fn every_version(sections: &str, check: impl Fn(&Scene)) {
    for binary in installed() {
        // Shown when the check fails.
        println!("HAProxy {:?}", binary.version);
        let gateway = Gateway::plan(binary).entry("node1", "b").more(sections).start();
        let address = gateway.runtime_address().parse().expect("a runtime address");
        let client = ServersClient::new(RuntimeClient::new(address, BOUND), 15_000);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        check(&Scene { gateway, client, runtime });
    }
}

fn at(backend: &str, server: &str) -> ServerPath {
    ServerPath::new(backend, server).expect("valid names")
}

fn address(text: &str) -> ServerAddress {
    let address: SocketAddr = text.parse().expect("an address");
    ServerAddress { ip: address.ip(), port: address.port() }
}

fn add(backend: &str, name: &str, options: &[&str]) -> ServerCommand {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let options = ServerOptions::parse(&options).unwrap_or_else(|error| panic!("{error}"));
    let server = Server {
        name: name.to_owned(),
        address: address(NOBODY),
        weight: None,
        backup: false,
        options,
    };
    ServerCommand::Add { at: at(backend, name), server: Box::new(server) }
}

fn set_state(backend: &str, server: &str, state: ServerState) -> ServerCommand {
    ServerCommand::SetState { at: at(backend, server), state }
}

fn delete(backend: &str, server: &str) -> ServerCommand {
    ServerCommand::Delete { at: at(backend, server) }
}

/// A master whose answers wait until the test gives them.
struct HeldMaster(TcpListener);

impl HeldMaster {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn address(&self) -> String {
        self.0.local_addr().expect("a bound address").to_string()
    }

    /// The next connection, when its request has come.
    fn request(&self) -> Stream {
        let mut stream = Stream::of(self.0.accept().expect("a connection").0);
        stream.read_head();
        stream
    }
}

/// One side of an HTTP connection, in the rough.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        Self(BufReader::new(stream))
    }

    fn client(gateway: &Gateway) -> Self {
        Self::of(TcpStream::connect(gateway.http_address()).expect("the gateway listens"))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the other end is there");
    }

    fn ask(&mut self) {
        self.send("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: node1\r\n\r\n");
    }

    fn answer(&mut self) {
        self.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    /// The first line of the next message; empty where the connection ended.
    fn read_head(&mut self) -> String {
        let mut first = String::new();
        self.0.read_line(&mut first).expect("something comes");
        let mut line = first.clone();
        while !line.trim_end().is_empty() {
            line.clear();
            self.0.read_line(&mut line).expect("the head is whole");
        }
        first.trim_end().to_owned()
    }
}

const DYNAMIC: &str = "backend b\n    balance roundrobin\n";

#[test]
fn an_added_server_waits_in_maintenance_with_its_check_off_until_both_are_enabled() {
    every_version(DYNAMIC, |scene| {
        let reply = scene.gateway.command(&format!(
            "add server b/n1 {NOBODY} check inter 100ms fall 1 weight 7 maxconn 10 maxqueue 5"
        ));
        assert!(reply.starts_with("New server registered.\n"), "{reply}");
        let added = scene.server("b", "n1");
        assert_eq!(added.admin, AdminState(AdminState::MAINTENANCE));
        assert!(added.check_configured && !added.check_enabled && !added.running, "{added:?}");
        assert_eq!(
            (added.weight, added.maxconn, added.maxqueue, added.backup),
            (7, Some(10), Some(5), false)
        );
        assert_eq!(
            (added.address.map(|ip| ip.to_string()), added.port),
            (Some("127.0.0.1".to_owned()), 1)
        );

        assert_eq!(scene.one(ServerCommand::EnableHealth { at: at("b", "n1") }), Ok(()));
        let checked = scene.server("b", "n1");
        assert!(checked.check_enabled && checked.admin.in_maintenance(), "{checked:?}");

        assert_eq!(scene.one(set_state("b", "n1", ServerState::Ready)), Ok(()));
        assert!(scene.server("b", "n1").admin.ready());
        eventually("its check finds nobody", BOUND, || {
            let seen = scene.server("b", "n1");
            (!seen.running && seen.status.starts_with("DOWN")).then_some(())
        });

        assert_eq!(scene.one(set_state("b", "n1", ServerState::Maintenance)), Ok(()));
        let disabled = scene.server("b", "n1");
        assert_eq!(disabled.admin, AdminState(AdminState::MAINTENANCE));
        assert!(
            disabled.check_enabled,
            "a check that pauses in maintenance stays enabled: {disabled:?}"
        );
    });
}

#[test]
fn a_server_is_added_into_rotation_by_one_line() {
    every_version(DYNAMIC, |scene| {
        let commands = [
            add("b", "plain", &["maxconn 3"]),
            add("b", "checked", &["check", "inter 1h"]),
            add("b", "agent", &["agent-check", "agent-port 1"]),
        ];
        assert_eq!(scene.run(&commands), [Ok(()), Ok(()), Ok(())]);
        let seen = scene.observe().remove("b").unwrap();
        assert!(
            seen.servers.values().all(|server| server.admin.ready())
                && seen.servers["plain"].running,
            "{seen:?}"
        );
        assert_eq!(seen.algorithm.as_deref(), Some("roundrobin"));
        assert!(seen.servers["checked"].check_enabled && !seen.servers["plain"].check_configured);
        assert_eq!(
            (seen.servers["plain"].status.as_str(), seen.servers["plain"].maxconn),
            ("no check", Some(3))
        );
        assert_eq!(scene.one(add("b", "plain", &[])), Err(Refusal::NameTaken));
    });
}

#[test]
fn a_draining_server_leaves_maintenance_and_a_disabled_one_leaves_draining() {
    every_version(
        "backend b\n    server s1 127.0.0.1:1\n    server s2 127.0.0.1:1 disabled\n",
        |scene| {
            let admin = |server, state| {
                assert_eq!(scene.one(set_state("b", server, state)), Ok(()));
                scene.server("b", server).admin
            };
            let configured = AdminState::CONFIGURED_MAINTENANCE;
            assert_eq!(admin("s1", ServerState::Drain), AdminState(AdminState::DRAIN));
            assert!(scene.server("b", "s1").running, "HAProxy still counts it as running");
            assert_eq!(admin("s1", ServerState::Maintenance), AdminState(AdminState::MAINTENANCE));
            assert_eq!(admin("s1", ServerState::Drain), AdminState(AdminState::DRAIN));
            assert_eq!(admin("s1", ServerState::Ready), AdminState(0));
            // `disabled` in the configuration leaves a bit for ever, which keeps nobody out.
            let disabled = scene.server("b", "s2");
            assert_eq!(
                (disabled.admin, disabled.running),
                (AdminState(AdminState::MAINTENANCE | configured), false)
            );
            assert_eq!(admin("s2", ServerState::Ready), AdminState(configured));
            let ready = scene.server("b", "s2");
            assert!(ready.running && ready.admin.ready(), "{ready:?}");
        },
    );
}

#[test]
fn every_kind_of_server_is_seen_and_a_disabled_backend_is_not() {
    let sections = "backend b\n    server unix unix@/tmp/nobody.sock\n    server named \
        localhost:80\n    server v6 [2001:db8::1]:80\n    \
        server unresolved no-such-host.invalid:80 init-addr none\n    server spare 127.0.0.1:3 \
        backup weight 0\n\
        backend off\n    disabled\n    server a 127.0.0.1:1\nbackend empty\n    balance \
        source\nlisten both\n    bind abns@mapsmith-{id}\n    server a 127.0.0.1:2\n";
    let sections = sections.replace("{id}", &std::process::id().to_string());
    // Two HAProxys at a time would share the listener's name: its version keeps them apart.
    for binary in installed() {
        let (major, minor) = binary.version;
        let sections = sections.replace("mapsmith-", &format!("mapsmith-{major}.{minor}-"));
        println!("HAProxy {:?}", binary.version);
        let gateway = Gateway::plan(binary).more(&sections).start();
        let client = ServersClient::new(
            RuntimeClient::new(gateway.runtime_address().parse().unwrap(), BOUND),
            15_000,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(client.observe()).unwrap();
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["b", "both", "default", "empty"]);
        assert_eq!(
            (seen["empty"].servers.len(), seen["empty"].algorithm.as_deref()),
            (0, Some("source"))
        );
        let b = &seen["b"].servers;
        assert_eq!((b["unix"].address, b["unix"].port, &b["unix"].fqdn), (None, 0, &None));
        assert_eq!((b["named"].port, b["named"].fqdn.as_deref()), (80, Some("localhost")));
        assert!(b["named"].address.is_some_and(|ip| ip.is_loopback()));
        assert_eq!(b["v6"].address, Some("2001:db8::1".parse().unwrap()));
        let unresolved = &b["unresolved"];
        assert_eq!(
            (unresolved.address, unresolved.fqdn.as_deref()),
            (None, Some("no-such-host.invalid"))
        );
        assert_eq!(unresolved.status, "MAINT (resolution)");
        assert_eq!(unresolved.admin, AdminState(AdminState::UNRESOLVED));
        assert_eq!((b["spare"].backup, b["spare"].weight), (true, 0));
    }
}

#[test]
fn a_server_with_another_address_finishes_what_it_has_begun() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let (old, new) = (HeldMaster::start(), HeldMaster::start());
        let sections =
            format!("backend b\n    balance roundrobin\n    server s1 {}\n", old.address());
        let gateway = Gateway::plan(binary).entry("node1", "b").more(&sections).start();
        let client = ServersClient::new(
            RuntimeClient::new(gateway.runtime_address().parse().unwrap(), BOUND),
            15_000,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

        let mut node = Stream::client(&gateway);
        node.ask();
        let mut begun = old.request();
        let moved = address(&new.address());
        let set = [ServerCommand::SetAddress { at: at("b", "s1"), address: moved }];
        assert_eq!(runtime.block_on(client.run(&set)).unwrap(), [Ok(())]);
        eventually("the new address shows", BOUND, || {
            let seen = runtime.block_on(client.observe()).unwrap();
            (seen["b"].servers["s1"].port == moved.port).then_some(())
        });
        begun.answer();
        assert_eq!(node.read_head(), "HTTP/1.1 200 OK");

        node.ask();
        if gateway.version() >= (3, 0) {
            new.request().answer();
        } else {
            // A trap: 2.6 uses the connection to the old address again.
            assert_eq!(begun.read_head(), "GET / HTTP/1.1");
            begun.answer();
        }
        assert_eq!(node.read_head(), "HTTP/1.1 200 OK");
        let mut other = Stream::client(&gateway);
        other.ask();
        new.request().answer();
        assert_eq!(other.read_head(), "HTTP/1.1 200 OK");
        assert_eq!(
            runtime.block_on(client.run(&set)).unwrap(),
            [Ok(())],
            "setting what is set is no error"
        );
    }
}

#[test]
fn weight_and_limit_are_changed_in_place() {
    every_version(
        "backend b\n    balance roundrobin\n    server s1 127.0.0.1:1 weight 5 maxconn 10 \
            maxqueue 7\n",
        |scene| {
            let commands = |weight, maxconn| {
                [
                    ServerCommand::SetWeight { at: at("b", "s1"), weight },
                    ServerCommand::SetMaxconn { at: at("b", "s1"), maxconn },
                ]
            };
            for (weight, maxconn) in [(0, Some(3)), (256, None), (7, Some(1))] {
                assert_eq!(scene.run(&commands(weight, maxconn)), [Ok(()), Ok(())]);
                let seen = scene.server("b", "s1");
                assert_eq!((seen.weight, seen.maxconn, seen.maxqueue), (weight, maxconn, Some(7)));
            }
            let too_much = scene.one(ServerCommand::SetWeight { at: at("b", "s1"), weight: 257 });
            assert!(matches!(too_much, Err(Refusal::Other { .. })), "{too_much:?}");
        },
    );
}

#[test]
fn a_static_algorithm_takes_no_server_and_no_weight() {
    let sections = "backend b\n    balance source\n    server s1 127.0.0.1:1\nbackend \
        consistent\n    balance source\n    hash-type consistent\n";
    every_version(sections, |scene| {
        assert_eq!(scene.one(add("b", "n1", &["check"])), Err(Refusal::StaticAlgorithm));
        let weight = ServerCommand::SetWeight { at: at("b", "s1"), weight: 5 };
        assert_eq!(scene.one(weight), Err(Refusal::StaticAlgorithm));
        let address = address("127.0.0.1:2");
        assert_eq!(scene.one(ServerCommand::SetAddress { at: at("b", "s1"), address }), Ok(()));
        assert_eq!(
            scene.one(add("consistent", "n1", &[])),
            Ok(()),
            "the algorithm's name does not tell: here it is dynamic"
        );
        let seen = scene.observe();
        assert_eq!(
            (seen["b"].algorithm.as_deref(), seen["consistent"].algorithm.as_deref()),
            (Some("source"), Some("source"))
        );
    });
}

#[test]
fn each_command_of_a_line_has_its_own_outcome() {
    every_version(DYNAMIC, |scene| {
        let outcomes = scene.run(&[
            add("b", "n1", &["check"]),
            add("nowhere", "n1", &["check"]),
            add("b", "n1", &[]),
            delete("b", "n1"),
            delete("b", "nobody"),
            set_state("b", "nobody", ServerState::Drain),
            set_state("b", "n1", ServerState::Maintenance),
            delete("b", "n1"),
            delete("nowhere", "n1"),
            add("b", "n2", &[]),
            set_state("b", "n2", ServerState::Drain),
        ]);
        let expected = [
            Ok(()),
            Err(Refusal::NoSuchBackend),
            Err(Refusal::NameTaken),
            Err(Refusal::NotInMaintenance),
            Err(Refusal::NoSuchServer),
            Err(Refusal::NoSuchServer),
            Ok(()),
            Ok(()),
            Err(Refusal::NoSuchBackend),
            Ok(()),
            Ok(()),
        ];
        assert_eq!(outcomes, expected);
        let seen = scene.observe().remove("b").unwrap();
        assert_eq!(seen.servers.keys().collect::<Vec<_>>(), ["n2"]);
        assert_eq!(seen.servers["n2"].status, "DRAIN");
    });
}

#[test]
fn hundreds_of_servers_are_added_and_removed_by_a_few_lines() {
    let sections: String =
        (0..50).map(|number| format!("backend m{number}\n    balance leastconn\n")).collect();
    every_version(&sections, |scene| {
        let names: Vec<(String, String)> = (0..200)
            .map(|number| (format!("m{}", number / 4), format!("master{number}.example.test")))
            .collect();
        let added: Vec<_> = names
            .iter()
            .map(|(backend, name)| add(backend, name, &["check", "inter 1h", "maxconn 1000"]))
            .collect();
        assert!(scene.run(&added).iter().all(Result::is_ok));
        let seen = scene.observe();
        assert!(
            names.iter().all(|(backend, name)| seen[backend].servers[name].admin.ready()),
            "{seen:?}"
        );
        let removed: Vec<_> = names
            .iter()
            .flat_map(|(backend, name)| {
                [set_state(backend, name, ServerState::Maintenance), delete(backend, name)]
            })
            .collect();
        // A check that runs right now keeps its server for a moment.
        eventually("all are removed", BOUND, || {
            scene.run(&removed);
            scene.observe().values().all(|backend| backend.servers.is_empty()).then_some(())
        });
    });
}

#[test]
fn a_server_is_removed_in_maintenance_when_no_connection_is_left() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = HeldMaster::start();
        let sections =
            format!("backend b\n    balance roundrobin\n    server s1 {}\n", master.address());
        let gateway = Gateway::plan(binary).entry("node1", "b").more(&sections).start();
        let client = ServersClient::new(
            RuntimeClient::new(gateway.runtime_address().parse().unwrap(), BOUND),
            15_000,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let scene = Scene { gateway, client, runtime };
        let mut node = Stream::client(&scene.gateway);
        node.ask();
        let mut begun = master.request();
        assert_eq!(scene.server("b", "s1").sessions, 1);

        assert_eq!(scene.one(set_state("b", "s1", ServerState::Drain)), Ok(()));
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::NotInMaintenance));
        assert_eq!(scene.one(set_state("b", "s1", ServerState::Maintenance)), Ok(()));
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::ConnectionsLeft));
        let waited = scene.wait(&at("b", "s1"), Duration::from_millis(10)).unwrap();
        let too_old = scene.version() < (3, 0);
        assert_eq!(waited, if too_old { Err(Refusal::UnknownCommand) } else { Ok(false) });

        // Requests in flight end well, in maintenance too.
        begun.answer();
        assert_eq!(node.read_head(), "HTTP/1.1 200 OK");
        if too_old {
            // A trap: a connection that goes idle in maintenance stays for seconds
            // (`pool-purge-delay`) and keeps the server. Entering maintenance once more closes it.
            let states = [ServerState::Drain, ServerState::Maintenance]
                .map(|state| set_state("b", "s1", state));
            eventually("it is removed", BOUND, || {
                assert!(scene.run(&states).iter().all(Result::is_ok));
                scene.one(delete("b", "s1")).ok()
            });
        } else {
            assert_eq!(scene.wait(&at("b", "s1"), BOUND).unwrap(), Ok(true));
            assert_eq!(scene.one(delete("b", "s1")), Ok(()));
        }
        assert!(scene.observe()["b"].servers.is_empty());
    }
}

#[test]
fn shutdown_sessions_cuts_what_a_server_still_does() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = HeldMaster::start();
        let sections =
            format!("backend b\n    balance roundrobin\n    server s1 {}\n", master.address());
        let gateway = Gateway::plan(binary).entry("node1", "b").more(&sections).start();
        let client = ServersClient::new(
            RuntimeClient::new(gateway.runtime_address().parse().unwrap(), BOUND),
            15_000,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let scene = Scene { gateway, client, runtime };
        let mut node = Stream::client(&scene.gateway);
        node.ask();
        let _begun = master.request();
        assert_eq!(scene.one(set_state("b", "s1", ServerState::Maintenance)), Ok(()));
        assert_eq!(scene.one(ServerCommand::ShutdownSessions { at: at("b", "s1") }), Ok(()));
        assert_ne!(node.read_head(), "HTTP/1.1 200 OK");
        eventually("it is removed", BOUND, || scene.one(delete("b", "s1")).ok());
        assert_eq!(
            scene.one(ServerCommand::ShutdownSessions { at: at("b", "s1") }),
            Err(Refusal::NoSuchServer)
        );
    }
}

#[test]
fn a_server_that_the_configuration_names_is_not_removed_at_runtime() {
    let sections = "backend b\n    use-server s1 if { path /x }\n    use-server %[path] if \
        { path /y }\n    server s1 127.0.0.1:1 check inter 1h\n    \
        server s2 127.0.0.1:1\n    server s3 127.0.0.1:1 track c/s1\nbackend c\n    server s1 \
        127.0.0.1:1 check inter 1h\n";
    every_version(sections, |scene| {
        for (backend, server) in [("b", "s1"), ("b", "s2"), ("c", "s1")] {
            assert_eq!(scene.one(set_state(backend, server, ServerState::Maintenance)), Ok(()));
        }
        assert_eq!(scene.one(delete("b", "s1")), Err(Refusal::Referenced));
        assert_eq!(
            scene.one(delete("c", "s1")),
            Err(Refusal::Referenced),
            "another server tracks it"
        );
        assert_eq!(
            scene.one(delete("b", "s2")),
            Ok(()),
            "a server of the configuration goes as well as an added one"
        );
        let tracking = scene.server("b", "s3");
        assert_eq!(tracking.admin, AdminState(AdminState::INHERITED_MAINTENANCE));
        assert_eq!(tracking.status, "MAINT (via c/s1)");
        if scene.version() >= (3, 0) {
            let waited = scene.wait(&at("b", "s1"), BOUND).unwrap();
            assert!(
                matches!(waited, Err(Refusal::Referenced | Refusal::Other { .. })),
                "told at once: {waited:?}"
            );
        }
    });
}

#[test]
fn free_slots_of_a_template_are_servers_in_maintenance_at_the_templates_address() {
    let sections = "backend b\n    balance source\n    server-template slot 2 127.0.0.1:9 check \
        disabled\n    \
        server-template zero 1 0.0.0.0:0 disabled\n    server-template name 1 \
        no-such-host.invalid:80 init-addr none\n";
    every_version(sections, |scene| {
        let seen = scene.observe().remove("b").unwrap();
        assert_eq!(seen.servers.keys().collect::<Vec<_>>(), ["name1", "slot1", "slot2", "zero1"]);
        let free = AdminState(AdminState::MAINTENANCE | AdminState::CONFIGURED_MAINTENANCE);
        for (server, ip, port) in
            [("slot1", "127.0.0.1", 9), ("slot2", "127.0.0.1", 9), ("zero1", "0.0.0.0", 0)]
        {
            let slot = &seen.servers[server];
            assert_eq!(
                (slot.admin, slot.address, slot.port),
                (free, Some(ip.parse().unwrap()), port),
                "{server}"
            );
        }
        assert!(seen.servers["slot1"].check_enabled);
        let unresolved = AdminState(AdminState::UNRESOLVED);
        assert_eq!(
            (seen.servers["name1"].admin, seen.servers["name1"].address),
            (unresolved, None)
        );

        // A slot is taken by its address and its state, under any algorithm.
        let taken = address("[::1]:7");
        let commands = [
            ServerCommand::SetAddress { at: at("b", "slot1"), address: taken },
            set_state("b", "slot1", ServerState::Ready),
        ];
        assert_eq!(scene.run(&commands), [Ok(()), Ok(())]);
        eventually("the slot has the address", BOUND, || {
            let slot = scene.server("b", "slot1");
            (slot.address == Some(taken.ip) && slot.port == 7 && slot.admin.ready()).then_some(())
        });
        let nameless =
            scene.one(ServerCommand::SetAddress { at: at("b", "name1"), address: taken });
        assert!(matches!(nameless, Err(Refusal::NoAddress { .. })), "{nameless:?}");
    });
}

#[test]
fn a_backend_is_made_at_runtime_from_3_4_on() {
    let sections = "defaults base\n    mode http\n    balance roundrobin\n    timeout connect \
        5s\n    timeout server 60s\n    timeout client 60s\n\
        defaults bare\n    timeout connect 5s\nbackend b from base\n    balance random\n";
    every_version(sections, |scene| {
        let name = |name| BackendName::new(name).unwrap();
        let make = |backend, defaults| ServerCommand::AddBackend {
            backend: name(backend),
            defaults: name(defaults),
        };
        let made = scene.one(make("made", "base"));
        if scene.version() < (3, 4) {
            assert_eq!(made, Err(Refusal::UnknownCommand));
            return;
        }
        assert_eq!(made, Ok(()));
        assert_eq!(scene.one(add("made", "n1", &[])), Ok(()));
        let seen = scene.observe();
        assert!(seen["made"].servers["n1"].admin.ready());
        assert_eq!(scene.one(make("made", "base")), Err(Refusal::NameTaken));
        assert!(matches!(scene.one(make("other", "nowhere")), Err(Refusal::Defaults { .. })));
        assert!(matches!(scene.one(make("other", "bare")), Err(Refusal::Defaults { .. })));
    });
}

/// Every option that Mapsmith passes on, with arguments that make sense, but for those that need
/// files: `ca-file`, `crl-file`.
const OPTIONS: &str = "addr 127.0.0.1|agent-addr 127.0.0.1|agent-inter 2s|agent-port 9|agent-send \
    hello|allow-0rtt|alpn h2|check|\
    check-alpn h2|check-pool-conn-name x|check-proto \
    h2|check-reuse-pool|check-send-proxy|check-sni example.test|check-via-socks4|\
    ciphers ALL|ciphersuites TLS_AES_128_GCM_SHA256|client-sigalgs RSA+SHA256|cookie x|crt \
    /nowhere|curves X25519|downinter 2s|\
    error-limit 3|fall 3|fastinter 1s|force-tlsv10|force-tlsv11|force-tlsv12|force-tlsv13|guid \
    abc|hash-key addr|id 77|idle-ping 1s|\
    init-state up|inter 2s|maxconn 10|maxqueue 5|minconn \
    3|no-check-sni-auto|no-renegotiate|no-send-proxy|no-send-proxy-v2|\
    no-sni-auto|no-ssl-reuse|no-tfo|no-tls-tickets|no-tlsv10|no-tlsv11|no-tlsv12|no-tlsv13|observe layer4|on-error fastinter|\
    on-marked-down shutdown-sessions|on-marked-up shutdown-backup-sessions|pool-conn-name \
    str(x)|pool-low-conn 2|pool-max-conn 100|\
    pool-purge-delay 5s|port 99|proto h2|proxy-v2-options ssl|renegotiate|rise \
    2|send-proxy|send-proxy-v2|send-proxy-v2-ssl|\
    send-proxy-v2-ssl-cn|sigalgs RSA+SHA256|slowstart 5s|sni str(x)|source 127.0.0.1|source \
    0.0.0.0 usesrc clientip|\
    ssl-max-ver TLSv1.3|ssl-min-ver TLSv1.2|strict-maxconn|tfo|tls-tickets|track c/s1|verify \
    none|verifyhost x|ws h1|healthcheck h";

#[test]
fn haproxy_takes_the_options_that_mapsmith_passes_on_from_the_version_it_says() {
    let sections =
        "backend b\n    balance roundrobin\nbackend c\n    server s1 127.0.0.1:1 check inter 1h\n";
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let health =
            if binary.version >= (3, 4) { "healthcheck h\n    type httpchk\n" } else { "" };
        let gateway = Gateway::plan(binary).more(sections).more(health).start();
        let mut wrong = BTreeMap::new();
        for (number, option) in OPTIONS.split('|').enumerate() {
            let parsed = ServerOptions::parse(&[option.to_owned()])
                .unwrap_or_else(|error| panic!("{error}"));
            let reply = gateway.command(&format!("add server b/n{number} {NOBODY} {option}"));
            let taken = reply == "New server registered.\n\n";
            if taken != (binary.version >= parsed.oldest_version().0) {
                wrong.insert(option, reply);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let both = gateway.command(&format!(
            "add server b/tls {NOBODY} ssl verify none check check-ssl agent-check agent-port 5"
        ));
        assert_eq!(both, "New server registered.\n\n");
    }
}

#[test]
fn haproxy_refuses_at_runtime_what_mapsmith_refuses() {
    every_version(DYNAMIC, |scene| {
        for option in [
            "init-addr none",
            "log-proto octet-count",
            "max-reuse 5",
            "namespace x",
            "no-agent-check",
            "no-check",
            "no-ssl",
            "non-stick",
            "redir http://x",
            "resolve-net 10.0.0.0/8",
            "resolve-opts allow-dup-ip",
            "resolve-prefer ipv4",
            "resolvers x",
            "socks4 127.0.0.1:1",
            "ssl-reuse",
            "stick",
            "tcp-ut 5s",
        ] {
            assert!(ServerOptions::parse(&[option.to_owned()]).is_err(), "{option}");
            let reply = scene.gateway.command(&format!("add server b/n1 {NOBODY} {option}"));
            assert!(
                reply.contains("option is not accepted for dynamic server"),
                "{option}: {reply}"
            );
        }
        // One that Mapsmith passes on and 2.6 does not take is told apart from other refusals.
        let cookie = scene.one(add("b", "n1", &["cookie x"]));
        assert!(if scene.version() >= (3, 0) {
            cookie.is_ok()
        } else {
            matches!(cookie, Err(Refusal::OptionNotTaken { .. }))
        });
    });
}
