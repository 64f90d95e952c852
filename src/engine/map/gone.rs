//! Nodes that vanished from the sources' answers and stay in the map for `map.remove_after`: see
//! `desired::gone`. The guard judges what the sources say as if they were not there.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::desired::gone::{GoneNodes, Moment};

use super::MapDecider;
use super::compose::Said;

impl MapDecider {
    /// Keeps nodes that vanish for so long; without this they go at once.
    pub fn with_remove_after(mut self, remove_after: Option<Duration>) -> Self {
        self.remove_after = remove_after.map_or(SignedDuration::ZERO, steady);
        self
    }

    /// Who is gone and stays once this is in force: those from before, and who vanished with it,
    /// unless an operator let just that through.
    pub(super) fn gone_with(&self, said: &Said, now: Duration) -> Arc<GoneNodes> {
        let now = moment(now);
        if !said.is_new && !self.gone.any_over(self.remove_after, now.steady) {
            return Arc::clone(&self.gone);
        }
        let mut gone = (*self.gone).clone();
        let before = self.gate.accepted().cloned().or_else(|| self.entries_in_force());
        match before.filter(|_| said.is_new && !said.approved && !self.remove_after.is_zero()) {
            Some(before) => gone.note(&before, &said.map, now),
            None => gone.forget(&said.map),
        }
        gone.expire(self.remove_after, now.steady);
        Arc::new(gone)
    }

    /// When the next of them goes, since the start. One that should have gone and could not is
    /// tried again as the map file is.
    pub(super) fn next_removal(&self, now: Duration) -> Option<Duration> {
        self.gone.next_due(self.remove_after, steady(now))?.try_into().ok()
    }
}

/// The time since the start, and the machine's.
pub(super) fn moment(now: Duration) -> Moment {
    Moment { steady: steady(now), wall: Timestamp::now() }
}

fn steady(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}
