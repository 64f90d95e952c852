//! The laws of the planner, over random processes, lists, hands and accidents.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::plan::servers::{Cause, Hand, Phase, ServerHistory, ServerPlan, plan_servers};
use crate::server::{DesiredBackend, DesiredServers, Manage, ServerOptions};

const BOUND: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(1);
/// Longer than any list takes to become right: a removal takes a handful of looks, and waits for
/// additions at most.
const PATIENCE: usize = 30;

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
        Server { name: String::new(), address, weight, backup, options: ServerOptions { check, maxconn, maxqueue, other } }
    }
}

prop_compose! {
    fn wanted()(
        servers in proptest::collection::btree_map("[a-e]", server(), 0..5),
        former in proptest::collection::btree_set(name(), 0..3),
        all in prop::bool::weighted(0.3),
        slots in prop::bool::weighted(0.7),
        defaults in proptest::option::of(prop_oneof![3 => Just("good"), 1 => Just("missing")]),
    ) -> DesiredBackend {
        DesiredBackend {
            servers: servers.into_iter().map(|(name, server)| (name.clone(), Server { name, ..server })).collect(),
            former,
            manage: if all { Manage::All } else { Manage::Own },
            slots: slots.then(|| "slot".to_owned()),
            defaults: defaults.map(str::to_owned),
            drain: BOUND,
        }
    }
}

fn desired() -> impl Strategy<Value = DesiredServers> {
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
        admin in prop_oneof![5 => Just(0), 2 => Just(0x01), 1 => Just(0x04), 1 => Just(0x05), 1 => Just(0x08), 1 => Just(0x0c)],
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
    fn process()(
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
        referenced in proptest::collection::btree_set((proptest::sample::select(&BACKENDS[..]), name()), 0..3),
    ) -> Process {
        let servers = backends
            .into_iter()
            .map(|(name, (algorithm, servers))| {
                (name.to_owned(), ObservedBackend { algorithm: Some(algorithm.to_owned()), servers })
            })
            .collect();
        Process {
            version: if new { ADDS_BACKENDS } else { HaproxyVersion { major: 2, minor: 6 } },
            servers,
            defaults: [("good".to_owned(), "unknown".to_owned())].into(),
            map_based: map_based.into_iter().map(str::to_owned).collect(),
            referenced: referenced.into_iter().map(|(backend, server)| (backend.to_owned(), server)).collect(),
            untaken: ["odd".to_owned()].into(),
            unchecked: BTreeSet::new(),
        }
    }
}

/// What happens between two looks.
#[derive(Debug, Clone)]
enum Event {
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

fn event() -> impl Strategy<Value = Event> {
    let backend = || proptest::sample::select(&BACKENDS[..]);
    let state = prop_oneof![Just(AdminState::MAINTENANCE), Just(AdminState::DRAIN), Just(0)];
    prop_oneof![
        3 => Just(Event::Rest),
        2 => desired().prop_map(Event::Desired),
        1 => Just(Event::Restart),
        3 => (backend(), name(), state).prop_map(|(backend, server, state)| Event::State(backend, server, state)),
        1 => (backend(), name()).prop_map(|(backend, server)| Event::Deleted(backend, server)),
        1 => (backend(), name(), address(), 0u16..4).prop_map(|(backend, server, to, weight)| Event::Changed(backend, server, to, weight)),
        1 => (0usize..6).prop_map(Event::Cut),
        1 => (1u64..3).prop_map(Event::Traffic),
        1 => (backend(), name(), any::<bool>()).prop_map(|(backend, server, up)| Event::Health(backend, server, up)),
    ]
}

/// A process, a Mapsmith, and what a person did that must not be undone.
struct World {
    process: Process,
    memory: ServerHistory,
    desired: DesiredServers,
    /// Desired servers under their own names that a person took out while they were ready.
    external: BTreeSet<(String, String)>,
    /// Refusals of this memory that would come again.
    refused: Vec<ServerStep>,
}

impl World {
    fn new(process: Process, desired: DesiredServers) -> Self {
        let memory = ServerHistory::new(process.version);
        Self { process, memory, desired, external: BTreeSet::new(), refused: Vec::new() }
    }

    fn server(&mut self, backend: &str, server: &str) -> Option<&mut ObservedServer> {
        self.process.servers.get_mut(backend)?.servers.get_mut(server)
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut ObservedServer> {
        self.process.servers.values_mut().flat_map(|backend| backend.servers.values_mut())
    }

    fn is_desired(&self, backend: &str, server: &str) -> bool {
        self.desired
            .backends
            .get(backend)
            .is_some_and(|backend| backend.servers.contains_key(server))
    }

    /// Whether a server is Mapsmith's to change: the other way round than the planner says it.
    fn is_ours(&self, backend: &str, server: &str, seen: &ObservedServer) -> bool {
        let Some(backend) = self.desired.backends.get(backend) else { return false };
        let is_slot = backend.slots.is_some() && server.starts_with("slot") && seen.fqdn.is_none();
        backend.manage == Manage::All
            || backend.servers.contains_key(server)
            || backend.former.contains(server)
            || is_slot
    }

    /// Lets an event happen; how many steps of the next look get through.
    fn happen(&mut self, event: Event) -> usize {
        match event {
            Event::Rest => self.rest(),
            Event::Desired(desired) => self.desired = desired,
            Event::Restart => {
                self.memory = ServerHistory::new(self.process.version);
                self.refused.clear();
            }
            Event::State(backend, server, state) => {
                let desired = self.is_desired(backend, &server);
                // Where our own hand is on the server too, nobody could tell whose it is.
                let unmarked = self.memory.mark(backend, &server) == Default::default();
                let Some(seen) = self.server(backend, &server) else { return usize::MAX };
                let was_ready = seen.admin.ready();
                let (backend, server) = (backend.to_owned(), server);
                let place = (backend.clone(), server.clone());
                let step = match state {
                    AdminState::MAINTENANCE => ServerStep::Maintain { backend, server },
                    AdminState::DRAIN => ServerStep::Drain { backend, server },
                    _ => ServerStep::Ready { backend, server, once_checked: false },
                };
                self.process.apply(&step).expect("the server is there");
                if state == 0 {
                    self.external.remove(&place);
                } else if desired && was_ready && unmarked {
                    self.external.insert(place);
                }
            }
            Event::Deleted(backend, server) => {
                if let Some(backend) = self.process.servers.get_mut(backend) {
                    backend.servers.remove(&server);
                }
                self.external.remove(&(backend.to_owned(), server));
            }
            Event::Changed(backend, server, to, weight) => {
                if let Some(seen) = self.server(backend, &server) {
                    let _ = set_address(seen, to);
                    seen.weight = weight;
                }
            }
            Event::Cut(steps) => return steps,
            Event::Traffic(sessions) => {
                for seen in self.servers().filter(|seen| seen.running) {
                    seen.sessions += sessions;
                    seen.sessions_total += sessions;
                }
            }
            Event::Health(backend, server, up) => {
                if let Some(seen) = self.server(backend, &server) {
                    seen.running = up && !seen.admin.in_maintenance();
                }
            }
        }
        usize::MAX
    }

    fn rest(&mut self) {
        self.process.pass_checks();
        for seen in self.servers() {
            seen.sessions = seen.sessions.saturating_sub(1);
            seen.queued = 0;
        }
    }

    /// One look, of which `reach` steps get through, with every law that holds at each step.
    fn look(&mut self, reach: usize) -> Result<ServerPlan, TestCaseError> {
        self.memory.desired(&self.desired);
        let plan = plan_servers(&self.desired, &self.process.servers, &self.memory);
        self.memory.planned(&plan, &self.process.servers);
        self.memory.advance(LOOK);
        let before = self.process.servers.clone();
        let desired = &self.desired;
        self.external.retain(|(backend, server)| {
            desired
                .backends
                .get(backend)
                .is_some_and(|backend| backend.servers.contains_key(server))
        });
        for (number, step) in plan.before.iter().chain(&plan.after).take(reach).enumerate() {
            prop_assert!(
                !self.refused.contains(step),
                "{step} was refused before and is sent again"
            );
            let held = self.process.servers.clone();
            self.memory.sending(step);
            let answer = self.process.apply(step);
            match &answer {
                Ok(()) => {
                    prop_assert_ne!(&held, &self.process.servers, "{} changes nothing", step);
                    self.assert_owned(step, &before)?;
                }
                Err(refusal) => {
                    prop_assert_eq!(&held, &self.process.servers);
                    // What a look saw was there a moment ago, so in this world nothing passing gets
                    // in the way, but for what follows from a backend that could not be made.
                    let follows = matches!(refusal, Refusal::NoSuchBackend)
                        && !before.contains_key(step.backend());
                    prop_assert!(refusal.is_lasting() || follows, "{step}: {refusal}");
                    if refusal.is_lasting() && number + 1 != reach {
                        self.refused.push(step.clone());
                    }
                }
            }
            if number + 1 != reach {
                self.memory.answered(step, answer);
            }
            if number < plan.before.len() {
                self.assert_still_ready(step, &before)?;
            }
        }
        for (backend, server) in &self.external {
            let admin = |servers: &ObservedServers| {
                servers.get(backend).and_then(|b| b.servers.get(server)).map(|s| s.admin)
            };
            prop_assert_eq!(
                admin(&before),
                admin(&self.process.servers),
                "a person took {}/{} out",
                backend,
                server
            );
        }
        self.assert_untouched(&before)?;
        self.assert_served(&before)?;
        Ok(plan)
    }

    /// A step touches a declared backend, and in it what is ours.
    fn assert_owned(
        &self,
        step: &ServerStep,
        before: &ObservedServers,
    ) -> Result<(), TestCaseError> {
        prop_assert!(
            self.desired.backends.contains_key(step.backend()),
            "{step}: nobody declared the backend"
        );
        if let Some((server, seen)) = step
            .server()
            .and_then(|server| Some((server, before.get(step.backend())?.servers.get(server)?)))
        {
            prop_assert!(self.is_ours(step.backend(), server, seen), "{step}: not ours");
        }
        Ok(())
    }

    /// No server that was ready and is desired is less so, whatever part of `before` has been done.
    fn assert_still_ready(
        &self,
        step: &ServerStep,
        before: &ObservedServers,
    ) -> Result<(), TestCaseError> {
        for (name, wanted) in &self.desired.backends {
            for server in wanted.servers.keys() {
                let seen = |servers: &ObservedServers| {
                    servers
                        .get(name)
                        .and_then(|b| b.servers.get(server))
                        .map(|s| (s.admin, s.running))
                };
                if seen(before).is_some_and(|(admin, _)| admin.ready()) {
                    prop_assert_eq!(
                        seen(before),
                        seen(&self.process.servers),
                        "{} took {}/{} away",
                        step,
                        name,
                        server
                    );
                }
            }
        }
        Ok(())
    }

    /// A backend that had a ready and running server, and should have any, has one still.
    fn assert_served(&self, before: &ObservedServers) -> Result<(), TestCaseError> {
        for (name, wanted) in
            self.desired.backends.iter().filter(|(_, wanted)| !wanted.servers.is_empty())
        {
            let serves = |servers: &ObservedServers| {
                servers.get(name).is_some_and(|seen| {
                    seen.servers.values().any(|server| server.admin.ready() && server.running)
                })
            };
            prop_assert!(
                !serves(before) || serves(&self.process.servers),
                "{name} of {wanted:?} lost its last server"
            );
        }
        Ok(())
    }

    fn assert_untouched(&self, before: &ObservedServers) -> Result<(), TestCaseError> {
        for (name, backend) in before {
            for (server, seen) in &backend.servers {
                if !self.is_ours(name, server, seen) {
                    let now = self
                        .process
                        .servers
                        .get(name)
                        .and_then(|backend| backend.servers.get(server));
                    prop_assert_eq!(Some(seen), now, "{}/{} is not ours", name, server);
                }
            }
        }
        Ok(())
    }

    /// Looks until there is nothing left to send, and holds the result against the lists.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let mut sent: Vec<ServerStep> = Vec::new();
        for _ in 0..PATIENCE {
            self.rest();
            let plan = self.look(usize::MAX)?;
            for step in plan.before.iter().chain(&plan.after) {
                // Sessions are shut down a second time where some came while it drained.
                let again =
                    sent.contains(step) && !matches!(step, ServerStep::ShutdownSessions { .. });
                prop_assert!(!again, "{step} was sent before");
                sent.push(step.clone());
            }
            if plan.has_no_steps()
                && plan.removing.iter().all(|removing| removing.phase == Phase::Waiting)
            {
                return self.assert_right(&plan);
            }
        }
        let plan = plan_servers(&self.desired, &self.process.servers, &self.memory);
        prop_assert!(false, "it does not settle: {plan:#?}");
        Ok(())
    }

    /// Everything is as it should be, or it is said why not.
    fn assert_right(&self, plan: &ServerPlan) -> Result<(), TestCaseError> {
        for (name, wanted) in &self.desired.backends {
            let reported = |server: Option<&str>, fits: &dyn Fn(&Cause) -> bool| {
                plan.needs_reload.iter().any(|needs| {
                    &needs.backend == name
                        && needs.server.as_deref() == server
                        && fits(&needs.cause)
                })
            };
            let Some(seen) = self.process.servers.get(name) else {
                prop_assert!(reported(None, &|_| true), "{name} is missing and nobody says so");
                continue;
            };
            let is_slot = |name: &str, seen: &ObservedServer| {
                wanted.slots.is_some()
                    && name.starts_with("slot")
                    && !wanted.former.contains(name)
                    && seen.fqdn.is_none()
            };
            let is_at = |seen: &ObservedServer, server: &Server| {
                seen.address == Some(server.address.ip) && seen.port == server.address.port
            };
            let mut slots_in_use = BTreeSet::new();
            let mut homeless = 0;
            for (server, wanted_server) in &wanted.servers {
                let in_slot = seen
                    .servers
                    .iter()
                    .find(|(slot, seen)| is_slot(slot, seen) && is_at(seen, wanted_server));
                if !seen.servers.contains_key(server) {
                    homeless += 1;
                    slots_in_use.extend(
                        seen.servers
                            .iter()
                            .filter(|(slot, seen)| {
                                is_slot(slot, seen) && is_at(seen, wanted_server)
                            })
                            .map(|(slot, _)| slot),
                    );
                }
                let Some((home, is)) = seen.servers.get_key_value(server).or(in_slot) else {
                    prop_assert!(
                        reported(Some(server), &|_| true),
                        "{name}/{server} is nowhere and nobody says so"
                    );
                    continue;
                };
                let said = |fits: &dyn Fn(&Cause) -> bool| {
                    // Of two slots at one address the planner may have chosen the other.
                    home != server || reported(Some(home), fits)
                };
                prop_assert!(
                    is_at(is, wanted_server)
                        || said(&|cause| matches!(cause, Cause::ResolvedByName { .. })),
                    "{name}/{home}: address"
                );
                let weighs = wanted_server.weight.is_none_or(|weight| weight == is.weight);
                prop_assert!(
                    weighs || said(&|cause| matches!(cause, Cause::StaticAlgorithm { .. })),
                    "{name}/{home}: weight"
                );
                let limited = wanted_server
                    .options
                    .maxconn
                    .is_none_or(|maxconn| limit(Some(maxconn)) == is.maxconn);
                prop_assert!(limited || home != server, "{name}/{home}: maxconn");
                let backed = wanted_server.backup == is.backup;
                prop_assert!(
                    backed || said(&|cause| matches!(cause, Cause::Backup { .. })),
                    "{name}/{home}: backup"
                );
                let external = plan
                    .external
                    .iter()
                    .find(|external| &external.backend == name && &external.server == home);
                match external.map(|external| external.hand) {
                    Some(Hand::Maintenance) => prop_assert!(is.admin.in_maintenance()),
                    Some(Hand::Drain) => prop_assert!(is.admin.draining()),
                    None => prop_assert!(
                        is.admin.ready()
                            || is.admin.0 & AdminState::UNRESOLVED != 0
                            || home != server,
                        "{name}/{home} is {:?} and nobody says so",
                        is.admin
                    ),
                }
            }
            let waiting = plan.removing.iter().filter(|removing| &removing.backend == name).count();
            let serving =
                slots_in_use.iter().filter(|slot| seen.servers[**slot].admin.ready()).count();
            prop_assert!(serving <= homeless + waiting, "{name}: more slots than servers");
            for (server, is) in &seen.servers {
                let free = is.admin.in_maintenance() && server.starts_with("slot");
                let waits = plan.removing.iter().any(|removing| {
                    &removing.backend == name
                        && &removing.server == server
                        && removing.phase == Phase::Waiting
                });
                prop_assert!(
                    wanted.servers.contains_key(server)
                        || slots_in_use.contains(server)
                        || !self.is_ours(name, server, is)
                        || free
                        || waits
                        || reported(Some(server), &|cause| *cause == Cause::Referenced),
                    "{name}/{server} should be gone"
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looks_bring_every_list_to_what_it_should_be_or_say_why_not(
        process in process(),
        desired in desired(),
    ) {
        World::new(process, desired).settle()?;
    }

    #[test]
    fn it_still_does_after_whatever_persons_restarts_and_cut_connections_did(
        process in process(),
        desired in desired(),
        events in proptest::collection::vec(event(), 0..12),
    ) {
        let mut world = World::new(process, desired);
        for event in events {
            let reach = world.happen(event);
            world.look(reach)?;
        }
        world.settle()?;
    }
}
