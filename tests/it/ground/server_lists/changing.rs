//! What can be changed at runtime, and what one command does among many.

use haproxy_runtime::{
    BackendName, Refusal, RuntimeClient, ServerCommand, ServerState, ServersClient,
};
use mapsmith_core::server::AdminState;

use super::{
    BOUND, DYNAMIC, HeldMaster, Stream, add, address, at, delete, every_version, set_state,
};
use crate::support::eventually;
use crate::support::haproxy::{Gateway, installed};

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
