//! What an operator has ordered of single servers: brought about, kept, and ended.

use super::memory::{Mark, is_out};
use super::{Backend, ExternalChange, Hand, ServerStep, comes_back_unchecked, hand, is_unfinished};
use crate::overrides::OrderedState;
use crate::server::{AdminState, DesiredBackend, ObservedServer, Server};

/// The step that adds a server: one that is ordered out never serves. It is made with its listed
/// weight, which it has again after an order of another one; only that of 0 can't wait.
pub(super) fn addition(backend: &str, wanted: &DesiredBackend, server: &Server) -> ServerStep {
    let (backend, mut server) = (backend.to_owned(), server.clone());
    if let Some(listed) = wanted.servers.get(&server.name).filter(|_| server.weight != Some(0)) {
        server.weight = listed.weight;
    }
    match wanted.is_ordered_out(&server.name) {
        true => ServerStep::AddOut { backend, server },
        false => ServerStep::Add { backend, server },
    }
}

impl Backend<'_> {
    /// What is known of a server's way out. After a restart nobody remembers who took out the
    /// servers that were released just before: it was us.
    pub(super) fn mark(&self, name: &str, home: &str) -> Mark {
        let mark = self.memory.mark(self.name, home);
        match self.memory.starts() && self.wanted.released.contains_key(name) {
            true => Mark { drained: true, maintained: true, ordered: true, ..mark },
            false => mark,
        }
    }

    /// A server as it was ordered.
    pub(super) fn bring_to(&mut self, state: OrderedState, home: &str, seen: &ObservedServer) {
        let (backend, server) = (self.name.to_owned(), home.to_owned());
        if state.is_out() {
            self.plan.ordered_out.push((backend.clone(), server.clone()));
        }
        let in_maintenance = seen.admin.0 & AdminState::MAINTENANCE != 0;
        let drains = seen.admin.0 & AdminState::DRAIN != 0;
        let step = match state {
            OrderedState::Maint if in_maintenance => return,
            OrderedState::Maint => ServerStep::Maintain { backend, server },
            _ if is_unfinished(seen) => ServerStep::Finish { backend, server },
            OrderedState::Drain if drains && !in_maintenance => return,
            OrderedState::Drain => ServerStep::Drain { backend, server },
            OrderedState::Ready if !is_out(seen.admin) => return,
            OrderedState::Ready if drains && !in_maintenance && seen.agent_enabled => {
                // Its agent would drain it again at its next answer.
                let hand = Hand::Drain;
                return self.plan.external.push(ExternalChange { backend, server, hand });
            }
            OrderedState::Ready => {
                let once_checked = comes_back_unchecked(seen);
                ServerStep::Ready { backend, server, once_checked }
            }
        };
        self.change(step);
    }

    /// A server that nobody lists, and that is not Mapsmith's to remove: an order is all that is
    /// done to it.
    pub(super) fn follow_order(&mut self, name: &str, seen: &ObservedServer) {
        let order = self.wanted.ordered.get(name).copied().unwrap_or_default();
        let weight = order.weight.or_else(|| self.weight_of_release(name, seen));
        if let Some(weight) = weight.filter(|weight| *weight != seen.weight && !seen.agent_enabled)
        {
            let (backend, server) = (self.name.to_owned(), name.to_owned());
            self.change(ServerStep::SetWeight { backend, server, weight });
        }
        let mark = self.mark(name, name);
        match order.state {
            Some(state) => self.bring_to(state, name, seen),
            None if mark.ordered && is_out(seen.admin) && hand(seen, mark).is_none() => {
                self.bring_to(OrderedState::Ready, name, seen);
            }
            None => {}
        }
    }

    /// The weight that a server has back whose ordered or listed one has ended, where nobody lists
    /// another. Any other weight than that one is somebody's, and stays.
    pub(super) fn weight_of_release(&self, name: &str, seen: &ObservedServer) -> Option<u16> {
        let listed = self.wanted.unweighted.get(name);
        if let (Some(usual), Some(listed)) = (self.wanted.usual_weight, listed)
            && seen.weight == *listed
        {
            return Some(usual);
        }
        let ordered = (*self.wanted.released.get(name)?)?;
        let before = match (self.wanted.usual_weight, seen.initial_weight) {
            (Some(usual), _) => usual,
            // It was added while it had none.
            (None, 0) if ordered == 0 => 1,
            (None, initial) => initial,
        };
        (seen.weight == ordered).then_some(before)
    }
}
