//! The registries: who says which master owns a node, or which servers a backend has.
//!
//! A [`Registry`] is what a `[[source]]` is built to; a [`Feed`] turns its answers into valid
//! entries in HAProxy's words. Neither decides what an answer means for a gateway: an empty answer
//! is an answer, and the guard's case. No part of an answer is ever handed out: what is cut off,
//! too large, too late or no map at all is a [`SourceError`], and the poller keeps the last good
//! snapshot.
//!
//! ```text
//! schedule, reload ──PollRequests──> poller ──poll──> Feed of a Registry
//!                      Round           │   ^     puppetdb | consul | zookeeper | etcd | ..
//!                                      │   │              │
//!                                      │   │              │ transport: bytes
//!                                      │   │              v
//!                                      │   └─Polled── format: rows
//!                                      v
//!                              SourceState (watch): EntryMap or ServerList, Rejections
//! ```

mod consul;
mod dns;
mod document;
mod error;
mod etcd;
mod feed;
mod file;
mod format;
mod http_json;
mod kinds;
mod metadata;
mod nodes;
mod puppetdb;
pub(crate) mod registrations;
mod transport;
mod zookeeper;

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::{EntryMap, Rejections, ServerList, ServiceTexts};

use format::{Format, Names, ServerFormat};

pub(crate) use document::Document;
pub use error::{SourceError, SourceErrorKind};
use feed::LateFeed;
pub use feed::requests::{PollRequests, Round};
pub use feed::targeted::TargetedLookups;
pub use feed::{Extent, Feed, Notes, Polled, poller, schedule};
pub use file::keys::{Confined, FileFormat};
pub use kinds::{KeysOfKinds, SourceKind};

use crate::settings::{self, Selector, Settings};

/// A registry: one connection, opened once, which its feeds share.
pub trait Registry: Send + Sync {
    /// Who owns which node.
    ///
    /// # Errors
    /// If a registry of this kind does not say so.
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported>;

    /// The servers that a backend wants of it.
    ///
    /// # Errors
    /// If a registry of this kind lists none, or none so.
    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported>;

    /// The services that it declares, or the keys of metadata by which it does so.
    ///
    /// # Errors
    /// If a registry of this kind declares none, or none so.
    fn services(&self, of: &Selector) -> Result<Box<dyn Feed<ServiceTexts>>, Unsupported> {
        Err(Unsupported::new(&of.source, "it declares no services"))
    }
}

/// A registry has no such content.
#[derive(Debug, thiserror::Error)]
#[error("source {source_name:?}, type: {reason}")]
pub struct Unsupported {
    source_name: String,
    reason: String,
}

impl Unsupported {
    fn new(source: &str, reason: impl Into<String>) -> Self {
        Self { source_name: source.to_owned(), reason: reason.into() }
    }
}

impl From<Unsupported> for SourceError {
    fn from(Unsupported { source_name, reason }: Unsupported) -> Self {
        let fault = SourceErrorKind::Setup(reason);
        Self { place: format!("source {source_name:?}, type"), fault }
    }
}

/// Makes the registry that the settings describe. Certificates and keys are read here, and again
/// once their files change. Nothing is connected yet. `lowercase` is `[map] lowercase`.
///
/// # Errors
/// A certificate, key or URL that can't be used, with the source's name, the file and what is wrong
/// with it.
pub fn registry(
    settings: &settings::Source,
    lowercase: bool,
) -> Result<Box<dyn Registry>, SourceError> {
    let names = names(settings, lowercase);
    let registry = settings.kind.registry(Arc::new(settings.clone()), names, lowercase);
    registry.map_err(|error| SourceError {
        place: format!("source {:?}, {}", settings.name, error.place),
        ..error
    })
}

/// Who owns which node, as a source of these settings says it, whose registry is made when it is
/// first polled, and tried again where that failed.
pub fn late_node_map(settings: &settings::Source, lowercase: bool) -> Box<dyn Feed<EntryMap>> {
    let settings = settings.clone();
    Box::new(LateFeed::new(move || Ok(registry(&settings, lowercase)?.node_map()?)))
}

/// The servers that this selector wants of a source of these settings, likewise.
pub fn late_servers(
    settings: &settings::Source,
    lowercase: bool,
    of: &Selector,
) -> Box<dyn Feed<ServerList>> {
    let (settings, of) = (settings.clone(), of.clone());
    Box::new(LateFeed::new(move || Ok(registry(&settings, lowercase)?.servers(&of)?)))
}

/// The registries of all sources: each is made once, whatever is fed by it.
pub struct Registries(BTreeMap<String, Result<Box<dyn Registry>, SourceError>>);

impl Registries {
    /// Makes those that the settings describe. One that can't be made is an error where it is asked
    /// for.
    pub fn new(settings: &Settings) -> Self {
        let made = |source: &settings::Source| registry(source, settings.map.lowercase);
        Self(settings.sources.iter().map(|source| (source.name.clone(), made(source))).collect())
    }

    /// Who owns which node, as this source says it.
    ///
    /// # Errors
    /// If its registry can't be made, or does not say so.
    pub fn node_map(&self, source: &str) -> Result<Box<dyn Feed<EntryMap>>, SourceError> {
        Ok(self.registry(source)?.node_map()?)
    }

    /// The servers that this selector wants.
    ///
    /// # Errors
    /// If its source's registry can't be made, or lists none so.
    pub fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, SourceError> {
        Ok(self.registry(&of.source)?.servers(of)?)
    }

    /// The services that this selector wants.
    ///
    /// # Errors
    /// If its source's registry can't be made, or declares none so.
    pub fn services(&self, of: &Selector) -> Result<Box<dyn Feed<ServiceTexts>>, SourceError> {
        Ok(self.registry(&of.source)?.services(of)?)
    }

    fn registry(&self, source: &str) -> Result<&dyn Registry, SourceError> {
        match self.0.get(source) {
            Some(made) => made.as_deref().map_err(Clone::clone),
            None => Err(Unsupported::new(source, "there is no such source").into()),
        }
    }
}

/// Reads an answer, in whatever chunks it comes, as a source of these settings reads a file or the
/// body of a full poll.
///
/// # Errors
/// If it is not whole, or no map.
pub fn read_map<'c>(
    settings: &settings::Source,
    lowercase: bool,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(EntryMap, Rejections), SourceErrorKind> {
    settings.kind.read_map(settings, names(settings, lowercase), chunks)
}

/// Reads a JSON answer, in whatever chunks it comes, as a source of this kind does that lists
/// servers.
///
/// # Errors
/// If it is not whole, or no list.
pub fn read_list<'c>(
    kind: SourceKind,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(ServerList, Rejections), SourceErrorKind> {
    kind.read_list(chunks)
}

/// Reads lines of servers, in whatever chunks they come, as a file of them is read.
///
/// # Errors
/// If they are something else.
pub fn read_lines<'c>(
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(ServerList, Rejections), SourceErrorKind> {
    format::read(ServerFormat::lines().reader(None), chunks)
}

/// Reads what the children of a ZooKeeper's path hold, one answer after another, as a feed of this
/// selector does. A child is its name, and what it holds.
///
/// # Errors
/// If no feed of a ZooKeeper can be had by these keys.
pub fn read_children(
    of: &Selector,
    answers: impl IntoIterator<Item = Vec<(String, Vec<u8>)>>,
) -> Result<Vec<(ServerList, Rejections)>, Unsupported> {
    zookeeper::read(of, answers)
}

/// Reads what the keys below a prefix of an etcd hold, one answer after another, as a feed of this
/// selector does. A key stands without the prefix.
///
/// # Errors
/// If no feed of an etcd can be had by these keys of a selector.
pub fn read_keys(
    of: &Selector,
    answers: impl IntoIterator<Item = Vec<(Vec<u8>, Vec<u8>)>>,
) -> Result<Vec<(ServerList, Rejections)>, Unsupported> {
    etcd::read(of, answers)
}

fn names(settings: &settings::Source, lowercase: bool) -> Arc<Names> {
    Arc::new(Names::new(lowercase, &settings.masters).with_times(settings.keep_times))
}
