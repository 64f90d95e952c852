//! A file: JSON like `http_json`'s, or a map file, as the settings say. Watched, and polled for
//! what a watch can't see (network file systems).
//!
//! A writer should replace the file by a rename. One that writes in place is caught half-way at
//! times: cut JSON is an error, and so is any file that changes while it is read. A map file that
//! stays cut looks like a shorter map: the guard's case.

pub(super) mod keys;
pub(super) mod watch;

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::{PollKind, Watch};
use mapsmith_core::{EntryMap, ServerList, Snapshot};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::error::{SourceError, SourceErrorKind};
use super::feed::{is_due, off_thread};
use super::format::{Format, MapFormat, MapText, Names, Reader, ServerFormat};
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use keys::FileFormat;
use watch::FileWatch;

/// Between an event and the check of the file: a replacement raises several events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A file changed this recently may change again without its time of change showing it.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);

/// What distinguishes one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// What the last good poll read.
#[derive(Debug, Clone, Copy)]
struct ReadState {
    stamp: Stamp,
    /// Whether the stamp was old enough to show every later change.
    settled: bool,
    /// When it was read.
    read: Timestamp,
}

impl ReadState {
    fn still_holds(&self, stamp: Stamp) -> bool {
        self.settled && self.stamp == stamp
    }
}

/// A file.
pub(super) struct FileRegistry {
    settings: Arc<settings::Source>,
    names: Arc<Names>,
}

impl FileRegistry {
    pub(super) fn new(settings: Arc<settings::Source>, names: Arc<Names>) -> Self {
        Self { settings, names }
    }

    fn feed<F: Format>(&self, format: F) -> Box<dyn Feed<F::Content>> {
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
        })
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        Ok(self.feed(ServerFormat))
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
        let known = self.known.filter(|known| current.is_some() && trusted(known));
        let current = current.cloned();
        let mut watch = self
            .watch
            .take()
            .unwrap_or_else(|| FileWatch::new(self.path().to_owned(), Arc::clone(&self.events)));
        // Watched before it is read: what changes from then on raises an event.
        let (armed, outcome, watch) = off_thread(move || {
            (watch.arm(), poll(&settings, &format, known, current.as_ref()), watch)
        })
        .await;
        self.watch = Some(watch);
        self.note_gap(armed.err());
        let (stamp, settled, polled) = outcome?;
        let read =
            known.filter(|_| polled.kind == PollKind::Unchanged).map_or(now, |known| known.read);
        self.known = Some(ReadState { stamp, settled, read });
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
            let metadata = tokio::fs::metadata(self.path()).await;
            let stamp = metadata.ok().map(|metadata| Stamp::new(&metadata));
            let nothing_new = match (self.known, stamp) {
                (Some(known), Some(stamp)) => known.still_holds(stamp),
                (known, stamp) => known.is_none() && stamp.is_none(),
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

/// One poll of the file, with its stamp and whether that is settled; blocks.
fn poll<F: Format>(
    settings: &settings::Source,
    format: &F,
    known: Option<ReadState>,
    current: Option<&Snapshot<F::Content>>,
) -> Result<(Stamp, bool, Polled<F::Content>), SourceErrorKind> {
    let path = settings.of_kind.file.path();
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(SourceErrorKind::File(
            if metadata.is_dir() { "is a folder" } else { "is not a regular file" }.to_owned(),
        ));
    }
    if let (Some(known), Some(current)) = (known, current)
        && known.still_holds(Stamp::new(&metadata))
    {
        return Ok((known.stamp, known.settled, Polled::unchanged(current)));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let stamp = Stamp::new(&file.metadata().map_err(unreadable)?);
    let content = read(&mut file, format, settings.max_bytes);
    if Stamp::new(&file.metadata().map_err(unreadable)?) != stamp {
        return Err(SourceErrorKind::File(
            "was changed while it was read; replace it by a rename".to_owned(),
        ));
    }
    let (rows, bytes) = content?;
    let settled = is_settled(stamp.modified, SystemTime::now());
    Ok((stamp, settled, Polled::full(rows, bytes, current)))
}

fn unreadable(error: io::Error) -> SourceErrorKind {
    SourceErrorKind::File(match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("can't be read: {error}"),
    })
}

/// The file's rows and its bytes.
fn read<F: Format>(
    file: &mut File,
    format: &F,
    max_bytes: u64,
) -> Result<(F::Rows, u64), SourceErrorKind> {
    let mut reader = format.reader(None);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).map_err(unreadable)? {
            0 => break,
            length => reader.feed(&chunk[..length])?,
        }
        if reader.bytes() > max_bytes {
            return Err(SourceErrorKind::TooLarge(max_bytes));
        }
    }
    let bytes = reader.bytes();
    Ok((reader.close()?, bytes))
}

fn is_settled((seconds, nanoseconds): (i64, i64), now: SystemTime) -> bool {
    let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let grain = i128::try_from(CLOCK_GRAIN.as_nanos()).unwrap_or(i128::MAX);
    let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    i128::try_from(age.as_nanos()).is_ok_and(|now| now - modified > grain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changed_a_moment_ago_is_read_again_even_if_it_looks_the_same() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for (modified, settled) in [
            ((98, 999_999_999), true),
            ((99, 0), false),
            ((99, 500), false),
            ((200, 0), false),
            ((-5, 0), true),
        ] {
            assert_eq!(is_settled(modified, now), settled, "{modified:?}");
            let stamp = Stamp { device: 1, inode: 1, size: 1, modified };
            let known = ReadState { stamp, settled, read: Timestamp::UNIX_EPOCH };
            assert_eq!(known.still_holds(stamp), settled);
            assert!(!known.still_holds(Stamp { inode: 2, ..stamp }));
        }
    }
}
