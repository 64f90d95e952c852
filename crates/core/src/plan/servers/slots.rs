//! The slots of a `server-template`: servers whose names can't change, so that only its address
//! tells whom a slot serves.
//!
//! Whoever names the prefix gives all its slots to Mapsmith, but for those that HAProxy fills
//! from DNS by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{ServerHistory, is_out};
use super::step::ServerStep;
use super::{address_of, comes_back_unchecked, hand};
use crate::server::{
    AdminState, DesiredBackend, ObservedBackend, ObservedServer, Server, ServerAddress,
};

/// The slots of one backend, and who is in them.
pub(super) struct Slots<'a> {
    backend: &'a str,
    memory: &'a ServerHistory,
    slots: BTreeMap<&'a str, &'a ObservedServer>,
    /// The slot that serves a desired server, by the server's name.
    serving: BTreeMap<&'a str, &'a str>,
    /// Slots that this plan has given away.
    taken: BTreeSet<&'a str>,
}

impl<'a> Slots<'a> {
    /// Finds the slots, and for each desired server that is not there under its own name the one
    /// that serves it.
    pub(super) fn new(
        backend: &'a str,
        wanted: &'a DesiredBackend,
        seen: &'a ObservedBackend,
        memory: &'a ServerHistory,
    ) -> Self {
        let is_slot = |name: &str, server: &ObservedServer| {
            let number =
                wanted.slots.as_ref().and_then(|prefix| name.strip_prefix(prefix.as_str()));
            number.is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            }) && server.fqdn.is_none()
                && !wanted.servers.contains_key(name)
                && !wanted.former.contains(name)
        };
        let slots: BTreeMap<&str, &ObservedServer> = seen
            .servers
            .iter()
            .filter(|(name, server)| is_slot(name, server))
            .map(|(name, server)| (name.as_str(), server))
            .collect();
        let mut homeless: BTreeMap<ServerAddress, Vec<&str>> = BTreeMap::new();
        // The last is taken first.
        for server in
            wanted.servers.values().rev().filter(|server| !seen.servers.contains_key(&server.name))
        {
            homeless.entry(server.address).or_default().push(&server.name);
        }
        // Of several slots at one address the one that serves is kept, and one that a person took
        // out is the last choice.
        let mut ranked: Vec<_> = slots
            .iter()
            .map(|(name, slot)| (rank(backend, name, slot, memory), *name, *slot))
            .collect();
        ranked.sort_by_key(|(rank, name, _)| (*rank, *name));
        let mut serving = BTreeMap::new();
        for (_, name, slot) in ranked {
            if let Some(server) =
                address_of(slot).and_then(|address| homeless.get_mut(&address)).and_then(Vec::pop)
            {
                serving.insert(server, name);
            }
        }
        Self { backend, memory, slots, serving, taken: BTreeSet::new() }
    }

    pub(super) fn serving(&self, server: &str) -> Option<&'a str> {
        self.serving.get(server).copied()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    /// The step that makes a slot serve a server.
    pub(super) fn step(&self, slot: &str, server: &Server) -> ServerStep {
        let once_checked = self.slots.get(slot).is_some_and(|seen| comes_back_unchecked(seen));
        ServerStep::TakeSlot {
            backend: self.backend.to_owned(),
            slot: slot.to_owned(),
            server: server.clone(),
            once_checked,
        }
    }

    /// A slot for a server that is nowhere: a free one, else one that serves nobody who is desired.
    /// Without the latter a list that was replaced as a whole, and fills its slots, could never be.
    pub(super) fn take(&mut self, server: &Server) -> Option<(&'a str, &'a ObservedServer)> {
        let in_use: BTreeSet<&str> = self.serving.values().copied().collect();
        let open = |name: &str, slot: &ObservedServer| {
            !in_use.contains(name)
                && !self.taken.contains(name)
                && slot.backup == server.backup
                && self.memory.refusal(&self.step(name, server)).is_none()
        };
        let free = |slot: &ObservedServer| {
            (slot.admin.0 & AdminState::MAINTENANCE != 0 || address_of(slot).is_none())
                && slot.sessions == 0
                && slot.queued == 0
        };
        let surplus = |name: &str, slot: &ObservedServer| {
            hand(slot, self.memory.mark(self.backend, name)).is_none()
        };
        let mut found = self.slots.iter().find(|(name, slot)| open(name, slot) && free(slot));
        if found.is_none() {
            found = self.slots.iter().find(|(name, slot)| open(name, slot) && surplus(name, slot));
        }
        let (name, slot) = found.map(|(name, slot)| (*name, *slot))?;
        self.taken.insert(name);
        Some((name, slot))
    }
}

fn rank(backend: &str, name: &str, slot: &ObservedServer, memory: &ServerHistory) -> u8 {
    match hand(slot, memory.mark(backend, name)) {
        Some(_) => 2,
        None => u8::from(is_out(slot.admin)),
    }
}
