//! What is known of a backend's servers beside those in force, over a change of the settings.

use std::collections::{BTreeMap, VecDeque};

use mapsmith_core::Server;
use mapsmith_core::desired::damping::Damper;
use mapsmith_core::desired::gate::Gate;
use mapsmith_core::desired::guard::Window;
use mapsmith_core::server::LastGoodList;

use super::BackendList;
use super::weights::EndedWeights;
use crate::settings::Listing;

/// What is known of a backend's servers.
#[derive(Debug, Clone)]
pub(in crate::engine) struct ListMemory {
    /// Where they came from.
    origin: String,
    gate: Gate<BTreeMap<String, Server>>,
    damper: Damper<Server>,
    window: Window,
    former: VecDeque<String>,
    unweighted: EndedWeights,
}

impl BackendList {
    /// Takes the list that the store has, as [`BackendList::take_up`].
    pub(in crate::engine::servers) fn resume(&mut self, list: &LastGoodList) {
        if self.take_up(list) {
            tracing::info!(
                backend = self.settings.name,
                servers = list.servers.len(),
                from = list.origin,
                "the stored server list is in force until {} lists servers",
                self.settings.origin()
            );
        }
    }

    /// Takes the list that was last in force. Whatever lists servers now, what it lists is judged
    /// as a change of that list, also where its origin is another one. Only what the settings write
    /// out is an order like any other of theirs: it replaces the list, and nothing holds it.
    /// Whether it did.
    pub(in crate::engine::servers) fn take_up(&mut self, list: &LastGoodList) -> bool {
        self.before = Some(list.clone());
        if self.is_written_out() {
            self.take_up_written(list);
            return false;
        }
        let servers = list.servers.clone();
        self.waiting_for = Some(self.first_answer());
        self.confirmed_at = list.confirmed.or(self.confirmed_at);
        if let Listing::From(_) = self.settings.listing() {
            self.unseen = servers.keys().cloned().collect();
        }
        self.gate.resume(Some(servers.clone()));
        self.damper = Damper::resume(self.damper.pace(), servers);
        true
    }

    /// Takes over what was known of the list with other settings, where it comes from the same place
    /// and is damped alike. What settings write out was no matter of time.
    pub(in crate::engine::servers) fn remember(&mut self, memory: &ListMemory) {
        let ListMemory { origin, gate, damper, window, former, unweighted } = memory;
        // An instance may not have heard of it yet.
        self.unweighted.clone_from(unweighted);
        if self.is_written_out()
            || *origin != self.settings.origin()
            || damper.pace() != self.damper.pace()
            || damper.in_force() != self.damper.in_force()
        {
            return;
        }
        self.gate.clone_from(gate);
        self.damper.clone_from(damper);
        self.window.go_on(window);
        self.former.clone_from(former);
    }

    pub(in crate::engine::servers) fn memory(&self) -> ListMemory {
        ListMemory {
            origin: self.settings.origin(),
            gate: self.gate.clone(),
            damper: self.damper.clone(),
            window: self.window.clone(),
            former: self.former.clone(),
            unweighted: self.unweighted.clone(),
        }
    }
}
