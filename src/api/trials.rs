//! What an operator's order would come to: it is checked as the order would be, and nothing is
//! changed.

use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::rollout::{CanaryInstances, Terms};
use mapsmith_core::{HeldChange, OverrideChange};
use tokio::sync::oneshot;

use super::commands::nothing_to_end;
use super::rollback::weigh;
use super::types::{DryRunReport, RejectReport};
use super::{Api, Error, Precondition};
use crate::engine::{HoldOrderError, MapTrial, Order, TriedOrder, VerdictTrial};

impl Api {
    /// What a change of the overrides would come to. The names in it are valid. With `force`
    /// masters are taken that nobody knows.
    ///
    /// # Errors
    /// As the change.
    pub async fn try_override(
        &self,
        mut change: OverrideChange,
        force: bool,
        condition: &Precondition,
    ) -> Result<DryRunReport, Error> {
        let service = self.overrides.as_ref().ok_or(Error::NoStore("overrides"))?;
        let turn = service.turn().await;
        let summary = self.check_override(&mut change, force, &service.latest(), condition)?;
        let after = turn.attempt(change.clone()).await;
        let after = after.map_err(|error| Error::Store(error.to_string()))?;
        drop(turn);
        let after = after.ok_or_else(|| nothing_to_end(&change))?;
        self.try_order(TriedOrder::Overrides(after.into()), summary).await
    }

    /// What following the sources again would come to. `expected` is the revision that whoever asks
    /// takes for the one in force, where they say so.
    ///
    /// # Errors
    /// As the order.
    pub async fn try_resume(&self, expected: Option<u64>) -> Result<DryRunReport, Error> {
        let summary = "the sources are followed again".to_owned();
        self.try_order(TriedOrder::Resume { expected }, summary).await
    }

    async fn try_order(&self, tried: TriedOrder, summary: String) -> Result<DryRunReport, Error> {
        let (answer, result) = oneshot::channel();
        let maps = self.order(Order::TryMap(MapTrial { tried, answer }), result).await?;
        let revision = maps.before.number;
        let weighed = tokio::task::spawn_blocking(move || weigh(&maps));
        let weighed = weighed.await.map_err(|error| Error::Store(error.to_string()))?;
        let ((counts, shift), masters) = weighed;
        let message = format!("would be: {summary}; {counts}; nothing is stored");
        Ok(DryRunReport { dry_run: true, stored: false, message, revision, counts, shift, masters })
    }

    /// What an approval would let through; with a canary, whether one could begin.
    ///
    /// # Errors
    /// As the approval.
    pub async fn try_approval(&self, id: &str, canary: Option<Terms>) -> Result<HeldChange, Error> {
        self.check_canary_of(id, canary.is_some())?;
        let of_services = self.held_services();
        if let Some(held) = of_services.as_ref().filter(|held| held.id == id) {
            return Ok(held.clone());
        }
        let canary = canary.map(|terms| terms.instances);
        let tried = self.try_verdict(id, canary).await?;
        match (tried, of_services) {
            (Ok(held), _) => Ok(held),
            (Err(HoldOrderError::NotHeld(ApprovalError::NothingHeld)), Some(held)) => {
                let another = ApprovalError::Another { asked: id.to_owned(), held: held.id };
                Err(Error::NotApproved(another.to_string()))
            }
            (Err(error), _) => Err(self.refusal(error).await),
        }
    }

    /// What would be rejected.
    ///
    /// # Errors
    /// As the rejection.
    pub async fn try_rejection(&self, id: &str) -> Result<RejectReport, Error> {
        self.check_rejection_of(id)?;
        match self.try_verdict(id, None).await? {
            Ok(held) => Ok(RejectReport { held, dry_run: true }),
            Err(error) => Err(self.refusal(error).await),
        }
    }

    async fn try_verdict(
        &self,
        id: &str,
        canary: Option<CanaryInstances>,
    ) -> Result<Result<HeldChange, HoldOrderError>, Error> {
        let (answer, result) = oneshot::channel();
        let trial = VerdictTrial { id: id.to_owned(), canary, answer };
        self.orders.send(Order::TryVerdict(trial)).await.map_err(|_| Error::Ending)?;
        result.await.map_err(|_| Error::Ending)
    }
}
