//! The steps that bring an instance's server lists to what they should be.
//!
//! In order of preference: change in place; `add server`; a slot of a `server-template`; and where
//! none will do, a reload is named with its cause. Only declared backends are touched, and in them
//! only what is Mapsmith's. What a person put into maintenance or drain stays so. Every step is
//! justified by what was observed, and a removal takes one phase a plan.

mod memory;
mod ordered;
pub mod replay;
mod report;
mod slots;
mod step;

use std::collections::BTreeMap;

use haproxy_runtime::HaproxyVersion;
pub use memory::{Mark, ServerHistory};
pub use report::{AwaitsCheck, ByAgent, Cause, ExternalChange, Hand, NeedsReload, Phase, Removing};
pub use step::ServerStep;

use self::memory::is_out;
use self::replay::limit;
use self::slots::Slots;
use crate::server::shown::shown_options;
use crate::server::{
    AdminState, DesiredBackend, DesiredServers, Manage, ObservedBackend, ObservedServer,
    ObservedServers, Server, ServerAddress,
};

pub const ADDS_BACKENDS: HaproxyVersion = HaproxyVersion { major: 3, minor: 4 };

/// The one algorithm that is static whatever else the configuration says, as `show stat` names it.
/// `source`, `uri`, `url_param`, `hdr`, `rdp-cookie` and `hash` are by their `hash-type`, which is
/// not shown: those are tried, and a refusal is remembered. `random` is shown as `unknown`.
/// (Measured on 2.6 to 3.4.)
pub const STATIC_ALGORITHM: &str = "static-rr";

/// What is to be done on one instance, and what can't be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerPlan {
    /// Steps after which servers exist, are ready and are where they should be: before the map is
    /// changed.
    pub before: Vec<ServerStep>,
    /// Steps that take servers away: only once the map in force points elsewhere.
    pub after: Vec<ServerStep>,
    pub removing: Vec<Removing>,
    /// What only a changed configuration and a reload can bring about.
    pub needs_reload: Vec<NeedsReload>,
    /// Desired servers that somebody else keeps out.
    pub external: Vec<ExternalChange>,
    /// Desired servers that we made ready, and whose check has yet to pass: no request goes there
    /// before.
    pub checking: Vec<AwaitsCheck>,
    /// Desired servers whose weight is their agent's.
    pub by_agent: Vec<ByAgent>,
    /// Backends and servers, by HAProxy's name, that an operator has ordered out of rotation.
    pub ordered_out: Vec<(String, String)>,
    /// How many servers of declared backends are not Mapsmith's.
    pub foreign: usize,
}

impl ServerPlan {
    pub fn has_no_steps(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

/// Plans from one observation of one instance.
pub fn plan_servers(
    desired: &DesiredServers,
    observed: &ObservedServers,
    memory: &ServerHistory,
) -> ServerPlan {
    let mut plan = ServerPlan::default();
    for (name, wanted) in &desired.backends {
        match observed.get(name) {
            Some(seen) => {
                plan_backend(&mut Backend { name, wanted, seen, memory, plan: &mut plan })
            }
            None => plan_missing(name, wanted, memory, &mut plan),
        }
    }
    plan
}

fn plan_missing(
    name: &str,
    wanted: &DesiredBackend,
    memory: &ServerHistory,
    plan: &mut ServerPlan,
) {
    let defaults = wanted.defaults.as_ref().filter(|_| memory.version >= ADDS_BACKENDS);
    let cause = match defaults {
        None => Some(Cause::BackendAbsent { version: memory.version }),
        Some(defaults) => {
            let step =
                ServerStep::AddBackend { backend: name.to_owned(), defaults: defaults.clone() };
            let refused = memory.refusal(&step).map(|refusal| Cause::from_refusal(refusal, None));
            if refused.is_none() {
                plan.before.push(step);
            }
            refused
        }
    };
    if let Some(cause) = cause {
        plan.needs_reload.push(NeedsReload { backend: name.to_owned(), server: None, cause });
        return;
    }
    for server in wanted.as_ordered().values() {
        let step = ordered::addition(name, wanted, server);
        match add_is_futile(&step, None, memory) {
            None => plan.before.push(step),
            Some(cause) => {
                let server = Some(server.name.clone());
                plan.needs_reload.push(NeedsReload { backend: name.to_owned(), server, cause });
            }
        }
    }
}

/// Why HAProxy would refuse to add a server, if that is known.
fn add_is_futile(
    add: &ServerStep,
    algorithm: Option<&str>,
    memory: &ServerHistory,
) -> Option<Cause> {
    if let Some(refusal) = memory.refusal(add) {
        return Some(Cause::from_refusal(refusal, algorithm));
    }
    let is_static = algorithm == Some(STATIC_ALGORITHM) || memory.is_static(add.backend());
    is_static.then(|| Cause::StaticAlgorithm { algorithm: algorithm.map(str::to_owned) })
}

/// A declared backend that HAProxy has, and the plan that grows.
struct Backend<'a> {
    name: &'a str,
    wanted: &'a DesiredBackend,
    seen: &'a ObservedBackend,
    memory: &'a ServerHistory,
    plan: &'a mut ServerPlan,
}

fn plan_backend(backend: &mut Backend<'_>) {
    let (wanted, seen) = (backend.wanted, backend.seen);
    let servers = wanted.as_ordered();
    let mut slots = Slots::new(backend.name, wanted, seen, backend.memory);
    // Where each desired server is: under its own name, or in a slot.
    let mut homes = BTreeMap::new();
    let (mut usable, mut others_serve) = (false, false);
    for (name, server) in &*servers {
        let home =
            if seen.servers.contains_key(name) { Some(name.as_str()) } else { slots.serving(name) };
        if let Some((home, seen)) = home.and_then(|home| seen.servers.get_key_value(home)) {
            homes.insert(name.as_str(), (home.as_str(), seen));
            let ready = seen.admin.ready() && seen.running && !wanted.is_ordered_out(name);
            usable |= ready;
            others_serve |=
                ready && !wanted.is_drained(name) && backend.weight_alone(server, seen) > 0;
        }
    }
    for (name, server) in &*servers {
        match homes.get(name.as_str()) {
            Some((home, seen)) => {
                let weight = backend.weight(server, seen, others_serve);
                backend.keep(server, home, seen, weight);
            }
            None => backend.place(server, &mut slots),
        }
    }
    let homes: BTreeMap<_, _> = homes.into_values().collect();
    for (home, server) in &homes {
        if backend.memory.waits_for_its_check(backend.name, home, server) {
            let (server, alone) = ((*home).to_owned(), !usable);
            backend.plan.checking.push(AwaitsCheck {
                backend: backend.name.to_owned(),
                server,
                alone,
            });
        }
    }
    let may_drain = usable || wanted.servers.is_empty();
    for (name, server) in &seen.servers {
        if homes.contains_key(name.as_str()) || slots.is_taken(name) {
            continue;
        }
        if slots.contains(name) {
            backend.remove(name, server, true, may_drain);
        } else if wanted.manage == Manage::All
            || wanted.former.contains(name) && !backend.memory.has_deleted(backend.name, name)
        {
            // A former server that is there again after it was deleted is somebody else's: a second
            // Mapsmith that still lists it would bring it back each time.
            backend.remove(name, server, false, may_drain);
        } else {
            backend.follow_order(name, server);
            backend.plan.foreign += 1;
        }
    }
}

/// Where an instance has each listed server: under its own name, or in a slot. A server that it
/// does not have is not there.
pub fn homes<'a>(
    backend: &'a str,
    wanted: &'a DesiredBackend,
    seen: &'a ObservedBackend,
) -> BTreeMap<&'a str, &'a str> {
    let nothing = ServerHistory::new(HaproxyVersion { major: 0, minor: 0 });
    let slots = Slots::new(backend, wanted, seen, &nothing);
    let home = |name: &'a String| {
        let own = seen.servers.get_key_value(name).map(|(name, _)| name.as_str());
        Some((
            name.as_str(),
            own.or_else(|| slots.serving(name).and_then(|slot| seen_name(seen, slot)))?,
        ))
    };
    wanted.servers.keys().filter_map(home).collect()
}

fn seen_name<'a>(seen: &'a ObservedBackend, name: &str) -> Option<&'a str> {
    seen.servers.get_key_value(name).map(|(name, _)| name.as_str())
}

impl Backend<'_> {
    /// The weight that a server should have, whose ordered weight counts as the listed one; none
    /// leaves the one it has. A drained one has 0 only while another serves: a master that is about
    /// to go is better than none.
    fn weight(&self, wanted: &Server, seen: &ObservedServer, others_serve: bool) -> Option<u16> {
        let is_drained = self.wanted.is_drained(&wanted.name);
        if is_drained && others_serve {
            Some(0)
        } else if self.wanted.ordered.get(&wanted.name).is_some_and(|it| it.weight.is_some()) {
            wanted.weight
        } else if seen.weight == 0 && (is_drained || self.wanted.undrained.contains(&wanted.name)) {
            // Any other 0 is a person's, and stays.
            Some(wanted.weight.unwrap_or(seen.initial_weight))
        } else {
            wanted.weight.or_else(|| self.weight_of_release(&wanted.name, seen))
        }
    }

    /// The weight that a server has once the plan is carried out, were no other there.
    fn weight_alone(&self, wanted: &Server, seen: &ObservedServer) -> u16 {
        let to_be_set = self.weight(wanted, seen, false).filter(|_| !seen.agent_enabled);
        to_be_set.unwrap_or(seen.weight)
    }

    /// A desired server that is there, under its own name or a slot's.
    fn keep(&mut self, wanted: &Server, home: &str, seen: &ObservedServer, weight: Option<u16>) {
        let (backend, server) = (self.name.to_owned(), home.to_owned());
        // What somebody else did keeps the server out, no more: its address and weight stay right
        // for the day it comes back.
        if address_of(seen) != Some(wanted.address) {
            match &seen.fqdn {
                // A server whose name has not been resolved takes no address at all (2.6 even calls
                // it ready then). Any other does, but where it has `resolvers`, which is not shown,
                // HAProxy undoes it at their next answer: so it is tried once.
                Some(fqdn)
                    if seen.address.is_none()
                        || self.memory.moved_to(self.name, home) == Some(wanted.address) =>
                {
                    self.report(home, Cause::ResolvedByName { fqdn: fqdn.clone() });
                }
                _ => self.change(ServerStep::SetAddress {
                    backend: backend.clone(),
                    server: server.clone(),
                    address: wanted.address,
                }),
            }
        }
        if let Some(weight) = weight.filter(|weight| *weight != seen.weight) {
            let (backend, server) = (backend.clone(), server.clone());
            if seen.agent_enabled {
                // It would set its own again at its next answer, and we ours.
                self.plan.by_agent.push(ByAgent {
                    backend,
                    server,
                    weight: seen.weight,
                    listed: weight,
                });
            } else {
                self.change(ServerStep::SetWeight { backend, server, weight });
            }
        }
        if let Some(maxconn) =
            wanted.options.maxconn.filter(|maxconn| limit(Some(*maxconn)) != limit(seen.maxconn))
        {
            self.change(ServerStep::SetMaxconn {
                backend: backend.clone(),
                server: server.clone(),
                maxconn,
            });
        }
        self.report_fixed(wanted, home, seen);
        if home == wanted.name && self.memory.has_other_options(self.name, wanted) {
            let wanted = shown_options(&wanted.options.other).join(" ");
            self.report(home, Cause::Options { wanted });
        }
        if let Some(state) = self.wanted.ordered_state(&wanted.name) {
            return self.bring_to(state, home, seen);
        }
        let mark = self.mark(&wanted.name, home);
        if is_unfinished(seen) {
            self.change(ServerStep::Finish { backend, server });
        } else if let Some(hand) = hand(seen, mark) {
            self.plan.external.push(ExternalChange { backend, server, hand });
        } else if is_out(seen.admin) {
            self.change(ServerStep::Ready {
                backend,
                server,
                once_checked: comes_back_unchecked(seen),
            });
        }
    }

    /// A desired server that is not there.
    fn place(&mut self, wanted: &Server, slots: &mut Slots<'_>) {
        let add = ordered::addition(self.name, self.wanted, wanted);
        let Some(cause) = add_is_futile(&add, self.seen.algorithm.as_deref(), self.memory) else {
            self.plan.before.push(add);
            return;
        };
        let Some(prefix) = &self.wanted.slots else {
            self.report(&wanted.name, cause);
            return;
        };
        if self.wanted.is_ordered_out(&wanted.name) {
            // A slot that serves nobody is as good as one that is out.
            return;
        }
        match slots.take(wanted) {
            Some((slot, seen)) => {
                self.plan.before.push(slots.step(slot, wanted));
                self.report_fixed(wanted, slot, seen);
            }
            None => {
                self.report(
                    &wanted.name,
                    Cause::NoFreeSlot { prefix: prefix.clone(), because: Box::new(cause) },
                );
            }
        }
    }

    fn report_fixed(&mut self, wanted: &Server, home: &str, seen: &ObservedServer) {
        if wanted.backup != seen.backup {
            self.report(home, Cause::Backup { wanted: wanted.backup });
        }
        if let Some(maxqueue) = wanted
            .options
            .maxqueue
            .filter(|maxqueue| limit(Some(*maxqueue)) != limit(seen.maxqueue))
        {
            self.report(home, Cause::Maxqueue { wanted: maxqueue });
        }
        if wanted.options.check && !seen.check_configured {
            self.report(home, Cause::Check);
        }
    }

    /// The next phase in taking a server away. A slot is not deleted but cleared.
    fn remove(&mut self, name: &str, seen: &ObservedServer, is_slot: bool, may_drain: bool) {
        let mark = self.memory.mark(self.name, name);
        let (backend, server) = (self.name.to_owned(), name.to_owned());
        let in_maintenance = seen.admin.0 & AdminState::MAINTENANCE != 0;
        if is_slot && in_maintenance && (!mark.maintained || address_of(seen).is_none()) {
            // A free slot.
            return;
        }
        let quiet = seen.sessions == 0 && seen.queued == 0;
        let overdue = mark.age >= self.wanted.drain;
        let (phase, step) = if in_maintenance {
            if quiet && is_slot {
                (Phase::Deleting, Some(ServerStep::ClearSlot { backend, slot: server }))
            } else if quiet {
                (Phase::Deleting, Some(ServerStep::Delete { backend, server }))
            } else if overdue && seen.sessions > 0 {
                (Phase::ShuttingDown, Some(ServerStep::ShutdownSessions { backend, server }))
            } else {
                (Phase::Maintenance, None)
            }
        } else if seen.admin.0 & AdminState::DRAIN != 0 {
            if quiet || overdue && (mark.shut || seen.sessions == 0) {
                // Persistence brings new sessions to a draining server, so after one shutdown those
                // that are there don't count; and what only waits is sent elsewhere by the
                // maintenance.
                (Phase::Maintenance, Some(ServerStep::Maintain { backend, server }))
            } else if overdue {
                (Phase::ShuttingDown, Some(ServerStep::ShutdownSessions { backend, server }))
            } else {
                (Phase::Draining, None)
            }
        } else if self.memory.routed.contains(name) {
            (Phase::Routed, None)
        } else if may_drain {
            (Phase::Draining, Some(ServerStep::Drain { backend, server }))
        } else {
            (Phase::Waiting, None)
        };
        if let Some(step) = step {
            if let Some(refusal) = self.memory.refusal(&step) {
                // It stays as it is; there is no progress to show.
                self.report(name, Cause::from_refusal(refusal, None));
                return;
            }
            self.plan.after.push(step);
        }
        self.plan.removing.push(Removing {
            backend: self.name.to_owned(),
            server: name.to_owned(),
            phase,
            sessions: seen.sessions,
            queued: seen.queued,
            age: mark.age,
        });
    }

    /// A change in place of a desired server, unless HAProxy refused it before.
    fn change(&mut self, step: ServerStep) {
        match self.memory.refusal(&step) {
            Some(refusal) => {
                let cause = Cause::from_refusal(refusal, self.seen.algorithm.as_deref());
                self.report(step.server().unwrap_or_default(), cause);
            }
            None => self.plan.before.push(step),
        }
    }

    fn report(&mut self, server: &str, cause: Cause) {
        self.plan.needs_reload.push(NeedsReload {
            backend: self.name.to_owned(),
            server: Some(server.to_owned()),
            cause,
        });
    }
}

/// Where a server is; none for the placeholder addresses of free slots.
fn address_of(server: &ObservedServer) -> Option<ServerAddress> {
    let ip = server.address.filter(|ip| !ip.is_unspecified())?;
    Some(ServerAddress { ip, port: server.port })
}

/// An `add server` whose `enable health` never came: only that leaves a check configured and not
/// enabled in maintenance. (A person who disables the check and the server before its first session
/// leaves the same.)
fn is_unfinished(server: &ObservedServer) -> bool {
    server.admin.0 == AdminState::MAINTENANCE
        && server.check_configured
        && !server.check_enabled
        && server.sessions_total == 0
}

/// Whether a server with a running check is in maintenance: HAProxy takes it for up when it comes
/// out, whatever is there.
fn comes_back_unchecked(server: &ObservedServer) -> bool {
    server.admin.0 & AdminState::MAINTENANCE != 0 && server.check_configured && server.check_enabled
}

/// Whether somebody other than us keeps a server out. `disabled` in the configuration is somebody.
fn hand(server: &ObservedServer, mark: Mark) -> Option<Hand> {
    if server.admin.0 & AdminState::MAINTENANCE != 0 {
        (!mark.maintained).then_some(Hand::Maintenance)
    } else if server.admin.0 & AdminState::DRAIN != 0 {
        (!mark.drained).then_some(Hand::Drain)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
