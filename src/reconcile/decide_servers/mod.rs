//! Server lists -> the servers that backends should have: resolve, guard, damp, number. The only
//! place where a desired list is made.
//!
//! A backend whose list is not known yet, or was never accepted, is absent from what is desired,
//! and so is not touched. A list that was in force before a restart is the last good one after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::desired::damping::Damper;
use mapsmith_core::desired::guard::{self, Accepted, Limits, Proposal, Subject, Window};
use mapsmith_core::desired::servers::{self, Resolved};
use mapsmith_core::server::list::{Host, LeftOut};
use mapsmith_core::server::{LastGoodList, Manage, ServerOptions};
use mapsmith_core::status::{BackendStatus, LeavingServer};
use mapsmith_core::{
    DesiredBackend, DesiredServers, EntryMap, HeldChange, Server, ServerList, SourceState,
};
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::decide::{Approval, ApprovalError, Decision};
use super::resolve::{Lookup, Resolver};
use crate::heartbeat;
use crate::settings::{Backend, Listing, Settings};
use crate::telemetry::{
    BACKEND_CHANGES, BACKEND_HELD, BACKEND_LEAVING, BACKEND_LEFT_OUT, BACKEND_SERVERS, GUARD_HOLDS,
};

/// The most names that a backend remembers as once desired; the oldest are forgotten. Far more than
/// leave within the time that a drain takes.
const FORMER_NAMES: usize = 1000;
/// How long a name that has no address yet is left alone: a gateway may well start before its
/// resolver does.
const RESOLVE_RETRY: Duration = Duration::from_secs(10);
/// The most left-out rows that one change of them writes to the log.
const LOGGED_ROWS: usize = 10;

/// What was decided last.
#[derive(Debug, Clone, Default)]
pub struct ServerDecision {
    /// The highest poll request whose answers, of the node map and of every server list, are taken
    /// into account.
    pub considered: u64,
    /// Every declared backend, in the order of the settings.
    pub backends: Vec<BackendStatus>,
}

impl ServerDecision {
    /// The changes that the guard holds back.
    pub fn held(&self) -> impl Iterator<Item = &HeldChange> {
        self.backends.iter().filter_map(|backend| backend.held.as_ref())
    }
}

/// One backend's list on its way to be desired.
#[derive(Debug)]
struct BackendList {
    settings: Backend,
    /// The written-out list, where there is one.
    declared: Arc<ServerList>,
    options: ServerOptions,
    damper: Damper<Server>,
    held: Option<HeldChange>,
    /// The id of a list that is let through at the next decision.
    approved: Option<String>,
    /// The last list that was let through; it may not be all in force yet.
    accepted: Option<BTreeMap<String, Server>>,
    /// What was let through lately.
    window: Window,
    former: VecDeque<String>,
    waiting_for: Option<String>,
    left_out: Vec<LeftOut>,
    stale: Vec<LeftOut>,
    /// The masters' list, with the map it was made of.
    mapped: Option<(Arc<EntryMap>, Arc<ServerList>)>,
}

/// Makes the desired servers.
pub struct ServerDecider {
    limits: Limits,
    /// The names of the sources that list servers, in the order of their states.
    sources: Vec<String>,
    producers: BTreeMap<String, String>,
    backends: Vec<BackendList>,
    resolver: Resolver,
    /// The round of polls that the host names were looked up in.
    resolved_in: Option<u64>,
    /// [`RESOLVE_RETRY`].
    resolve_retry: Duration,
    considered: u64,
    desired: Option<Arc<DesiredServers>>,
}

/// Every backend's list as it is known now, in the order of the backends.
type Lists = Vec<Option<Arc<ServerList>>>;

impl ServerDecider {
    /// Knows no list yet but those that are written out.
    pub fn new(settings: &Settings, lookup: Box<dyn Lookup>) -> Self {
        let backends =
            settings.backends.iter().map(|backend| BackendList::new(backend, settings)).collect();
        Self {
            limits: settings.guard.clone(),
            sources: settings.list_sources.iter().map(|source| source.name.clone()).collect(),
            producers: servers::producers(settings.sources.iter().map(|source| &source.masters)),
            backends,
            resolver: Resolver::new(lookup, settings.damping.hold),
            resolved_in: None,
            resolve_retry: RESOLVE_RETRY,
            considered: 0,
            desired: None,
        }
    }

    /// Goes on from the lists that were last in force: each is the last good one until its origin
    /// lists servers again, and what it lists then is judged as a change of it.
    pub fn resume(mut self, stored: &BTreeMap<String, LastGoodList>) -> Self {
        for backend in &mut self.backends {
            let list = stored
                .get(&backend.settings.name)
                .filter(|list| list.origin == backend.settings.origin());
            if let Some(list) = list {
                backend.resume(list.servers.clone());
            }
        }
        self.number();
        self
    }

    /// What is known of every backend's list. `states` are those of the sources that list servers,
    /// in the settings' order.
    pub fn lists(&mut self, states: &[SourceState<ServerList>], decision: &Decision) -> Lists {
        let answered = states.iter().map(|state| state.answered);
        self.considered = answered.chain([decision.considered]).min().unwrap_or_default();
        // A map that was only found in the file may be older than anything.
        let map = decision
            .in_force
            .as_ref()
            .filter(|_| decision.active)
            .map(|revision| &revision.entries);
        let (sources, producers) = (&self.sources, &self.producers);
        self.backends
            .iter_mut()
            .map(|backend| {
                let list = match backend.settings.listing() {
                    Listing::Servers(_) => Some(Arc::clone(&backend.declared)),
                    Listing::From(name) => {
                        let state = sources
                            .iter()
                            .position(|source| source == name)
                            .and_then(|index| states.get(index));
                        let snapshot = state.and_then(|state| state.snapshot.as_ref());
                        snapshot.map(|snapshot| Arc::clone(&snapshot.entries))
                    }
                    Listing::Masters(template) => {
                        let template = template.to_owned();
                        map.map(|map| backend.masters(map, &template, producers))
                    }
                };
                backend.waiting_for = list.is_none().then(|| backend.first_answer());
                list
            })
            .collect()
    }

    /// Looks host names up where it is time: once a round of polls, and names that are new. `now`
    /// is a time of one steady clock.
    pub async fn resolve(&mut self, lists: &Lists, now: Duration) {
        let listed = lists.iter().flatten().flat_map(|list| &list.servers);
        let hosts: BTreeSet<String> = listed
            .filter_map(|server| match &server.host {
                Host::Name(name) => Some(name.clone()),
                Host::Address(_) => None,
            })
            .collect();
        if self.resolved_in != Some(self.considered) || !self.resolver.has_tried(&hosts) {
            self.resolved_in = Some(self.considered);
            self.resolver.refresh(hosts, now).await;
        }
    }

    /// Decides what every backend should have at `now`, a time of one steady clock.
    pub fn decide(&mut self, lists: &Lists, now: Duration) {
        for (backend, list) in self.backends.iter_mut().zip(lists) {
            if let Some(list) = list {
                let resolved = backend.resolve(list, &self.resolver);
                backend.consider(resolved, &self.limits, now);
            }
            backend.step(now);
        }
        self.number();
        self.backends.iter().for_each(BackendList::record);
    }

    /// Gives what is desired a new number where it is not what it was.
    fn number(&mut self) {
        let backends = self
            .backends
            .iter()
            .filter_map(|backend| Some((backend.settings.name.clone(), backend.desired()?)));
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

    /// What was decided last; `now` is the time of that decision.
    pub fn decision(&self, now: Duration) -> ServerDecision {
        let clock = Timestamp::now();
        let at = |due: Duration| {
            SignedDuration::try_from(due.saturating_sub(now))
                .ok()
                .and_then(|left| clock.checked_add(left).ok())
                .unwrap_or(clock)
        };
        ServerDecision {
            considered: self.considered,
            backends: self.backends.iter().map(|backend| backend.status(&at)).collect(),
        }
    }

    /// When something is due although nobody says anything new.
    pub fn next_look(&self) -> Option<Duration> {
        self.backends.iter().filter_map(|backend| backend.damper.next_step()).min()
    }

    /// Lets one held change through at the next decision.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        let held: Vec<_> = self
            .backends
            .iter()
            .filter_map(|backend| backend.held.as_ref())
            .map(|held| held.id.clone())
            .collect();
        let backend = self
            .backends
            .iter_mut()
            .find(|backend| backend.held.as_ref().is_some_and(|held| held.id == id));
        match backend.and_then(|backend| Some((backend.held.clone()?, backend))) {
            Some((change, backend)) => {
                backend.approved = Some(id.to_owned());
                Ok(change)
            }
            None if held.is_empty() => Err(ApprovalError::NothingHeld),
            None => Err(ApprovalError::Another { asked: id.to_owned(), held: held.join(", ") }),
        }
    }

    /// Whether a change that was approved is on its way: its list may have changed just then.
    fn outcome_of_approval(&self, approved: HeldChange) -> Result<HeldChange, ApprovalError> {
        let backend =
            self.backends.iter().find(|backend| of(&backend.settings.name) == approved.of);
        match backend.and_then(|backend| backend.held.as_ref()) {
            Some(held) => Err(ApprovalError::Another { asked: approved.id, held: held.id.clone() }),
            None => Ok(approved),
        }
    }

    /// Decides whenever a list or the map has something new, an approval comes, or a wait is over;
    /// until shutdown.
    pub async fn run(
        mut self,
        mut sources: Vec<watch::Receiver<SourceState<ServerList>>>,
        mut map: watch::Receiver<Decision>,
        mut approvals: mpsc::Receiver<Approval>,
        outputs: (watch::Sender<ServerDecision>, watch::Sender<Option<Arc<DesiredServers>>>),
        shutdown: CancellationToken,
    ) {
        let clock = Instant::now();
        // What was in force before a restart is so from the first second on, however long a first
        // lookup takes.
        if map.borrow().read_only.is_none() {
            outputs.1.send_replace(self.desired());
        }
        outputs.0.send_replace(self.decision(Duration::ZERO));
        let mut answer: Option<(HeldChange, oneshot::Sender<Result<HeldChange, ApprovalError>>)> =
            None;
        let mut retry: Option<Duration> = None;
        loop {
            heartbeat::beat();
            let states: Vec<_> =
                sources.iter_mut().map(|source| source.borrow_and_update().clone()).collect();
            let decision = map.borrow_and_update().clone();
            let lists = self.lists(&states, &decision);
            if shutdown.run_until_cancelled(self.resolve(&lists, clock.elapsed())).await.is_none() {
                return;
            }
            let now = clock.elapsed();
            self.decide(&lists, now);
            // Whose map it is, theirs are the servers too.
            let ours = self.desired.as_ref().filter(|_| decision.read_only.is_none());
            outputs.1.send_if_modified(|desired| {
                let changed = desired.as_ref().map(|desired| desired.number)
                    != ours.map(|desired| desired.number);
                if changed {
                    *desired = ours.cloned();
                }
                changed
            });
            outputs.0.send_replace(self.decision(now));
            if let Some((held, sender)) = answer.take() {
                // Whoever asked may have gone; the change is on its way all the same.
                let _ = sender.send(self.outcome_of_approval(held));
            }
            // From the first decision on that lacks one: those between, for what HAProxy does, put
            // it off no further.
            retry =
                self.resolver.lacks_addresses().then(|| retry.unwrap_or(now + self.resolve_retry));
            let next_look = [self.next_look(), retry].into_iter().flatten().min();
            'quiet: loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    // A poller that ended leaves its last state; only the shutdown ends pollers.
                    good = any_changed(&mut sources) => if good { break 'quiet } else { return },
                    () = heartbeat::tick() => {}
                    changed = map.changed() => if changed.is_err() { return } else { break 'quiet },
                    Some(approval) = approvals.recv() => {
                        let Approval { id, answer: sender } = approval;
                        match self.approve(&id) {
                            Ok(held) => {
                                answer = Some((held, sender));
                                break 'quiet;
                            }
                            Err(error) => { let _ = sender.send(Err(error)); }
                        }
                    }
                    () = sleep_until(clock + next_look.unwrap_or_default()), if next_look.is_some() => {
                        if retry.is_some_and(|retry| clock.elapsed() >= retry) {
                            (self.resolved_in, retry) = (None, None);
                        }
                        break 'quiet;
                    }
                }
            }
        }
    }
}

/// Resolves when one of the sources has something new; false once one is gone. Without any it never
/// does.
async fn any_changed(sources: &mut [watch::Receiver<SourceState<ServerList>>]) -> bool {
    if sources.is_empty() {
        return std::future::pending().await;
    }
    select_all(sources.iter_mut().map(|source| Box::pin(source.changed()))).await.0.is_ok()
}

/// What a held change of this backend's list is of.
fn of(backend: &str) -> String {
    format!("backend {backend}")
}

impl BackendList {
    fn new(backend: &Backend, settings: &Settings) -> Self {
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        for kind in ["added", "moved", "removed"] {
            counter!(BACKEND_CHANGES, "backend" => backend.name.clone(), "kind" => kind)
                .increment(0);
        }
        Self {
            declared: Arc::new(backend.declared()),
            options: backend.default_options(),
            damper: Damper::new(settings.damping.pace()),
            settings: backend.clone(),
            held: None,
            approved: None,
            accepted: None,
            window: Window::new(settings.guard.window),
            former: VecDeque::new(),
            waiting_for: None,
            left_out: Vec::new(),
            stale: Vec::new(),
            mapped: None,
        }
    }

    /// Takes the list that was last in force.
    fn resume(&mut self, servers: BTreeMap<String, Server>) {
        tracing::info!(
            backend = self.settings.name,
            servers = servers.len(),
            "the stored server list is in force until {} lists servers",
            self.settings.origin()
        );
        self.waiting_for = Some(self.first_answer());
        self.accepted = Some(servers.clone());
        self.damper = Damper::resume(self.damper.pace(), servers);
    }

    /// What is waited for while the list is not known.
    fn first_answer(&self) -> String {
        match self.settings.listing() {
            Listing::Servers(_) => "the settings".to_owned(),
            Listing::From(name) => format!("a first answer of source {name}"),
            Listing::Masters(_) => "a first node map".to_owned(),
        }
    }

    /// The masters of the map as a list; made once a map.
    fn masters(
        &mut self,
        map: &Arc<EntryMap>,
        template: &str,
        producers: &BTreeMap<String, String>,
    ) -> Arc<ServerList> {
        match &self.mapped {
            Some((known, list)) if Arc::ptr_eq(known, map) => Arc::clone(list),
            _ => {
                let masters = map.load();
                let list = servers::masters_list(
                    template,
                    masters.iter().map(|(master, _)| *master),
                    producers,
                );
                let list = Arc::new(list);
                self.mapped = Some((Arc::clone(map), Arc::clone(&list)));
                list
            }
        }
    }

    /// The list with its addresses. Notes what is left out of it.
    fn resolve(&mut self, list: &ServerList, resolver: &Resolver) -> BTreeMap<String, Server> {
        let Resolved { mut servers, left_out: unresolved } =
            servers::resolve(list, &self.options, |host| resolver.address(host));
        let left_out: Vec<_> = list.left_out.iter().cloned().chain(unresolved).collect();
        let news: Vec<_> = left_out.iter().filter(|row| !self.left_out.contains(row)).collect();
        for row in news.iter().take(LOGGED_ROWS) {
            tracing::warn!(
                backend = self.settings.name,
                place = row.place,
                "left out of the server list: {}",
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
        // A row that went wrong is no word that its server is gone.
        for name in left_out.iter().filter_map(|row| row.name.as_ref()) {
            if let Some(known) = self.damper.in_force().and_then(|in_force| in_force.get(name)) {
                servers.entry(name.clone()).or_insert_with(|| known.clone());
            }
        }
        // Where rows contradict each other what is in force stays; where nothing is, neither row
        // counts.
        for name in &list.disputed {
            match self.damper.in_force().and_then(|in_force| in_force.get(name)) {
                Some(known) => servers.insert(name.clone(), known.clone()),
                None => servers.remove(name),
            };
        }
        self.left_out = left_out;
        self.stale = list
            .servers
            .iter()
            .filter_map(|server| match &server.host {
                Host::Name(host) => Some((server, host, resolver.stale(host)?)),
                Host::Address(_) => None,
            })
            .map(|(server, host, error)| LeftOut {
                place: format!("server {:?}", server.name),
                name: Some(server.name.clone()),
                reason: format!("{host} does not resolve: {error}"),
            })
            .collect();
        servers
    }

    /// Hands the list on to the damper, unless the guard holds it back.
    fn consider(&mut self, listed: BTreeMap<String, Server>, limits: &Limits, now: Duration) {
        let id = servers::id_of(&self.settings.name, &listed);
        // An approval was of one list; it must not let that one through some other day.
        let approved = self.approved.take().is_some_and(|approved| approved == id);
        if self.accepted.as_ref() != Some(&listed) {
            let passing = self.change_to(&listed, approved);
            let in_force = self.damper.in_force();
            let (in_force, confirmed) = (in_force.map(BTreeMap::len), in_force == Some(&listed));
            let (entries, counts) = (listed.len(), passing.counts);
            let recent = self.window.recent(passing.mark, now);
            // What was let through is the measure: not all of it may be in force yet, nor all that
            // went be gone.
            let proposal =
                Proposal { in_force: in_force.map(|_| passing.before), entries, counts, recent };
            if let (Err(reason), false, false) =
                (guard::judge(Subject::Servers, limits, &proposal), confirmed, approved)
            {
                self.hold(HeldChange {
                    id,
                    of: of(&self.settings.name),
                    reason,
                    since: Timestamp::now(),
                    entries_in_force: in_force.unwrap_or(0),
                    entries_held: entries,
                    counts,
                });
                return;
            }
            self.window.accept(&passing, now);
            self.accepted = Some(listed.clone());
        }
        if let Some(held) = self.held.take() {
            tracing::info!(
                backend = self.settings.name,
                id = held.id,
                approved,
                "no change of the server list is held any more"
            );
        }
        self.damper.list(listed, now);
    }

    /// What this list changes of the last one that was let through.
    fn change_to(&self, listed: &BTreeMap<String, Server>, approved: bool) -> Accepted {
        let nothing = BTreeMap::new();
        let before = self.accepted.as_ref().unwrap_or(&nothing);
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
            approved,
        }
    }

    fn hold(&mut self, mut held: HeldChange) {
        let name = &self.settings.name;
        match &self.held {
            // What is held may be a little different at each poll, and is one hold all the same.
            Some(before) => {
                held.since = before.since;
                if before.id != held.id {
                    tracing::info!(
                        backend = name,
                        id = held.id,
                        "the held change is another one now: {} ({})",
                        held.reason,
                        held.counts
                    );
                }
            }
            None => {
                counter!(GUARD_HOLDS).increment(1);
                tracing::warn!(
                    backend = name,
                    id = held.id,
                    "held back by the guard: {}; the last good server list stays in force ({}); \
                        `mapsmith approve` lets it through",
                    held.reason,
                    held.counts
                );
            }
        }
        self.held = Some(held);
    }

    /// Brings into force what is due.
    fn step(&mut self, now: Duration) {
        let before = self.damper.in_force().cloned();
        if !self.damper.step(now) {
            return;
        }
        let nothing = BTreeMap::new();
        let (old, new) =
            (before.as_ref().unwrap_or(&nothing), self.damper.in_force().unwrap_or(&nothing));
        let counts = servers::counts(old, new);
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

    fn desired(&self) -> Option<DesiredBackend> {
        Some(DesiredBackend {
            servers: self.damper.in_force()?.clone(),
            former: self.former.iter().cloned().collect(),
            // While a row is left out, or nothing is listed since the start, a server that is not
            // in force may well be listed.
            manage: if self.left_out.is_empty() && self.waiting_for.is_none() {
                self.settings.manage
            } else {
                Manage::Own
            },
            slots: self.settings.slots.clone(),
            defaults: self.settings.defaults.clone(),
            drain: self.settings.drain,
        })
    }

    fn status(&self, at: &impl Fn(Duration) -> Timestamp) -> BackendStatus {
        let leaving = self
            .damper
            .leaving()
            .map(|(name, due)| LeavingServer { name: name.to_owned(), due: due.map(at) });
        BackendStatus {
            name: self.settings.name.clone(),
            from: self.settings.origin(),
            servers: self.damper.in_force().map(|servers| servers.values().cloned().collect()),
            waiting_for: self.waiting_for.clone(),
            left_out: self.left_out.clone(),
            stale: self.stale.clone(),
            held: self.held.clone(),
            change_due: self.damper.change_due().map(at),
            leaving: leaving.collect(),
        }
    }

    fn record(&self) {
        let name = || self.settings.name.clone();
        gauge!(BACKEND_LEFT_OUT, "backend" => name()).set(self.left_out.len() as f64);
        gauge!(BACKEND_LEAVING, "backend" => name()).set(self.damper.leaving().count() as f64);
        gauge!(BACKEND_HELD, "backend" => name()).set(f64::from(u8::from(self.held.is_some())));
        if let Some(servers) = self.damper.in_force() {
            gauge!(BACKEND_SERVERS, "backend" => name()).set(servers.len() as f64);
        }
    }
}

#[cfg(test)]
mod tests;
