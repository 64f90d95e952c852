//! Backends on their way to another version of their members. One task looks at the instances
//! while there is one, and says when the old members may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use mapsmith_core::members::readiness;
use mapsmith_core::members::{BackendVersion, MemberListings, Readiness, Seen, SwitchPhase};
use mapsmith_core::plan::servers::homes;
use mapsmith_core::{Desired, DesiredBackend, ObservedServers};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::engine::Decision;
use crate::heartbeat;
use crate::settings::Settings;
use crate::store::MemberService;
use crate::telemetry::SWITCHING;

/// Between two looks while a switch is on its way.
const CHECK: Duration = Duration::from_millis(250);
/// How long one instance is waited for.
const BOUND: Duration = Duration::from_secs(2);

/// Every instance's servers, or none where it can't be reached.
type Observed = Vec<(String, Option<ObservedServers>)>;

/// Sees to it that members of a new version are ready before those of the old one leave.
pub struct Switches {
    settings: Arc<Settings>,
    members: MemberService,
    listings: watch::Receiver<Arc<MemberListings>>,
    desired: watch::Receiver<Desired>,
    decision: watch::Receiver<Decision>,
    /// Since when each is waited for, by the backend and the time of its order.
    since: BTreeMap<(String, Timestamp), Instant>,
}

impl Switches {
    pub fn new(
        settings: Arc<Settings>,
        members: MemberService,
        desired: watch::Receiver<Desired>,
        decision: watch::Receiver<Decision>,
    ) -> Self {
        let (listings, since) = (members.subscribe(), BTreeMap::new());
        Self { settings, members, listings, desired, decision, since }
    }

    /// Looks after them; never ends by itself.
    pub async fn run(mut self) {
        loop {
            heartbeat::beat();
            let number = self.listings.borrow_and_update().number;
            let versions = self.members.versions();
            self.record(&versions);
            let is_under_way = |it: &BackendVersion| it.phase != SwitchPhase::Settled;
            let under_way: Vec<_> = versions.into_iter().filter(is_under_way).collect();
            self.forget(&under_way);
            if under_way.is_empty() {
                heartbeat::waiting(self.next_change()).await;
                continue;
            }
            let joins = under_way.iter().any(|it| it.phase == SwitchPhase::Joining);
            let observed = if joins { self.observe().await } else { Observed::new() };
            for version in under_way {
                self.look_after(version, &observed, number).await;
            }
            heartbeat::waiting(sleep(CHECK)).await;
        }
    }

    async fn next_change(&mut self) {
        if self.listings.changed().await.is_err() {
            // The members' task has ended, and with it all others do.
            std::future::pending::<()>().await;
        }
    }

    fn forget(&mut self, under_way: &[BackendVersion]) {
        self.since.retain(|(backend, since), _| {
            under_way.iter().any(|it| it.backend == *backend && it.since == *since)
        });
    }

    fn record(&self, versions: &[BackendVersion]) {
        for version in versions {
            let switching = u8::from(version.phase != SwitchPhase::Settled);
            gauge!(SWITCHING, "backend" => version.backend.clone()).set(f64::from(switching));
        }
    }

    async fn observe(&self) -> Observed {
        let ask = self.settings.instances.iter().map(|instance| async move {
            let answer = timeout(BOUND, instance.servers_client().observe()).await;
            (instance.name.clone(), answer.ok().and_then(Result::ok))
        });
        join_all(ask).await
    }

    async fn look_after(&mut self, version: BackendVersion, observed: &Observed, number: u64) {
        // What was decided on before the order says nothing.
        let is_decided = self.decision.borrow().members >= number;
        let readiness = match version.phase {
            SwitchPhase::Joining => {
                let place = (version.backend.clone(), version.since);
                let since = *self.since.entry(place).or_insert_with(Instant::now);
                self.readiness(&version, observed, since.elapsed(), is_decided)
            }
            SwitchPhase::Leaving => self.has_left(&version, is_decided),
            SwitchPhase::Settled => return,
        };
        match readiness {
            Readiness::Ready => {
                self.members.note_wait(&version.backend, None);
                // Where it is not stored it is tried again.
                let _ = self.members.step(version).await;
            }
            Readiness::Waits(why) => self.members.note_wait(&version.backend, Some(why)),
        }
    }

    /// Whether the new members are ready.
    fn readiness(
        &self,
        version: &BackendVersion,
        observed: &Observed,
        waited: Duration,
        is_decided: bool,
    ) -> Readiness {
        let servers = self.desired.borrow().servers.clone();
        let wanted = servers.as_ref().and_then(|servers| servers.backends.get(&version.backend));
        let Some(wanted) = wanted.filter(|_| is_decided) else {
            return Readiness::Waits("its list is not decided on yet".to_owned());
        };
        let (members, _) = self.members.servers(&version.name, &version.version);
        let seen = observed.iter().map(|(instance, servers)| {
            let seen = match servers {
                Some(servers) => Seen::Servers(standings(&version.backend, wanted, servers)),
                None => Seen::Unreachable,
            };
            (instance.clone(), seen)
        });
        readiness(version, &members, &seen.collect::<Vec<_>>(), waited)
    }

    /// Whether the engine has taken the old members off the list.
    fn has_left(&self, version: &BackendVersion, is_decided: bool) -> Readiness {
        let (_, known) = self.members.servers(&version.name, &version.version);
        let decision = self.decision.borrow();
        let mut backends = decision.backends.iter();
        let status = backends.find(|status| status.name == version.backend);
        let in_force = status.and_then(|status| status.servers.as_ref());
        match in_force {
            Some(servers) if is_decided => {
                let old = servers.iter().filter(|server| !known.contains(&server.name)).count();
                match old {
                    0 => Readiness::Ready,
                    old => Readiness::Waits(format!("{old} old servers are still on its list")),
                }
            }
            _ => Readiness::Waits("its list is not decided on yet".to_owned()),
        }
    }
}

/// The servers of a backend that are ready in an instance.
pub(crate) fn ready(
    backend: &str,
    wanted: &DesiredBackend,
    observed: &ObservedServers,
) -> BTreeSet<String> {
    let standings = standings(backend, wanted, observed).into_iter();
    standings.filter(|(_, why)| why.is_none()).map(|(name, _)| name).collect()
}

/// The servers of a backend that an instance has, and why one is not ready. One is where it is in
/// rotation, and its check has passed.
fn standings(
    backend: &str,
    wanted: &DesiredBackend,
    observed: &ObservedServers,
) -> BTreeMap<String, Option<String>> {
    let Some(seen) = observed.get(backend) else { return BTreeMap::new() };
    let homes = homes(backend, wanted, seen).into_iter();
    let standing = |(name, home): (&str, &str)| {
        let server = seen.servers.get(home)?;
        let why = if wanted.is_ordered_out(name) {
            Some("an order takes it out".to_owned())
        } else if wanted.is_drained(name) {
            Some("it is drained".to_owned())
        } else if server.admin.ready() && server.running {
            None
        } else if server.check_failed && !server.last_check.is_empty() {
            Some(format!("{}, {}", server.status, server.last_check))
        } else {
            Some(server.status.clone())
        };
        Some((name.to_owned(), why))
    };
    homes.filter_map(standing).collect()
}
