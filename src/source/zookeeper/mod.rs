//! ZooKeeper: the children of a path are servers, or the nodes of the node map.
//!
//! Every poll reads everything: the path's children, and what each holds. If any of that can't be
//! read, the poll has failed; only a child that vanished in between is none, see [`children`]. A
//! watch starts a poll, and is all that it does.

mod children;
mod connection;
pub(super) mod keys;
mod records;
pub(super) mod selector;
mod tls;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::{PollKind, Watch};
use mapsmith_core::{EntryMap, Rejections, ServerList, ServiceTexts, Snapshot};
use tokio::sync::Notify;
use zookeeper_client::{Client, Error};

use super::error::{SourceError, SourceErrorKind};
use super::feed::{off_thread, share};
use super::format::Names;
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use children::Children;
use connection::Connection;
use records::{Child, Nodes, Reading, Servers, Services};
use selector::{ServicesSelector, ZooKeeperSelector};
use watch::PathWatch;

/// The most children of a path. ZooKeeper lists some ten thousand before it refuses the answer's
/// size by itself.
const MOST_CHILDREN: usize = 100_000;

/// A ZooKeeper.
pub(super) struct ZooKeeper {
    settings: Arc<settings::Source>,
    names: Arc<Names>,
    connection: Arc<Connection>,
}

impl ZooKeeper {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let connection = Connection::new(Arc::clone(&settings))
            .map_err(|fault| SourceError { place: "TLS".to_owned(), fault })?;
        Ok(Self { settings, names, connection: Arc::new(connection) })
    }

    fn feed<R: Reading>(&self, path: String, reading: R) -> Box<dyn Feed<R::Content>> {
        Box::new(PathFeed {
            settings: Arc::clone(&self.settings),
            connection: Arc::clone(&self.connection),
            path,
            reading,
            events: Arc::default(),
            watch: None,
            has_failed: false,
        })
    }
}

impl Registry for ZooKeeper {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        match &self.settings.of_kind.nodes.nodes {
            Some(path) => Ok(self.feed(path.clone(), Nodes(Arc::clone(&self.names)))),
            None => Err(Unsupported::new(&self.settings.name, "set nodes to have a node map")),
        }
    }

    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let (path, servers) = wanted(of)?;
        Ok(self.feed(path, servers))
    }

    fn services(&self, of: &Selector) -> Result<Box<dyn Feed<ServiceTexts>>, Unsupported> {
        let keys = of.read::<ServicesSelector>();
        let keys = keys.map_err(|problems| Unsupported::new(&of.source, problems.join("; ")))?;
        Ok(self.feed(keys.path, Services))
    }
}

/// The path that a selector names, and how its children are read.
fn wanted(of: &Selector) -> Result<(String, Servers), Unsupported> {
    let keys = of.read::<ZooKeeperSelector>();
    let (path, format) = keys
        .and_then(|keys| keys.wanted())
        .map_err(|problems| Unsupported::new(&of.source, problems.join("; ")))?;
    Ok((path, Servers::new(format)))
}

/// Reads answers as a feed of this selector does.
pub(super) fn read(
    of: &Selector,
    answers: impl IntoIterator<Item = Vec<(String, Vec<u8>)>>,
) -> Result<Vec<(ServerList, Rejections)>, Unsupported> {
    let (_, mut servers) = wanted(of)?;
    let read = |children: Vec<(String, Vec<u8>)>| {
        let child = |(name, data)| Child { name, data };
        servers.read(&children.into_iter().map(child).collect::<Vec<_>>())
    };
    Ok(answers.into_iter().map(read).collect())
}

/// The children of a path.
struct PathFeed<R> {
    settings: Arc<settings::Source>,
    connection: Arc<Connection>,
    path: String,
    reading: R,
    /// Raised by the watch.
    events: Arc<Notify>,
    watch: Option<PathWatch>,
    /// Whether the last poll failed.
    has_failed: bool,
}

impl<R: Reading> PathFeed<R> {
    async fn poll_once(
        &mut self,
        current: Option<&Snapshot<R::Content>>,
    ) -> Result<Polled<R::Content>, SourceErrorKind> {
        let client = self.connection.client().await?;
        let answer = self.ask(&client).await;
        // The connection was lost since it was used last, or speaks for who may read by now: what
        // was asked is asked once more.
        let again = match &answer {
            Err(Failure::Client(Error::NoAuth, _)) => self.connection.close_if_outdated().await,
            Err(Failure::Client(error, _)) => is_of_session(error),
            _ => false,
        };
        let answer = match again {
            true => {
                let client = self.connection.client().await?;
                self.ask(&client).await
            }
            false => answer,
        };
        let (children, bytes) = match answer {
            Ok(answer) => answer,
            Err(Failure::Client(error, path)) => {
                return Err(self.connection.fault(&error, &path));
            }
            Err(Failure::Bound(fault)) => return Err(fault),
        };
        let (mut reading, current) = (self.reading.clone(), current.cloned());
        let (reading, polled) = off_thread(move || {
            let (content, rejections) = reading.read(&children);
            let known = current.as_ref();
            let entries = share(content, known.map(|snapshot| &snapshot.entries));
            let rejections = share(rejections, known.map(|snapshot| &snapshot.rejections));
            (reading, Polled { kind: PollKind::Full, entries, rejections, bytes })
        })
        .await;
        self.reading = reading;
        Ok(polled)
    }

    /// The path's children, and how many bytes they hold.
    async fn ask(&mut self, client: &Client) -> Result<(Vec<Child>, u64), Failure> {
        let of_path = |error| Failure::Client(error, self.path.clone());
        // Watched before it is read: what changes from then on raises an event.
        if !self.watch.as_ref().is_some_and(|watch| watch.holds(client)) {
            self.watch = None;
            self.watch =
                Some(PathWatch::arm(client, &self.path, &self.events).await.map_err(of_path)?);
        }
        // The server may lag behind the one that was asked before.
        client.sync(&self.path).await.map_err(of_path)?;
        let path = OfPath { client, path: &self.path, max_bytes: self.settings.max_bytes };
        if !self.reading.reads_data() {
            let mut names = path.names().await?;
            names.sort_unstable();
            let child = |name| Child { name, data: Vec::new() };
            return Ok((names.into_iter().map(child).collect(), 0));
        }
        children::read(&path).await
    }
}

/// The children of a path, by a client.
struct OfPath<'a> {
    client: &'a Client,
    path: &'a str,
    max_bytes: u64,
}

impl Children for OfPath<'_> {
    type Error = Failure;

    async fn names(&self) -> Result<Vec<String>, Failure> {
        let names = self.client.get_children(self.path).await;
        let (names, _) = names.map_err(|error| Failure::Client(error, self.path.to_owned()))?;
        if names.len() > MOST_CHILDREN {
            return Err(Failure::Bound(SourceErrorKind::Registry(format!(
                "{} has {} children; at most {MOST_CHILDREN} are read",
                self.path,
                names.len()
            ))));
        }
        Ok(names)
    }

    async fn data(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        match self.client.get_data(&path).await {
            Ok((data, _)) => Ok(Some(data)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(Failure::Client(error, path)),
        }
    }

    fn too_large(&self, bytes: u64) -> Option<Failure> {
        let bound = SourceErrorKind::TooLarge(self.max_bytes);
        (bytes > self.max_bytes).then_some(Failure::Bound(bound))
    }

    fn never_whole(&self) -> Failure {
        Failure::Bound(SourceErrorKind::Registry(format!(
            "the children of {} come and go faster than they can be read",
            self.path
        )))
    }
}

/// Why there is no whole answer.
enum Failure {
    /// The client's reason, and the path that it is about.
    Client(Error, String),
    Bound(SourceErrorKind),
}

fn is_of_session(error: &Error) -> bool {
    matches!(error, Error::ConnectionLoss | Error::SessionExpired | Error::ClientClosed)
}

#[async_trait]
impl<R: Reading> Feed<R::Content> for PathFeed<R> {
    async fn poll(
        &mut self,
        _extent: Extent,
        current: Option<&Snapshot<R::Content>>,
        _now: Timestamp,
    ) -> Result<Polled<R::Content>, SourceError> {
        let (timeout, place) = (self.settings.timeout, self.connection.place(&self.path));
        let outcome = tokio::time::timeout(timeout, self.poll_once(current)).await;
        self.has_failed = !matches!(outcome, Ok(Ok(_)));
        outcome
            .unwrap_or(Err(SourceErrorKind::NoAnswer(timeout)))
            .map_err(|fault| SourceError { place, fault })
    }

    async fn changed(&mut self) {
        let (watch, has_failed) = (&mut self.watch, self.has_failed);
        let lost = async {
            match watch {
                Some(watch) if !has_failed => watch.ended().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            // What raised an event and ended is one change.
            biased;
            () = self.events.notified() => {}
            () = lost => self.watch = None,
        }
    }

    fn notes(&self) -> Notes {
        let whole = self.watch.as_ref().is_some_and(|watch| watch.is_whole && watch.is_alive());
        Notes { watch: Some(if whole { Watch::Watched } else { Watch::PolledOnly }), warning: None }
    }
}
