//! Sources that are polled and compared, and never applied: for the way from one registry to
//! another.
//!
//! Nothing here can change what is applied: a comparison reads what others have published, and
//! nobody who decides reads what it finds. What a shadow says reaches the status and the metrics
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use jiff::Timestamp;
use mapsmith_core::desired::servers::{self, BackendOptions};
use mapsmith_core::desired::shadow::{Compared, Differences, ShadowStatus};
use mapsmith_core::desired::{self, SourceView};
use mapsmith_core::server::list::Host;
use mapsmith_core::snapshot::NAMED_REJECTIONS;
use mapsmith_core::status::SourceStatus;
use mapsmith_core::{Content, EntryMap, Server, ServerList, SourceState};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::engine::Decision;
use crate::engine::servers::resolve::{HostQuestion, Resolver, SystemLookup};
use crate::heartbeat;
use crate::settings::Backend;
use crate::telemetry::SHADOW_DIFFERENCES;

/// The least time between two comparisons: they are for a person, and take processor time.
const SPACING: Duration =
    if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };

/// The comparisons of a daemon, as its status shows them.
#[derive(Default)]
pub struct Shadows(Vec<Shadow>);

struct Shadow {
    source: Box<dyn Fn() -> SourceStatus + Send + Sync>,
    backend: Option<String>,
    compared: watch::Receiver<Compared>,
}

impl Shadows {
    /// Adds the shadow of this state; its task sends to what comes back.
    pub fn add<C: Content>(
        &mut self,
        state: watch::Receiver<SourceState<C>>,
        backend: Option<&str>,
    ) -> watch::Sender<Compared> {
        let (sender, compared) = watch::channel(Compared::default());
        let source = Box::new(move || state.borrow().status.clone());
        self.0.push(Shadow { source, backend: backend.map(str::to_owned), compared });
        sender
    }

    /// How each stands.
    pub fn statuses(&self) -> Vec<ShadowStatus> {
        let status = |shadow: &Shadow| ShadowStatus {
            source: (shadow.source)(),
            backend: shadow.backend.clone(),
            compared: shadow.compared.borrow().clone(),
        };
        self.0.iter().map(status).collect()
    }
}

/// Compares a shadow of the node map with what these sources say, whenever one of them says
/// something else; for ever.
pub async fn follow_map(
    mut shadow: watch::Receiver<SourceState>,
    mut sources: Vec<watch::Receiver<SourceState>>,
    compared: watch::Sender<Compared>,
) {
    let mut known: Option<Vec<Option<Arc<EntryMap>>>> = None;
    loop {
        heartbeat::beat();
        let state = shadow.borrow_and_update().clone();
        let others: Vec<_> =
            sources.iter_mut().map(|source| source.borrow_and_update().clone()).collect();
        let maps = [&state].into_iter().chain(&others);
        let maps: Vec<_> =
            maps.map(|state| Some(Arc::clone(&state.snapshot.as_ref()?.entries))).collect();
        // Of what is the very map of before nothing is compared again.
        if !known.as_ref().is_some_and(|known| are_same(known, &maps)) {
            let name = state.status.name.clone();
            let work = tokio::task::spawn_blocking(move || compare_maps(&state, &others));
            if let Ok(found) = work.await {
                publish(&name, None, found, &compared);
            }
            known = Some(maps);
        }
        heartbeat::waiting(sleep(SPACING)).await;
        let changes = sources.iter_mut().chain([&mut shadow]).map(|state| Box::pin(changed(state)));
        heartbeat::waiting(select_all(changes)).await;
    }
}

/// Compares a list of servers with those that a backend has in force, likewise.
pub async fn follow_list(
    backend: Backend,
    hold: Duration,
    mut shadow: watch::Receiver<SourceState<ServerList>>,
    mut decision: watch::Receiver<Decision>,
    compared: watch::Sender<Compared>,
) {
    let mut hosts = ShadowHosts::new(hold);
    let mut known = None;
    loop {
        heartbeat::beat();
        let state = shadow.borrow_and_update().clone();
        let in_force = in_force(&mut decision, &backend.name);
        // A poll that failed says nothing new.
        let answer = state.snapshot.as_ref().map(|snapshot| snapshot.answered_at);
        let said = Some((answer, in_force.clone()));
        if known != said {
            let found = compare_list(&backend, &state, in_force.as_deref(), &mut hosts).await;
            publish(&state.status.name, Some(&backend.name), found, &compared);
            known = said;
        }
        heartbeat::waiting(sleep(SPACING)).await;
        // Most decisions are about something else.
        let others = async {
            loop {
                changed(&mut decision).await;
                if self::in_force(&mut decision, &backend.name) != in_force {
                    return;
                }
            }
        };
        heartbeat::waiting(async {
            tokio::select! {
                () = changed(&mut shadow) => {}
                () = others => {}
            }
        })
        .await;
    }
}

/// The addresses of the host names that a shadow lists. The engine's resolver knows nothing of
/// them.
pub struct ShadowHosts {
    resolver: Resolver,
    began: Instant,
}

impl ShadowHosts {
    /// Knows no name yet. `hold` is `damping.hold`, as for the names that are applied.
    pub fn new(hold: Duration) -> Self {
        let resolver = Resolver::new(Box::new(SystemLookup), hold);
        Self { resolver, began: Instant::now() }
    }
}

/// What a shadow of the node map has otherwise than these sources together.
pub fn compare_maps(shadow: &SourceState, sources: &[SourceState]) -> Compared {
    let views: Vec<_> = sources.iter().map(SourceView::from).collect();
    match (&shadow.snapshot, desired::merge(&views)) {
        (Some(snapshot), Ok(map)) => {
            Compared::of(Differences::of_maps(&map, &snapshot.entries), Timestamp::now())
        }
        (None, _) => waiting_for(&shadow.status.name),
        (_, Err(silent)) => waiting_for(&silent.join(", ")),
    }
}

/// What a shadow of a backend's list has otherwise than the servers in force.
pub async fn compare_list(
    backend: &Backend,
    shadow: &SourceState<ServerList>,
    in_force: Option<&[Server]>,
    hosts: &mut ShadowHosts,
) -> Compared {
    let Some(snapshot) = &shadow.snapshot else { return waiting_for(&shadow.status.name) };
    let Some(in_force) = in_force else {
        let waiting_for = Some(format!("the servers of backend {}", backend.name));
        return Compared { waiting_for, ..Compared::default() };
    };
    let list = &snapshot.entries;
    let names = list.servers.iter().filter_map(|server| match &server.host {
        Host::Name(name) => Some(name.clone()),
        Host::Address(_) => None,
    });
    let question = HostQuestion { round: 0, hosts: names.collect::<BTreeSet<_>>() };
    let now = hosts.began.elapsed();
    // What does not resolve is in the status, beside the list that lacks it.
    let addresses = hosts.resolver.answer(question, now).with_subscriber(NoSubscriber::new()).await;
    let options = BackendOptions::new(backend.default_options(), backend.usual_options());
    let resolved = servers::resolve(list, &options, |host| addresses.address(host));
    let now: BTreeMap<String, Server> =
        in_force.iter().map(|server| (server.name.clone(), server.clone())).collect();
    let found = Differences::of_servers(&now, &resolved.servers);
    let rejected_count = list.rejected_count + resolved.rejected.len() as u64;
    let rejected = list.rejected.iter().cloned().chain(resolved.rejected);
    let rejected = rejected.take(NAMED_REJECTIONS).collect();
    Compared { rejected, rejected_count, ..Compared::of(found, Timestamp::now()) }
}

fn waiting_for(source: &str) -> Compared {
    let waiting_for = Some(format!("a first answer of source {source}"));
    Compared { waiting_for, ..Compared::default() }
}

/// The servers that the backend has in force; none before the first.
fn in_force(decision: &mut watch::Receiver<Decision>, backend: &str) -> Option<Vec<Server>> {
    let decision = decision.borrow_and_update();
    decision.backends.iter().find(|status| status.name == backend)?.servers.clone()
}

/// Shows what was found, and logs where that is another thing than before.
fn publish(
    source: &str,
    backend: Option<&str>,
    found: Compared,
    compared: &watch::Sender<Compared>,
) {
    if let Some(differences) = &found.differences {
        for (kind, count) in &differences.counts {
            let (source, kind) = (source.to_owned(), kind.label());
            let gauge = match backend {
                None => gauge!(SHADOW_DIFFERENCES, "source" => source, "kind" => kind),
                Some(backend) => gauge!(SHADOW_DIFFERENCES, "source" => source,
                    "backend" => backend.to_owned(), "kind" => kind),
            };
            gauge.set(*count as f64);
        }
        let known = compared.borrow().differences.as_ref().map(Differences::is_empty);
        if known != Some(differences.is_empty()) {
            tracing::info!(source, backend, "the shadow was compared: {differences}");
        }
    }
    compared.send_replace(found);
}

fn are_same(known: &[Option<Arc<EntryMap>>], maps: &[Option<Arc<EntryMap>>]) -> bool {
    known.iter().zip(maps).all(|pair| match pair {
        (Some(known), Some(map)) => Arc::ptr_eq(known, map),
        (None, None) => true,
        _ => false,
    })
}

/// Resolves when there is something new; never once nobody is left to say it.
async fn changed<T>(state: &mut watch::Receiver<T>) {
    if state.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
