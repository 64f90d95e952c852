//! DNS: the addresses of a host (A, AAAA), or a service's servers (SRV, RFC 2782).
//!
//! A poll asks the name servers ([`name_servers`]); the smallest TTL says when to ask again. A name
//! that can't be resolved is no empty list: what it means is up to the settings, kind by kind. Part
//! of an answer is never a list: where a target is not resolved, the last good list stays.

mod answer;
pub(super) mod keys;
mod list;
mod name_servers;
mod problem;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use jiff::Timestamp;
use mapsmith_core::{EntryMap, ServerList, Snapshot};
use tokio::time::Instant;

use super::error::{SourceError, SourceErrorKind};
use super::feed::off_thread;
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use keys::{DnsKeys, DnsSelector, Family, Unresolved, Wanted};
use list::{Listed, Target, plain, targets};
use name_servers::{Lookup, NameServers, RESOLV_CONF, of_system};
use problem::{Problem, Setting};

/// So many targets are asked for at once: a name server need not fear a flood, and some hundred
/// names take a moment.
const AT_ONCE: usize = 16;

/// The registry: name servers.
pub(super) struct Dns {
    settings: Arc<settings::Source>,
    resolver: Arc<Resolver>,
}

impl Dns {
    pub(super) fn new(settings: Arc<settings::Source>) -> Self {
        let resolver =
            Arc::new(Resolver { settings: Arc::clone(&settings), known: Mutex::default() });
        Self { settings, resolver }
    }
}

impl Registry for Dns {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        Err(Unsupported::new(&self.settings.name, "DNS lists servers, and no nodes"))
    }

    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let unsupported = |text: String| Unsupported::new(&self.settings.name, text);
        let selector = of
            .read::<DnsSelector>()
            .map_err(|problems| unsupported(format!("from.{}", problems.join("; from."))))?;
        let wanted = selector.wanted().map_err(|problem| unsupported(format!("from.{problem}")))?;
        Ok(Box::new(DnsFeed {
            resolver: Arc::clone(&self.resolver),
            wanted,
            family: selector.family,
            due: None,
            warning: None,
        }))
    }
}

/// The name servers that all feeds of a source ask.
struct Resolver {
    settings: Arc<settings::Source>,
    /// None before the first poll; others once resolv.conf names others.
    known: Mutex<Option<Arc<NameServers>>>,
}

impl Resolver {
    fn keys(&self) -> &DnsKeys {
        &self.settings.of_kind.dns
    }

    /// The name servers as they are now.
    async fn name_servers(&self) -> Result<Arc<NameServers>, SourceErrorKind> {
        let mut addresses = self.settings.of_kind.servers.name_servers();
        if addresses.is_empty() {
            addresses = off_thread(|| of_system(Path::new(RESOLV_CONF))).await?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.are(&addresses)) {
            return Ok(Arc::clone(known));
        }
        let made = NameServers::new(&addresses, self.keys())
            .map_err(|error| SourceErrorKind::Setup(error.to_string()))?;
        Ok(Arc::clone(known.insert(Arc::new(made))))
    }
}

/// One name, asked for again and again.
struct DnsFeed {
    resolver: Arc<Resolver>,
    wanted: Wanted,
    family: Family,
    /// When the last answer has run out; none after a failure, which the poller repeats.
    due: Option<Instant>,
    /// What the last answer lacks, if something.
    warning: Option<String>,
}

/// What a poll found.
struct Found {
    listed: Listed,
    /// For so many seconds.
    ttl: Option<u32>,
    warning: Option<String>,
    bytes: u64,
}

/// What a host has.
struct Addresses {
    addresses: Vec<IpAddr>,
    ttl: u32,
    bytes: u64,
}

impl DnsFeed {
    fn place(&self) -> String {
        match &self.wanted {
            Wanted::Hosts(hosts) => {
                let places = hosts.iter().map(|(name, _)| place(name, self.family.types()));
                places.collect::<Vec<_>>().join(", ")
            }
            Wanted::Service { name } => place(name, &[RecordType::SRV]),
        }
    }

    async fn poll_once(
        &self,
        extent: Extent,
        current: Option<&ServerList>,
    ) -> Result<Found, SourceError> {
        let at = |place: String, fault| SourceError { place, fault };
        let name_servers =
            self.resolver.name_servers().await.map_err(|fault| at(self.place(), fault))?;
        name_servers.prefer_first(match extent {
            Extent::Everything => Duration::ZERO,
            Extent::Changes => self.resolver.settings.full_poll,
        });
        match &self.wanted {
            Wanted::Hosts(hosts) => self.poll_hosts(&name_servers, hosts).await,
            Wanted::Service { name } => self.poll_service(&name_servers, name, current).await,
        }
    }

    async fn poll_hosts(
        &self,
        name_servers: &NameServers,
        hosts: &[(Name, u16)],
    ) -> Result<Found, SourceError> {
        let asked: Vec<_> =
            hosts.iter().map(|(name, _)| self.addresses(name_servers, name)).collect();
        let resolved: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut found =
            Found { listed: Listed::default(), ttl: Some(u32::MAX), warning: None, bytes: 0 };
        for ((_, port), outcome) in hosts.iter().zip(resolved) {
            match outcome {
                Ok(Addresses { addresses, ttl, bytes }) => {
                    found.ttl = found.ttl.min(Some(ttl));
                    found.bytes += bytes;
                    self.bounded(found.listed.add_host(&addresses, *port))?;
                }
                Err(problem) => {
                    let nothing = self.nothing(problem)?;
                    found.ttl = found.ttl.min(nothing.ttl);
                    found.warning = found.warning.or(nothing.warning);
                }
            }
        }
        Ok(found)
    }

    async fn poll_service(
        &self,
        name_servers: &NameServers,
        name: &Name,
        current: Option<&ServerList>,
    ) -> Result<Found, SourceError> {
        let (records, ttl, bytes) = match name_servers.look_up(name, RecordType::SRV).await {
            Lookup::Records { records, ttl, bytes } => (records, ttl, bytes),
            Lookup::Absent { absence, ttl, server } => {
                return self.nothing(Problem::absent(self.place(), absence, ttl, server));
            }
            Lookup::Failed(failures) => {
                let keys = self.resolver.keys();
                return self.nothing(Problem::failed(self.place(), &failures, keys));
            }
        };
        let targets = targets(&records);
        if targets.is_empty() {
            return self.nothing(Problem::no_service(self.place(), ttl));
        }
        let mut names: Vec<&Name> = targets.iter().map(|target| &target.name).collect();
        names.sort();
        names.dedup();
        let asked: Vec<_> = names.iter().map(|name| self.addresses(name_servers, name)).collect();
        let resolved: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut found = Found { listed: Listed::default(), ttl: Some(ttl), warning: None, bytes };
        for (name, outcome) in names.into_iter().zip(resolved) {
            let of_name: Vec<_> = targets.iter().filter(|target| target.name == *name).collect();
            self.take(&mut found, &of_name, outcome, current)?;
        }
        Ok(found)
    }

    /// Takes what was found of a host, which these targets name.
    fn take(
        &self,
        found: &mut Found,
        targets: &[&Target],
        outcome: Result<Addresses, Problem>,
        current: Option<&ServerList>,
    ) -> Result<(), SourceError> {
        let problem = match outcome {
            Ok(Addresses { addresses, ttl, bytes }) => {
                found.ttl = found.ttl.min(Some(ttl));
                found.bytes += bytes;
                for target in targets {
                    self.bounded(found.listed.add(target, &addresses))?;
                }
                return Ok(());
            }
            Err(problem) => problem,
        };
        found.ttl = problem.ttl.map_or(found.ttl, |ttl| found.ttl.min(Some(ttl)));
        match (problem.setting.of(self.resolver.keys()), problem.setting) {
            (Unresolved::Empty, _) => {
                found.warning.get_or_insert_with(|| problem.into_warning());
            }
            (Unresolved::Keep, Setting::NxDomain | Setting::NoData) => {
                for target in targets {
                    found.listed.reject(target, current, &problem.text);
                }
            }
            (Unresolved::Keep, _) => return Err(problem.into_error()),
        }
        Ok(())
    }

    /// A name that the list is of can't be resolved.
    fn nothing(&self, problem: Problem) -> Result<Found, SourceError> {
        match problem.setting.of(self.resolver.keys()) {
            Unresolved::Keep => Err(problem.into_error()),
            Unresolved::Empty => Ok(Found {
                listed: Listed::default(),
                ttl: problem.ttl,
                warning: Some(problem.into_warning()),
                bytes: 0,
            }),
        }
    }

    /// A host's addresses, and for how many seconds. Of both families or neither, unless it has
    /// just one.
    async fn addresses(
        &self,
        name_servers: &NameServers,
        name: &Name,
    ) -> Result<Addresses, Problem> {
        let types = self.family.types();
        let lookups: Vec<_> = types.iter().map(|kind| name_servers.look_up(name, *kind)).collect();
        let mut found = Addresses { addresses: Vec::new(), ttl: u32::MAX, bytes: 0 };
        let (mut absent, mut failed, mut answered) = (None, Vec::new(), None);
        for (kind, lookup) in types.iter().zip(join_all(lookups).await) {
            match lookup {
                Lookup::Records { records, ttl, bytes } => {
                    answered = Some(*kind);
                    found.ttl = found.ttl.min(ttl);
                    found.bytes += bytes;
                    found.addresses.extend(records.iter().filter_map(|record| match record {
                        RData::A(ip) => Some(IpAddr::V4(ip.0)),
                        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
                        _ => None,
                    }));
                }
                Lookup::Absent { absence, ttl, server } => {
                    absent = Some(Problem::absent(place(name, types), absence, ttl, server));
                }
                Lookup::Failed(failures) => failed.push((*kind, failures)),
            }
        }
        if let Some((_, failures)) = failed.first() {
            let kinds: Vec<_> = failed.iter().map(|(kind, _)| *kind).collect();
            let problem = Problem::failed(place(name, &kinds), failures, self.resolver.keys());
            return Err(problem.beside(answered));
        }
        match absent {
            Some(problem) if found.addresses.is_empty() => Err(problem),
            _ => Ok(found),
        }
    }

    fn bounded<T>(&self, listed: Result<T, list::TooMany>) -> Result<T, SourceError> {
        listed.map_err(|error| SourceError {
            place: self.place(),
            fault: SourceErrorKind::Registry(error.to_string()),
        })
    }
}

/// `web.example.com (A, AAAA)`.
fn place(name: &Name, types: &[RecordType]) -> String {
    let types: Vec<_> = types.iter().map(ToString::to_string).collect();
    format!("{} ({})", plain(name), types.join(", "))
}

#[async_trait]
impl Feed<ServerList> for DnsFeed {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<ServerList>>,
        _now: Timestamp,
    ) -> Result<Polled<ServerList>, SourceError> {
        self.due = None;
        let known = current.map(|current| &*current.entries);
        let bound = self.resolver.settings.timeout;
        let outcome = tokio::time::timeout(bound, self.poll_once(extent, known)).await;
        let found = outcome.unwrap_or_else(|_| {
            Err(SourceError { place: self.place(), fault: SourceErrorKind::NoAnswer(bound) })
        })?;
        self.warning = found.warning;
        self.due = Some(Instant::now() + self.resolver.keys().interval(found.ttl));
        Ok(Polled::settle(found.listed, found.bytes, current).await)
    }

    async fn changed(&mut self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    fn beside(&self) -> Option<Box<dyn Feed<ServerList>>> {
        // With clients of its own: one that waits for an answer would share that wait.
        let settings = Arc::clone(&self.resolver.settings);
        Some(Box::new(Self {
            resolver: Arc::new(Resolver { settings, known: Mutex::default() }),
            wanted: self.wanted.clone(),
            family: self.family,
            due: None,
            warning: None,
        }))
    }

    fn notes(&self) -> Notes {
        Notes { watch: None, warning: self.warning.clone() }
    }
}
