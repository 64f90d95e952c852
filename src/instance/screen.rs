//! The instance's part in keeping rows that its map refuses out of the map file. See
//! [`crate::engine::rows`].

use haproxy_runtime::{MapCounters, MapKind, ReplyError};
use mapsmith_core::Revision;
use mapsmith_core::plan::Deviation;

use super::Instance;
use super::apply::ApplyError;
use super::failure::Failure;
use crate::engine::rows::{InstanceRows, RefusedRow, RowQuestion};

/// The next question; never where nobody asks.
pub(super) async fn question(rows: &mut Option<InstanceRows>) -> RowQuestion {
    let next = match rows {
        Some(rows) => rows.question().await,
        None => None,
    };
    match next {
        Some(question) => question,
        // Whoever decides has ended; the shutdown follows.
        None => std::future::pending().await,
    }
}

impl Instance {
    /// Learns, once a process, which rows the map takes. Gives the map's counters as they are then.
    pub(super) async fn learn_rows(
        &mut self,
        counters: MapCounters,
    ) -> Result<MapCounters, Failure> {
        let Some(rows) = &mut self.rows else { return Ok(counters) };
        if !rows.must_learn() {
            rows.answers();
            return Ok(counters);
        }
        let (kind, staged) = self.client.probe_kind().await?;
        let restricted = match kind {
            MapKind::Any => None,
            MapKind::Restricted { by } => {
                tracing::info!(
                    instance = self.report.status.name,
                    "HAProxy's map takes some rows only: {by}"
                );
                Some(by)
            }
        };
        rows.learned(restricted);
        if !staged {
            return Ok(counters);
        }
        let unknown = || Failure::UnknownMap(self.client.map().as_str().to_owned());
        self.client.probe().await?.map.ok_or_else(unknown)
    }

    /// Answers one question after another, for a caller that does not [`Instance::run`] meanwhile;
    /// never ends.
    pub async fn answer_questions(&mut self) {
        loop {
            let question = question(&mut self.rows).await;
            self.answer(question).await;
        }
    }

    /// Answers; without an answer whoever asked knows nothing of the rows.
    pub(super) async fn answer(&mut self, question: RowQuestion) {
        match self.screen(&question.rows).await {
            // Whoever asked may have given up.
            Ok(refused) => drop(question.answer.send(refused)),
            Err(failure) => tracing::debug!(
                instance = self.report.status.name,
                "no rows were screened: {failure}"
            ),
        }
    }

    /// Which rows HAProxy refuses. Its counters move by this; what is known of the map stays known.
    async fn screen(&mut self, rows: &[(String, String)]) -> Result<Vec<(usize, String)>, Failure> {
        let before = self.client.probe().await.map_err(Failure::Probe)?;
        let refused = self.client.screen(rows).await?;
        let after = self.client.probe().await?;
        let same_process = self.process.as_ref().is_some_and(|(process, _)| {
            process.pid == before.process.pid && process.pid == after.process.pid
        });
        if let (Some(verified), Some(before), Some(after), true) =
            (&mut self.verified, before.map, after.map, same_process)
            && (verified.counters.live_version, verified.counters.entries)
                == (before.live_version, before.entries)
        {
            verified.counters = after;
        }
        Ok(refused)
    }

    /// Why a change failed: where HAProxy refused rows of it, those are told, and the next revision
    /// is without them.
    pub(super) async fn refused_rows(
        &mut self,
        failure: Failure,
        revision: &Revision,
        deviation: &Deviation,
    ) -> Failure {
        let refused = match &failure {
            Failure::Apply(ApplyError::Runtime(error)) => {
                matches!(error.reply(), Some(ReplyError::Refused { .. }))
            }
            // `set map` to a refused value is a success on 2.6, and changes nothing.
            Failure::Apply(ApplyError::KeyDiffers { .. }) => true,
            _ => false,
        };
        if !refused || self.rows.is_none() {
            return failure;
        }
        let entries = &revision.entries;
        let changed = deviation.missing.iter().chain(&deviation.wrong);
        let owned = |at: &u32| {
            (entries.key(*at as usize).to_owned(), entries.value(*at as usize).to_owned())
        };
        let rows: Vec<_> = changed.map(owned).collect();
        let Ok(found) = self.screen(&rows).await else { return failure };
        let row = |(at, reason): (usize, String)| {
            let (node, master) = rows[at].clone();
            RefusedRow { node, master, reason }
        };
        let refused: Vec<_> = found.into_iter().map(row).collect();
        let (Some(rows), Some(first)) = (&self.rows, refused.first()) else { return failure };
        rows.refuses(&refused);
        Failure::Rows { rows: refused.len(), first: first.clone() }
    }
}
