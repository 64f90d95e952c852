//! Nodes are registered and unregistered: in the store, then in force. Such a change waits for no
//! poll.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired;
use mapsmith_core::status::milliseconds;
use mapsmith_core::{
    HeldChange, Registration, RegistrationChange, RegistrationCounts, RegistrationEffect,
};

use super::batch::Asker;
use super::convergence::Asked;
use super::types::{RegistrationReport, ReloadOutcome, ReloadReport};
use super::{Api, Error, views};
use crate::engine::Decision;
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
    /// That there is nothing to end is no failure.
    pub missing_ok: bool,
}

/// What came of a change.
#[derive(Debug)]
pub enum RegistrationAnswer {
    Done(RegistrationReport),
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
        let draft = Draft::of(&change);
        if order.dry_run {
            let effect = preview(service, &change, order.missing_ok).await?;
            let would = format!("{}; nothing is stored", draft.words(&effect.counts, true));
            return Ok(draft.done(self, &asked, effect.counts, None, would));
        }
        let changed = match service.change(change, Some(ticket)).await {
            Ok(changed) => changed,
            Err(ChangeError::Refused(NotChanged::Unknown)) if order.missing_ok => {
                let words = format!("{} was not registered", draft.name());
                let outcome = Some(ReloadOutcome::Requested);
                return Ok(draft.done(self, &asked, Default::default(), outcome, words));
            }
            Err(ChangeError::Refused(why)) => return Err(refused(&draft.name(), why)),
            Err(ChangeError::Store(error)) => return Err(error.into()),
        };
        let counts = changed.effect.counts;
        let (outcome, words) = match order.wait {
            Some(wait) => self.registered_in_force(&mut asked, &changed, wait).await,
            None => (
                ReloadOutcome::Requested,
                "it is stored, and every instance gets it now".to_owned(),
            ),
        };
        let elsewhere = match outcome {
            ReloadOutcome::InSync => self.goes_elsewhere(&draft),
            _ => String::new(),
        };
        let message = format!("{}; {words}{elsewhere}", draft.words(&counts, false));
        Ok(match outcome {
            ReloadOutcome::Requested | ReloadOutcome::InSync | ReloadOutcome::Behind => {
                draft.done(self, &asked, counts, Some(outcome), message)
            }
            _ => {
                let report = self.reload_report(&asked, outcome, message);
                RegistrationAnswer::KeptBack(Box::new(report))
            }
        })
    }

    /// Waits until a change is in force in every instance, and says how that ended.
    async fn registered_in_force(
        &self,
        asked: &mut Asked,
        changed: &Changed,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = asked.start + wait;
        let is_evaluated = |decision: &Decision| decision.map.registered >= changed.number;
        let Some(decision) = self.decided(deadline, is_evaluated).await else {
            let words = format!("it is stored, and not in force within {wait:?}");
            return (ReloadOutcome::Behind, words);
        };
        asked.generation = Some(decision.generation);
        let behind = match decision.map.active {
            true => self.map_behind(decision.generation, deadline).await,
            false => Vec::new(),
        };
        let map = &decision.map;
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

    /// Where a node goes all the same, if it does.
    fn goes_elsewhere(&self, draft: &Draft) -> String {
        let Draft::Node { node, master, .. } = draft else { return String::new() };
        let decision = self.decision.borrow();
        let in_force = decision.map.in_force.as_ref();
        let goes = in_force.and_then(|revision| revision.entries.get(node));
        if goes == master.as_deref() {
            return String::new();
        }
        let goes = goes.unwrap_or("no master");
        format!("; it goes to {goes} all the same: `mapsmith explain {node}` says why")
    }
}

/// What it would do. Whoever may not is told now, too.
async fn preview(
    service: &RegistrationService,
    change: &RegistrationChange,
    missing_ok: bool,
) -> Result<RegistrationEffect, Error> {
    let entries = service.entries();
    if let RegistrationChange::Unregister { node, only_of } = change {
        let name = format!("node {node}");
        match (entries.get(node), only_of) {
            (None, _) if !missing_ok => return Err(refused(&name, NotChanged::Unknown)),
            (Some(master), Some(masters)) if !masters.iter().any(|it| it == master) => {
                return Err(refused(&name, NotChanged::OfAnother(master.to_owned())));
            }
            _ => {}
        }
    }
    Ok(RegistrationEffect::preview(change, &entries))
}

fn refused(name: &str, why: NotChanged) -> Error {
    match why {
        NotChanged::Unknown => Error::NotRegistered(format!(
            "{name} is not registered (missing=ok, or --missing-ok, takes that for success)"
        )),
        NotChanged::OfAnother(master) => Error::NotGranted(format!(
            "{name} is registered with {master}, and this token is for nodes of other masters"
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
            RegistrationChange::Unregister { node, .. } => {
                Self::Node { node: node.clone(), master: None, until: None }
            }
            RegistrationChange::Expire { .. } => Self::Many,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Node { node, .. } => format!("node {node}"),
            Self::Many => "the nodes".to_owned(),
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
        }
    }

    fn done(
        self,
        api: &Api,
        asked: &Asked,
        counts: RegistrationCounts,
        outcome: Option<ReloadOutcome>,
        message: String,
    ) -> RegistrationAnswer {
        let (node, master, until) = match self {
            Self::Node { node, master, until } => (Some(node), master, until),
            Self::Many => (None, None, None),
        };
        let decision = api.decision.borrow();
        RegistrationAnswer::Done(RegistrationReport {
            node,
            master,
            until,
            counts,
            stored: outcome.is_some(),
            outcome,
            message,
            revision: decision.map.in_force.as_ref().map(|revision| revision.number),
            milliseconds: milliseconds(asked.start.elapsed()),
        })
    }
}
