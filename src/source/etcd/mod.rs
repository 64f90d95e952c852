//! etcd, version 3: the keys of a prefix are servers, or the nodes of the node map.
//!
//! Every poll reads all keys of the prefix as they were at one revision ([`pages`]). A watch from
//! there on starts the next one ([`watch`]), and is all that it does. An answer of another etcd, or
//! of an earlier time, is none ([`revision`]).

mod connection;
mod failure;
pub(super) mod keys;
mod pages;
pub(super) mod records;
mod revision;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::Watch;
use mapsmith_core::{EntryMap, Rejections, ServerList, Snapshot};
use tracing::warn;

use super::error::{SourceError, SourceErrorKind};
use super::format::{Names, Rows};
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use connection::{Connection, Session};
use failure::Failure;
use keys::EtcdSelector;
use pages::Wanted;
use records::{Nodes, Reading, Servers};
use revision::{History, Moment};
use watch::Changes;

/// An etcd.
pub(super) struct Etcd {
    settings: Arc<settings::Source>,
    names: Arc<Names>,
    connection: Arc<Connection>,
}

impl Etcd {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let connection = Connection::new(Arc::clone(&settings))
            .map_err(|fault| SourceError { place: "TLS".to_owned(), fault })?;
        Ok(Self { settings, names, connection: Arc::new(connection) })
    }

    fn feed<R: Reading>(&self, prefix: String, reading: R) -> Box<dyn Feed<R::Content>> {
        Box::new(PrefixFeed {
            settings: Arc::clone(&self.settings),
            connection: Arc::clone(&self.connection),
            prefix,
            reading,
            history: History::default(),
            reload: 0,
            changes: Changes::new(),
            passed_over: None,
        })
    }
}

impl Registry for Etcd {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        match &self.settings.of_kind.nodes.nodes {
            Some(prefix) => Ok(self.feed(prefix.clone(), Nodes(Arc::clone(&self.names)))),
            None => Err(Unsupported::new(&self.settings.name, "set nodes to have a node map")),
        }
    }

    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let (prefix, servers) = wanted(of)?;
        Ok(self.feed(prefix, servers))
    }
}

/// The prefix that a selector names, and how its keys are read.
fn wanted(of: &Selector) -> Result<(String, Servers), Unsupported> {
    let EtcdSelector { prefix, format } =
        of.read().map_err(|problems| Unsupported::new(&of.source, problems.join("; ")))?;
    Ok((prefix, Servers::new(format)))
}

/// See [`super::read_keys`].
pub(super) fn read(
    of: &Selector,
    answers: impl IntoIterator<Item = Vec<(Vec<u8>, Vec<u8>)>>,
) -> Result<Vec<(ServerList, Rejections)>, Unsupported> {
    let (_, mut servers) = wanted(of)?;
    let read = |pairs: Vec<(Vec<u8>, Vec<u8>)>| {
        let mut rows = servers.rows();
        pairs.iter().for_each(|(key, value)| Servers::take(&mut rows, key, value));
        servers.learn(&mut rows);
        rows.settle()
    };
    Ok(answers.into_iter().map(read).collect())
}

/// The keys of a prefix.
struct PrefixFeed<R: Reading> {
    settings: Arc<settings::Source>,
    connection: Arc<Connection>,
    prefix: String,
    reading: R,
    history: History,
    /// The number of the latest reload.
    reload: u64,
    changes: Changes,
    /// Why the members before the one that answered gave no answer.
    passed_over: Option<String>,
}

impl<R: Reading> PrefixFeed<R> {
    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<R::Content>>,
    ) -> Result<Polled<R::Content>, (usize, SourceErrorKind)> {
        let members = self.connection.endpoints().len();
        let mut failures: Vec<(usize, SourceErrorKind)> = Vec::new();
        let mut may_repeat = true;
        while failures.len() < members {
            let session = match self.connection.session().await {
                Ok(session) => session,
                Err(failed) => {
                    failures.push(failed);
                    continue;
                }
            };
            let failure = match self.read(&session, extent).await {
                Ok((rows, bytes)) => {
                    self.passed_over = (!failures.is_empty()).then(|| self.told(&failures));
                    return Ok(Polled::settle(rows, bytes, current).await);
                }
                Err(failure) => failure,
            };
            let is_of_session = match &failure {
                Failure::Login(_) => true,
                Failure::Member(SourceErrorKind::Disconnected { .. }) => !session.is_new,
                _ => false,
            };
            if may_repeat && is_of_session {
                // A login that ended, or a connection that did before it was used again.
                may_repeat = false;
                self.connection.close(&session).await;
                continue;
            }
            match failure {
                Failure::Member(fault) => {
                    let why = match fault {
                        SourceErrorKind::Disconnected { .. } => {
                            self.connection.why_broken(session.at).await
                        }
                        _ => None,
                    };
                    self.connection.pass_over(&session).await;
                    failures.push((session.at, why.unwrap_or(fault)));
                }
                other => {
                    self.connection.close(&session).await;
                    return Err((session.at, other.into_fault(&self.prefix)));
                }
            }
        }
        Err(self.none_answered(&failures))
    }

    /// Everything below the prefix, from this member, and how many bytes it was.
    async fn read(&mut self, session: &Session, extent: Extent) -> Result<(R::Rows, u64), Failure> {
        let etcd = &self.settings.of_kind.etcd;
        let wanted = Wanted {
            prefix: &self.prefix,
            user: etcd.user.as_deref(),
            // Who waits for everything must not get what a member holds that is behind.
            serializable: etcd.serializable && extent == Extent::Changes,
            max_bytes: self.settings.max_bytes,
            page: self.connection.share(),
        };
        let (history, reload) = (&mut self.history, self.reload);
        let mut check = |moment: Moment| {
            let refused = |why| Failure::Member(SourceErrorKind::Registry(why));
            history.check(moment, reload).map_err(refused)
        };
        let mut may_repeat = true;
        let (mut rows, whole) = loop {
            let mut rows = self.reading.rows();
            let take = |key: &[u8], value: &[u8]| R::take(&mut rows, key, value);
            match pages::read(session.client.kv_client(), &wanted, &mut check, take).await {
                Err(Failure::Compacted) if may_repeat => may_repeat = false,
                whole => break (rows, whole),
            }
        };
        let (moment, bytes) = whole?;
        if self.history.take(moment) {
            let source = &self.settings.name;
            warn!(source, prefix = self.prefix, "an earlier state, or another etcd's, was taken");
        }
        self.reading.learn(&mut rows);
        let watch = session.client.watch_client();
        self.changes.follow(moment.revision, &self.prefix, watch);
        Ok((rows, bytes))
    }

    /// All were asked. The first one's failure, and beside it the others'.
    fn none_answered(&self, failures: &[(usize, SourceErrorKind)]) -> (usize, SourceErrorKind) {
        match failures {
            [] => (0, SourceErrorKind::Setup("endpoints is missing".to_owned())),
            [failure] => failure.clone(),
            [(at, first), others @ ..] => {
                let (first, others) = (Box::new(first.clone()), self.told(others));
                (*at, SourceErrorKind::NoneAnswered { first, others })
            }
        }
    }

    /// Failures of members, each with where it was.
    fn told(&self, failures: &[(usize, SourceErrorKind)]) -> String {
        let endpoints = self.connection.endpoints();
        let told = failures.iter().map(|(at, fault)| format!("{}: {fault}", endpoints[*at]));
        told.collect::<Vec<_>>().join("; ")
    }
}

#[async_trait]
impl<R: Reading> Feed<R::Content> for PrefixFeed<R> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<R::Content>>,
        _now: Timestamp,
    ) -> Result<Polled<R::Content>, SourceError> {
        let timeout = self.settings.timeout;
        let outcome = tokio::time::timeout(timeout, self.poll_once(extent, current)).await;
        let outcome = outcome.unwrap_or(Err((usize::MAX, SourceErrorKind::NoAnswer(timeout))));
        outcome.map_err(|(at, fault)| {
            self.changes.stop();
            let endpoints = self.connection.endpoints();
            let endpoint = endpoints.get(at).cloned().unwrap_or_else(|| endpoints.join(","));
            SourceError { place: format!("{endpoint} {}", self.prefix), fault }
        })
    }

    fn set_reload(&mut self, number: u64) {
        self.reload = number;
    }

    async fn changed(&mut self) {
        self.changes.next().await;
    }

    fn notes(&self) -> Notes {
        let failure = self.changes.failure();
        let passed_over =
            || Some(format!("not every member answers: {}", self.passed_over.as_ref()?));
        let polled_only = || Some(format!("changes are noticed at polls only: {}", failure?));
        Notes {
            watch: Some(match self.changes.is_waiting() {
                true => Watch::Watched,
                false => Watch::PolledOnly,
            }),
            warning: polled_only().or_else(passed_over),
        }
    }
}
