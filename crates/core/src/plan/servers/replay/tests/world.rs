//! A process, a Mapsmith and persons, look after look.

use std::time::Duration;

use proptest::prelude::*;

use super::drawn::Event;
use super::*;
use crate::plan::servers::{Phase, ServerHistory, ServerPlan, plan_servers};
use crate::server::{DesiredServers, Manage};

const LOOK: Duration = Duration::from_secs(1);

/// Longer than any list takes to become right: a removal takes a handful of looks, and waits for
/// additions at most.
const PATIENCE: usize = 30;

/// A process, a Mapsmith, and what a person did that must not be undone.
pub(super) struct World {
    pub(super) process: Process,
    pub(super) memory: ServerHistory,
    pub(super) desired: DesiredServers,
    /// Desired servers under their own names that a person took out while they were ready.
    pub(super) external: BTreeSet<(String, String)>,
    /// Refusals of this memory that would come again.
    pub(super) refused: Vec<ServerStep>,
}

impl World {
    pub(super) fn new(process: Process, desired: DesiredServers) -> Self {
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
    pub(super) fn is_ours(&self, backend: &str, server: &str, seen: &ObservedServer) -> bool {
        let Some(backend) = self.desired.backends.get(backend) else { return false };
        let is_slot = backend.slots.is_some() && server.starts_with("slot") && seen.fqdn.is_none();
        backend.manage == Manage::All
            || backend.servers.contains_key(server)
            || backend.former.contains(server)
            || is_slot
    }

    /// Lets an event happen; how many steps of the next look get through.
    pub(super) fn happen(&mut self, event: Event) -> usize {
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
    pub(super) fn look(&mut self, reach: usize) -> Result<ServerPlan, TestCaseError> {
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

    /// Looks until there is nothing left to send, and holds the result against the lists.
    pub(super) fn settle(&mut self) -> Result<(), TestCaseError> {
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
}
