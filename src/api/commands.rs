//! What changes something: reload, approve, pins, blocked nodes, drains and owners.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::overrides::DeadEnd;
use mapsmith_core::desired::ownership::with_owners;
use mapsmith_core::desired::rollout::Terms;
use mapsmith_core::events::{EventKind, Happening};
use mapsmith_core::{
    BlockedNode, DrainedMaster, HeldChange, Note, OverrideChange, Overrides, Pin, ServerOverride,
    SourceState,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::convergence::Asked;
use super::owned::why_elsewhere;
use super::queries::override_of;
use super::types::{ApproveReport, ReloadOutcome, ReloadReport};
use super::{Api, Error, Precondition, views};
use crate::engine::{Approval, Decision, HoldOrderError, Order, OwnError, OwnOrder};
use crate::source::PollRequests;
use crate::store::AuditTicket;

/// The most names that a refused order lists.
const LISTED_MASTERS: usize = 10;

impl Api {
    /// Polls every source now and reads every certificate and CRL; with `wait` answers when every
    /// instance holds the result, or when the time is over.
    pub async fn reload(&self, wait: Option<Duration>, ticket: &AuditTicket) -> ReloadReport {
        let text = "every source is asked for everything".to_owned();
        let happening = Happening::new(Timestamp::now(), EventKind::Reload, "sources", text);
        let noted = self.happened(happening.in_state("requested"), ticket);
        tokio::join!(self.reload_now(wait), noted).0
    }

    async fn reload_now(&self, wait: Option<Duration>) -> ReloadReport {
        let files = self.tls_file_numbers();
        let mut asked = self.ask(PollRequests::request_everything);
        let (outcome, message) = match wait {
            Some(wait) => {
                let (request, deadline) = (asked.request, asked.start + wait);
                let (ended, files) = tokio::join!(
                    self.reload_in_force(&mut asked, wait),
                    self.tls_files_in_force(&files, request, deadline),
                );
                files.beside(ended)
            }
            None => (
                ReloadOutcome::Requested,
                "every source is polled now; add ?wait=30s to get the outcome".to_owned(),
            ),
        };
        self.reload_report(&asked, outcome, message)
    }

    /// Begins a change, with this request to the sources.
    pub(super) fn ask(&self, request: impl FnOnce(&PollRequests) -> u64) -> Asked {
        let decision = self.decision.borrow();
        let before = decision.map.in_force.as_ref().map_or(0, |revision| revision.number);
        let request = request(&self.requests);
        Asked { start: Instant::now(), before, request, generation: None }
    }

    /// Lets exactly this held change through; with a canary a change of the map goes to some
    /// instances first.
    ///
    /// # Errors
    /// [`Error::NotApproved`], with why; or no canary can begin.
    pub async fn approve(
        &self,
        id: &str,
        note: Note,
        canary: Option<Terms>,
        ticket: Arc<AuditTicket>,
    ) -> Result<ApproveReport, Error> {
        ticket.explain(note.reason.clone());
        let (answer, result) = oneshot::channel();
        let is_canary = canary.is_some();
        self.check_canary_of(id, is_canary)?;
        let canary = canary.map(|terms| (terms, Arc::clone(&ticket)));
        let approval = Approval { id: id.to_owned(), note, canary, answer };
        let held = self.held_services();
        match &self.services {
            Some(services) if held.as_ref().is_some_and(|held| held.id == id) => {
                services.approvals.send(approval).await.map_err(|_| Error::Ending)?;
            }
            _ => self.orders.send(Order::Approve(approval)).await.map_err(|_| Error::Ending)?,
        }
        let approved = match (result.await.map_err(|_| Error::Ending)?, held) {
            (Ok(approved), _) => approved,
            (Err(HoldOrderError::NotHeld(ApprovalError::NothingHeld)), Some(held)) => {
                let another = ApprovalError::Another { asked: id.to_owned(), held: held.id };
                return Err(Error::NotApproved(another.to_string()));
            }
            (Err(error), _) => return Err(self.refusal(error).await),
        };
        let rollout = self.open_rollout().filter(|_| is_canary);
        let text = match &rollout {
            None => format!("the held change of {} was let through", approved.of),
            Some(rollout) => rollout.text.clone(),
        };
        let happening = Happening::new(Timestamp::now(), EventKind::Approved, &approved.of, text);
        self.happened(happening.in_state(id), &ticket).await;
        Ok(ApproveReport { held: approved, rollout, dry_run: false })
    }

    /// Whether what is held may go to a canary first, where it is to.
    pub(super) fn check_canary_of(&self, id: &str, is_canary: bool) -> Result<(), Error> {
        let is_other = self.held().iter().any(|held| held.id == id && held.of != HeldChange::MAP);
        match is_canary && is_other {
            false => Ok(()),
            true => Err(Error::NotApproved(
                "only a change of the map can go to a canary first: approve it without one"
                    .to_owned(),
            )),
        }
    }

    /// Stores a change of the overrides and puts it in force; with `wait` answers when every
    /// instance holds the result, or when the time is over. The names in it are valid. With `force`
    /// masters are taken that nobody knows.
    ///
    /// # Errors
    /// There is no store, it did not take the change, a master is unknown, or there is nothing to
    /// end.
    pub async fn change_override(
        &self,
        mut change: OverrideChange,
        force: bool,
        wait: Option<Duration>,
        ticket: Arc<AuditTicket>,
        condition: Precondition,
    ) -> Result<ReloadReport, Error> {
        ticket.explain(change.note().reason);
        let service = self.overrides.as_ref().ok_or(Error::NoStore("overrides"))?;
        let mut asked = self.ask(|_| 0);
        let turn = service.turn().await;
        let summary = self.check_override(&mut change, force, &service.latest(), &condition)?;
        let changed = turn
            .change(change.clone(), Some(ticket))
            .await
            .map_err(|error| Error::Store(error.to_string()))?;
        let number = changed.ok_or_else(|| nothing_to_end(&change))?.number();
        let (outcome, message) = match wait {
            Some(wait) => self.override_in_force(&mut asked, &change, number, wait).await,
            None => (
                ReloadOutcome::Requested,
                "; it is stored, and every instance gets it now".to_owned(),
            ),
        };
        Ok(self.reload_report(&asked, outcome, format!("{summary}{message}")))
    }

    /// Whether a change of the overrides may be made of these, and what it is, for a person. Its
    /// node gets the name that the map has.
    pub(super) fn check_override(
        &self,
        change: &mut OverrideChange,
        force: bool,
        latest: &Overrides,
        condition: &Precondition,
    ) -> Result<String, Error> {
        if let OverrideChange::Pin(Pin { node, .. })
        | OverrideChange::Unpin { node, .. }
        | OverrideChange::Block(BlockedNode { node, .. })
        | OverrideChange::Unblock { node, .. } = change
        {
            *node = self.as_in_map(node);
            condition.check(override_of(latest, node).as_ref())?;
        }
        if let OverrideChange::Drain(DrainedMaster { master, .. })
        | OverrideChange::Undrain { master, .. } = change
        {
            condition.check(latest.drain(master))?;
        }
        let begins = matches!(
            change,
            OverrideChange::Pin(_) | OverrideChange::Block(_) | OverrideChange::Drain(_)
        );
        // What was ordered while there was a map can still be ended.
        if begins && !self.settings.keeps_map() {
            return Err(Error::NoMap);
        }
        let known = self.check_masters(change, &self.decision.borrow().clone());
        let summary = describe(change, known.is_ok());
        if !force {
            known?;
            self.check_drain(change, latest)?;
        }
        Ok(summary)
    }

    /// Says whose a node is from now on: it goes to this master until the registry names it, and
    /// belongs to it from then on. With `wait` answers when every instance holds the result, or
    /// when the time is over. Both names are valid. With `force` a master is taken that nobody
    /// knows, and a node.
    ///
    /// # Errors
    /// Owners are not remembered, the store did not take it, another Mapsmith decides, or the node
    /// or the master is unknown.
    pub async fn own(
        &self,
        node: &str,
        master: String,
        force: bool,
        wait: Option<Duration>,
    ) -> Result<ReloadReport, Error> {
        let node = self.as_in_map(node);
        let mut asked = self.ask(|_| 0);
        let decision = self.decision.borrow().clone();
        let known = self.check_known([&master], &decision);
        let is_known = known.is_ok();
        if !force {
            known?;
            self.check_node(&node, &decision)?;
        }
        let (answer, result) = oneshot::channel();
        let mut summary = describe_owner(&node, &master, is_known);
        let order = OwnOrder { node: node.clone(), master: master.clone(), answer };
        self.orders.send(Order::Own(order)).await.map_err(|_| Error::Ending)?;
        let generation = result.await.map_err(|_| Error::Ending)?.map_err(|error| match error {
            OwnError::NotRemembered => Error::NotRemembered(error.to_string()),
            OwnError::ReadOnly(_) | OwnError::NotStored(_) | OwnError::NotInForce(_) => {
                Error::Store(error.to_string())
            }
        })?;
        let (outcome, message) = match wait {
            Some(wait) => {
                asked.generation = Some(generation);
                let behind = self.map_behind(generation, asked.start + wait).await;
                let decision = self.decision.borrow().clone();
                self.arrival(&decision, &behind, asked.before, wait)
            }
            None => (ReloadOutcome::Requested, "every instance gets it now".to_owned()),
        };
        let decision = self.decision.borrow().map.clone();
        let reference = self.explain_reference(&decision, &master);
        if let Some(why) = why_elsewhere(&decision, &node, &master, reference) {
            summary += &format!("; {why}");
        }
        Ok(self.reload_report(&asked, outcome, format!("{summary}; {message}")))
    }

    /// Waits until the overrides of this number are in force in every instance, and says how that
    /// ended.
    async fn override_in_force(
        &self,
        asked: &mut Asked,
        change: &OverrideChange,
        number: u64,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = asked.start + wait;
        let is_evaluated = |decision: &Decision| decision.map.overrides.number() >= number;
        let Some(decision) = self.decided(deadline, is_evaluated).await else {
            let message = format!("; it is stored, and not in force within {wait:?}");
            return (ReloadOutcome::Behind, message);
        };
        asked.generation = Some(decision.generation);
        let behind = match decision.map.active {
            true => self.map_behind(decision.generation, deadline).await,
            false => Vec::new(),
        };
        let held = |held: &HeldChange| format!("{} (id {})", held.reason, held.id);
        let (outcome, message) = match &decision.map.held {
            Some(change) if !decision.map.active => (
                ReloadOutcome::Held,
                format!(
                    "it is stored, and comes into force with the first answer of the sources that \
                     is let through; held back by the guard: {}",
                    held(change)
                ),
            ),
            Some(first) if is_held_back(change, &decision) => {
                (ReloadOutcome::Held, format!("it is stored, and held back: {}", held(first)))
            }
            _ => self.arrival(&decision, &behind, asked.before, wait),
        };
        let stuck = match decision.map.stuck.as_slice() {
            [] => String::new(),
            stuck => {
                format!(
                    "; no other master is left, so these keep their nodes: {}",
                    stuck.join(", ")
                )
            }
        };
        (outcome, format!("{stuck}; {message}"))
    }

    /// Whether every master that an order names is one: a backend or server of some instance, or a
    /// master that nodes are routed to. A name that is none is a slip of the pen mostly, and would
    /// be a route to nothing.
    fn check_masters(&self, change: &OverrideChange, decision: &Decision) -> Result<(), Error> {
        match change {
            OverrideChange::Pin(pin) => self.check_known([&pin.master], decision),
            OverrideChange::Drain(drained) => {
                self.check_known([&drained.master].into_iter().chain(&drained.to), decision)
            }
            _ => Ok(()),
        }
    }

    /// Whether a source or the map in force names a node.
    fn check_node(&self, node: &str, decision: &Decision) -> Result<(), Error> {
        let routed = decision.map.in_force.iter().any(|map| map.entries.get(node).is_some());
        let said = |state: &SourceState| {
            state.snapshot.as_ref().is_some_and(|said| said.entries.get(node).is_some())
        };
        if routed || self.states().iter().any(said) {
            return Ok(());
        }
        Err(Error::UnknownNode(format!(
            "{node:?} is not a known node: no source and no entry of the map names it (--force, or \
                force=true, takes it all the same)"
        )))
    }

    pub(super) fn check_known<'a>(
        &self,
        named: impl IntoIterator<Item = &'a String>,
        decision: &Decision,
    ) -> Result<(), Error> {
        let targets: Vec<_> =
            self.targets.iter().filter_map(|targets| targets.borrow().clone()).collect();
        let listed = decision.backends.iter().flat_map(|backend| {
            let servers = backend.servers.iter().flatten().map(|server| server.name.as_str());
            servers.chain([backend.name.as_str()])
        });
        let routed = decision
            .map
            .in_force
            .as_ref()
            .map(|revision| revision.entries.load())
            .unwrap_or_default();
        let drained = decision.map.overrides.drained().map(|drained| drained.master.as_str());
        let owners = decision.map.owners.nodes.values().map(|owned| owned.record.owner.as_str());
        let masters: BTreeSet<&str> =
            routed.iter().map(|(master, _)| *master).chain(drained).chain(owners).collect();
        let known: BTreeSet<&str> = targets
            .iter()
            .flat_map(|targets| targets.names())
            .chain(listed)
            .chain(masters.iter().copied())
            .collect();
        match named.into_iter().find(|master| !known.contains(master.as_str())) {
            None => Ok(()),
            Some(master) => {
                Err(Error::UnknownMaster(unknown(master, &known, &masters, targets.is_empty())))
            }
        }
    }

    /// Whether the nodes of a master that is to be drained have anywhere to go. Who drains one may
    /// be about to stop it.
    fn check_drain(&self, change: &OverrideChange, stored: &Overrides) -> Result<(), Error> {
        let OverrideChange::Drain(drained) = change else { return Ok(()) };
        let states = self.states();
        let Ok(merged) = desired::merge(&views(&states)) else { return Ok(()) };
        let merged = with_owners(&merged, &self.decision.borrow().map.owners.nodes);
        let mut after = stored.clone();
        // A name that is not valid was refused before.
        let _ = after.add_drain(drained.clone());
        let why = match desired::overrides::dead_end(&merged, &after, &drained.master) {
            None => return Ok(()),
            Some(DeadEnd::Circle(way)) => {
                format!(
                    "the drains run in a circle: {}; undrain one of them, or name another master \
                        with --to",
                    way.join(" -> ")
                )
            }
            Some(DeadEnd::NobodyLeft) => {
                let master = &drained.master;
                format!(
                    "no other master is left that the nodes of {master} could go to; name one \
                        with --to, or undrain another"
                )
            }
        };
        Err(Error::DeadEnd(format!("{why} (--force, or force=true, stores it all the same)")))
    }
}

/// What is to end was not there.
pub(super) fn nothing_to_end(change: &OverrideChange) -> Error {
    Error::NoOverride(match change {
        OverrideChange::Undrain { master, .. } => format!("master {master} is not drained"),
        OverrideChange::Unpin { node, .. } => format!("node {node} has no pin"),
        OverrideChange::Unblock { node, .. } => format!("node {node} is not blocked"),
        _ => "nothing changed".to_owned(),
    })
}

/// Why a name is refused, with the names that may have been meant.
fn unknown(master: &str, known: &BTreeSet<&str>, masters: &BTreeSet<&str>, unseen: bool) -> String {
    let why = match unseen {
        true => "no HAProxy has been observed yet, and no node is routed there",
        false => "no HAProxy has a backend or server of the name, and no node is routed there",
    };
    let similar: Vec<_> =
        known.iter().filter(|name| name.eq_ignore_ascii_case(master)).copied().collect();
    let hint = match (similar.as_slice(), masters.len()) {
        ([], 0) => String::new(),
        ([], count) => {
            let first: Vec<_> = masters.iter().take(LISTED_MASTERS).copied().collect();
            let more = if count > LISTED_MASTERS { ", ..." } else { "" };
            format!("; nodes are routed to: {}{more}", first.join(", "))
        }
        (similar, _) => format!("; is it {}?", similar.join(" or ")),
    };
    format!(
        "{master:?} is not a known master: {why}{hint} (--force, or force=true, takes it all the \
         same)"
    )
}

/// Said of a master that was ordered all the same.
const BY_FORCE: &str = " (by force: no HAProxy has a backend or server of the name)";

fn describe_owner(node: &str, owner: &str, is_known: bool) -> String {
    format!("node {node} belongs to {owner}{}", if is_known { "" } else { BY_FORCE })
}

/// What was ordered, for a person, with a warning where no node has the master that gets nodes: it
/// may be a slip of the pen.
pub(super) fn describe(change: &OverrideChange, is_known: bool) -> String {
    let unknown = if is_known { "" } else { BY_FORCE };
    match change {
        OverrideChange::Pin(Pin { node, master, until, .. }) => {
            let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
            format!("node {node} is pinned to {master}{until}{unknown}")
        }
        OverrideChange::Unpin { node, .. } => format!("node {node} is no longer pinned"),
        OverrideChange::Block(BlockedNode { node, until, .. }) => {
            let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
            format!("node {node} is blocked{until}: it is in no map")
        }
        OverrideChange::Unblock { node, .. } => format!("node {node} is no longer blocked"),
        OverrideChange::Drain(drained) => match &drained.to {
            Some(to) => format!("master {} is drained to {to}{unknown}", drained.master),
            None => {
                format!("master {} is drained to the others{unknown}", drained.master)
            }
        },
        OverrideChange::Undrain { master, stay: false, .. } => {
            format!("master {master} is no longer drained")
        }
        OverrideChange::Undrain { master, .. } => {
            format!("master {master} is no longer drained; nodes stay where they went meanwhile")
        }
        OverrideChange::SetServer(ServerOverride { backend, server, order, until, .. }) => {
            let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
            format!("{backend}/{server}: {order}{until}")
        }
        OverrideChange::ResetServer { backend, server, .. } => {
            format!("{backend}/{server} is as listed again")
        }
        OverrideChange::Expire { .. } | OverrideChange::Begin { .. } => {
            "overrides whose time is over have ended".to_owned()
        }
    }
}

/// Whether an order is held for where it points to.
fn is_held_back(change: &OverrideChange, decision: &Decision) -> bool {
    match (change, &decision.map.in_force) {
        (OverrideChange::Pin(pin), Some(revision)) => {
            revision.entries.get(&pin.node) != Some(&pin.master)
                && decision.map.kept_from.contains(&pin.master)
        }
        _ => !decision.map.kept_from.is_empty(),
    }
}
