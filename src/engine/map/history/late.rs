//! What is asked of the store, within a bound, and what came of it after that.
//!
//! A disk may be slow and not broken: what the store has done late is taken as done, or it would be
//! asked for the same again and again.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::history::Fingerprint;
use mapsmith_core::{EntryMap, Revision};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{History, Kept};
use crate::store::StoreError;

/// What the store has of a revision; nothing where it was asked for something else.
pub(super) type Answer = Option<(Fingerprint, Timestamp)>;

/// What the store was asked for.
pub(super) enum Asked {
    /// What it has of the revision of this number.
    WhatIsKept(u64),
    /// To keep something.
    ToKeep {
        /// What is kept then.
        kept: Kept,
        /// What the sources had said.
        base: Arc<EntryMap>,
        /// Whether that revision is in force, or was since.
        in_force: bool,
    },
}

impl Asked {
    pub fn to_keep(kept: &Kept, base: &Arc<EntryMap>, in_force: bool) -> Self {
        Self::ToKeep { kept: kept.clone(), base: Arc::clone(base), in_force }
    }

    /// Whether it was to keep a revision with this answer of the sources.
    pub fn is_with(&self, said: &Arc<EntryMap>) -> bool {
        matches!(self, Self::ToKeep { base, .. } if Arc::ptr_eq(base, said))
    }
}

/// What the store has not done in time.
pub(super) struct Late {
    task: JoinHandle<Result<Answer, StoreError>>,
    asked: Asked,
}

impl Late {
    /// This revision is in force.
    pub fn in_force(&mut self, revision: &Arc<Revision>) {
        if let Asked::ToKeep { kept, in_force, .. } = &mut self.asked {
            *in_force |= Arc::ptr_eq(&kept.revision, revision);
        }
    }

    /// What comes of it is of no use any more.
    pub fn forget(&mut self) {
        if let Asked::ToKeep { in_force, .. } = &mut self.asked {
            *in_force = false;
        }
    }
}

impl History {
    /// Has the store do something, within a bound.
    pub(super) async fn bounded(
        &mut self,
        work: impl Future<Output = Result<Answer, StoreError>> + Send + 'static,
        asked: Asked,
    ) -> Result<Answer, String> {
        self.take_late().await?;
        let mut task = tokio::spawn(work);
        match timeout(self.bound, &mut task).await {
            Ok(Ok(done)) => done.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(format!("the store's task ended: {error}")),
            Err(_) => {
                self.late = Some(Late { task, asked });
                Err(format!("the store gives no answer within {:?}", self.bound))
            }
        }
    }

    /// What the store has done by now that was late, if anything was: of a revision that is or was
    /// in force, that is what is kept. What went wrong late is left to be asked for again.
    pub(super) async fn take_late(&mut self) -> Result<Option<(Asked, Answer)>, String> {
        let Some(late) = self.late.take_if(|late| late.task.is_finished()) else {
            return match self.late {
                Some(_) => Err("the store has not done yet what it was asked before".to_owned()),
                None => Ok(None),
            };
        };
        let Ok(Ok(answer)) = late.task.await else { return Ok(None) };
        if let Asked::ToKeep { kept, in_force: true, .. } = &late.asked {
            self.kept = Some(kept.clone());
        }
        Ok(Some((late.asked, answer)))
    }
}
