//! The processes, what they answer, and what is published of them.

use haproxy_runtime::MasterClient;
use haproxy_runtime::master::{Target, worker_info};
use mapsmith_core::Desired;
use mapsmith_core::config::status::{ConfigState, ProcessStatus, WorkerStatus};
use mapsmith_core::status::ServersState;
use metrics::gauge;
use tokio::sync::watch;

use super::Supervisor;
use crate::instance::InstanceReport;
use crate::supervise::health::Answer;
use crate::telemetry::{
    HAPROXY_CONFIG_IN_FORCE, HAPROXY_CONFIG_QUARANTINED, HAPROXY_CONFIG_REFUSED,
    HAPROXY_CONFIG_STATE, HAPROXY_WORKERS,
};

/// Whether the process has said how its servers are.
pub(super) fn have_been_seen(report: &InstanceReport) -> bool {
    let servers = report.status.servers.as_ref();
    servers.is_some_and(|servers| !matches!(servers.state, ServersState::Failed { .. }))
}

/// The process that the instance speaks of.
pub(super) fn process_of(report: &InstanceReport) -> Option<u32> {
    report.status.process.as_ref().map(|process| process.pid)
}

impl Supervisor {
    /// What of the servers only a reload of HAProxy can bring; none where those that are desired now
    /// were not looked at yet, or only in the process that the last reload replaced.
    pub(super) fn needs_reload(
        &self,
        report: &InstanceReport,
        generation: u64,
    ) -> Option<Vec<String>> {
        let process = process_of(report);
        if process.is_some() && process == self.replaced_process {
            return None;
        }
        let servers = report.status.servers.as_ref();
        (report.observed.servers >= generation)
            .then(|| servers.map(|servers| servers.needs_reload.clone()).unwrap_or_default())
    }

    /// Has those that a reload replaced answer what the worker that serves would.
    pub(super) fn follow_old_workers(
        &mut self,
        desired: &watch::Receiver<Desired>,
        generation: u64,
    ) {
        let mut all_hold = true;
        if let Some(old_workers) = &mut self.old_workers {
            let listed =
                self.report.status.process.iter_mut().flat_map(|process| &mut process.workers);
            let mut old: Vec<_> = listed.filter(|worker| worker.old).collect();
            let pids: Vec<_> = old.iter().map(|worker| worker.pid).collect();
            old_workers.follow(&pids, desired);
            for worker in &mut old {
                worker.in_sync = old_workers.holds(worker.pid, generation);
                all_hold &= worker.in_sync == Some(true) || worker.connections == Some(0);
            }
        }
        let is_settled = matches!(
            self.report.status.state,
            ConfigState::InForce | ConfigState::Refused { .. } | ConfigState::Edited
        );
        if is_settled && all_hold {
            self.report.observed = generation;
        }
    }

    /// A gateway that has once been ready stays so, whatever its registries do: it serves by what
    /// it last knew.
    pub(super) async fn tell_health(&mut self, in_sync: bool) {
        let Some(health) = self.health.clone().filter(|_| !self.is_ready) else { return };
        // What is refused leaves the last good one in force.
        let serves = match self.report.status.state {
            ConfigState::InForce => true,
            ConfigState::Refused { .. } => self.report.status.loaded.is_some(),
            _ => false,
        };
        if in_sync && serves {
            let written = health.write(Answer::Ready);
            if let Err(error) = &written {
                tracing::warn!("the answer of haproxy.health can't be written: {error}");
            }
            self.is_ready = written.is_ok() && health.set(Answer::Ready).await;
        }
    }

    pub(super) fn count_old_workers(&self) -> usize {
        let workers = self.report.status.process.iter().flat_map(|process| &process.workers);
        workers.filter(|worker| worker.old).count()
    }

    pub(super) async fn observe_processes(&mut self) {
        let process = match &self.master {
            Some(master) => processes_of(master).await,
            None => self.worker_alone().await,
        };
        self.report.status.process = process;
        // A pass that ended before has not asked.
        if self.report.status.loaded.is_none() && self.report.status.process.is_some() {
            self.report.status.loaded = self.loaded().await.ok().flatten();
        }
    }

    /// The process that answers on the Runtime API, where no master's socket is known.
    async fn worker_alone(&self) -> Option<ProcessStatus> {
        let info = self.runtime.call("show info\n").await.ok()?;
        let worker = worker_info(&info).ok()?;
        let text = String::from_utf8_lossy(&info);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(ProcessStatus {
            version: field("Version: ")?.to_owned(),
            master_pid: None,
            workers: vec![WorkerStatus {
                pid: worker.pid,
                age_seconds: field("Uptime_sec: ")?.parse().ok()?,
                old: false,
                // Without the one that asks.
                connections: Some(worker.connections.saturating_sub(1)),
                in_sync: None,
            }],
        })
    }

    pub(super) fn publish(&mut self, state: ConfigState) {
        let flag = |is: bool| f64::from(u8::from(is));
        gauge!(HAPROXY_CONFIG_IN_FORCE).set(flag(state == ConfigState::InForce));
        gauge!(HAPROXY_CONFIG_REFUSED).set(flag(matches!(state, ConfigState::Refused { .. })));
        for label in ConfigState::LABELS {
            gauge!(HAPROXY_CONFIG_STATE, "state" => label).set(flag(label == state.label()));
        }
        gauge!(HAPROXY_CONFIG_QUARANTINED).set(self.report.status.quarantined.len() as f64);
        let workers = self.report.status.process.iter().flat_map(|process| &process.workers);
        let old = workers.clone().filter(|worker| worker.old).count();
        gauge!(HAPROXY_WORKERS, "kind" => "old").set(old as f64);
        gauge!(HAPROXY_WORKERS, "kind" => "current").set((workers.count() - old) as f64);
        if self.report.status.state != state {
            match &state {
                ConfigState::Failed { .. } | ConfigState::Edited => {
                    tracing::warn!("HAProxy's configuration: {state}");
                }
                ConfigState::Refused { .. } => {}
                _ => tracing::info!("HAProxy's configuration: {state}"),
            }
            self.report.status.state = state;
        }
    }
}

/// The processes, as the master lists them; old workers say how many connections they have left.
async fn processes_of(master: &MasterClient) -> Option<ProcessStatus> {
    let processes = master.processes().await.ok()?;
    let mut workers = Vec::new();
    for (is_old, listed) in [(false, &processes.workers), (true, &processes.old_workers)] {
        for worker in listed {
            let info = master.worker(Target::Pid(worker.pid)).await.ok();
            workers.push(WorkerStatus {
                pid: worker.pid,
                age_seconds: worker.uptime_seconds,
                // After a failed reload the worker that serves is listed as an old one.
                old: is_old && info.as_ref().is_none_or(|info| info.stopping),
                // By way of the master the one that asks is not among them.
                connections: info.map(|info| info.connections),
                in_sync: None,
            });
        }
    }
    Some(ProcessStatus {
        version: processes.master.version,
        master_pid: Some(processes.master.pid),
        workers,
    })
}
