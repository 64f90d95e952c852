//! The tasks that read and write outside: one for each source, list, TLS file and instance.

use std::sync::Arc;

use haproxy_runtime::{MapClient, MapName};
use mapsmith_core::desired::references::Targets;
use mapsmith_core::status::InstanceStatus;
use mapsmith_core::{Content, Desired, ServerList, SourceState};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::daemon::Daemon;
use crate::engine::rows::{self, RowScreen};
use crate::engine::{AskSources, RequestLookups};
use crate::heartbeat::Heartbeats;
use crate::instance::certificates::CertificatePhase;
use crate::instance::learned::LearnedTable;
use crate::instance::servers::ServerPhase;
use crate::instance::{Instance, InstanceReport, Turn};
use crate::settings;
use crate::source::{Feed, PollRequests, Registries, Round, SourceKind, TargetedLookups, poller};
use crate::stats::Stats;
use crate::store::{MemberService, RegistrationService, SqliteStore};
use crate::tls::challenges::Challenges;
use crate::tls_file::InForce;

/// What the daemon does side by side.
#[derive(Default)]
pub(super) struct Tasks {
    pub heartbeats: Heartbeats,
    pub running: JoinSet<String>,
}

impl Tasks {
    pub fn start(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let name = name.into();
        let work = self.heartbeats.watch(name.clone(), work);
        self.running.spawn(async move {
            work.await;
            name
        });
    }
}

/// The instances' tasks as the others see them, in the settings' order.
#[derive(Default)]
pub(super) struct Fleet {
    pub reports: Vec<watch::Receiver<InstanceReport>>,
    pub clients: Vec<MapClient>,
    pub targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    pub screens: Vec<RowScreen>,
}

impl Daemon {
    /// `registrations` are what the source of that type says: it is never polled.
    pub(super) fn start_sources(
        &mut self,
        registries: &Registries,
        registrations: Option<&RegistrationService>,
    ) -> anyhow::Result<Vec<watch::Receiver<SourceState>>> {
        let settings = self.settings();
        let (round, lookups) = (self.requests.round(), self.lookups.clone());
        let sources = settings.map_sources().map(|source| {
            if let (SourceKind::Registrations, Some(kept)) = (source.kind, registrations) {
                return Ok(kept.subscribe());
            }
            let (name, feed) = (source.name.clone(), registries.node_map(&source.name)?);
            Ok(self.start_poller(name, source, feed, round.clone(), lookups.clone()))
        });
        sources.collect()
    }

    /// What is registered with Mapsmith itself, from the store; none where the settings have no
    /// source of it.
    pub(super) async fn start_registrations(
        &mut self,
        store: Option<&SqliteStore>,
    ) -> anyhow::Result<Option<RegistrationService>> {
        let settings = self.settings();
        let Some((source, store)) = settings.registrations().zip(store) else { return Ok(None) };
        let state = SourceState::before_first_poll(
            source.name.clone(),
            source.kind.to_string(),
            source.required,
        );
        let (lowercase, keep_times) = (settings.map.lowercase, source.keep_times);
        let (service, keeper) =
            RegistrationService::open(store.clone(), state, lowercase, keep_times).await?;
        self.tasks.start("registrations", keeper.run(self.shutdown.clone()));
        Ok(Some(service))
    }

    /// Members are never polled.
    pub(super) fn start_lists(
        &mut self,
        registries: &Registries,
        members: Option<&MemberService>,
    ) -> anyhow::Result<Vec<watch::Receiver<SourceState<ServerList>>>> {
        let settings = self.settings();
        let lists = settings.server_lists().into_iter().map(|(source, list)| {
            let name = list.to_string();
            if let Some(known) = members.and_then(|members| members.list(&name)) {
                return Ok(known);
            }
            let feed = registries.servers(list)?;
            // What HAProxy learns is about nodes.
            let lookups = TargetedLookups::new();
            Ok(self.start_poller(name, source, feed, self.requests.round(), lookups))
        });
        lists.collect()
    }

    pub(super) fn start_poller<C: Content>(
        &mut self,
        name: String,
        source: &settings::Source,
        feed: Box<dyn Feed<C>>,
        round: Round,
        lookups: TargetedLookups,
    ) -> watch::Receiver<SourceState<C>> {
        self.start_poller_for(poller::Use::Applied, name, source, feed, round, lookups)
    }

    pub(super) fn start_poller_for<C: Content>(
        &mut self,
        use_of_it: poller::Use,
        name: String,
        source: &settings::Source,
        feed: Box<dyn Feed<C>>,
        round: Round,
        lookups: TargetedLookups,
    ) -> watch::Receiver<SourceState<C>> {
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            name.clone(),
            source.kind.to_string(),
            source.required,
        ));
        let stop = self.shutdown.clone();
        self.tasks.start(format!("source {name}"), async move {
            poller::run(name, feed, round, &lookups, sender, use_of_it, stop).await;
        });
        state
    }

    /// Reads statistics for whoever watches them.
    pub(super) fn start_stats(&mut self) -> Arc<Stats> {
        let stats = Arc::new(Stats::new(&self.settings()));
        for (name, work) in stats.pollers() {
            self.start_until_shutdown(name, work);
        }
        stats
    }

    pub(super) fn start_instances(
        &mut self,
        desired: &watch::Receiver<Desired>,
        tls_files: &[watch::Receiver<InForce>],
        challenges: Option<&Challenges>,
        (turn, before): (&Turn, &[InstanceStatus]),
    ) -> anyhow::Result<Fleet> {
        let settings = self.settings();
        let map = MapName::new(&settings.map.path.to_string_lossy());
        let mut fleet = Fleet::default();
        let own = settings.own_instance();
        for (index, instance) in settings.instances.iter().enumerate() {
            let (targets_sender, targets) = watch::channel(None);
            let is_own = own == Some(index);
            let servers = ServerPhase::new(instance, targets_sender, settings.schedule.servers)
                .with_own_reloads(is_own);
            let lookups = request_lookups(&self.lookups, &instance.name);
            let learned = LearnedTable::from_settings(instance, &settings.learned, lookups)?;
            let files = settings.tls_files.iter().zip(tls_files.iter().cloned());
            let certificates = CertificatePhase::new(instance, files, settings.schedule.verify);
            let (screen, rows) = rows::channel(&instance.name);
            let ask = Some(ask_sources(&self.requests));
            let task = Instance::new(instance, &map, &settings.schedule, ask, Some(servers))
                .go_on(before)
                .with_rows(rows)
                .with_certificates(certificates)
                .with_challenges(self.challenge_phase(index, challenges))
                .with_turn(is_own.then(|| turn.clone()))
                .with_learned(learned);
            let task = if settings.keeps_map() { task } else { task.without_map() };
            let (sender, report) = watch::channel(task.report().clone());
            fleet.targets.push(targets);
            fleet.screens.push(screen);
            fleet.reports.push(report);
            fleet.clients.push(instance.map_client(&map));
            let work = task.run(desired.clone(), sender, self.shutdown.clone());
            self.tasks.start(format!("instance {}", instance.name), work);
        }
        self.instances.clone_from(&fleet.reports);
        Ok(fleet)
    }
}

fn ask_sources(requests: &PollRequests) -> AskSources {
    let requests = requests.clone();
    // Of what another writer knows already this one must miss nothing.
    Box::new(move || requests.request_everything_at_leisure())
}

fn request_lookups(lookups: &TargetedLookups, instance: &str) -> RequestLookups {
    let (lookups, instance) = (lookups.clone(), instance.to_owned());
    Box::new(move |routes| lookups.dispute(&instance, routes))
}
