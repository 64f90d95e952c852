//! What `check`, `plan` and `sync` share: one poll of every source.

use std::path::Path;
use std::time::Instant;

use futures_util::future::join_all;
use jiff::Timestamp;

use crate::model::status::{PollReport, milliseconds};
use crate::model::{Snapshot, SourceState};
use crate::settings::Settings;
use crate::source;

/// Polls every source once, side by side. A source that can't be built or polled has its error in its status.
pub(super) async fn poll_all(settings: &Settings) -> Vec<SourceState> {
    let polls = settings.sources.iter().map(|source| async {
        let mut state = SourceState::before_first_poll(source.name.clone(), source.kind.to_string(), source.required);
        let start = Instant::now();
        let polled = async { source::build(source, settings.map.lowercase)?.poll(None, Timestamp::now()).await };
        let mut report = PollReport { kind: None, at: Timestamp::now(), milliseconds: 0.0, bytes: 0 };
        match polled.await {
            Ok(polled) => {
                (report.kind, report.bytes) = (Some(polled.kind), polled.bytes);
                state.status.entries = Some(polled.entries.len());
                state.status.rejections = (*polled.rejections).clone();
                state.status.answered_at = Some(Timestamp::now());
                state.snapshot =
                    Some(Snapshot { entries: polled.entries, rejections: polled.rejections, answered_at: Timestamp::now() });
            }
            Err(error) => state.status.error = Some(error.to_string()),
        }
        report.milliseconds = milliseconds(start.elapsed());
        state.status.last_poll = Some(report);
        state
    });
    join_all(polls).await
}

/// The errors of the sources that gave no answer, a line each.
pub(super) fn errors(states: &[SourceState]) -> Vec<String> {
    states.iter().filter_map(|state| Some(format!("source {}: {}", state.status.name, state.status.error.as_ref()?))).collect()
}

/// A path for messages.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
