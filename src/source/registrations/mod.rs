//! Nodes that are registered with Mapsmith itself. The daemon has them from whoever changes them
//! ([`RegistrationService`](crate::store::RegistrationService)), and polls nobody; `check`, `plan`
//! and `sync` read the store, which may be a running daemon's.

pub(crate) mod keys;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::PollKind;
use mapsmith_core::{EntryMap, ServerList, Snapshot};

use super::error::{SourceError, SourceErrorKind};
use super::{Extent, Feed, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use crate::store::SqliteStore;

/// What is registered.
pub(super) struct Registrations {
    settings: Arc<settings::Source>,
    lowercase: bool,
}

impl Registrations {
    pub(super) fn new(settings: Arc<settings::Source>, lowercase: bool) -> Self {
        Self { settings, lowercase }
    }
}

impl Registry for Registrations {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        let Some(store) = self.settings.of_kind.store.clone() else {
            return Err(Unsupported::new(&self.settings.name, "it needs [store]"));
        };
        Ok(Box::new(StoredFeed {
            store,
            lowercase: self.lowercase,
            keep_times: self.settings.keep_times,
        }))
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        Err(Unsupported::new(&self.settings.name, "registrations of nodes list no servers"))
    }
}

/// The store, as another program reads it.
struct StoredFeed {
    store: PathBuf,
    lowercase: bool,
    keep_times: bool,
}

#[async_trait]
impl Feed<EntryMap> for StoredFeed {
    async fn poll(
        &mut self,
        _extent: Extent,
        _current: Option<&Snapshot>,
        _now: Timestamp,
    ) -> Result<Polled, SourceError> {
        let (lowercase, keep_times) = (self.lowercase, self.keep_times);
        let peeked = SqliteStore::peek_registrations(&self.store, lowercase, keep_times).await;
        let entries = peeked.map_err(|error| SourceError {
            place: format!("store.path {}", error.path),
            fault: SourceErrorKind::Setup(error.fault.to_string()),
        })?;
        Ok(Polled {
            kind: PollKind::Full,
            entries: Arc::new(entries),
            rejections: Arc::default(),
            bytes: 0,
        })
    }
}
