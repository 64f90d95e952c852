//! The planner's model of HAProxy's server lists held against the process: the same steps leave the
//! same lists in both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::server::command::{ServerCommand, ServerPath, ServerState};
use haproxy_runtime::{Refusal, RuntimeClient, ServersClient};
use mapsmith::instance::servers::commands_of;
use mapsmith_core::plan::servers::replay::Process;
use mapsmith_core::plan::servers::{ServerHistory, ServerStep, plan_servers};
use mapsmith_core::server::{Manage, ServerAddress, ServerOptions};
use mapsmith_core::{DesiredBackend, DesiredServers, ObservedServers, Server};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::support::eventually;
use crate::support::haproxy::{Gateway, installed};
use crate::support::master::Master;
use crate::support::scene::BOUND;

/// More looks than any list of these takes.
const LOOKS: usize = 20;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// `source` is static for its `hash-type`, which nothing shows.
const BACKENDS: &str = "backend dynamic\n    balance roundrobin\n    server a 127.0.0.1:1\n    \
    server b 127.0.0.1:1 backup\n\
                        backend slotted\n    balance source\n    server a 127.0.0.1:1\n    \
                        server-template slot 1-2 127.0.0.1:1 disabled\n";

/// What one server should be: which master's address, and its settings.
type Row = (&'static str, usize, Option<u16>, Option<u32>, bool, bool);

#[derive(Debug, Clone)]
struct Case {
    lists: Vec<Vec<Row>>,
    manage_all: bool,
    /// A person's command on one of the servers, where it is there.
    external: (&'static str, &'static str, Option<u8>),
    /// The master that is drained, where drains are these backends' matter.
    drained: Option<&'static str>,
    /// The master whose drain has ended.
    undrained: &'static str,
}

fn row() -> impl Strategy<Value = Row> {
    let weight = proptest::option::of(select(&[0, 1, 2, 3][..]));
    let maxconn = proptest::option::of(select(&[0, 10, 20][..]));
    (select(&NAMES[..]), 0..3_usize, weight, maxconn, prop::bool::weighted(0.1), any::<bool>())
}

fn case() -> impl Strategy<Value = Case> {
    let hand = (
        select(&["dynamic", "slotted"][..]),
        select(&["a", "b", "c", "slot1"][..]),
        proptest::option::of(0..3_u8),
    );
    let lists = proptest::collection::vec(proptest::collection::vec(row(), 0..4), 2);
    let drained = proptest::option::of(select(&NAMES[..]));
    (lists, any::<bool>(), hand, drained, select(&NAMES[..])).prop_map(
        |(lists, manage_all, external, drained, undrained)| Case {
            lists,
            manage_all,
            external,
            drained,
            undrained,
        },
    )
}

fn desired(case: &Case, masters: &[SocketAddr]) -> DesiredServers {
    let server = |(name, at, weight, maxconn, backup, check): &Row| Server {
        name: (*name).to_owned(),
        address: ServerAddress { ip: masters[*at].ip(), port: masters[*at].port() },
        weight: *weight,
        backup: *backup,
        // Checked often, so that a case does not wait for it.
        options: ServerOptions {
            check: *check,
            maxconn: *maxconn,
            other: if *check { vec!["inter".to_owned(), "50ms".to_owned()] } else { Vec::new() },
            ..ServerOptions::default()
        },
    };
    let backends = ["dynamic", "slotted"].into_iter().zip(&case.lists).map(|(name, rows)| {
        let servers: BTreeMap<_, _> =
            rows.iter().map(|row| (row.0.to_owned(), server(row))).collect();
        let former: BTreeSet<_> = NAMES
            .into_iter()
            .map(str::to_owned)
            .filter(|name| !servers.contains_key(name))
            .collect();
        let backend = DesiredBackend {
            servers,
            former,
            manage: if case.manage_all { Manage::All } else { Manage::Own },
            slots: (name == "slotted").then(|| "slot".to_owned()),
            defaults: None,
            drain: Duration::ZERO,
            drained: case.drained.map(|master| [master.to_owned()].into()),
            undrained: [case.undrained.to_owned()].into(),
            ..DesiredBackend::default()
        };
        (name.to_owned(), backend)
    });
    DesiredServers { number: 1, backends: backends.collect() }
}

/// A process, its model, and what a Mapsmith remembers of both.
struct Scene {
    client: ServersClient,
    runtime: tokio::runtime::Runtime,
    model: Process,
    memory: ServerHistory,
    sent: BTreeSet<&'static str>,
}

impl Scene {
    fn observe(&self) -> ObservedServers {
        let seen = self.runtime.block_on(self.client.observe()).expect("the servers are listed");
        comparable(
            seen.into_iter()
                .filter(|(name, _)| ["dynamic", "slotted"].contains(&name.as_str()))
                .collect(),
        )
    }

    fn run(&self, commands: &[ServerCommand]) -> Result<(), Refusal> {
        let outcomes =
            self.runtime.block_on(self.client.run(commands)).expect("the commands are answered");
        outcomes.into_iter().collect()
    }

    /// From 3.0 on HAProxy changes an address a moment after its answer.
    fn agree(&mut self, what: &str) {
        let mut last = None;
        let agreed = crate::support::poll(BOUND, || {
            let seen = self.observe();
            // When a check passes is the process's own affair.
            let is_up = |(backend, server): &(String, String)| {
                seen[backend].servers.get(server).is_some_and(|seen| seen.running)
            };
            if !self.model.unchecked.is_empty() && self.model.unchecked.iter().all(is_up) {
                self.model.pass_checks();
            }
            let same = seen == comparable(self.model.servers.clone());
            last = Some(seen);
            (same && self.model.unchecked.is_empty()).then_some(())
        });
        let model = &self.model.servers;
        assert!(
            agreed.is_some(),
            "{what}: the process has\n{:#?}\nand the model\n{model:#?}",
            last.unwrap_or_default()
        );
    }

    /// One step on both.
    fn step(&mut self, step: &ServerStep) {
        self.memory.sending(step);
        let commands = commands_of(step).expect("valid names");
        if let ServerStep::TakeSlot { .. } = step {
            // As the instance's task does it: ready only after the new address is in force.
            assert_eq!(self.run(&commands[..1]), Ok(()), "{step}");
            let ServerStep::TakeSlot { backend, slot, server, .. } = step else {
                panic!("{step:?} takes no slot")
            };
            eventually("the slot has its address", BOUND, || {
                let seen = self.observe();
                (seen[backend].servers[slot].port == server.address.port).then_some(())
            });
            for command in &commands[1..] {
                // A static algorithm takes no weight, and the slot serves all the same.
                let _ = self.run(std::slice::from_ref(command));
            }
            assert_eq!(self.model.apply(step), Ok(()), "{step}");
            self.memory.answered(step, Ok(()));
            return;
        }
        let (answer, expected) = (self.run(&commands), self.model.apply(step));
        let kind = |answer: &Result<(), Refusal>| answer.as_ref().err().map(std::mem::discriminant);
        assert_eq!(
            kind(&answer),
            kind(&expected),
            "{step}: the process says {answer:?} and the model {expected:?}"
        );
        self.memory.answered(step, answer);
    }

    fn external(&mut self, (backend, server, state): (&str, &str, Option<u8>)) {
        let Some(state) = state else { return };
        if !self.model.servers[backend].servers.contains_key(server) {
            return;
        }
        let at = ServerPath::new(backend, server).expect("valid names");
        let (backend, server) = (backend.to_owned(), server.to_owned());
        let (state, step) = match state {
            0 => (ServerState::Ready, ServerStep::Ready { backend, server, once_checked: false }),
            1 => (ServerState::Drain, ServerStep::Drain { backend, server }),
            _ => (ServerState::Maintenance, ServerStep::Maintain { backend, server }),
        };
        assert_eq!(self.run(&[ServerCommand::SetState { at, state }]), Ok(()));
        assert_eq!(self.model.apply(&step), Ok(()));
        self.agree("after a person's command");
    }

    fn check(&mut self, case: &Case, masters: &[SocketAddr]) {
        self.external(case.external);
        let desired = desired(case, masters);
        self.memory.desired(&desired);
        for _ in 0..LOOKS {
            let seen = self.observe();
            let plan = plan_servers(&desired, &seen, &self.memory);
            assert_eq!(
                plan,
                plan_servers(&desired, &comparable(self.model.servers.clone()), &self.memory)
            );
            self.memory.planned(&plan, &seen);
            if plan.has_no_steps() {
                return;
            }
            for step in plan.before.iter().chain(&plan.after) {
                self.sent.insert(kind(step));
                self.step(step);
                self.agree(&step.to_string());
            }
            self.memory.advance(Duration::from_secs(1));
        }
        panic!(
            "after {LOOKS} looks there are steps left: {:?}",
            plan_servers(&desired, &self.observe(), &self.memory)
        );
    }
}

/// Without what differs by the moment.
fn comparable(mut servers: ObservedServers) -> ObservedServers {
    for server in servers.values_mut().flat_map(|backend| backend.servers.values_mut()) {
        server.status = String::new();
        server.last_check = String::new();
        server.sessions_total = 0;
        server.check_failed = false;
        // What `0.0.0.0` is for the process is not an address for the model.
        server.address = server.address.filter(|ip| !ip.is_unspecified());
    }
    servers
}

fn kind(step: &ServerStep) -> &'static str {
    match step {
        ServerStep::Add { .. } => "add",
        ServerStep::SetAddress { .. } => "address",
        ServerStep::SetWeight { .. } => "weight",
        ServerStep::SetMaxconn { .. } => "maxconn",
        ServerStep::TakeSlot { .. } => "slot",
        ServerStep::ClearSlot { .. } => "clear",
        ServerStep::Drain { .. } => "drain",
        ServerStep::Maintain { .. } => "maintain",
        ServerStep::Delete { .. } => "delete",
        ServerStep::Ready { .. } => "ready",
        _ => "other",
    }
}

#[test]
fn the_same_steps_leave_the_same_servers_in_the_model_and_in_the_process() {
    for binary in installed() {
        let masters: Vec<_> = ["m1", "m2", "m3"].into_iter().map(Master::start).collect();
        let addresses: Vec<_> = masters.iter().map(Master::address).collect();
        let gateway = Gateway::plan(binary).more(BACKENDS).start();
        let address = gateway.runtime_address().parse().expect("an address");
        let version =
            HaproxyVersion { major: binary.version.0 as u16, minor: binary.version.1 as u16 };
        let mut scene = Scene {
            client: ServersClient::new(RuntimeClient::new(address, Duration::from_secs(60)), 8192),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            model: Process::new(version, ObservedServers::new()),
            memory: ServerHistory::new(version),
            sent: BTreeSet::new(),
        };
        scene.model.servers = scene.observe();
        scene.model.map_based.insert("slotted".to_owned());
        let scene = std::cell::RefCell::new(scene);
        // Each case goes on where the one before it ended, so a smaller one would be another story.
        let config = Config {
            cases: 40,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        };
        TestRunner::new(config)
            .run(&case(), |case| {
                scene.borrow_mut().check(&case, &addresses);
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("HAProxy {version}: {failure}"));
        let sent = scene.into_inner().sent;
        for step in
            ["add", "address", "weight", "maxconn", "slot", "clear", "drain", "maintain", "delete"]
        {
            assert!(sent.contains(step), "HAProxy {version}: {step} was never sent, only {sent:?}");
        }
    }
}
