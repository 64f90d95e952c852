//! The file: a candidate that HAProxy accepts takes the place of what is there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use mapsmith_core::config::Config;
use mapsmith_core::config::status::{ConfigState, Quarantined, RefusedCandidate};
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::render::Rendered;
use mapsmith_core::render::stamp::Stamp;
use mapsmith_core::render::verdict::Remark;
use metrics::counter;
use tokio::task::spawn_blocking;

use super::{Failure, Supervisor};
use crate::heartbeat;
use crate::supervise::candidate::Candidate;
use crate::supervise::check::{self, CHECK_BOUND, Verdict};
use crate::supervise::files::{Files, FilesError, InPlace, supply};
use crate::supervise::keeper::Keeper;
use crate::supervise::sockets::Sockets;
use crate::supervise::{ports, quarantine, services};
use crate::telemetry::HAPROXY_CONFIG_EDITS;

impl Supervisor {
    /// Writes the candidate where something else is in place, once HAProxy has accepted it. What
    /// keeps it from that.
    pub(super) async fn put_in_place(
        &mut self,
        in_place: Option<InPlace>,
    ) -> Result<Option<ConfigState>, Failure> {
        let Some(candidate) = &self.candidate else { return Ok(None) };
        let is_there = in_place.as_ref().is_some_and(|in_place| in_place.holds(&candidate.text));
        // What HAProxy took before it may not take at a start: another program has a port by now.
        if is_there && !(self.is_to_start() && self.services.is_some()) {
            self.last_good = Some(Arc::clone(&candidate.from));
            return Ok(None);
        }
        self.supply_missing_files()?;
        let stamp = in_place.map(|in_place| in_place.stamp);
        let is_external = matches!(stamp, Some(Stamp::Edited | Stamp::Foreign));
        if is_external && self.keeper.is_none() {
            return Ok(Some(ConfigState::Edited));
        }
        let (mut file, mut verdict) = self.try_candidate().await?;
        if !verdict.valid && self.refuse_services(&verdict) {
            return Ok(Some(ConfigState::Waiting { reason: String::new() }));
        }
        if !verdict.valid && self.quarantine(&verdict) {
            (file, verdict) = self.try_candidate().await?;
        }
        if !verdict.valid {
            self.report.status.quarantined = self.quarantined_services.clone();
            return Ok(Some(self.refuse(&file, verdict)));
        }
        self.report.status.refused = None;
        if is_external {
            self.keep_edit().await?;
        }
        let Some(Candidate { from, text, mark, .. }) = &self.candidate else { return Ok(None) };
        if is_there {
            self.last_good = Some(Arc::clone(from));
            return Ok(None);
        }
        let (from, text) = (Arc::clone(from), text.clone());
        // Servers that come and go leave the last good one as it is: only a reload can fail.
        let stamp = stamp.filter(|stamp| *stamp != Stamp::Whole { mark: mark.clone() });
        let switch = move |files: &mut Files| {
            let keep = stamp.map_or(Ok(false), |stamp| files.is_good(&stamp))?;
            files.switch(&text, keep)
        };
        self.files(switch).await?;
        self.last_good = Some(from);
        Ok(None)
    }

    /// What HAProxy says of the candidate, and the file that it was written to for that.
    async fn try_candidate(&mut self) -> Result<(PathBuf, Verdict), Failure> {
        let text = self.candidate.as_ref().map(|candidate| candidate.text.clone());
        let text = text.unwrap_or_default();
        let file = self.files(move |files| files.write_candidate(&text)).await?;
        let mut verdict = self.check(&file).await?;
        if let (Some(_), None) = (&self.candidate, &self.keeper) {
            let taken = self.services_of_taken_ports().await?;
            verdict.valid &= taken.is_empty();
            verdict.remarks.extend(taken);
        } else if let Some(candidate) = &self.candidate {
            let sockets = self.sockets();
            let is_held = |address: &BindAddress| sockets.place(address) != *address;
            let mut taken = ports::taken(&candidate.of.config, is_held);
            taken.extend(self.unfit_addresses().await?);
            let known: Vec<_> = taken.iter().map(|remark| remark.setting.clone()).collect();
            let more = self
                .services_without_port(&candidate.of.config)
                .into_iter()
                .flat_map(|one| one.remarks);
            taken.extend(more.filter(|remark| !known.contains(&remark.setting)));
            verdict.valid &= taken.is_empty();
            verdict.remarks.extend(taken);
        }
        Ok((file, verdict))
    }

    /// Puts the last good servers into the candidate where HAProxy refuses nothing but servers;
    /// whether it did.
    fn quarantine(&mut self, verdict: &Verdict) -> bool {
        let Some(candidate) = &self.candidate else { return false };
        let Some((instead, quarantined)) =
            quarantine::substitute(&candidate.from, self.last_good.as_deref(), verdict)
        else {
            return false;
        };
        for quarantined in &quarantined {
            tracing::error!(
                "HAProxy refuses servers of {}, which keeps its last good ones: {}",
                quarantined.object,
                verdict.alerts()
            );
        }
        let Ok(instead) = Candidate::new(&instead, self.sockets()) else { return false };
        self.candidate = Some(Candidate { of: Arc::clone(&candidate.of), ..instead });
        self.report.status.quarantined = self.quarantined_services.clone();
        self.report.status.quarantined.extend(quarantined);
        true
    }

    /// Tells which services HAProxy refuses, where it refuses nothing else; whether it is so.
    pub(super) fn refuse_services(&mut self, verdict: &Verdict) -> bool {
        let (Some(candidate), Some(known)) = (&self.candidate, &self.services) else {
            return false;
        };
        let refused = services::refused(&candidate.from.config, known, verdict);
        self.tell_refused(refused)
    }

    /// The same of those whose address nobody can listen on.
    pub(super) fn refuse_services_without_port(&mut self, config: &Config) -> bool {
        let refused = self.services_without_port(config);
        self.tell_refused(refused.into_iter().map(services::in_service_words).collect())
    }

    fn services_without_port(&self, config: &Config) -> Vec<Quarantined> {
        let Some(known) = &self.services else { return Vec::new() };
        let sockets = self.sockets();
        services::listening(config, known, |address| {
            let is_own = sockets.place(address) == *address;
            is_own.then(|| ports::obstacle(address)).flatten()
        })
    }

    /// An alert for each address of a service that another program has, of a HAProxy that is
    /// somebody else's: all its ports are closed while a worker tries in vain to have one. What the
    /// file in place listens on is HAProxy's own.
    async fn services_of_taken_ports(&self) -> Result<Vec<Remark>, Failure> {
        let (Some(candidate), Some(known)) = (&self.candidate, &self.services) else {
            return Ok(Vec::new());
        };
        let in_place = self.files(|files| files.text()).await?.unwrap_or_default();
        let own = ports::of_text(&in_place);
        let refused = services::listening(&candidate.from.config, known, |address| {
            (!own.contains(&address.listens_at()))
                .then(|| ports::taken_by_others(address))
                .flatten()
        });
        Ok(refused.into_iter().flat_map(|one| one.remarks).collect())
    }

    /// An alert for each address that a HAProxy on this host can't have. What the file in place
    /// listens on it has, or says so itself.
    async fn unfit_addresses(&self) -> Result<Vec<Remark>, Failure> {
        let Some(candidate) = &self.candidate else { return Ok(Vec::new()) };
        let in_place = self.files(|files| files.text()).await?.unwrap_or_default();
        let (own, sockets) = (ports::of_text(&in_place), self.sockets());
        Ok(ports::unfit(&candidate.of.config, |address| {
            own.contains(&address.listens_at()) || sockets.place(address) != *address
        }))
    }

    fn tell_refused(&mut self, refused: Vec<Quarantined>) -> bool {
        for Quarantined { object, remarks } in &refused {
            let said: Vec<_> = remarks.iter().map(ToString::to_string).collect();
            tracing::error!("HAProxy refuses the {object}: {}", said.join("; "));
        }
        let any = !refused.is_empty();
        self.report.refused_services = refused;
        self.report.refused_at_start = self.is_down();
        any
    }

    /// Whoever put the services over the settings begins anew without what is refused.
    pub(super) async fn wait_without_refused(
        &mut self,
        is_there: bool,
    ) -> Result<ConfigState, Failure> {
        if is_there {
            self.keep_running().await?;
        }
        let reason = "HAProxy refuses a service; going on without its change".to_owned();
        Ok(ConfigState::Waiting { reason })
    }

    async fn keep_edit(&mut self) -> Result<(), Failure> {
        let kept = self.files(|files| files.set_aside()).await?.display().to_string();
        counter!(HAPROXY_CONFIG_EDITS).increment(1);
        tracing::warn!(
            kept,
            "the rendered configuration was edited externally; it is written again"
        );
        self.report.status.edit_kept = Some(kept);
        Ok(())
    }

    pub(super) fn refuse(&mut self, file: &Path, verdict: Verdict) -> ConfigState {
        let reason = verdict.alerts().lines().next().unwrap_or_default().to_owned();
        let known = self
            .report
            .status
            .refused
            .as_ref()
            .is_some_and(|known| known.remarks == verdict.remarks);
        if !known {
            tracing::error!(
                "HAProxy refuses the configuration, the last good one stays in force: {}",
                verdict.alerts()
            );
            self.report.status.refused = Some(RefusedCandidate {
                at: Timestamp::now(),
                file: file.display().to_string(),
                remarks: verdict.remarks,
            });
        }
        ConfigState::Refused { reason }
    }

    /// What HAProxy says of a file that the candidate was written to.
    pub(super) async fn check(&self, file: &Path) -> Result<Verdict, Failure> {
        let unrendered = Rendered::default();
        let rendered = self.candidate.as_ref().map_or(&unrendered, |candidate| &candidate.rendered);
        let files = self.with_included(file);
        let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
        let program = self.haproxy.program();
        Ok(check::check(program, &files, rendered, self.sockets(), CHECK_BOUND).await?)
    }

    /// What HAProxy loads with a file that was written for it: that, and what is included.
    pub(super) fn with_included(&self, file: &Path) -> Vec<PathBuf> {
        let included = self.haproxy.includes.iter().map(|file| PathBuf::from(file.as_str()));
        std::iter::once(file.to_owned()).chain(included).collect()
    }

    /// Those that HAProxy inherits.
    pub(super) fn sockets(&self) -> &Sockets {
        static NONE: Sockets = Sockets::none();
        self.keeper.as_ref().and_then(Keeper::sockets).unwrap_or(&NONE)
    }

    /// HAProxy does not start without its maps' files; the node map's is written once the sources
    /// have spoken.
    fn supply_missing_files(&self) -> Result<(), Failure> {
        Ok(supply(&self.haproxy, self.map_file.as_deref())?)
    }

    /// Does something with the files, off the async threads.
    pub(super) async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, Failure> {
        let files = Arc::clone(&self.files);
        let work = move || {
            // Nothing panics while it holds the lock.
            work(&mut files.lock().unwrap_or_else(PoisonError::into_inner))
        };
        Ok(heartbeat::waiting(spawn_blocking(work)).await??)
    }
}
