//! The process that answers: which one it is, and what it lets be done.

use std::time::Duration;

use haproxy_runtime::{HaproxyVersion, Level, MapCounters, Probe};
use mapsmith_core::Desired;
use mapsmith_core::status::DriftKind;
use tokio::time::Instant;

use super::Instance;
use super::certificates::CertificatePhase;
use super::challenges::ChallengePhase;
use super::failure::Failure;
use super::servers::ServerPhase;
use crate::engine::rows::InstanceRows;

/// By how much a process's start may seem to move: its uptime comes in whole seconds. In a
/// container a new process often has the old one's pid, so the pid alone does not tell.
const START_TOLERANCE: Duration = Duration::from_secs(2);

/// What a pass begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub counters: MapCounters,
    pub version: HaproxyVersion,
}

impl Instance {
    /// Which process answers, whether this socket may change it, and the map's counters. Where it
    /// does not answer, what is known of its servers is known no more.
    pub(super) async fn observe(&mut self, desired: &Desired) -> Result<Seen, Failure> {
        let probe = self.client.probe().await.map_err(Failure::Probe);
        let seen = probe.and_then(|probe| self.observe_process(&probe));
        if let (Err(failure), Some(servers)) = (&seen, &mut self.servers) {
            servers.lost(failure.to_string(), desired);
            self.report_servers(desired);
        }
        if let (Err(failure), Some(certificates)) = (&seen, &mut self.certificates) {
            certificates.lost(&failure.to_string());
            self.report.status.tls_files = certificates.status();
            self.report.tls_files = certificates.numbers();
        }
        seen
    }

    /// Takes in which process answers; a new one has a memory of its own.
    pub(super) fn observe_process(&mut self, probe: &Probe) -> Result<Seen, Failure> {
        let process = &probe.process;
        let version: HaproxyVersion = process.version.parse().map_err(Failure::Version)?;
        let started = Instant::now().checked_sub(Duration::from_secs(process.uptime_seconds));
        if let Some((before, started_before)) = &self.process
            && (before.pid != process.pid
                || started > started_before.map(|started| started + START_TOLERANCE))
        {
            tracing::info!(
                instance = self.report.status.name,
                pid_before = before.pid,
                pid = process.pid,
                version = process.version,
                "HAProxy was restarted or reloaded"
            );
            self.verified = None;
            self.staged = None;
            self.suspicion = Some(DriftKind::Restarted);
            self.certificates.iter_mut().for_each(CertificatePhase::forget);
            self.challenges.iter_mut().for_each(ChallengePhase::forget);
            self.servers.iter_mut().for_each(ServerPhase::forget);
            self.rows.iter_mut().for_each(InstanceRows::forget);
        }
        self.process = Some((process.clone(), started));
        self.report.status.process = Some(process.clone());
        match probe.level {
            Level::Admin => {}
            Level::Operator => return Err(Failure::Level("operator")),
            Level::User => return Err(Failure::Level("user")),
        }
        let counters = match probe.map {
            Some(counters) => counters,
            None if !self.keeps_map => MapCounters::default(),
            None => return Err(Failure::UnknownMap(self.client.map().as_str().to_owned())),
        };
        if !self.keeps_map {
            return Ok(Seen { counters, version });
        }
        // Where the counter can't be true, what was read back last counts.
        let live_entries = self.verified.as_ref().map_or(0, |verified| verified.live_entries);
        if let Some(count) = counters.count(live_entries) {
            self.report.status.entries_in_memory = Some(count);
        }
        Ok(Seen { counters, version })
    }
}
