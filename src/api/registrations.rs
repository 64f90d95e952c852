//! Nodes are registered and unregistered: in the store, then in force. Such a change waits for no
//! poll.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired;
use mapsmith_core::status::milliseconds;
use mapsmith_core::{
    EntryMap, HeldChange, Registration, RegistrationChange, RegistrationCounts, RegistrationEffect,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::Asker;
use super::convergence::Asked;
use super::in_force::InForce;
use super::types::{NodeElsewhere, RegistrationReport, ReloadOutcome, ReloadReport};
use super::{Api, Error, views};
use crate::engine::{Decision, Order, RegistrationTrial};
use crate::store::registration_service::{ChangeError, Changed};
use crate::store::sqlite::NotChanged;
use crate::store::{AuditTicket, RegistrationService};

/// How a change is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistrationOrder {
    /// How long it is waited for until every instance holds the result.
    pub wait: Option<Duration>,
    /// It is only told what would be.
    pub dry_run: bool,
    /// Masters are taken that nobody knows.
    pub force: bool,
}

/// What came of a change.
#[derive(Debug)]
pub enum RegistrationAnswer {
    Done(Box<RegistrationReport>),
    /// It is stored, and something keeps it from coming into force.
    KeptBack(Box<ReloadReport>),
}

impl Api {
    /// Whoever asks now for nodes to be registered.
    pub fn asker(&self, by: Option<String>, ticket: &AuditTicket) -> Asker {
        let (reason, lowercase) = (ticket.reason(), self.settings.map.lowercase);
        Asker { by, reason, now: Timestamp::now(), lowercase }
    }

    /// Makes a change of what is registered. The names in it are valid, and those of nodes as the
    /// map has them.
    ///
    /// # Errors
    /// There is no source of registrations, the store did not take the change, a master is
    /// unknown, or there is nothing to end.
    pub async fn change_registrations(
        &self,
        change: RegistrationChange,
        order: RegistrationOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<RegistrationAnswer, Error> {
        let service = self.registrations.as_ref().ok_or(Error::NoRegistrations)?;
        let mut asked = self.ask(|_| 0);
        if let (RegistrationChange::Register(nodes), false) = (&change, order.force) {
            let masters: BTreeSet<_> = nodes.iter().map(|new| &new.master).collect();
            self.check_known(masters, &self.decision.borrow().clone())?;
        }
        let (draft, nodes) = (Draft::of(&change), wanted(&change));
        if order.dry_run {
            return self.try_registrations(service, &change, draft, &asked).await;
        }
        let changed = match service.change(change, Some(ticket)).await {
            Ok(changed) => changed,
            Err(ChangeError::Refused(why)) => return Err(refused(why)),
            Err(ChangeError::Store(error)) => return Err(error.into()),
        };
        let counts = changed.effect.counts;
        if let (Draft::Node { node, master: None, .. }, 0) = (&draft, counts.unregistered) {
            let words = format!("node {node} was not registered");
            let outcome = Some(ReloadOutcome::Requested);
            return Ok(draft.done(self, &asked, counts, (outcome, words), InForce::default()));
        }
        let (outcome, words) = match order.wait {
            Some(wait) => self.registered_in_force(&mut asked, (&changed, &nodes), wait).await,
            None => (
                ReloadOutcome::Requested,
                "it is stored, and every instance gets it now".to_owned(),
            ),
        };
        let map = self.decision.borrow().map.clone();
        let found = self.in_force_of(of(&nodes), &map, map.registered >= changed.number);
        let elsewhere = in_words(&found);
        let message = format!("{}; {words}{elsewhere}", draft.words(&counts, false));
        Ok(match outcome {
            ReloadOutcome::Requested | ReloadOutcome::InSync | ReloadOutcome::Behind => {
                draft.done(self, &asked, counts, (Some(outcome), message), found)
            }
            _ => {
                let report = self.reload_report(&asked, outcome, message);
                RegistrationAnswer::KeptBack(Box::new(report))
            }
        })
    }

    /// What a change would come to. Whoever may not is told now, too.
    async fn try_registrations(
        &self,
        service: &RegistrationService,
        change: &RegistrationChange,
        draft: Draft,
        asked: &Asked,
    ) -> Result<RegistrationAnswer, Error> {
        let registered = service.entries();
        check_ends(change, &registered)?;
        let effect = RegistrationEffect::preview(change, &registered);
        let words = draft.words(&effect.counts, true);
        let entries = Arc::new(effect.apply(&registered, false));
        let (answer, result) = oneshot::channel();
        let trial = RegistrationTrial { entries, answer };
        self.orders.send(Order::TryRegistrations(trial)).await.map_err(|_| Error::Ending)?;
        let held = result.await.map_err(|_| Error::Ending)?;
        let guard = held.as_ref().map_or(String::new(), |reason| {
            format!("; the guard would hold the map that it leads to: {reason}")
        });
        let would = format!("{words}{guard}; nothing is stored");
        let answer = draft.done(self, asked, effect.counts, (None, would), InForce::default());
        Ok(match answer {
            RegistrationAnswer::Done(mut report) => {
                report.would_hold = held;
                RegistrationAnswer::Done(report)
            }
            kept_back => kept_back,
        })
    }

    /// Waits until a change is in force in every instance, and says how that ended.
    async fn registered_in_force(
        &self,
        asked: &mut Asked,
        (changed, nodes): (&Changed, &[Wanted]),
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = asked.start + wait;
        let is_evaluated = |decision: &Decision| decision.map.registered >= changed.number;
        let Some(decision) = self.decided(deadline, is_evaluated).await else {
            let words = format!("it is stored, and not in force within {wait:?}");
            return (ReloadOutcome::Behind, words);
        };
        asked.generation = Some(decision.generation);
        let map = &decision.map;
        // What is kept elsewhere as a whole comes to no instance, however long it is waited for.
        let found = self.in_force_of(of(nodes), map, true);
        let in_vain = found.count > 0 && found.count == nodes.len() && !found.waits;
        let until = if in_vain { Instant::now() } else { deadline };
        let behind = match map.active {
            true => self.map_behind(decision.generation, until).await,
            false => Vec::new(),
        };
        let waits = map.file.as_ref().is_none_or(|file| file.error.is_none())
            && map.read_only.is_none()
            && !map.active;
        match &map.held {
            Some(held) if waits || self.is_held(&decision, &changed.effect) => {
                (ReloadOutcome::Held, held_in_words(held))
            }
            None if waits => {
                let waiting = map.waiting_for.join(", ");
                let words =
                    format!("it is stored, and comes into force with the answer of: {waiting}");
                (ReloadOutcome::Behind, words)
            }
            _ if in_vain && !behind.is_empty() && map.active => {
                (ReloadOutcome::Requested, "it is stored".to_owned())
            }
            _ => self.arrival(&decision, &behind, asked.before, wait),
        }
    }

    /// Whether any node goes elsewhere than the sources and orders say by now, while the guard
    /// holds a change back.
    fn is_held(&self, decision: &Decision, effect: &RegistrationEffect) -> bool {
        let states = self.states();
        let views = views(&states);
        let Some(revision) = &decision.map.in_force else { return true };
        let overrides = &decision.map.overrides;
        effect.masters.keys().any(|node| {
            let said =
                desired::origin(&views, node).and_then(|source| source.snapshot?.entries.get(node));
            let is_ordered = overrides.pin(node).is_some()
                || overrides.block(node).is_some()
                || said.is_some_and(|master| overrides.drain(master).is_some());
            !is_ordered && revision.entries.get(node) != said
        })
    }
}

/// A node, and its master; none where it is registered no more.
type Wanted = (String, Option<String>);

/// Where a change leads nodes.
fn wanted(change: &RegistrationChange) -> Vec<Wanted> {
    match change {
        RegistrationChange::Register(nodes) => {
            nodes.iter().map(|new| (new.node.clone(), Some(new.master.clone()))).collect()
        }
        RegistrationChange::Unregister { nodes, .. } => {
            nodes.iter().map(|node| (node.clone(), None)).collect()
        }
        RegistrationChange::Expire { .. } => Vec::new(),
    }
}

fn of(nodes: &[Wanted]) -> impl Iterator<Item = (&str, Option<&str>)> {
    nodes.iter().map(|(node, master)| (node.as_str(), master.as_deref()))
}

/// Where nodes go all the same, and why.
fn in_words(found: &InForce) -> String {
    let Some(NodeElsewhere { node, master, why }) = found.elsewhere.first() else {
        return String::new();
    };
    let goes = master.as_deref().unwrap_or("no master");
    match found.count {
        1 => format!("; {node} goes to {goes} all the same: {why}"),
        count => format!("; {count} nodes go elsewhere, {node} to {goes}: {why}"),
    }
}

/// Whether these registrations may end, as the store would say.
fn check_ends(change: &RegistrationChange, registered: &EntryMap) -> Result<(), Error> {
    let RegistrationChange::Unregister { nodes, only_of, missing_ok } = change else {
        return Ok(());
    };
    for node in nodes {
        match (registered.get(node), only_of) {
            (None, _) if !missing_ok => return Err(refused(NotChanged::Unknown(node.clone()))),
            (Some(master), Some(masters)) if !masters.iter().any(|it| it == master) => {
                let (node, master) = (node.clone(), master.to_owned());
                return Err(refused(NotChanged::OfAnother { node, master }));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refused(why: NotChanged) -> Error {
    match why {
        NotChanged::Unknown(node) => Error::NotRegistered(format!(
            "node {node} is not registered (missing=ok, or --missing-ok, takes that for success)"
        )),
        NotChanged::OfAnother { node, master } => Error::NotGranted(format!(
            "node {node} is registered with {master}, and this token is for nodes of other masters"
        )),
    }
}

fn held_in_words(held: &HeldChange) -> String {
    format!("it is stored, and held back by the guard: {} (id {})", held.reason, held.id)
}

/// What is told of a change whatever comes of it.
enum Draft {
    /// Of one node; without a master its registration ends.
    Node {
        node: String,
        master: Option<String>,
        until: Option<Timestamp>,
    },
    Many,
    /// The registrations of many end.
    ManyEnd,
}

impl Draft {
    fn of(change: &RegistrationChange) -> Self {
        match change {
            RegistrationChange::Register(nodes) => match nodes.as_slice() {
                [Registration { node, master, until, .. }] => {
                    let master = Some(master.clone());
                    Self::Node { node: node.clone(), master, until: *until }
                }
                _ => Self::Many,
            },
            RegistrationChange::Unregister { nodes, .. } => match nodes.as_slice() {
                [node] => Self::Node { node: node.clone(), master: None, until: None },
                _ => Self::ManyEnd,
            },
            RegistrationChange::Expire { .. } => Self::Many,
        }
    }

    fn words(&self, counts: &RegistrationCounts, is_dry: bool) -> String {
        let be = if is_dry { "would be" } else { "is" };
        match self {
            Self::Node { node, master: Some(master), until } => {
                let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
                format!("node {node} {be} registered with {master}{until}")
            }
            Self::Node { node, master: None, .. } => match is_dry {
                true => format!("node {node} would not be registered any more"),
                false => format!("node {node} is no longer registered"),
            },
            Self::Many => {
                let RegistrationCounts { registered, moved, unchanged, .. } = counts;
                let would = if is_dry { "would be: " } else { "" };
                format!("{would}{registered} registered, {moved} moved, {unchanged} unchanged")
            }
            Self::ManyEnd => {
                let would = if is_dry { "would be: " } else { "" };
                format!("{would}{} no longer registered", counts.unregistered)
            }
        }
    }

    fn done(
        self,
        api: &Api,
        asked: &Asked,
        counts: RegistrationCounts,
        (outcome, message): (Option<ReloadOutcome>, String),
        InForce { in_force, count, elsewhere, .. }: InForce,
    ) -> RegistrationAnswer {
        let (node, master, until) = match self {
            Self::Node { node, master, until } => (Some(node), master, until),
            Self::Many | Self::ManyEnd => (None, None, None),
        };
        let decision = api.decision.borrow();
        RegistrationAnswer::Done(Box::new(RegistrationReport {
            node,
            master,
            until,
            counts,
            stored: outcome.is_some(),
            in_force: in_force.filter(|_| outcome.is_some()),
            elsewhere_count: count,
            elsewhere,
            outcome,
            would_hold: None,
            message,
            revision: decision.map.in_force.as_ref().map(|revision| revision.number),
            milliseconds: milliseconds(asked.start.elapsed()),
        }))
    }
}
