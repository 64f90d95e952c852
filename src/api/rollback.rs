//! Rollback, the hold that it leaves, and what is rejected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::hold::{EndReason, Hold, Rollback};
use mapsmith_core::desired::rollout::Terms;
use mapsmith_core::events::{EventKind, Happening, end_of_hold};
use mapsmith_core::history::{Difference, Patch};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::{EntryMap, HeldChange, Note};
use tokio::sync::oneshot;

use super::convergence::Asked;
use super::types::{
    HoldReport, HoldsReport, MasterShare, RejectReport, ReloadOutcome, ReloadReport,
    RollbackReport, UnrejectReport,
};
use super::{Api, Error};
use crate::engine::map::HoldDecision;
use crate::engine::{
    HoldOrderError, MapPreview, Order, RejectOrder, ResumeOrder, RollbackOrder, RolledBack,
    UnrejectOrder,
};
use crate::store::AuditTicket;

/// What the event of a rejection that was taken back says.
const TAKEN_BACK: &str = "taken_back";

impl Api {
    /// What holds the sources back, and what was rejected.
    pub fn hold(&self) -> HoldsReport {
        let hold = self.decision.borrow().map.hold.clone();
        let rejected = hold.state.rejected.clone();
        HoldsReport { hold: hold_report(hold), rejected }
    }

    /// Goes back to what the sources had said at a revision, with today's overrides over it, and
    /// holds them back. `expected` is the revision that whoever orders it takes for the one in
    /// force. Without a ticket it is a dry run. With `wait` answers when every instance holds the
    /// result, or when the time is over.
    /// With a canary it goes to some instances first.
    ///
    /// # Errors
    /// Another revision is in force, what there was of that one is not kept, another rollback holds
    /// the sources back, another Mapsmith decides, or the store did not take it.
    pub async fn roll_back(
        &self,
        (rollback, canary): (Rollback, Option<Terms>),
        expected: u64,
        wait: Option<Duration>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<RollbackReport, Error> {
        let is_canary = canary.is_some();
        let of = rollback.of;
        let dry_run = ticket.is_none();
        if let Some(ticket) = &ticket {
            ticket.explain(rollback.note.reason.clone());
        }
        let mut asked = self.ask(|_| 0);
        // Before anything else is looked at: what is not in force was not seen.
        if asked.before != expected {
            return Err(self.changed(expected).await);
        }
        let base = self.base_of(of).await?;
        let (answer, result) = oneshot::channel();
        let order = RollbackOrder { rollback, canary, base, expected, ticket, answer };
        let RolledBack { maps, generation, not_in_force } =
            self.order(Order::RollBack(order), result).await?;
        let from = maps.before.number;
        let weighed = tokio::task::spawn_blocking(move || weigh(&maps));
        let (difference, masters) =
            weighed.await.map_err(|error| Error::Store(error.to_string()))?;
        let rollout = self.open_rollout().filter(|_| is_canary && !dry_run);
        let report = match dry_run {
            true => None,
            false if let Some(rollout) = &rollout => {
                let arrived = self.rollback_arrived(&mut asked, generation, None, wait);
                let (outcome, message) = arrived.await;
                let first = rollout.rollout.instances.join(", ");
                let message = in_the_canary(&rollout.text, &first, difference.0, outcome, &message);
                Some(self.reload_report(&asked, outcome, message))
            }
            false => {
                let arrived = self.rollback_arrived(&mut asked, generation, not_in_force, wait);
                let (outcome, message) = arrived.await;
                let message = format!("rolled back to revision {of}; {message}");
                Some(self.reload_report(&asked, outcome, message))
            }
        };
        Ok(RollbackReport {
            kind: "rollback".to_owned(),
            of,
            from,
            dry_run,
            stored: !dry_run,
            counts: difference.0,
            shift: difference.1,
            masters,
            hold: self.hold().hold.filter(|_| !dry_run && !is_canary),
            rollout: rollout.and_then(|begun| self.rollout(&begun.rollout.id).ok()),
            report,
        })
    }

    async fn rollback_arrived(
        &self,
        asked: &mut Asked,
        generation: u64,
        not_in_force: Option<String>,
        wait: Option<Duration>,
    ) -> (ReloadOutcome, String) {
        asked.generation = Some(generation);
        if let Some(error) = not_in_force {
            let failed =
                self.decision.borrow().map.file.as_ref().is_some_and(|it| it.error.is_some());
            let outcome = if failed { ReloadOutcome::FileFailed } else { ReloadOutcome::Behind };
            return (outcome, format!("it is stored, and not in force yet: {error}"));
        }
        let Some(wait) = wait else {
            return (
                ReloadOutcome::Requested,
                "it is stored, and every instance gets it now".into(),
            );
        };
        let behind = self.map_behind(generation, asked.start + wait).await;
        let decision = self.decision.borrow().clone();
        self.arrival(&decision, &behind, asked.before, wait)
    }

    /// Follows the sources again; with `wait` answers when every instance holds the result, or when
    /// the time is over.
    ///
    /// # Errors
    /// They are followed, another revision is in force than `expected`, another Mapsmith decides,
    /// or the store did not take it.
    pub async fn resume(
        &self,
        expected: Option<u64>,
        wait: Option<Duration>,
        ticket: Arc<AuditTicket>,
    ) -> Result<ReloadReport, Error> {
        let mut asked = self.ask(|_| 0);
        ticket.tell(end_of_hold(Timestamp::now()));
        let (answer, result) = oneshot::channel();
        let order = ResumeOrder { expected, ticket: Some(ticket), answer };
        let generation = self.order(Order::Resume(order), result).await?;
        asked.generation = Some(generation);
        self.show_kept_events().await;
        let decision = self.decision.borrow().clone();
        let (outcome, message) = match (&decision.map.held, wait) {
            (Some(held), _) => {
                let held =
                    format!("what they say is held by the guard: {} (id {})", held.reason, held.id);
                (ReloadOutcome::Held, held)
            }
            (None, None) => (ReloadOutcome::Requested, "every instance gets it now".to_owned()),
            (None, Some(wait)) => {
                let behind = self.map_behind(generation, asked.start + wait).await;
                let decision = self.decision.borrow().clone();
                self.arrival(&decision, &behind, asked.before, wait)
            }
        };
        let message = format!("the sources are followed again; {message}");
        Ok(self.reload_report(&asked, outcome, message))
    }

    /// Takes a held change of the map for rejected: it is not shown again while the sources say the
    /// same.
    ///
    /// # Errors
    /// It is not the one that is held, a hold lasts, or the store did not take it.
    pub async fn reject(
        &self,
        id: String,
        note: Note,
        ticket: Arc<AuditTicket>,
    ) -> Result<RejectReport, Error> {
        ticket.explain(note.reason.clone());
        self.check_rejection_of(&id)?;
        ticket.tell(of_rejection("the held change of map was rejected", &id));
        let (answer, result) = oneshot::channel();
        let order = RejectOrder { id, note, ticket: Some(ticket), answer };
        let rejected = self.order(Order::Reject(order), result).await?;
        self.show_kept_events().await;
        Ok(RejectReport { held: rejected, dry_run: false })
    }

    /// Takes a rejection back: what the sources say is judged again, and held where it was. With
    /// `dry_run` nothing is changed.
    ///
    /// # Errors
    /// It is not what is rejected, a hold lasts, a canary is on its way, or the store did not take
    /// it.
    pub async fn unreject(
        &self,
        id: String,
        dry_run: bool,
        ticket: Arc<AuditTicket>,
    ) -> Result<UnrejectReport, Error> {
        let text = "the rejection of a held change of map was taken back";
        ticket.tell(of_rejection(text, TAKEN_BACK));
        let (answer, result) = oneshot::channel();
        let order = UnrejectOrder { id, ticket: (!dry_run).then_some(ticket), answer };
        let (rejected, held) = self.order(Order::Unreject(order), result).await?;
        self.show_kept_events().await;
        Ok(UnrejectReport { rejected, held, dry_run })
    }

    /// Whether what is held may be rejected.
    pub(super) fn check_rejection_of(&self, id: &str) -> Result<(), Error> {
        let held = self.held().into_iter().find(|held| held.id == id);
        match held.filter(|held| held.of != HeldChange::MAP) {
            None => Ok(()),
            Some(held) => Err(Error::NotApproved(format!(
                "only a change of the map can be rejected, and {id} is one of {}: correct its \
                    source",
                held.of
            ))),
        }
    }

    pub(super) async fn order<T>(
        &self,
        order: Order,
        result: oneshot::Receiver<Result<T, HoldOrderError>>,
    ) -> Result<T, Error> {
        self.orders.send(order).await.map_err(|_| Error::Ending)?;
        match result.await.map_err(|_| Error::Ending)? {
            Ok(done) => Ok(done),
            Err(error) => Err(self.refusal(error).await),
        }
    }

    /// Why an order is not carried out.
    pub(super) async fn refusal(&self, error: HoldOrderError) -> Error {
        match error {
            HoldOrderError::Changed { expected, .. } => self.changed(expected).await,
            HoldOrderError::NotReady => Error::NotReady,
            HoldOrderError::NoStore => Error::NoStore("rollbacks and rejected changes"),
            HoldOrderError::Refused(error) => Error::Hold(error),
            HoldOrderError::Rollout(error) => Error::Rollout(error),
            HoldOrderError::NoRollout(id) => Error::NoRollout(id),
            HoldOrderError::Choice(error) => Error::Canary(error),
            HoldOrderError::RolloutChanged(rollout) => {
                let current = self.rollout(&rollout.id).ok();
                Error::Changed { current: current.and_then(|it| serde_json::to_value(it).ok()) }
            }
            HoldOrderError::NotHeld(error) => Error::NotApproved(error.to_string()),
            HoldOrderError::ReadOnly(_) => Error::ReadOnly(error.to_string()),
            HoldOrderError::NotStored(_) => Error::Store(error.to_string()),
        }
    }

    /// Another revision is in force than somebody takes for it: what came since, and from whom.
    async fn changed(&self, expected: u64) -> Error {
        let in_force = match self.map_in_force() {
            Ok(revision) => revision.number,
            Err(error) => return error,
        };
        let since = match self.records_since(expected).await {
            Ok(records) => records,
            Err(Error::NoStore(_)) => Vec::new(),
            Err(error) => return error,
        };
        Error::NotInForce { expected, in_force, since }
    }
}

pub(super) type Weighed =
    ((mapsmith_core::revision::ChangeCounts, Vec<mapsmith_core::history::Shift>), Vec<MasterShare>);

/// What lies between two maps, in sums.
pub(super) fn weigh(maps: &MapPreview) -> Weighed {
    let (before, after) = (&maps.before.entries, &maps.after);
    let patch = Patch::between(before, after);
    let newer = Patch::default();
    let difference = Difference::new(after, &newer, &patch);
    ((difference.counts(), difference.shift()), shares(before, after))
}

fn shares(before: &EntryMap, after: &EntryMap) -> Vec<MasterShare> {
    let mut masters = BTreeMap::<String, (usize, usize)>::new();
    for (master, nodes) in before.load() {
        masters.entry(master.to_owned()).or_default().0 = nodes;
    }
    for (master, nodes) in after.load() {
        masters.entry(master.to_owned()).or_default().1 = nodes;
    }
    let share = |nodes: usize, of: &EntryMap| match of.len() {
        0 => 0.0,
        all => (nodes as f64 / all as f64 * 1e4).round() / 1e4,
    };
    let masters = masters.into_iter().map(|(master, (nodes, then))| MasterShare {
        master,
        before: nodes,
        after: then,
        share_before: share(nodes, before),
        share_after: share(then, after),
    });
    masters.collect()
}

/// What a rollback comes to that goes to some instances first: everywhere else nothing changes.
fn in_the_canary(
    text: &str,
    first: &str,
    counts: ChangeCounts,
    outcome: ReloadOutcome,
    message: &str,
) -> String {
    match outcome {
        ReloadOutcome::InSync => format!("{text}; in force there: {counts}"),
        ReloadOutcome::Requested => {
            format!("{text}; it is stored, and {first} gets it now: {counts}")
        }
        _ => format!("{text}; {message}"),
    }
}

/// The event of a verdict on a held change of the map: no other one can be rejected.
fn of_rejection(text: &str, state: &str) -> Happening {
    let now = Timestamp::now();
    Happening::new(now, EventKind::Rejected, HeldChange::MAP, text.to_owned()).in_state(state)
}

/// None while the sources are followed.
pub(super) fn hold_report(decision: HoldDecision) -> Option<HoldReport> {
    let HoldDecision { state, waiting, error } = decision;
    let hold = state.hold?;
    let text = hold_text(&hold);
    Some(HoldReport { hold, waiting, error, text })
}

/// What becomes of what the sources say, in a sentence.
pub(super) fn hold_text(hold: &Hold) -> String {
    let answer = "what the sources say";
    match (hold.ended.map(|end| end.why), hold.until) {
        (Some(why), _) => {
            let why = match why {
                EndReason::TimeOver => "the hold's time is over",
                EndReason::OtherAnswer => {
                    "the sources say something else than what was rolled back from"
                }
                EndReason::MapLost => "the map that was in force is gone",
            };
            format!(
                "{why}: {answer} is a held change since then, until it is approved or somebody \
                    resumes"
            )
        }
        (None, Some(until)) => {
            format!("{answer} is not applied until {until:.0}, or until somebody resumes")
        }
        (None, None) => format!("{answer} is not applied until somebody resumes"),
    }
}

/// How long before its end a hold is worth a warning.
pub(crate) const WARNED_BEFORE: Duration = Duration::from_secs(600);

/// Whether the hold ends so soon that somebody should look.
pub(crate) fn ends_soon(hold: &Hold, now: Timestamp) -> bool {
    let left = hold.until.filter(|_| hold.ended.is_none()).map(|until| until.duration_since(now));
    left.is_some_and(|left| Duration::try_from(left).unwrap_or_default() <= WARNED_BEFORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_in_a_canary_says_what_it_comes_to_there() {
        let text = "the rollback to revision 1 goes to e1 first";
        let counts = ChangeCounts { added: 0, moved: 2, removed: 0 };
        let said = |outcome| in_the_canary(text, "e1", counts, outcome, "not in sync: e1");
        let in_sync = said(ReloadOutcome::InSync);
        assert_eq!(in_sync, format!("{text}; in force there: {counts}"));
        let requested = said(ReloadOutcome::Requested);
        assert!(requested.ends_with(&format!("e1 gets it now: {counts}")), "{requested}");
        assert_eq!(said(ReloadOutcome::Behind), format!("{text}; not in sync: e1"));
    }
}
