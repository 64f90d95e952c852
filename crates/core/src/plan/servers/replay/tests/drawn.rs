//! What is drawn: processes, lists of servers, and what happens to them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::server::{DesiredBackend, DesiredServers, Manage, ServerOptions};

const BOUND: Duration = Duration::from_secs(3);

/// Declared backends; `x` is there and not declared.
const BACKENDS: [&str; 3] = ["p", "q", "r"];

fn address() -> impl Strategy<Value = ServerAddress> {
    (1u8..6).prop_map(|host| ServerAddress { ip: [10, 0, 0, host].into(), port: 80 })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]", 1 => "slot[12]"]
}

prop_compose! {
    fn server()(
        address in address(),
        weight in proptest::option::of(0u16..4),
        backup in prop::bool::weighted(0.1),
        check: bool,
        maxconn in proptest::option::weighted(0.3, 0u32..3),
        maxqueue in proptest::option::weighted(0.1, 0u32..3),
        odd in prop::bool::weighted(0.1),
    ) -> Server {
        let other = if odd { vec!["odd".to_owned()] } else { vec![] };
        let options = ServerOptions { check, maxconn, maxqueue, other };
        Server { name: String::new(), address, weight, backup, options }
    }
}

prop_compose! {
    fn wanted()(
        servers in proptest::collection::btree_map("[a-e]", server(), 0..5),
        former in proptest::collection::btree_set(name(), 0..3),
        all in prop::bool::weighted(0.3),
        slots in prop::bool::weighted(0.7),
        defaults in proptest::option::of(prop_oneof![3 => Just("good"), 1 => Just("missing")]),
        drained in proptest::option::of(proptest::collection::btree_set("[a-e]", 0..3)),
        undrained in proptest::collection::btree_set("[a-e]", 0..3),
    ) -> DesiredBackend {
        DesiredBackend {
            servers: servers
                .into_iter()
                .map(|(name, server)| (name.clone(), Server { name, ..server }))
                .collect(),
            former,
            manage: if all { Manage::All } else { Manage::Own },
            slots: slots.then(|| "slot".to_owned()),
            defaults: defaults.map(str::to_owned),
            drain: BOUND,
            drained,
            undrained,
            ..DesiredBackend::default()
        }
    }
}

pub(super) fn desired() -> impl Strategy<Value = DesiredServers> {
    proptest::collection::btree_map(proptest::sample::select(&BACKENDS[..]), wanted(), 0..4)
        .prop_map(|backends| DesiredServers {
            number: 1,
            backends: backends
                .into_iter()
                .map(|(name, backend)| (name.to_owned(), backend))
                .collect(),
        })
}

prop_compose! {
    fn seen()(
        server in server(),
        placeless in prop::bool::weighted(0.2),
        fqdn in prop::bool::weighted(0.1),
        admin in prop_oneof![
            5 => Just(0),
            2 => Just(0x01),
            1 => Just(0x04),
            1 => Just(0x05),
            1 => Just(0x08),
            1 => Just(0x0c),
        ],
        unfinished in prop::bool::weighted(0.1),
        up in prop::bool::weighted(0.8),
        (sessions, queued) in (0u64..3, 0u64..2),
    ) -> ObservedServer {
        let mut seen = added(&server);
        seen.fqdn = fqdn.then(|| "name.example.test".to_owned());
        seen.admin = AdminState(admin);
        if placeless {
            seen.address = Some([0, 0, 0, 0].into());
        }
        if fqdn && placeless {
            seen.address = None;
            seen.admin.0 |= AdminState::UNRESOLVED;
        }
        if unfinished {
            seen.admin = AdminState(AdminState::MAINTENANCE);
            seen.check_enabled = false;
        }
        seen.running = up && !seen.admin.in_maintenance();
        (seen.sessions, seen.sessions_total) = (sessions, sessions);
        // Nobody waits for a server in maintenance.
        seen.queued = if seen.admin.in_maintenance() { 0 } else { queued };
        seen
    }
}

prop_compose! {
    pub(super) fn process()(
        new: bool,
        backends in proptest::collection::btree_map(
            proptest::sample::select(&["p", "q", "r", "x"][..]),
            (
                proptest::sample::select(&["roundrobin", "static-rr", "uri"][..]),
                proptest::collection::btree_map(name(), seen(), 0..7),
            ),
            1..5,
        ),
        map_based in proptest::collection::btree_set(proptest::sample::select(&BACKENDS[..]), 0..2),
        referenced in proptest::collection::btree_set(
            (proptest::sample::select(&BACKENDS[..]), name()),
            0..3,
        ),
    ) -> Process {
        let servers = backends
            .into_iter()
            .map(|(name, (algorithm, servers))| {
                let algorithm = Some(algorithm.to_owned());
                (name.to_owned(), ObservedBackend { algorithm, servers })
            })
            .collect();
        Process {
            version: if new { ADDS_BACKENDS } else { HaproxyVersion { major: 2, minor: 6 } },
            servers,
            defaults: [("good".to_owned(), "unknown".to_owned())].into(),
            map_based: map_based.into_iter().map(str::to_owned).collect(),
            referenced: referenced
                .into_iter()
                .map(|(backend, server)| (backend.to_owned(), server))
                .collect(),
            untaken: ["odd".to_owned()].into(),
            unchecked: BTreeSet::new(),
        }
    }
}

/// What happens between two looks.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Sessions end.
    Rest,
    /// The lists change.
    Desired(DesiredServers),
    /// Mapsmith restarts and remembers nothing.
    Restart,
    /// A person's `maint`, `drain` or `ready`.
    State(&'static str, String, u32),
    /// A person deletes a server, whatever it takes.
    Deleted(&'static str, String),
    /// A person moves a server and weighs it again.
    Changed(&'static str, String, ServerAddress, u16),
    /// Of the next look only so many steps reach HAProxy; of the last of them no answer comes back.
    Cut(usize),
    /// Traffic comes.
    Traffic(u64),
    /// A health check says otherwise.
    Health(&'static str, String, bool),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let backend = || proptest::sample::select(&BACKENDS[..]);
    let state = prop_oneof![Just(AdminState::MAINTENANCE), Just(AdminState::DRAIN), Just(0)];
    prop_oneof![
        3 => Just(Event::Rest),
        2 => desired().prop_map(Event::Desired),
        1 => Just(Event::Restart),
        3 => (backend(), name(), state)
            .prop_map(|(backend, server, state)| Event::State(backend, server, state)),
        1 => (backend(), name()).prop_map(|(backend, server)| Event::Deleted(backend, server)),
        1 => (backend(), name(), address(), 0u16..4)
            .prop_map(|(backend, server, to, weight)| Event::Changed(backend, server, to, weight)),
        1 => (0usize..6).prop_map(Event::Cut),
        1 => (1u64..3).prop_map(Event::Traffic),
        1 => (backend(), name(), any::<bool>())
            .prop_map(|(backend, server, up)| Event::Health(backend, server, up)),
    ]
}
