//! A configuration that HAProxy could not load, or does not show after a reload: it is not tried
//! again and again, for each try is a reload, or a start, of a HAProxy that serves.

use std::time::Duration;

use mapsmith_core::config::status::ConfigState;
use tokio::time::Instant;

use super::Supervisor;
use crate::backoff::Backoff;

/// Between two tries: what it lacked may be there by then.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(120));

/// What came of the last try.
pub(super) struct Setback {
    mark: String,
    state: ConfigState,
    backoff: Backoff,
    until: Instant,
}

impl Supervisor {
    /// Has the configuration of this mark wait for its next try.
    pub(super) fn note_setback(&mut self, mark: &str, state: &ConfigState) {
        let known = self.setback.take().filter(|setback| setback.mark == mark);
        let mut backoff = known.map_or(PAUSES, |setback| setback.backoff);
        let until = Instant::now() + backoff.pause();
        let (mark, state) = (mark.to_owned(), state.clone());
        self.setback = Some(Setback { mark, state, backoff, until });
    }

    /// What came of the last try of this mark, while the next one waits.
    pub(super) fn setback_of(&self, mark: &str) -> Option<ConfigState> {
        let setback = self.setback.as_ref().filter(|setback| setback.mark == mark)?;
        (Instant::now() < setback.until).then(|| setback.state.clone())
    }
}
