//! How much goes to a master, and whether it can be stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use haproxy_runtime::Traffic;
use mapsmith_core::desired::stopping::{QUIET_SECONDS, Seen, why_not};
use mapsmith_core::status::InstanceState;
use tokio::time::timeout;

use super::types::{MasterInstance, MasterReport};
use super::{Api, Error};

/// How long one instance is waited for: a person is watching.
const BOUND: Duration = Duration::from_secs(2);

impl Api {
    /// What the map and every instance have of a master right now. `master` is a valid value.
    ///
    /// # Errors
    /// [`Error::NoMap`], [`Error::NotReady`], or [`Error::NoMaster`] where nobody knows it.
    pub async fn master(&self, master: &str) -> Result<MasterReport, Error> {
        let revision = self.map_in_force()?;
        let drained = self.decision.borrow().map.overrides.drain(master).cloned();
        let load = revision.entries.load();
        let nodes = load.iter().find(|(name, _)| *name == master).map_or(0, |(_, nodes)| *nodes);
        let asked = join_all(self.clients.iter().map(|client| timeout(BOUND, client.traffic())));
        let asked = asked.await.into_iter().map(|answer| match answer {
            Ok(Ok(traffic)) => Ok(traffic),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {BOUND:?}")),
        });
        let reports = self.instance_reports();
        let instances: Vec<_> = reports
            .iter()
            .zip(asked)
            .map(|(report, answer): (_, Result<BTreeMap<String, Traffic>, String>)| Seen {
                name: &report.status.name,
                in_sync: matches!(
                    report.status.state,
                    InstanceState::InSync { revision: held } if held == revision.number
                ),
                learned: report.learned.iter().filter(|route| route.master == master).count(),
                traffic: answer.map(|traffic| traffic.get(master).copied()),
            })
            .collect();
        let is_nowhere = instances.iter().all(|seen| seen.traffic == Ok(None));
        if nodes == 0 && drained.is_none() && is_nowhere {
            return Err(Error::NoMaster(master.to_owned()));
        }
        let why_not = why_not(nodes, &instances);
        let all = revision.entries.len();
        Ok(MasterReport {
            master: master.to_owned(),
            drained,
            revision: revision.number,
            nodes,
            share: if all == 0 { 0.0 } else { nodes as f64 / all as f64 },
            instances: instances.into_iter().map(instance).collect(),
            can_stop: why_not.is_none(),
            why: why_not.unwrap_or_else(|| {
                format!(
                    "no node is routed to it, and no instance has begun a session with it for \
                        {QUIET_SECONDS} s"
                )
            }),
        })
    }
}

fn instance(seen: Seen<'_>) -> MasterInstance {
    let (traffic, error) = match seen.traffic {
        Ok(traffic) => (traffic, None),
        Err(error) => (None, Some(error)),
    };
    MasterInstance {
        name: seen.name.to_owned(),
        in_sync: seen.in_sync,
        sessions: traffic.map(|traffic| traffic.sessions),
        queue: traffic.map(|traffic| traffic.queue),
        rate: traffic.map(|traffic| traffic.rate),
        last_session_s: traffic.and_then(|traffic| traffic.last_session_s),
        learned: seen.learned,
        error,
    }
}
