//! A configuration that HAProxy could not load, or does not show after a reload: it is not tried
//! again and again, for each try is a reload, or a start, of a HAProxy that serves.

use std::mem;
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
    /// None where only other settings, or a start of Mapsmith, try it again.
    until: Option<Instant>,
    /// Whether HAProxy has ended when it was to load it.
    was_deadly: bool,
}

impl Supervisor {
    /// Has the configuration of this mark wait for its next try.
    pub(super) fn note_setback(&mut self, mark: &str, state: &ConfigState) {
        let known = self.setback.take().filter(|setback| setback.mark == mark);
        let was_deadly = known.as_ref().is_some_and(|setback| setback.was_deadly);
        let mut backoff = known.map_or(PAUSES, |setback| setback.backoff);
        let until = Some(Instant::now() + backoff.pause());
        let (mark, state) = (mark.to_owned(), state.clone());
        self.setback = Some(Setback { mark, state, backoff, until, was_deadly });
    }

    /// HAProxy has ended when it was to load it, and with it every connection. That may have had
    /// another cause; a second time it has not, and only other settings are tried then. Whether it
    /// was that.
    pub(super) fn note_death(&mut self, mark: &str, state: &ConfigState) -> bool {
        self.note_setback(mark, state);
        let Some(setback) = &mut self.setback else { return false };
        if setback.was_deadly {
            setback.until = None;
        }
        mem::replace(&mut setback.was_deadly, true)
    }

    /// What came of the last try of this mark, while the next one waits.
    pub(super) fn setback_of(&self, mark: &str) -> Option<ConfigState> {
        let setback = self.setback.as_ref().filter(|setback| setback.mark == mark)?;
        let waits = setback.until.is_none_or(|until| Instant::now() < until);
        waits.then(|| setback.state.clone())
    }
}
