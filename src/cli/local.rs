//! What `check`, `plan` and `sync` share: one poll of every source, and the overrides of the store.

use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use futures_util::future::join_all;
use jiff::Timestamp;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::desired::shadow::ShadowStatus;
use mapsmith_core::members::{BackendVersion, MemberListings, Members, SwitchPhase, listing};
use mapsmith_core::services::ServicesStatus;
use mapsmith_core::status::{BackendStatus, PollReport, milliseconds};
use mapsmith_core::{Content, ServerList, Snapshot, SourceState};

use crate::services::Known;
use crate::settings::{self, Settings};
use crate::shadow::{ShadowHosts, compare_list, compare_maps};
use crate::source::registrations::keys::MemberSelector;
use crate::source::{Extent, Feed, Registries, SourceError};
use crate::store::sqlite::StoredMember;
use crate::store::{SqliteStore, StoreError, Stored};

/// Polls every feed once, side by side: those of the node map, and the lists of servers. One that
/// can't be made or polled has its error in its status.
pub(super) async fn poll_all(
    settings: &Settings,
) -> (Vec<SourceState>, Vec<SourceState<ServerList>>) {
    let registries = Registries::new(settings);
    let lists = settings.server_lists().into_iter();
    let lists =
        lists.map(|(source, list)| poll(source, list.to_string(), registries.servers(list)));
    tokio::join!(poll_map(settings, &registries), join_all(lists))
}

/// The settings with the services over them that their source has now, or else those that are
/// `known`, and how the services stand; nothing changes where the settings name none.
pub(super) async fn with_services(
    file: Settings,
    mut known: Known,
) -> (Settings, Option<ServicesStatus>) {
    let Some((source, from)) = file.services_source() else { return (file, None) };
    let feed = Registries::new(&file).services(&from);
    let state = poll(source, from.to_string(), feed).await;
    if let Some(snapshot) = &state.snapshot {
        known.take(&file, &snapshot.entries);
    }
    if let Some(next) = known.next(&file) {
        known.go_by(next);
    }
    let status = known.status(state.status);
    (known.settings(&file), Some(status))
}

/// The same for who needs them: services that are not known are an error.
///
/// # Errors
/// Why they are not known.
pub(super) async fn with_known_services(file: Settings) -> anyhow::Result<Settings> {
    let known = Known::from_store(&file).await?;
    match with_services(file, known).await {
        (_, Some(ServicesStatus { in_force: None, source, held, kept, .. })) => {
            let why = source.error.or(kept).or(held.map(|held| held.reason)).unwrap_or_default();
            bail!("the services of source {} are not known: {why}", source.name)
        }
        (settings, _) => Ok(settings),
    }
}

/// Polls what is compared and never applied once, likewise, and compares it: with what the sources
/// of the node map say, and with the servers that backends would have.
pub(super) async fn shadows(
    settings: &Settings,
    sources: &[SourceState],
    lists: &[SourceState<ServerList>],
    backends: &[BackendStatus],
) -> Vec<ShadowStatus> {
    let registries = Registries::new(settings);
    let maps = settings
        .shadow_sources()
        .map(|source| poll(source, source.name.clone(), registries.node_map(&source.name)));
    let polled = settings.shadow_lists().into_iter();
    let polled =
        polled.map(|(source, list)| poll(source, list.to_string(), registries.servers(list)));
    let (maps, polled) = tokio::join!(join_all(maps), join_all(polled));
    let of_map = maps.into_iter().map(|state| ShadowStatus {
        compared: compare_maps(&state, sources),
        source: state.status,
        backend: None,
    });
    let mut all: Vec<_> = of_map.collect();
    let mut hosts = ShadowHosts::new(settings.damping.hold);
    for backend in &settings.backends {
        let Some(list) = &backend.shadow_from else { continue };
        let name = list.to_string();
        let state = polled.iter().chain(lists).find(|state| state.status.name == name);
        let status = backends.iter().find(|status| status.name == backend.name);
        let Some((state, status)) = state.zip(status) else { continue };
        let in_force = status.servers.as_deref();
        all.push(ShadowStatus {
            source: state.status.clone(),
            backend: Some(backend.name.clone()),
            compared: compare_list(backend, state, in_force, &mut hosts).await,
        });
    }
    all
}

/// The same for those of the node map alone.
pub(super) async fn poll_map(settings: &Settings, registries: &Registries) -> Vec<SourceState> {
    let polls = settings
        .map_sources()
        .map(|source| poll(source, source.name.clone(), registries.node_map(&source.name)));
    join_all(polls).await
}

async fn poll<C: Content>(
    settings: &settings::Source,
    name: String,
    feed: Result<Box<dyn Feed<C>>, SourceError>,
) -> SourceState<C> {
    let mut state =
        SourceState::before_first_poll(name, settings.kind.to_string(), settings.required);
    let start = Instant::now();
    let polled = async {
        let mut feed = feed?;
        let polled = feed.poll(Extent::Everything, None, Timestamp::now()).await?;
        Ok::<_, SourceError>((polled, feed.notes()))
    };
    let mut report = PollReport { kind: None, at: Timestamp::now(), milliseconds: 0.0, bytes: 0 };
    match polled.await {
        Ok((polled, notes)) => {
            (state.status.watch, state.status.warning) = (notes.watch, notes.warning);
            (report.kind, report.bytes) = (Some(polled.kind), polled.bytes);
            state.status.entries = Some(polled.entries.count());
            state.status.rejections = (*polled.rejections).clone();
            state.status.answered_at = Some(Timestamp::now());
            state.snapshot = Some(Snapshot {
                entries: polled.entries,
                rejections: polled.rejections,
                answered_at: Timestamp::now(),
            });
        }
        // What can't be built is named with its source, which the reports name before it.
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix(&format!("source {:?}, ", settings.name)).unwrap_or(&text);
            state.status.error = Some(text.to_owned());
        }
    }
    report.milliseconds = milliseconds(start.elapsed());
    state.status.last_poll = Some(report);
    state
}

/// What maps may point to, of each instance that answers.
pub(super) async fn targets(settings: &Settings) -> Vec<Arc<Targets>> {
    let observed = settings.instances.iter().map(|instance| {
        let client = instance.servers_client();
        async move { client.observe().await.ok() }
    });
    let observed = join_all(observed).await.into_iter().flatten();
    observed.map(|observed| Arc::new(Targets::from_observed(&observed))).collect()
}

/// The overrides in the store, pins whose time is over included, and the owners; none where the
/// settings name no store. Without them these verbs would take pinned nodes back.
pub(super) async fn stored(settings: &Settings) -> Result<Stored, StoreError> {
    match &settings.store {
        Some(store) => SqliteStore::peek(&store.path).await,
        None => Ok(Stored::default()),
    }
}

/// The lists of the backends that take members, as the store has these.
pub(super) async fn members(settings: &Settings) -> Result<Arc<MemberListings>, StoreError> {
    let backends = settings.member_backends();
    let Some(store) = settings.store.as_ref().filter(|_| !backends.is_empty()) else {
        return Ok(Arc::default());
    };
    let stored = SqliteStore::peek_members(&store.path).await?;
    let mut members = Members::default();
    for StoredMember { member, lifetime, expired } in stored.members {
        members.restore(member, lifetime, expired);
    }
    let (now, mut listings) = (Timestamp::now(), MemberListings::default());
    for (backend, MemberSelector { name, version }) in backends {
        let known = stored.versions.iter().find(|known| known.backend == backend).cloned();
        let version = match known {
            Some(known) => known.with_declared(&name, &version, now),
            None => BackendVersion::declared(backend, &name, &version, now),
        };
        let order = u64::from(version.phase != SwitchPhase::Settled);
        listings.of.insert(backend.to_owned(), listing(&members, &version, order));
    }
    Ok(Arc::new(listings))
}

/// The errors of the sources that gave no answer, a line each.
pub(super) fn errors<C: Content>(states: &[SourceState<C>]) -> Vec<String> {
    states
        .iter()
        .filter_map(|state| {
            Some(format!("source {}: {}", state.status.name, state.status.error.as_ref()?))
        })
        .collect()
}
