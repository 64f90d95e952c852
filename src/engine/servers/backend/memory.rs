//! What is known of a backend's servers beside those in force, over a change of the settings.

use std::collections::{BTreeMap, VecDeque};

use mapsmith_core::Server;
use mapsmith_core::desired::damping::Damper;
use mapsmith_core::desired::gate::Gate;
use mapsmith_core::desired::guard::Window;

use super::BackendList;
use super::weights::EndedWeights;

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
