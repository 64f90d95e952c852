//! Rollouts: shown, promoted, aborted.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::desired::rollout::{Rollout, State};
use mapsmith_core::events::{EventKind, Happening};
use tokio::sync::oneshot;

use super::types::{
    ReloadOutcome, RolloutChangeReport, RolloutInstance, RolloutReport, RolloutsReport,
};
use super::{Api, Error};
use crate::engine::map::RolloutDecision;
use crate::engine::{Order, RolloutOrder};
use crate::store::AuditTicket;

impl Api {
    /// The latest rollouts, the newest first.
    pub fn rollouts(&self) -> RolloutsReport {
        let decision = self.decision.borrow().map.rollout.clone();
        let items = decision.rollouts.iter().map(|rollout| self.rollout_report(rollout, &decision));
        RolloutsReport { items: items.collect() }
    }

    /// The rollout of this id.
    ///
    /// # Errors
    /// There is none.
    pub fn rollout(&self, id: &str) -> Result<RolloutReport, Error> {
        let decision = self.decision.borrow().map.rollout.clone();
        let rollout = decision.rollouts.iter().find(|rollout| rollout.id == id);
        let rollout = rollout.ok_or_else(|| Error::NoRollout(id.to_owned()))?;
        Ok(self.rollout_report(rollout, &decision))
    }

    /// The rollout that is not over.
    pub(super) fn open_rollout(&self) -> Option<RolloutReport> {
        let decision = self.decision.borrow().map.rollout.clone();
        Some(self.rollout_report(decision.open()?, &decision))
    }

    fn rollout_report(&self, rollout: &Rollout, decision: &RolloutDecision) -> RolloutReport {
        let reports = self.instance_reports();
        let is_chosen = |name: &String| rollout.instances.contains(name);
        let rest = reports.iter().filter(|report| !is_chosen(&report.status.name)).count();
        let is_open = rollout.is_open();
        let canary = reports.into_iter().filter(|it| is_open && is_chosen(&it.status.name));
        let canary =
            canary.map(|it| RolloutInstance { name: it.status.name, state: it.status.state });
        let can = match rollout.state {
            State::InForce | State::Aborted => &[][..],
            State::Aborting => &["abort"],
            _ => &["promote", "abort"],
        };
        RolloutReport {
            rollout: rollout.clone(),
            canary: canary.collect(),
            rest,
            waiting: decision.waiting.filter(|_| is_open),
            can: can.iter().map(|&verb| verb.to_owned()).collect(),
            text: rollout.to_string(),
        }
    }

    /// Has a rollout go everywhere, or what was before it; `version` is that of the rollout that
    /// whoever orders it has seen. Without a ticket it is a dry run. With `wait` answers when every
    /// instance holds the result, or when the time is over.
    ///
    /// # Errors
    /// There is no such rollout, it is over or another than they have seen, another Mapsmith
    /// decides, or the store did not take it.
    pub async fn decide_rollout(
        &self,
        (id, version): (String, u64),
        promote: bool,
        note: Note,
        wait: Option<Duration>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<RolloutChangeReport, Error> {
        let (verb, state) =
            if promote { ("promoted", "promoting") } else { ("aborted", "aborting") };
        if let Some(ticket) = &ticket {
            ticket.explain(note.reason.clone());
            let text = format!("the rollout {id} was {verb} by an operator");
            let happening = Happening::new(Timestamp::now(), EventKind::Rollout, &id, text);
            ticket.tell(happening.in_state(state));
        }
        let mut asked = self.ask(|_| 0);
        let (answer, result) = oneshot::channel();
        let is_tried = ticket.is_none();
        let order = RolloutOrder { id, version, promote, note, ticket, answer };
        let (rollout, generation) = self.order(Order::Rollout(order), result).await?;
        self.show_kept_events().await;
        let decision = self.decision.borrow().clone();
        let shown = self.rollout_report(&rollout, &decision.map.rollout);
        if is_tried {
            let (dry_run, stored) = (true, false);
            return Ok(RolloutChangeReport { dry_run, stored, rollout: shown, report: None });
        }
        asked.generation = Some(generation);
        let is_late = matches!(rollout.state, State::Aborting) || rollout.is_promotion_pending();
        let (outcome, message) = match (is_late, wait) {
            (true, _) => match decision.map.file.and_then(|file| file.error) {
                Some(error) => (
                    ReloadOutcome::FileFailed,
                    format!("it is stored, and not in force yet: {error}"),
                ),
                None => (ReloadOutcome::Behind, "it is stored, and not in force yet".to_owned()),
            },
            (false, None) => (
                ReloadOutcome::Requested,
                "it is stored, and every instance gets it now".to_owned(),
            ),
            (false, Some(wait)) => {
                let behind = self.map_behind(generation, asked.start + wait).await;
                let decision = self.decision.borrow().clone();
                self.arrival(&decision, &behind, asked.before, wait)
            }
        };
        let message = format!("the rollout {} is {verb}; {message}", rollout.id);
        let report = self.reload_report(&asked, outcome, message);
        let rollout = self.rollout(&rollout.id).unwrap_or(shown);
        Ok(RolloutChangeReport { dry_run: false, stored: true, rollout, report: Some(report) })
    }
}
