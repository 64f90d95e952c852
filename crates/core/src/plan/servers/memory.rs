//! What an instance's task remembers of server lists from one plan to the next: HAProxy does not
//! show who put a server into maintenance, nor what it refused before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::{HaproxyVersion, Refusal};

use super::ServerPlan;
use super::report::Phase;
use super::step::ServerStep;
use crate::server::{
    AdminState, DesiredServers, ObservedServer, ObservedServers, Server, ServerAddress,
};

/// A backend and a server of it.
type Place = (String, String);

/// Beyond so many refusals all are forgotten, and each step is tried once more: a registry that
/// makes up new names all the time must not fill the memory.
const MAX_REFUSALS: usize = 10_000;

/// A server that has neither passed nor failed its check after so long is waited for no more. (By
/// HAProxy's own defaults it takes four seconds: two checks, two seconds apart.)
const LONGEST_CHECK: Duration = Duration::from_secs(30);

/// What was done to a server to take it away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// How long ago it was found draining or ordered to drain.
    pub age: Duration,
    pub drained: bool,
    pub maintained: bool,
    pub shut: bool,
    /// It was out because an operator had ordered that.
    pub ordered: bool,
}

/// What is remembered of one HAProxy process: a new one for a new process. Keeps no clock, see
/// [`ServerHistory::advance`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHistory {
    pub version: HaproxyVersion,
    /// The masters that the map routes nodes to: none of them is drained before its nodes have gone
    /// elsewhere.
    pub routed: Arc<BTreeSet<String>>,
    marks: BTreeMap<Place, Mark>,
    refused: BTreeMap<Place, Vec<(ServerStep, Refusal)>>,
    refusals: usize,
    static_backends: BTreeSet<String>,
    /// The servers that we deleted: one that is there again was added by somebody else.
    deleted: BTreeSet<Place>,
    moved: BTreeMap<Place, ServerAddress>,
    /// Servers that we have wait for their check to pass, and since when.
    checking: BTreeMap<Place, Duration>,
    /// Nothing was planned yet since Mapsmith's start.
    starts: bool,
    /// The options that HAProxy does not show, as servers were made or first seen with.
    options: BTreeMap<Place, Vec<String>>,
}

impl ServerHistory {
    /// Of a process that nothing was done to yet.
    pub fn new(version: HaproxyVersion) -> Self {
        Self {
            version,
            routed: Arc::default(),
            marks: BTreeMap::new(),
            refused: BTreeMap::new(),
            refusals: 0,
            static_backends: BTreeSet::new(),
            deleted: BTreeSet::new(),
            moved: BTreeMap::new(),
            checking: BTreeMap::new(),
            starts: false,
            options: BTreeMap::new(),
        }
    }

    /// Of another process of the same HAProxy, which may have taken over what is out: what an order
    /// took out is still ours to bring back.
    pub fn of_successor(&self, version: HaproxyVersion) -> Self {
        let marks = self.marks.iter().filter(|(_, mark)| mark.ordered);
        let marks = marks.map(|(place, mark)| (place.clone(), *mark)).collect();
        Self { marks, ..Self::new(version) }
    }

    /// Time passed since this was called last.
    pub fn advance(&mut self, by: Duration) {
        for mark in self.marks.values_mut() {
            mark.age = mark.age.saturating_add(by);
        }
        for age in self.checking.values_mut() {
            *age = age.saturating_add(by);
        }
    }

    /// These are desired from now on. To be called before each plan.
    pub fn desired(&mut self, desired: &DesiredServers) {
        // One that is listed again is ours again, whoever adds it.
        self.deleted.retain(|(backend, server)| {
            let backend = desired.backends.get(backend);
            backend.is_some_and(|backend| {
                backend.former.contains(server) && !backend.servers.contains_key(server)
            })
        });
    }

    /// These are there. One that is seen for the first time is taken to have the options that it
    /// should have. To be called before each plan.
    pub fn observed(&mut self, desired: &DesiredServers, observed: &ObservedServers) {
        self.options.retain(|(backend, server), _| {
            observed.get(backend).is_some_and(|seen| seen.servers.contains_key(server))
        });
        for (name, backend) in &desired.backends {
            let Some(seen) = observed.get(name) else { continue };
            for server in backend.servers.values() {
                let place = (name.clone(), server.name.clone());
                if seen.servers.contains_key(&server.name) && !self.options.contains_key(&place) {
                    self.options.insert(place, server.options.other.clone());
                }
            }
        }
    }

    /// These are there as Mapsmith starts. What is out, and was not among the servers in force back
    /// then, is on its way out: so it is ours, and comes back where it is listed again before it is
    /// gone. Only what the configuration disables is somebody's. To be called before the first plan.
    pub fn found_at_start(&mut self, desired: &DesiredServers, observed: &ObservedServers) {
        self.starts = true;
        for (name, backend) in &desired.backends {
            let (Some(in_force), Some(seen)) = (&backend.resumed, observed.get(name)) else {
                continue;
            };
            // A slot is not called like the server in it.
            let is_slot = |server: &str| {
                backend.slots.as_ref().is_some_and(|prefix| server.starts_with(prefix))
            };
            for (server, seen) in &seen.servers {
                let is_disabled = seen.admin.0 & AdminState::CONFIGURED_MAINTENANCE != 0;
                let is_leaving = !in_force.contains(server) && !is_slot(server) && !is_disabled;
                if is_leaving && is_out(seen.admin) {
                    let mark = self.marks.entry((name.clone(), server.clone())).or_default();
                    mark.drained = seen.admin.0 & AdminState::DRAIN != 0;
                    mark.maintained = seen.admin.0 & AdminState::MAINTENANCE != 0;
                }
            }
        }
    }

    /// A plan was made from what was observed: the drain bound of each removal runs from the first
    /// plan that drains it, and what is ready again or gone is forgotten. To be called once for
    /// each plan, before its steps.
    pub fn planned(&mut self, plan: &ServerPlan, observed: &ObservedServers) {
        let seen = |place: &Place| observed.get(&place.0)?.servers.get(&place.1);
        self.marks.retain(|place, _| seen(place).is_some_and(|server| is_out(server.admin)));
        self.moved.retain(|place, _| seen(place).is_some_and(|server| server.fqdn.is_some()));
        let waits = |server: &ObservedServer| {
            server.admin.ready() && !server.running && !server.check_failed
        };
        self.checking.retain(|place, age| seen(place).is_some_and(waits) && *age < LONGEST_CHECK);
        for removing in plan
            .removing
            .iter()
            .filter(|removing| !matches!(removing.phase, Phase::Waiting | Phase::Routed))
        {
            self.marks.entry((removing.backend.clone(), removing.server.clone())).or_default();
        }
        if std::mem::take(&mut self.starts) {
            for step in &plan.before {
                if let ServerStep::Ready { backend, server, .. } = step {
                    let mark = self.marks.entry((backend.clone(), server.clone())).or_default();
                    (mark.drained, mark.maintained, mark.ordered) = (true, true, true);
                }
            }
        }
        // Whoever took them out before: they are back once the order ends. Should they leave the
        // list meanwhile, the bound of their drain begins then.
        for place in &plan.ordered_out {
            let Some(admin) = seen(place).map(|server| server.admin).filter(|it| is_out(*it))
            else {
                continue;
            };
            let maintained = admin.0 & AdminState::MAINTENANCE != 0;
            let drained = admin.0 & AdminState::DRAIN != 0;
            let mark = Mark { drained, maintained, ordered: true, ..Mark::default() };
            self.marks.insert(place.clone(), mark);
        }
    }

    /// Whether nothing was planned yet since Mapsmith's start.
    pub(super) fn starts(&self) -> bool {
        self.starts
    }

    /// A step is about to be sent. Its answer may be lost, so what takes a server away counts as
    /// ours from here on.
    pub fn sending(&mut self, step: &ServerStep) {
        let Some(server) = step.server() else { return };
        let set: fn(&mut Mark) = match step {
            ServerStep::Drain { .. } => |mark| mark.drained = true,
            ServerStep::Maintain { .. } => |mark| mark.maintained = true,
            ServerStep::ShutdownSessions { .. } => |mark| mark.shut = true,
            _ => return,
        };
        set(self.marks.entry((step.backend().to_owned(), server.to_owned())).or_default());
    }

    /// A step was answered. A refusal that would come again is kept, so that the step is not sent
    /// again.
    pub fn answered(&mut self, step: &ServerStep, answer: Result<(), Refusal>) {
        let place = (step.backend().to_owned(), step.server().unwrap_or_default().to_owned());
        match (step, &answer) {
            (ServerStep::Delete { .. }, Ok(())) => {
                self.options.remove(&place);
                self.deleted.insert(place.clone());
            }
            (ServerStep::Add { server, .. } | ServerStep::AddOut { server, .. }, Ok(())) => {
                self.options.insert(place.clone(), server.options.other.clone());
            }
            _ => {}
        }
        if step.waits_for_check() && answer.is_ok() {
            self.checking.insert(place.clone(), Duration::ZERO);
        }
        // A backend whose name is taken and that is still not seen: a frontend has the name, or the
        // backend is `disabled`.
        let taken = |refusal: &Refusal| {
            matches!((step, refusal), (ServerStep::AddBackend { .. }, Refusal::NameTaken))
        };
        match (step, answer) {
            (_, Err(refusal)) if refusal.is_lasting() || taken(&refusal) => {
                if refusal == Refusal::StaticAlgorithm
                    && matches!(step, ServerStep::Add { .. } | ServerStep::AddOut { .. })
                {
                    self.static_backends.insert(step.backend().to_owned());
                }
                if self.refusals >= MAX_REFUSALS {
                    self.refused.clear();
                    self.refusals = 0;
                }
                self.refusals += 1;
                self.refused.entry(place).or_default().push((step.clone(), refusal));
            }
            (ServerStep::SetAddress { address, .. }, Ok(())) => {
                self.moved.insert(place, *address);
            }
            (
                ServerStep::Ready { .. }
                | ServerStep::Finish { .. }
                | ServerStep::TakeSlot { .. }
                | ServerStep::ClearSlot { .. }
                | ServerStep::Delete { .. },
                Ok(()),
            ) => {
                self.marks.remove(&place);
            }
            _ => {}
        }
    }

    pub(super) fn mark(&self, backend: &str, server: &str) -> Mark {
        self.marks.get(&(backend.to_owned(), server.to_owned())).copied().unwrap_or_default()
    }

    /// Whether we have the server wait for its check to pass, and that may still come.
    pub(super) fn waits_for_its_check(
        &self,
        backend: &str,
        server: &str,
        seen: &ObservedServer,
    ) -> bool {
        let place = (backend.to_owned(), server.to_owned());
        let young = self.checking.get(&place).is_some_and(|age| *age < LONGEST_CHECK);
        young && seen.admin.ready() && !seen.running && !seen.check_failed
    }

    /// The address that a server given by name took last.
    pub(super) fn moved_to(&self, backend: &str, server: &str) -> Option<ServerAddress> {
        self.moved.get(&(backend.to_owned(), server.to_owned())).copied()
    }

    /// Whether the server was made or first seen with other options than these, in any order.
    pub(super) fn has_other_options(&self, backend: &str, wanted: &Server) -> bool {
        let sorted = |options: &[String]| options.iter().cloned().collect::<BTreeSet<_>>();
        let (known, wanted) =
            (self.options.get(&(backend.to_owned(), wanted.name.clone())), &wanted.options.other);
        known.is_some_and(|known| known != wanted && sorted(known) != sorted(wanted))
    }

    /// Why exactly this step was refused before.
    pub(super) fn refusal(&self, step: &ServerStep) -> Option<&Refusal> {
        let place = (step.backend().to_owned(), step.server().unwrap_or_default().to_owned());
        self.refused
            .get(&place)?
            .iter()
            .find(|(refused, _)| refused == step)
            .map(|(_, refusal)| refusal)
    }

    /// Whether we deleted a server of this name, so that one that is there now is another's.
    pub(super) fn has_deleted(&self, backend: &str, server: &str) -> bool {
        self.deleted.contains(&(backend.to_owned(), server.to_owned()))
    }

    /// Whether the backend refused a server because its algorithm is static: it will refuse them
    /// all.
    pub(super) fn is_static(&self, backend: &str) -> bool {
        self.static_backends.contains(backend)
    }
}

/// Whether the runtime API, whoever used it, keeps the server out.
pub(super) fn is_out(admin: AdminState) -> bool {
    admin.0 & (AdminState::MAINTENANCE | AdminState::DRAIN) != 0
}
