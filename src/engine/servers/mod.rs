//! Server lists -> the servers that backends should have: resolve, guard, damp, number. The only
//! place where a desired list is made.
//!
//! A backend whose list is not known yet, or was never accepted, is absent from what is desired,
//! and so is not touched. A list that was in force before a restart is the last good one after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::guard::Limits;
use mapsmith_core::desired::servers;
use mapsmith_core::members::MemberListings;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::server::list::Host;
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{DesiredServers, EndedKind, HeldChange, Overrides, ServerList, SourceState};

use super::map::MapDecision;
use super::memory::Memory;
use crate::settings::{Selector, Settings};

mod backend;
pub mod resolve;

pub(super) use backend::ListMemory;
use backend::{BackendList, Masters};
use resolve::{HostAddresses, HostQuestion};

/// Every backend's list as it is known at one time.
struct Lists {
    /// The poll request that they answer.
    evaluated_request: u64,
    /// The number of the members in them.
    members: u64,
    /// In the order of the backends.
    lists: Vec<Option<Arc<ServerList>>>,
    /// The addresses that they need.
    question: HostQuestion,
}

/// The masters whose drain has ended, and whether its nodes were to stay elsewhere.
fn undrained(overrides: &Overrides) -> BTreeMap<&str, bool> {
    let drains = overrides.ended().filter_map(|ended| match &ended.of {
        EndedKind::Drain { master } if overrides.drain(master).is_none() => {
            Some((ended.until, master.as_str(), ended.stay))
        }
        _ => None,
    });
    // The last one of each counts.
    let drains: BTreeSet<_> = drains.collect();
    drains.into_iter().map(|(_, master, stay)| (master, stay)).collect()
}

/// Makes the desired servers.
pub struct ServerDecider {
    limits: Limits,
    /// The lists that backends take from sources, in the order of their states.
    listed: Vec<Selector>,
    producers: BTreeMap<String, String>,
    backends: Vec<BackendList>,
    /// What waits for its addresses.
    waiting: Option<Lists>,
    evaluated_request: u64,
    /// What is registered with Mapsmith itself, and the number of what of it is decided on.
    members: Arc<MemberListings>,
    evaluated_members: u64,
    /// What an operator has ordered of servers.
    overrides: Arc<Overrides>,
    desired: Option<Arc<DesiredServers>>,
}

impl ServerDecider {
    /// Knows no list yet but those that are written out.
    pub fn new(settings: &Settings) -> Self {
        let backends =
            settings.backends.iter().map(|backend| BackendList::new(backend, settings)).collect();
        Self {
            limits: settings.guard.clone(),
            listed: settings.server_lists().into_iter().map(|(_, list)| list.clone()).collect(),
            producers: servers::producers(settings.map_sources().map(|source| &source.masters)),
            backends,
            waiting: None,
            evaluated_request: 0,
            members: Arc::default(),
            evaluated_members: 0,
            overrides: Arc::default(),
            desired: None,
        }
    }

    /// Has what an operator has ordered of servers in force: at once, for no list is waited for.
    /// Whether that was news.
    pub fn order(&mut self, overrides: &Arc<Overrides>) -> bool {
        if Arc::ptr_eq(overrides, &self.overrides) {
            return false;
        }
        self.overrides = Arc::clone(overrides);
        for backend in &mut self.backends {
            backend.order(overrides);
            backend.record();
        }
        self.number();
        true
    }

    /// The number of the overrides whose orders of servers are in force.
    pub fn ordered(&self) -> u64 {
        self.overrides.number()
    }

    /// Goes on from the lists that were last in force: each is the last good one until the backend's
    /// servers are listed again, by whomever, and what is listed then is judged as a change of it.
    pub fn resume(self, stored: &BTreeMap<String, LastGoodList>) -> Self {
        self.with_lists(stored, BackendList::resume)
    }

    /// Goes on from the lists that were in force with other settings, likewise.
    pub fn go_on(self, before: &BTreeMap<String, LastGoodList>) -> Self {
        self.with_lists(before, |backend, list| _ = backend.take_up(list))
    }

    /// Takes over what was known of each backend's list with other settings, where it comes from
    /// the same place.
    pub fn remember(mut self, memory: &Memory) -> Self {
        for backend in &mut self.backends {
            match memory.lists.get(backend.name()) {
                Some(list) => backend.remember(list),
                // It is new.
                None if !memory.lists.is_empty() => backend.begin_new(),
                // Nothing is known of any: a HAProxy that runs may have servers.
                None => {}
            }
        }
        self.number();
        self
    }

    /// What whoever goes on has to know of the lists.
    pub(super) fn memory(&self) -> BTreeMap<String, ListMemory> {
        self.backends.iter().map(|list| (list.name().to_owned(), list.memory())).collect()
    }

    fn with_lists(
        mut self,
        lists: &BTreeMap<String, LastGoodList>,
        take: impl Fn(&mut BackendList, &LastGoodList),
    ) -> Self {
        for backend in &mut self.backends {
            if let Some(list) = lists.get(backend.name()) {
                take(backend, list);
            }
        }
        self.number();
        self
    }

    /// Takes the lists of members into what is taken in next.
    pub fn register(&mut self, members: Arc<MemberListings>) {
        self.members = members;
    }

    /// The number of the members that are decided on.
    pub fn evaluated_members(&self) -> u64 {
        self.evaluated_members
    }

    /// Takes in what is known of every backend's list, to be decided on once the addresses of its
    /// host names are known. `states` are those of [`Settings::server_lists`].
    pub fn take_in(&mut self, states: &[SourceState<ServerList>], map: &MapDecision) {
        let answered = states.iter().map(|state| state.answered);
        let evaluated_request = answered.chain([map.evaluated_request]).min().unwrap_or_default();
        let drained = map.overrides.drained().map(|drained| drained.master.as_str());
        let owners = map.owners.nodes.values().map(|owned| owned.record.owner.as_str());
        let masters = Masters {
            // A map that was only found in the file may be older than anything.
            map: map.in_force.as_ref().filter(|_| map.active).map(|revision| &revision.entries),
            said_at: map.answered_at.filter(|_| map.held.is_none() && map.waiting_for.is_empty()),
            drained: drained.collect(),
            undrained: undrained(&map.overrides),
            owners: owners.collect(),
            canary: &map.rollout.masters,
            producers: &self.producers,
        };
        let known = &self.listed;
        let listed = |selector: &Selector| {
            let index = known.iter().position(|list| list == selector)?;
            let snapshot = states.get(index)?.snapshot.as_ref()?;
            Some((Arc::clone(&snapshot.entries), snapshot.answered_at))
        };
        let members = &self.members;
        let list = |backend: &mut BackendList| backend.list(listed, members, &masters);
        let lists: Vec<_> = self.backends.iter_mut().map(list).collect();
        let servers = lists.iter().flatten().flat_map(|list: &Arc<ServerList>| &list.servers);
        let names = servers.filter_map(|server| match &server.host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        });
        let hosts: BTreeSet<_> = names.collect();
        // Where no name is left there is nothing to ask again in another round.
        let round = if hosts.is_empty() { 0 } else { evaluated_request };
        let question = HostQuestion { round, hosts };
        let members = members.number;
        self.waiting = Some(Lists { evaluated_request, members, lists, question });
    }

    /// Whether what was taken in is not decided on yet.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The addresses that it waits for.
    pub fn question(&self) -> HostQuestion {
        self.waiting.as_ref().map(|lists| lists.question.clone()).unwrap_or_default()
    }

    /// Decides what every backend should have at `now`, a time of one steady clock; false where
    /// nothing waits for it, or these addresses are not all that it needs.
    pub fn decide(&mut self, addresses: &HostAddresses, now: Duration) -> bool {
        let Some(Lists { evaluated_request, members, lists, .. }) =
            self.waiting.take_if(|lists| addresses.answer(&lists.question))
        else {
            return false;
        };
        (self.evaluated_request, self.evaluated_members) = (evaluated_request, members);
        for (backend, list) in self.backends.iter_mut().zip(&lists) {
            if let Some(list) = list {
                let resolved = backend.resolve(list, addresses);
                backend.evaluate(resolved, &self.limits, now);
            }
            backend.step(now);
        }
        self.number();
        self.backends.iter().for_each(BackendList::record);
        true
    }

    /// Gives what is desired a new number where it is not what it was.
    fn number(&mut self) {
        let backends = self
            .backends
            .iter()
            .filter_map(|backend| Some((backend.name().to_owned(), backend.desired()?)));
        let backends: BTreeMap<_, _> = backends.collect();
        // Also where the servers are the same: whose the others are changes with what is left out.
        let before = self.desired.as_ref();
        if before.map_or(!backends.is_empty(), |before| before.backends != backends) {
            let number = before.map_or(0, |before| before.number) + 1;
            self.desired = Some(Arc::new(DesiredServers { number, backends }));
        }
    }

    /// What backends should have; none before the first list was accepted.
    pub fn desired(&self) -> Option<Arc<DesiredServers>> {
        self.desired.clone()
    }

    /// The highest poll request whose answers, of the node map and of every server list, are
    /// decided on.
    pub fn evaluated_request(&self) -> u64 {
        self.evaluated_request
    }

    /// How every declared backend stands at `now`, in the order of the settings.
    pub fn backends(&self, now: Duration) -> Vec<BackendStatus> {
        let clock = Timestamp::now();
        let at = |due: Duration| {
            SignedDuration::try_from(due.saturating_sub(now))
                .ok()
                .and_then(|left| clock.checked_add(left).ok())
                .unwrap_or(clock)
        };
        self.backends.iter().map(|backend| backend.status(&at)).collect()
    }

    /// When something is due although nobody says anything new.
    pub fn next_step(&self) -> Option<Duration> {
        self.backends.iter().filter_map(|backend| backend.next_step()).min()
    }

    /// A change that is held.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn held(&self, id: &str) -> Result<HeldChange, ApprovalError> {
        let held = || self.backends.iter().filter_map(|backend| backend.held());
        if let Some(held) = held().find(|held| held.id == id) {
            return Ok(held.clone());
        }
        let others: Vec<_> = held().map(|held| held.id.as_str()).collect();
        match others.is_empty() {
            true => Err(ApprovalError::NothingHeld),
            false => Err(ApprovalError::Another { asked: id.to_owned(), held: others.join(", ") }),
        }
    }

    /// Lets one held change through at the next decision.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        let mut others = Vec::new();
        for backend in &mut self.backends {
            match backend.approve(id) {
                Ok(held) => return Ok(held),
                Err(ApprovalError::Another { held, .. }) => others.push(held),
                Err(_) => {}
            }
        }
        match others.is_empty() {
            true => Err(ApprovalError::NothingHeld),
            false => Err(ApprovalError::Another { asked: id.to_owned(), held: others.join(", ") }),
        }
    }

    /// Whether a change that was approved is on its way: its list may have changed just then.
    pub(super) fn outcome_of_approval(
        &self,
        approved: HeldChange,
    ) -> Result<HeldChange, ApprovalError> {
        let backend = self.backends.iter().find(|backend| backend.subject() == approved.of);
        match backend.and_then(BackendList::held) {
            Some(held) => Err(ApprovalError::Another { asked: approved.id, held: held.id.clone() }),
            None => Ok(approved),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
