//! A backend's list where the settings write it out.

use std::collections::{BTreeMap, BTreeSet};

use mapsmith_core::desired::damping::Damper;
use mapsmith_core::server::list::Host;
use mapsmith_core::server::{LastGoodList, Manage};
use mapsmith_core::{Server, ServerList};

use super::{BackendList, FORMER_NAMES};
use crate::settings::{Backend, Listing, WhenEmpty};

impl BackendList {
    pub(super) fn is_written_out(&self) -> bool {
        matches!(self.settings.listing(), Listing::Servers(_))
    }

    /// Whether the settings write out that there is no server: nothing is to be asked for, and where
    /// there was none either, nothing is to be held.
    pub(super) fn is_written_empty(&self) -> bool {
        let declared = &self.declared;
        self.is_written_out() && declared.servers.is_empty() && declared.rejected_count == 0
    }

    /// Has these servers in force from the start.
    pub(super) fn begin_with(&mut self, servers: BTreeMap<String, Server>) {
        self.gate.resume(Some(servers.clone()));
        self.damper = Damper::resume(self.damper.pace(), servers);
    }

    /// Takes it that there was no server, where the settings write out that there is none.
    pub(super) fn begin_empty(&mut self) {
        if self.is_written_empty() {
            self.begin_with(BTreeMap::new());
        }
    }

    /// The same for a backend that changed settings add, where it can have no server that Mapsmith
    /// would take out.
    pub(in crate::engine::servers) fn begin_new(&mut self) {
        let all_are_ours = self.settings.manage.unwrap_or_default() == Manage::All;
        let takes_over = all_are_ours || self.settings.slots.is_some();
        if self.is_ours_alone || !takes_over {
            self.begin_empty();
        }
    }

    /// Until the names of hosts are asked for, servers that stay are as they were. The others are
    /// Mapsmith's to remove.
    /// A written list without a server takes their place at once, or never with `empty = "keep"`:
    /// then it is a change of them like that of a source, which the guard holds.
    pub(super) fn take_up_written(&mut self, before: &LastGoodList) {
        if self.is_written_empty() && self.settings.empty == WhenEmpty::Keep {
            return self.begin_with(before.servers.clone());
        }
        let listed = self.declared.servers.iter().map(|server| server.name.as_str());
        let listed: BTreeSet<&str> = listed.collect();
        let is_listed = |(name, _): &(&String, &Server)| listed.contains(name.as_str());
        let (known, gone): (Vec<_>, Vec<_>) = before.servers.iter().partition(is_listed);
        if !known.is_empty() || self.is_written_empty() {
            let known = known.into_iter().map(|(name, server)| (name.clone(), server.clone()));
            self.damper = Damper::resume(self.damper.pace(), known.collect());
            self.former.extend(gone.into_iter().map(|(name, _)| name.clone()).take(FORMER_NAMES));
        }
    }
}

/// Whether all that there is to know of a backend's servers is written out.
pub(super) fn has_addresses(backend: &Backend, declared: &ServerList) -> bool {
    let is_written_out = matches!(backend.listing(), Listing::Servers(_));
    is_written_out && declared.servers.iter().all(|server| matches!(server.host, Host::Address(_)))
}
