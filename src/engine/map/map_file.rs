//! Whose the map file is, and what is in it: found at a start, written, corrected, left to another
//! Mapsmith and taken back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::guard::Window;
use mapsmith_core::map_file::{MapFile, Writer};
use mapsmith_core::status::DriftKind;
use mapsmith_core::{EntryMap, Revision};
use metrics::counter;

use super::MapDecider;
use super::commit::RevisionInputs;
use super::gone::moment;
use crate::store::map_file::{Check, MapFileError, WriteError, WriterState, state_of};
use crate::telemetry::{DRIFT_CORRECTED, MAP_FILE};

/// How long a map file that another Mapsmith wrote may be gone, or name nobody, before it counts as
/// nobody's.
const ABANDONED: Duration = Duration::from_secs(30);

impl MapDecider {
    /// Takes what the map file holds for the map in force, as at a start.
    pub(super) fn adopt(&mut self, found: Option<MapFile>) {
        self.claim_file();
        let Some(found) = found else { return };
        for (line, reason) in found.rejected.iter().take(10) {
            tracing::warn!(
                path = self.file.path,
                line,
                "a line of the map file is not an entry: {reason}"
            );
        }
        let number = found.revision().unwrap_or(0);
        self.gone =
            Arc::new(GoneNodes::from_file(found.gone.clone(), moment(self.clock.elapsed())));
        let written = found.header.is_some();
        let said = written.then(|| found.said_by_sources());
        let entries = Arc::new(found.entries);
        tracing::info!(
            path = self.file.path,
            revision = number,
            entries = entries.len(),
            "the map file is the map in force"
        );
        // One copy of two equal maps is enough.
        self.gate.resume(
            said.map(|said| if said == *entries { Arc::clone(&entries) } else { Arc::new(said) }),
        );
        if let (Some(owners), Some(said)) = (&mut self.owners, self.gate.accepted()) {
            owners.go_on_from(said);
        }
        self.file.revision = Some(number);
        self.decision.in_force = Some(Arc::new(Revision { number, at: Timestamp::now(), entries }));
        self.decision.active = self.gate.accepted().is_some();
        self.decision.file = Some(self.file.clone());
        (self.unsynced_on_disk, self.change, self.composed) = (None, None, false);
        self.history_is_other();
        self.goes_on = false;
        // Of what came before that map nothing is known.
        self.window = Window::new(self.limits.window);
        self.flapping.forget();
        self.inputs = RevisionInputs::default();
        if let Some(writer) = found.header.and_then(|header| header.writer) {
            match state_of(&writer) {
                WriterState::Running => self.leave_to(writer),
                WriterState::Gone => {}
                WriterState::Unknown => tracing::warn!(
                    path = self.file.path,
                    "the map file was written elsewhere ({writer}), and nothing shows whether \
                        that Mapsmith still runs: it is taken over"
                ),
            }
        }
    }

    /// The map file is this one's to write.
    fn claim_file(&mut self) {
        (self.foreign, self.abandoned, self.decision.read_only) = (None, None, None);
        self.file.error = None;
        // Also that it is this one's.
        self.unsaved = true;
    }

    /// Another Mapsmith writes the map file: this one changes nothing.
    fn leave_to(&mut self, writer: Writer) {
        tracing::error!(
            path = self.file.path,
            "the map file is another Mapsmith's ({writer}), so this one changes nothing; stop one \
                of the two, or start this one with \
             `mapsmith run --take-over`"
        );
        self.decision.active = false;
        self.decision.read_only = Some(writer.to_string());
        (self.foreign, self.abandoned, self.file.error) = (Some(writer), None, None);
        // What is held is the other one's to decide.
        self.gate.release();
        self.decision.held = None;
    }

    /// Writes the map file from now on, whoever wrote it before.
    pub fn take_over(mut self) -> Self {
        if let Some(writer) = self.foreign.take() {
            tracing::warn!(
                path = self.file.path,
                "the map file is taken over from another Mapsmith ({writer})"
            );
        }
        self.claim_file();
        self.decision.active = self.gate.accepted().is_some();
        self
    }

    /// Writes a revision to the map file, with what the sources said and the nodes that are gone;
    /// says whether it is there now.
    pub(super) async fn write(
        &mut self,
        revision: Arc<Revision>,
        said: &Arc<EntryMap>,
        gone: &Arc<GoneNodes>,
    ) -> bool {
        let (said, gone) = (Arc::clone(said), Arc::clone(gone));
        let error = match self.access.write(Arc::clone(&revision), said, gone).await {
            Ok(()) => {
                (self.unsynced_on_disk, self.unsaved) = (None, false);
                self.file.revision = Some(revision.number);
                if self.file.error.take().is_some() {
                    tracing::info!(path = self.file.path, "the map file can be written again");
                }
                return true;
            }
            Err(WriteError::Foreign(writer)) => {
                self.leave_to(writer);
                return false;
            }
            Err(WriteError::Failed(error)) => error,
        };
        if error.replaced {
            self.unsynced_on_disk = Some(revision);
        }
        self.file_failed(&error);
        false
    }

    fn file_failed(&mut self, error: &MapFileError) {
        let error = error.to_string();
        if self.file.error.as_ref() != Some(&error) {
            tracing::error!("{error}; no instance gets a map that is not in the file");
        }
        self.file.error = Some(error);
    }

    /// Corrects a lost or changed map file. Whether anything about it changed.
    pub(in crate::engine) async fn check_file(&mut self) -> bool {
        if self.foreign.is_some() {
            return self.check_foreign_file().await;
        }
        let (Some(wanted), Some(said)) = (self.desired(), self.gate.accepted().cloned()) else {
            return false;
        };
        match self.access.check(Arc::clone(&wanted.revision.entries)).await {
            Check::Same => return false,
            Check::Different => {
                let gone = Arc::clone(&self.gone);
                if self.write(wanted.revision, &said, &gone).await {
                    self.file.corrected += 1;
                    self.file.corrected_at = Some(Timestamp::now());
                    let kind = DriftKind::MapFile.label();
                    counter!(DRIFT_CORRECTED, "haproxy" => MAP_FILE, "kind" => kind).increment(1);
                    tracing::warn!(
                        path = self.file.path,
                        "map file missing or modified externally; rewritten"
                    );
                }
            }
            Check::Foreign(writer) => self.leave_to(writer),
            Check::Unusable(error) => self.file_failed(&error),
        }
        self.decision.file = Some(self.file.clone());
        self.record();
        true
    }

    /// Looks whether another Mapsmith still writes the map file. Whether anything about it changed.
    async fn check_foreign_file(&mut self) -> bool {
        let Ok(header) = self.access.header().await else { return false };
        match header.and_then(|header| header.writer) {
            Some(writer) if state_of(&writer) == WriterState::Gone => self.take_back().await,
            Some(writer) => {
                self.abandoned = None;
                if self.foreign.as_ref() == Some(&writer) {
                    return false;
                }
                self.leave_to(writer);
                self.record();
                true
            }
            // Whoever keeps a file writes it again within moments.
            None => {
                self.abandoned.get_or_insert_with(Instant::now).elapsed() > ABANDONED
                    && self.take_back().await
            }
        }
    }

    /// The Mapsmith that wrote the map file has ended: what it left is the last good map, unless
    /// that is older than ours.
    async fn take_back(&mut self) -> bool {
        let ours = self.decision.in_force.as_ref().map_or(0, |revision| revision.number);
        match self.access.load().await {
            Ok(found) => {
                tracing::warn!(
                    path = self.file.path,
                    "the Mapsmith that wrote the map file has ended; this one goes on from there"
                );
                let later =
                    found.filter(|found| found.revision().is_some_and(|number| number >= ours));
                self.adopt(later);
                self.decision.active = self.gate.accepted().is_some() && self.foreign.is_none();
            }
            Err(error) => self.file_failed(&error),
        }
        self.decision.file = Some(self.file.clone());
        self.record();
        true
    }
}
