//! A file: JSON like `http_json`'s, or a map file, as the settings say. Watched, and polled for
//! what a watch can't see (network file systems).
//!
//! A list of servers may be a folder, too: each of its files is a list, and all are one.
//!
//! A writer should replace the file by a rename. One that writes in place is caught half-way at
//! times: cut JSON is an error, and so is any file that changes while it is read. A map file that
//! stays cut looks like a shorter map: the guard's case.

pub(super) mod keys;
mod read;
pub(super) mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::{PollKind, Watch};
use mapsmith_core::{EntryMap, ServerList, ServiceTexts, Snapshot};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::error::{SourceError, SourceErrorKind};
use super::feed::{is_due, off_thread};
use super::format::{Format, MapFormat, MapText, Names, ServerFormat, ServiceFormat};
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use keys::FileFormat;
use read::{ReadState, Stamps};
use watch::FileWatch;

/// Between an event and the check of the file: a replacement raises several events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A file.
pub(super) struct FileRegistry {
    settings: Arc<settings::Source>,
    names: Arc<Names>,
}

impl FileRegistry {
    pub(super) fn new(settings: Arc<settings::Source>, names: Arc<Names>) -> Self {
        Self { settings, names }
    }

    pub(super) fn feed<F: Format>(&self, format: F) -> Box<dyn Feed<F::Content>> {
        Box::new(FileFeed {
            settings: Arc::clone(&self.settings),
            format,
            known: None,
            events: Arc::default(),
            event_seen: false,
            watch: None,
            gap: None,
        })
    }
}

impl Registry for FileRegistry {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        let names = Arc::clone(&self.names);
        Ok(match self.settings.of_kind.file.file_format() {
            FileFormat::Json => self.feed(MapFormat::document(&self.settings, names)),
            FileFormat::Map => self.feed(MapText::new(names)),
            FileFormat::Lines => {
                return Err(Unsupported::new(&self.settings.name, "lines list servers"));
            }
        })
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let keys = &self.settings.of_kind;
        Ok(self.feed(match keys.file.format {
            Some(FileFormat::Lines) => ServerFormat::lines(),
            _ => ServerFormat::json(&keys.fields),
        }))
    }

    fn services(&self, _of: &Selector) -> Result<Box<dyn Feed<ServiceTexts>>, Unsupported> {
        Ok(self.feed(ServiceFormat))
    }
}

/// The file, read as one kind of content.
struct FileFeed<F> {
    settings: Arc<settings::Source>,
    format: F,
    known: Option<ReadState>,
    /// Raised by the watch.
    events: Arc<Notify>,
    /// An event that was seen and not looked into yet.
    event_seen: bool,
    /// None before the first poll, and while a poll has it.
    watch: Option<FileWatch>,
    /// Why not all of the way to the file is watched, if so.
    gap: Option<String>,
}

impl<F: Format> FileFeed<F> {
    fn path(&self) -> &Path {
        self.settings.of_kind.file.path()
    }

    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceErrorKind> {
        let (settings, format) = (Arc::clone(&self.settings), self.format.clone());
        let trusted = |known: &ReadState| {
            extent == Extent::Changes && !is_due(settings.full_poll, known.read, now)
        };
        let known = self.known.clone().filter(|known| current.is_some() && trusted(known));
        let (unchanged_since, current) = (known.as_ref().map(|known| known.read), current.cloned());
        let mut watch = self
            .watch
            .take()
            .unwrap_or_else(|| FileWatch::new(self.path().to_owned(), Arc::clone(&self.events)));
        // Watched before it is read: what changes from then on raises an event.
        let (armed, outcome, watch) = off_thread(move || {
            let armed = watch.arm();
            (armed, read::poll(&settings, &format, known.as_ref(), current.as_ref()), watch)
        })
        .await;
        self.watch = Some(watch);
        self.note_gap(armed.err());
        let (stamps, settled, polled) = outcome?;
        let unchanged = polled.kind == PollKind::Unchanged;
        let read = unchanged_since.filter(|_| unchanged).unwrap_or(now);
        self.known = Some(ReadState { stamps, settled, read });
        Ok(polled)
    }

    fn note_gap(&mut self, gap: Option<String>) {
        let path = self.path().display();
        match (&gap, &self.gap) {
            (Some(error), None) => warn!(%path, error, "the file can't be watched, only polled"),
            (None, Some(_)) => info!(%path, "the file is watched again"),
            _ => {}
        }
        self.gap = gap;
    }
}

#[async_trait]
impl<F: Format> Feed<F::Content> for FileFeed<F> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceError> {
        let timeout = self.settings.timeout;
        let outcome = tokio::time::timeout(timeout, self.poll_once(extent, current, now)).await;
        outcome
            .unwrap_or(Err(SourceErrorKind::NoAnswer(timeout)))
            .map_err(|fault| SourceError { place: self.path().display().to_string(), fault })
    }

    async fn changed(&mut self) {
        loop {
            if !self.event_seen {
                self.events.notified().await;
                self.event_seen = true;
            }
            tokio::time::sleep(DEBOUNCE).await;
            self.event_seen = false;
            let path = self.path().to_owned();
            let stamps = off_thread(move || Stamps::of(&path)).await.ok();
            let nothing_new = match (&self.known, stamps) {
                (Some(known), Some(stamps)) => known.still_holds(&stamps),
                (known, stamps) => known.is_none() && stamps.is_none(),
            };
            let outdated = match &self.watch {
                Some(watch) => watch.is_outdated().await,
                None => true,
            };
            if outdated || !nothing_new {
                return;
            }
        }
    }

    fn notes(&self) -> Notes {
        let whole = self.watch.is_some() && self.gap.is_none();
        Notes { watch: Some(if whole { Watch::Watched } else { Watch::PolledOnly }), warning: None }
    }
}
