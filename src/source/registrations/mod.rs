//! Nodes and members that are registered with Mapsmith itself. The daemon has them from whoever
//! changes them ([`RegistrationService`](crate::store::RegistrationService),
//! [`MemberService`](crate::store::MemberService)), and polls nobody; `check`, `plan` and `sync`
//! read the store, which may be a running daemon's.

pub(crate) mod keys;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::members::{MemberKey, Members};
use mapsmith_core::status::PollKind;
use mapsmith_core::{EntryMap, ServerList, Snapshot};

use super::error::{SourceError, SourceErrorKind};
use super::{Extent, Feed, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use crate::store::SqliteStore;
use crate::store::sqlite::StoredMember;
use keys::MemberSelector;

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

    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let Some(store) = self.settings.of_kind.store.clone() else {
            return Err(Unsupported::new(&self.settings.name, "it needs [store]"));
        };
        let of = of.read().map_err(|problems| {
            Unsupported::new(&self.settings.name, format!("from.{}", problems.join("; from.")))
        })?;
        Ok(Box::new(StoredMembersFeed { store, of }))
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

/// The members in the store, likewise.
struct StoredMembersFeed {
    store: PathBuf,
    of: MemberSelector,
}

#[async_trait]
impl Feed<ServerList> for StoredMembersFeed {
    async fn poll(
        &mut self,
        _extent: Extent,
        _current: Option<&Snapshot<ServerList>>,
        _now: Timestamp,
    ) -> Result<Polled<ServerList>, SourceError> {
        let stored = SqliteStore::peek_members(&self.store).await.map_err(|error| SourceError {
            place: format!("store.path {}", error.path),
            fault: SourceErrorKind::Setup(error.fault.to_string()),
        })?;
        let mut members = Members::default();
        for StoredMember { member, lifetime, expired } in stored.members {
            let MemberKey { name, version, .. } = &member.key;
            if *name == self.of.name && *version == self.of.version {
                members.restore(member, lifetime, expired);
            }
        }
        let list = members.list(&self.of.name, [&*self.of.version]);
        Ok(Polled {
            kind: PollKind::Full,
            entries: Arc::new(list),
            rejections: Arc::default(),
            bytes: 0,
        })
    }
}
