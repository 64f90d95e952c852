//! Workers that a reload has replaced. They finish what they have, and a connection that is kept
//! may bring them one more request: it must not be answered by an old map. So the map of each is
//! kept like that of the worker that serves, by way of the master's socket, until it ends. HAProxy
//! changes no servers there any more (2.6 to 3.4 say `Proxy is disabled`): they are only looked at,
//! and a worker that lacks a change of them is not in sync.

use std::collections::BTreeMap;
use std::path::PathBuf;

use haproxy_runtime::{MapName, RuntimeAddress};
use mapsmith_core::Desired;
use mapsmith_core::status::ServersState;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::instance::servers::ServerPhase;
use crate::instance::{Instance, InstanceReport};
use crate::settings::{self, Settings};

/// The old workers of one HAProxy.
pub(super) struct OldWorkers {
    master: PathBuf,
    /// The instance that they were.
    instance: settings::Instance,
    map: MapName,
    schedule: settings::Schedule,
    keeps_map: bool,
    running: BTreeMap<u32, Driven>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

struct Driven {
    report: watch::Receiver<InstanceReport>,
    stop: CancellationToken,
}

impl OldWorkers {
    /// Of the HAProxy that is this instance, with this master.
    pub fn new(settings: &Settings, instance: &settings::Instance, master: PathBuf) -> Self {
        Self {
            master,
            instance: instance.clone(),
            map: MapName::new(&settings.map.path.to_string_lossy()),
            schedule: settings.schedule.clone(),
            keeps_map: settings.keeps_map(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Drives these workers, and no others.
    pub fn follow(&mut self, pids: &[u32], desired: &watch::Receiver<Desired>) {
        self.running.retain(|pid, driven| {
            let is_there = pids.contains(pid);
            if !is_there {
                driven.stop.cancel();
            }
            is_there
        });
        while self.tasks.try_join_next().is_some() {}
        for pid in pids {
            if !self.running.contains_key(pid) {
                let driven = self.start(*pid, desired.clone());
                self.running.insert(*pid, driven);
            }
        }
    }

    fn start(&mut self, pid: u32, desired: watch::Receiver<Desired>) -> Driven {
        let instance = settings::Instance {
            // One name for all of them: it is a label of metrics.
            name: format!("{} (old worker)", self.instance.name),
            runtime: RuntimeAddress::Worker { master: self.master.clone(), pid },
            ..self.instance.clone()
        };
        // What it could route to is nobody's concern any more.
        let (targets, _) = watch::channel(None);
        let servers = ServerPhase::new(&instance, targets, self.schedule.servers).only_observing();
        let task = Instance::new(&instance, &self.map, &self.schedule, None, Some(servers));
        let task = if self.keeps_map { task } else { task.without_map() };
        let (sender, report) = watch::channel(task.report().clone());
        let stop = self.shutdown.child_token();
        // Each ends by itself, which looks like a failure from there; status shows them.
        let work = task.run(desired, sender, stop.clone());
        self.tasks.spawn(work.with_subscriber(NoSubscriber::new()));
        Driven { report, stop }
    }

    /// Whether this worker was seen to hold the map and the servers of a generation; none where it
    /// is not driven.
    pub fn holds(&self, pid: u32, generation: u64) -> Option<bool> {
        let report = self.running.get(&pid)?.report.borrow();
        let servers = report.status.servers.as_ref();
        let has_servers = servers.is_none_or(|servers| servers.state == ServersState::InSync);
        Some(has_servers && report.observed.generation() >= generation)
    }
}

impl Drop for OldWorkers {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
