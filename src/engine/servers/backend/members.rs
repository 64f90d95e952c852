//! A backend's list where it is one of members: what an operator ordered of their version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::damping::DampingPolicy;
use mapsmith_core::{Server, ServerList};

use super::{BackendList, written};
use crate::settings::{Backend, Settings, WhenEmpty};

impl BackendList {
    /// Its list of members. What is registered here is known at every moment.
    pub(super) fn list_of_members(&self) -> Option<(Arc<ServerList>, Timestamp)> {
        let list = &self.members.as_ref()?.list;
        Some((Arc::clone(list), Timestamp::now()))
    }

    /// Whether its list is one of members and the first of all: that nobody is registered yet is
    /// nothing that anybody would have to let through, nor that HAProxy would have to wait for.
    pub(super) fn is_first_of_members(&self) -> bool {
        self.members.is_some() && self.gate.accepted().is_none()
    }

    /// Has in force what an operator ordered of its members. Only what else is listed is judged,
    /// as a change of that: an order is no way past the guard for members that expired meanwhile.
    pub(super) fn take_order(&mut self, listed: &BTreeMap<String, Server>) {
        let Some(members) = self.members.as_ref().filter(|it| it.order != self.order) else {
            return;
        };
        self.order = members.order;
        let may_stay = |name: &str| members.keep.as_ref().is_none_or(|keep| keep.contains(name));
        let accepted = self.gate.accepted().into_iter().flatten();
        let mut ordered: BTreeMap<_, _> = accepted
            .filter(|(name, _)| may_stay(name))
            .map(|(name, server)| (name.clone(), server.clone()))
            .collect();
        ordered.extend(listed.clone());
        self.damper.order(ordered.clone(), may_stay);
        // Nothing before an order counts as shrinking.
        self.window = self.window.emptied();
        self.gate.accept(ordered);
    }
}

/// What is registered here, or written out with its addresses, is no answer of a poll: nobody waits
/// for it to be quiet. Host names are asked for like a registry.
pub(super) fn policy(
    backend: &Backend,
    declared: &ServerList,
    settings: &Settings,
) -> DampingPolicy {
    let pace = DampingPolicy {
        may_be_empty: backend.empty == WhenEmpty::Accept,
        ..settings.damping.pace()
    };
    match written::has_addresses(backend, declared) || settings.takes_members(backend).is_some() {
        true => DampingPolicy { debounce: Duration::ZERO, max_delay: Duration::ZERO, ..pace },
        false => pace,
    }
}
