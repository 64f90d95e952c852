//! One backend's list on its way to be desired.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::damping::Damper;
use mapsmith_core::desired::gate::{ApprovalError, Gate, Verdict};
use mapsmith_core::desired::guard::{self, Accepted, Limits, Proposal, Subject, Window};
use mapsmith_core::desired::servers::{self, BackendOptions, Resolved};
use mapsmith_core::members::{MemberListing, MemberListings};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::server::list::{Host, RejectedServer};
use mapsmith_core::server::{LastGoodList, Manage};
use mapsmith_core::snapshot::NAMED_REJECTIONS;
use mapsmith_core::{DesiredBackend, HeldChange, Overrides, Server, ServerList, ServerOverride};
use metrics::counter;

mod masters;
mod members;
mod memory;
mod report;
mod weights;
mod written;

pub(super) use masters::Masters;
use masters::MastersList;
pub(in crate::engine) use memory::ListMemory;
use weights::EndedWeights;

use super::resolve::HostAddresses;
use crate::engine::record_hold;
use crate::settings::{Backend, Listing, Selector, Settings, WhenEmpty};
use crate::telemetry::BACKEND_CHANGES;

/// The most names that a backend remembers as once desired; the oldest are forgotten. Far more than
/// leave within the time that a drain takes.
pub(super) const FORMER_NAMES: usize = 1000;
/// HAProxy's own weight of a server.
const USUAL_WEIGHT: u16 = 1;
/// The most left-out rows that one change of them writes to the log.
const LOGGED_ROWS: usize = 10;

/// One backend's list on its way to be desired.
#[derive(Debug)]
pub(super) struct BackendList {
    settings: Backend,
    /// The written-out list, where there is one.
    declared: Arc<ServerList>,
    options: BackendOptions,
    /// Those of masters, with their placeholders.
    of_masters: Vec<String>,
    damper: Damper<Server>,
    /// The last list that was let through (it may not be all in force yet), and the one that is
    /// held.
    gate: Gate<BTreeMap<String, Server>>,
    /// What was let through lately.
    window: Window,
    former: VecDeque<String>,
    waiting_for: Option<String>,
    /// The list that was in force before the start, where a store has it.
    before: Option<LastGoodList>,
    /// Servers of before the start that no answer since has listed: a row that can't be read may be
    /// any of them.
    unseen: BTreeSet<String>,
    /// When the list as it is known now was said.
    said_at: Option<Timestamp>,
    /// When it was last said that what is in force is the list.
    confirmed_at: Option<Timestamp>,
    /// The first of what is left out.
    rejected: Vec<RejectedServer>,
    /// How much that is.
    rejected_count: u64,
    /// How many are listed beyond `max_servers`.
    beyond_max: usize,
    stale: Vec<RejectedServer>,
    /// The masters' list, with what it was made of.
    mapped: Option<MastersList>,
    /// The drained masters, where the list is one of masters.
    drained: Option<BTreeSet<String>>,
    /// The masters whose drain has ended, where the list is one of masters.
    undrained: BTreeSet<String>,
    /// What an operator has ordered of its servers.
    ordered: Vec<ServerOverride>,
    /// The servers of which an order has ended lately, with the weight that was ordered.
    released: BTreeMap<String, Option<u16>>,
    /// The weights that servers of it were listed with, and are not any more.
    unweighted: EndedWeights,
    /// Whether HAProxy's file is Mapsmith's.
    is_rendered: bool,
    /// Whether no HAProxy had it before Mapsmith did.
    is_ours_alone: bool,
    /// Its list, where that is one of members, and the number of the latest order that is in it.
    members: Option<MemberListing>,
    order: u64,
}

impl BackendList {
    pub(super) fn new(backend: &Backend, settings: &Settings) -> Self {
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        for kind in ["added", "moved", "removed"] {
            counter!(BACKEND_CHANGES, "backend" => backend.name.clone(), "kind" => kind)
                .increment(0);
        }
        let declared = backend.declared();
        let mut list = Self {
            damper: Damper::new(members::policy(backend, &declared, settings)),
            declared: Arc::new(declared),
            options: BackendOptions::new(backend.default_options(), backend.usual_options()),
            of_masters: backend.all_options(),
            settings: backend.clone(),
            gate: Gate::default(),
            window: Window::new(settings.guard.window),
            former: VecDeque::new(),
            waiting_for: None,
            before: None,
            unseen: BTreeSet::new(),
            said_at: None,
            confirmed_at: None,
            rejected: Vec::new(),
            rejected_count: 0,
            beyond_max: 0,
            stale: Vec::new(),
            mapped: None,
            drained: None,
            undrained: BTreeSet::new(),
            ordered: Vec::new(),
            released: BTreeMap::new(),
            unweighted: EndedWeights::default(),
            is_rendered: settings.haproxy.is_some(),
            is_ours_alone: settings.writes_every_backend(),
            members: None,
            order: 0,
        };
        if list.settings.empty == WhenEmpty::Accept {
            list.begin_empty();
        }
        list
    }

    /// The backend's name.
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// What a held change of its list is of.
    pub(super) fn subject(&self) -> String {
        format!("{}{}", HeldChange::BACKEND, self.settings.name)
    }

    /// The change that is held back.
    pub(super) fn held(&self) -> Option<&HeldChange> {
        self.gate.held()
    }

    /// Lets the held change of this id through at the next decision.
    ///
    /// # Errors
    /// When no such change is held.
    pub(super) fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        self.gate.approve(id)
    }

    /// When something is due although nobody says anything new.
    pub(super) fn next_step(&self) -> Option<Duration> {
        self.damper.next_step()
    }

    /// The list as it is known now: of a source, by `listed`, or of the masters. Notes
    /// what is waited for.
    pub(super) fn list(
        &mut self,
        listed: impl Fn(&Selector) -> Option<(Arc<ServerList>, Timestamp)>,
        members: &MemberListings,
        masters: &Masters<'_>,
    ) -> Option<Arc<ServerList>> {
        self.members = members.of.get(self.name()).cloned();
        let (list, said_at) = match self.settings.listing() {
            Listing::From(_) if self.members.is_some() => self.list_of_members().unzip(),
            Listing::Servers(_) => {
                let read_at = self.said_at.unwrap_or_else(Timestamp::now);
                (Some(Arc::clone(&self.declared)), Some(read_at))
            }
            Listing::From(selector) => listed(selector).unzip(),
            Listing::Masters(template) => {
                let template = template.to_owned();
                (masters.map.map(|map| self.masters(map, masters, &template)), masters.said_at)
            }
        };
        self.said_at = said_at;
        self.waiting_for = list.is_none().then(|| self.first_answer());
        list
    }

    /// The servers in force; before the first step those of before the start, if they are known.
    fn last_in_force(&self) -> Option<&BTreeMap<String, Server>> {
        self.damper.in_force().or(self.before.as_ref().map(|before| &before.servers))
    }

    /// The names of the servers that were in force before the start, where all are Mapsmith's.
    fn resumed(&self) -> Option<BTreeSet<String>> {
        let all_are_ours = self.settings.manage.unwrap_or_default() == Manage::All;
        let before = self.before.as_ref().filter(|_| all_are_ours)?;
        Some(before.servers.keys().cloned().collect())
    }

    /// What is waited for while the list is not known.
    fn first_answer(&self) -> String {
        match self.settings.listing() {
            Listing::Servers(_) => "the settings".to_owned(),
            Listing::From(selector) => format!("a first answer of source {selector}"),
            Listing::Masters(_) => "a first node map".to_owned(),
        }
    }

    /// The list with its addresses. Notes what is left out of it.
    pub(super) fn resolve(
        &mut self,
        list: &ServerList,
        addresses: &HostAddresses,
    ) -> BTreeMap<String, Server> {
        let Resolved { mut servers, rejected: unresolved } =
            servers::resolve(list, &self.options, |host| addresses.address(host));
        let unknown = unresolved.iter().filter_map(|row| row.name.clone());
        let unknown: Vec<_> = list.unknown.iter().cloned().chain(unknown).collect();
        self.rejected_count = list.rejected_count + unresolved.len() as u64;
        let rejected: Vec<_> =
            list.rejected.iter().cloned().chain(unresolved).take(NAMED_REJECTIONS).collect();
        let news: Vec<_> = rejected.iter().filter(|row| !self.rejected.contains(row)).collect();
        for row in news.iter().take(LOGGED_ROWS) {
            tracing::warn!(
                backend = self.settings.name,
                place = row.place,
                "rejected in the server list: {}",
                row.reason
            );
        }
        if news.len() > LOGGED_ROWS {
            tracing::warn!(
                backend = self.settings.name,
                "and {} more; the status names them",
                news.len() - LOGGED_ROWS
            );
        }
        self.keep_unseen(list, &mut servers);
        // A row that went wrong is no word that its server is gone.
        for name in unknown {
            if let Some(known) = self.last_in_force().and_then(|in_force| in_force.get(&name)) {
                let known = known.clone();
                servers.entry(name).or_insert(known);
            }
        }
        // Where rows contradict each other what is in force stays; where nothing is, neither row
        // counts.
        for name in &list.disputed {
            match self.last_in_force().and_then(|in_force| in_force.get(name)) {
                Some(known) => servers.insert(name.clone(), known.clone()),
                None => servers.remove(name),
            };
        }
        self.rejected = rejected;
        self.stale = list
            .servers
            .iter()
            .filter_map(|server| match &server.host {
                Host::Name(host) => Some((server, host, addresses.stale(host)?)),
                Host::Address(_) => None,
            })
            .map(|(server, host, error)| RejectedServer {
                place: format!("server {:?}", server.name),
                name: Some(server.name.clone()),
                reason: format!("{host} does not resolve: {error}"),
            })
            .collect();
        // Of two versions there are more for a moment than it has for long.
        let joining = self.members.as_ref().is_some_and(|members| members.joining);
        let most = self.settings.max_servers.filter(|_| !joining).unwrap_or(usize::MAX);
        self.beyond_max = servers::take_beyond(&mut servers, self.last_in_force(), most);
        servers
    }

    /// Keeps the servers of before the start that are not listed, while a row can't be read that
    /// may be one of them. Whoever read the list before the start knew which server that row was;
    /// since then it is known only once the row was read.
    fn keep_unseen(&mut self, list: &ServerList, servers: &mut BTreeMap<String, Server>) {
        self.unseen.retain(|name| !servers.contains_key(name));
        let Some(in_force) = self.damper.in_force().filter(|_| !self.unseen.is_empty()) else {
            return;
        };
        if list.explains(|name| in_force.contains_key(name) || servers.contains_key(name)) {
            return self.unseen.clear();
        }
        let kept = self.unseen.iter().filter_map(|name| in_force.get_key_value(name));
        servers.extend(kept.map(|(name, server)| (name.clone(), server.clone())));
    }

    /// Hands the list on to the damper, unless the guard holds it back.
    pub(super) fn evaluate(
        &mut self,
        listed: BTreeMap<String, Server>,
        limits: &Limits,
        now: Duration,
    ) {
        self.take_order(&listed);
        let (held, approved) = if self.gate.accepted() == Some(&listed) {
            (self.gate.settle(), false)
        } else {
            let Some(passing) = self.check_guard(&listed, limits, now) else { return };
            self.window.accept(&passing, now);
            let held = self.gate.release();
            self.gate.accept(listed.clone());
            (held, passing.approved)
        };
        if let Some(held) = held {
            tracing::info!(
                backend = self.settings.name,
                id = held.id,
                approved,
                "no change of the server list is held any more"
            );
        }
        self.damper.list(listed, now);
        if let Some(members) = &self.members {
            self.damper.leave(&members.left, now);
        }
    }

    /// What the list changes, where the guard lets it through.
    fn check_guard(
        &mut self,
        listed: &BTreeMap<String, Server>,
        limits: &Limits,
        now: Duration,
    ) -> Option<Accepted> {
        let passing = self.change_to(listed);
        let (entries, counts) = (listed.len(), passing.counts);
        let in_force = self.damper.in_force();
        let in_force_len = in_force.map(BTreeMap::len);
        // What was let through is the measure: not all of it may be in force yet, nor all that went
        // be gone.
        let proposal = Proposal {
            in_force: in_force_len.map(|_| passing.before),
            entries,
            counts,
            recent: self.window.recent(passing.mark, now),
        };
        let is_accepted = self.settings.empty == WhenEmpty::Accept || self.is_first_of_members();
        let may_be_empty = is_accepted && self.rejected.is_empty();
        let within = match in_force == Some(listed) || (listed.is_empty() && may_be_empty) {
            true => Ok(()),
            false => guard::check(Subject::Servers, limits, &proposal),
        };
        let (id, of) = (servers::id_of(&self.settings.name, listed), self.subject());
        let approved = self.gate.is_approved(&id);
        let verdict = self.gate.submit(
            within,
            || id,
            |id, reason| HeldChange {
                id,
                of,
                reason,
                since: Timestamp::now(),
                entries_in_force: in_force_len.unwrap_or(0),
                entries_held: entries,
                counts,
                applied: ChangeCounts::default(),
            },
        );
        match verdict {
            Verdict::Passed | Verdict::Approved => Some(Accepted { approved, ..passing }),
            Verdict::Held(hold) => {
                if let Some(held) = self.gate.held() {
                    record_hold(hold, held, "server list", None);
                }
                None
            }
        }
    }

    /// What this list changes of the last one that was let through.
    fn change_to(&self, listed: &BTreeMap<String, Server>) -> Accepted {
        let nothing = BTreeMap::new();
        let before = self.gate.accepted().unwrap_or(&nothing);
        let addresses = |servers: &BTreeMap<String, Server>| -> Vec<(String, String)> {
            servers
                .iter()
                .map(|(name, server)| (name.clone(), server.address.to_string()))
                .collect()
        };
        let (old, new) = (addresses(before), addresses(listed));
        let gone = old.iter().map(|(name, address)| (name.as_str(), Some(address.as_str()), None));
        let come = new.iter().map(|(name, address)| (name.as_str(), None, Some(address.as_str())));
        let mark = self.window.after(gone.chain(come));
        Accepted {
            mark,
            before: before.len(),
            entries: listed.len(),
            counts: servers::counts(before, listed),
            approved: false,
        }
    }

    /// Brings into force what is due, and notes whether that is what was said.
    pub(super) fn step(&mut self, now: Duration) {
        self.unweighted.expire(now);
        self.bring_into_force(now);
        let in_force = self.damper.in_force();
        let is_said = in_force == self.gate.accepted() && self.gate.held().is_none();
        if is_said && in_force.is_some() && self.waiting_for.is_none() {
            self.confirmed_at = self.said_at.or(self.confirmed_at);
        }
    }

    fn bring_into_force(&mut self, now: Duration) {
        let before = self.last_in_force().cloned();
        if !self.damper.step(now) {
            return;
        }
        let nothing = BTreeMap::new();
        let (old, new) =
            (before.as_ref().unwrap_or(&nothing), self.damper.in_force().unwrap_or(&nothing));
        let counts = servers::counts(old, new);
        self.unweighted.note(old, new, now);
        tracing::info!(
            backend = self.settings.name,
            servers = new.len(),
            "new server list: {counts}"
        );
        for (kind, count) in
            [("added", counts.added), ("moved", counts.moved), ("removed", counts.removed)]
        {
            counter!(BACKEND_CHANGES, "backend" => self.settings.name.clone(), "kind" => kind)
                .increment(count as u64);
        }
        self.former.retain(|name| !new.contains_key(name));
        self.former.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
        let forgotten = self.former.len().saturating_sub(FORMER_NAMES);
        self.former.drain(..forgotten);
    }

    pub(super) fn desired(&self) -> Option<DesiredBackend> {
        Some(DesiredBackend {
            servers: self.damper.in_force()?.clone(),
            former: self.former.iter().cloned().collect(),
            // While a row is left out, or nothing is listed since the start, a server that is not
            // in force may well be listed.
            manage: if self.rejected.is_empty() && self.waiting_for.is_none() {
                self.settings.manage.unwrap_or_default()
            } else {
                Manage::Own
            },
            slots: self.settings.slots.clone(),
            defaults: self.settings.defaults.clone(),
            drain: self.settings.drain,
            drained: self.drained.clone(),
            undrained: self.undrained.clone(),
            resumed: self.resumed(),
            ordered: self.ordered.iter().map(|one| (one.server.clone(), one.order)).collect(),
            released: self.released.clone(),
            usual_weight: self.is_rendered.then_some(USUAL_WEIGHT),
            unweighted: self.unweighted.weights(),
        })
    }

    /// Takes in what an operator has ordered of its servers.
    pub(super) fn order(&mut self, overrides: &Overrides) {
        let name = self.settings.name.as_str();
        let ordered = overrides.servers().filter(|ordered| ordered.backend == name);
        self.ordered = ordered.cloned().collect();
        let released = overrides.released().filter(|(backend, ..)| *backend == name);
        self.released =
            released.map(|(_, server, released)| (server.to_owned(), released.weight)).collect();
    }
}
