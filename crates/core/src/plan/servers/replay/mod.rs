//! A model of a HAProxy process's server lists: what a step leaves behind, or why it is refused.
//! The tests hold it against the real process.
//!
//! It keeps what can be observed and the few hidden facts that refusals depend on. It leaves out
//! that `set server addr` shows only a moment later from 3.2 on, what tracking servers inherit, the
//! counts in a `status`, and traffic: sessions are what a test says they are.

use std::collections::{BTreeMap, BTreeSet};

use haproxy_runtime::{HaproxyVersion, Refusal};

use super::step::ServerStep;
use super::{ADDS_BACKENDS, STATIC_ALGORITHM};
use crate::server::{
    AdminState, ObservedBackend, ObservedServer, ObservedServers, Server, ServerAddress,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub version: HaproxyVersion,
    pub servers: ObservedServers,
    /// The named `defaults` sections, with the algorithm that `show stat` names for a backend made
    /// of them.
    pub defaults: BTreeMap<String, String>,
    /// Backends whose algorithm is static though its name does not tell: `source`, `uri`, ... with
    /// `hash-type map-based`.
    pub map_based: BTreeSet<String>,
    /// Servers that the configuration refers to, by backend and name.
    pub referenced: BTreeSet<(String, String)>,
    /// Options that `add server` does not take.
    pub untaken: BTreeSet<String>,
    /// Servers that are down only until their first check since has passed, by backend and name.
    pub unchecked: BTreeSet<(String, String)>,
}

impl Process {
    pub fn new(version: HaproxyVersion, servers: ObservedServers) -> Self {
        Self {
            version,
            servers,
            defaults: BTreeMap::new(),
            map_based: BTreeSet::new(),
            referenced: BTreeSet::new(),
            untaken: BTreeSet::new(),
            unchecked: BTreeSet::new(),
        }
    }

    pub fn pass_checks(&mut self) {
        for (backend, server) in std::mem::take(&mut self.unchecked) {
            let seen =
                self.servers.get_mut(&backend).and_then(|backend| backend.servers.get_mut(&server));
            if let Some(seen) = seen.filter(|seen| !seen.admin.in_maintenance()) {
                seen.running = true;
            }
        }
    }

    /// As `set server health down` leaves it.
    fn wait_for_check(&mut self, backend: &str, server: &str) {
        if let Some(seen) =
            self.servers.get_mut(backend).and_then(|backend| backend.servers.get_mut(server))
        {
            seen.running = false;
            "DOWN".clone_into(&mut seen.status);
            self.unchecked.insert((backend.to_owned(), server.to_owned()));
        }
    }

    /// Does one step.
    /// Where HAProxy would refuse it nothing is changed.
    pub fn apply(&mut self, step: &ServerStep) -> Result<(), Refusal> {
        self.change_at_once(step)?;
        if let Some(server) = step.server().filter(|_| step.waits_for_check()) {
            self.wait_for_check(step.backend(), server);
        }
        Ok(())
    }

    fn change_at_once(&mut self, step: &ServerStep) -> Result<(), Refusal> {
        match step {
            ServerStep::AddBackend { backend, defaults } => self.add_backend(backend, defaults),
            ServerStep::Add { backend, server } => self.add(backend, server),
            ServerStep::AddOut { backend, server } => {
                self.add(backend, server)?;
                self.change(step, |server| {
                    maintain(server);
                    Ok(())
                })
            }
            ServerStep::Finish { .. } => self.change(step, |server| {
                server.check_enabled = server.check_configured;
                ready(server);
                Ok(())
            }),
            ServerStep::SetAddress { address, .. } => {
                self.change(step, |server| set_address(server, *address))
            }
            ServerStep::SetWeight { weight, .. } => {
                let is_static = self.is_static(step.backend());
                self.change(step, |server| set_weight(server, *weight, is_static))
            }
            ServerStep::SetMaxconn { maxconn, .. } => self.change(step, |server| {
                server.maxconn = limit(Some(*maxconn));
                Ok(())
            }),
            ServerStep::Ready { .. } => self.change(step, |server| {
                ready(server);
                Ok(())
            }),
            ServerStep::TakeSlot { server: wanted, .. } => {
                let is_static = self.is_static(step.backend());
                self.change(step, |slot| {
                    set_address(slot, wanted.address)?;
                    if let Some(weight) = wanted.weight {
                        // Whoever serves counts more than its weight: a refused weight does not
                        // keep the slot out.
                        let _ = set_weight(slot, weight, is_static);
                    }
                    if wanted.options.maxconn.is_some() {
                        slot.maxconn = limit(wanted.options.maxconn);
                    }
                    ready(slot);
                    Ok(())
                })
            }
            ServerStep::Drain { .. } => self.change(step, |server| {
                leave_maintenance(server);
                server.admin.0 |= AdminState::DRAIN;
                "DRAIN".clone_into(&mut server.status);
                Ok(())
            }),
            ServerStep::ShutdownSessions { .. } => self.change(step, |server| {
                server.sessions = 0;
                Ok(())
            }),
            ServerStep::Maintain { .. } => self.change(step, |server| {
                maintain(server);
                Ok(())
            }),
            ServerStep::Delete { backend, server } => self.delete(backend, server),
            ServerStep::ClearSlot { .. } => self.change(step, |slot| {
                slot.address = None;
                slot.port = 0;
                Ok(())
            }),
        }
    }

    fn is_static(&self, backend: &str) -> bool {
        let algorithm = self.servers.get(backend).and_then(|backend| backend.algorithm.as_deref());
        algorithm == Some(STATIC_ALGORITHM) || self.map_based.contains(backend)
    }

    fn change(
        &mut self,
        step: &ServerStep,
        change: impl FnOnce(&mut ObservedServer) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let backend = self.servers.get_mut(step.backend()).ok_or(Refusal::NoSuchBackend)?;
        let server = step
            .server()
            .and_then(|name| backend.servers.get_mut(name))
            .ok_or(Refusal::NoSuchServer)?;
        change(server)
    }

    fn add_backend(&mut self, backend: &str, defaults: &str) -> Result<(), Refusal> {
        if self.version < ADDS_BACKENDS {
            return Err(Refusal::UnknownCommand);
        }
        if self.servers.contains_key(backend) {
            return Err(Refusal::NameTaken);
        }
        let Some(algorithm) = self.defaults.get(defaults) else {
            return Err(Refusal::Defaults(format!("Cannot find default proxy '{defaults}'.")));
        };
        let made = ObservedBackend { algorithm: Some(algorithm.clone()), servers: BTreeMap::new() };
        self.servers.insert(backend.to_owned(), made);
        Ok(())
    }

    fn add(&mut self, backend: &str, server: &Server) -> Result<(), Refusal> {
        let is_static = self.is_static(backend);
        let seen = self.servers.get_mut(backend).ok_or(Refusal::NoSuchBackend)?;
        if is_static {
            return Err(Refusal::StaticAlgorithm);
        }
        if seen.servers.contains_key(&server.name) {
            return Err(Refusal::NameTaken);
        }
        if let Some(word) = server.options.other.iter().find(|word| self.untaken.contains(*word)) {
            return Err(Refusal::OptionNotTaken(word.clone()));
        }
        seen.servers.insert(server.name.clone(), added(server));
        Ok(())
    }

    fn delete(&mut self, backend: &str, server: &str) -> Result<(), Refusal> {
        let referenced = self.referenced.contains(&(backend.to_owned(), server.to_owned()));
        let servers = &mut self.servers.get_mut(backend).ok_or(Refusal::NoSuchBackend)?.servers;
        let seen = servers.get(server).ok_or(Refusal::NoSuchServer)?;
        if referenced {
            return Err(Refusal::Referenced);
        }
        if !seen.admin.in_maintenance() {
            return Err(Refusal::NotInMaintenance);
        }
        if seen.sessions > 0 || seen.queued > 0 {
            return Err(Refusal::ConnectionsLeft);
        }
        servers.remove(server);
        Ok(())
    }
}

/// A server that was added, and whose check, if it has one, has passed.
pub fn added(server: &Server) -> ObservedServer {
    ObservedServer {
        address: Some(server.address.ip),
        port: server.address.port,
        fqdn: None,
        weight: server.weight.unwrap_or(1),
        initial_weight: server.weight.unwrap_or(1),
        admin: AdminState(0),
        running: true,
        tls: server.options.other.iter().any(|option| option == "ssl"),
        last_check: String::new(),
        status: if server.options.check { "UP" } else { "no check" }.to_owned(),
        check_configured: server.options.check,
        check_enabled: server.options.check,
        check_failed: false,
        agent_enabled: false,
        backup: server.backup,
        maxconn: limit(server.options.maxconn),
        maxqueue: limit(server.options.maxqueue),
        sessions: 0,
        queued: 0,
        sessions_total: 0,
    }
}

/// 0 is not a limit, and is shown as none.
pub(super) fn limit(limit: Option<u32>) -> Option<u32> {
    limit.filter(|limit| *limit > 0)
}

fn set_address(server: &mut ObservedServer, address: ServerAddress) -> Result<(), Refusal> {
    if server.address.is_none() && server.fqdn.is_some() {
        let text = "Update for the current server address family is only supported through \
            configuration file."
            .to_owned();
        return Err(Refusal::NoAddress(text));
    }
    server.address = Some(address.ip);
    server.port = address.port;
    Ok(())
}

fn set_weight(server: &mut ObservedServer, weight: u16, is_static: bool) -> Result<(), Refusal> {
    if is_static && weight > 0 && weight != server.initial_weight {
        return Err(Refusal::StaticAlgorithm);
    }
    server.weight = weight;
    Ok(())
}

fn maintain(server: &mut ObservedServer) {
    server.admin.0 = server.admin.0 & !AdminState::DRAIN | AdminState::MAINTENANCE;
    server.running = false;
    // Whoever waits for it is sent elsewhere.
    server.queued = 0;
    "MAINT".clone_into(&mut server.status);
}

fn ready(server: &mut ObservedServer) {
    leave_maintenance(server);
    server.admin.0 &= !AdminState::DRAIN;
    server.status = if server.check_configured { "UP" } else { "no check" }.to_owned();
}

/// A server that leaves maintenance counts as up until its check says otherwise.
fn leave_maintenance(server: &mut ObservedServer) {
    let was_in_maintenance = server.admin.in_maintenance();
    server.admin.0 &= !AdminState::MAINTENANCE;
    server.running |= was_in_maintenance && !server.admin.in_maintenance();
}

#[cfg(test)]
mod tests;
