//! The registries: who says which master owns a node, or which servers a backend has.
//!
//! A [`Source`] turns a registry's answer into valid entries in HAProxy's words. It never decides
//! what the answer means for a gateway: an empty answer is an answer, and the guard's case. It
//! never hands out part of an answer: what is cut off, too large, too late or no map at all is a
//! [`SourceError`], and the poller keeps the last good snapshot.
//!
//! ```text
//! schedule, reload ──PollRequests──> poller ──poll──> puppetdb | http_json | file
//!                                      │                  │ bytes
//!                                      v                  v
//!                        SourceState (watch)    json ──rows──> collector ──> EntryMap, Rejections
//!                                               map_text ──lines─┘
//!                                               server_list ──rows──────────> ServerList, Rejections
//! ```

mod body;
mod collector;
mod delta;
mod error;
mod file;
mod format;
mod http;
mod http_json;
mod json;
mod kinds;
mod map_text;
pub mod poller;
mod pql;
mod puppetdb;
mod repair;
mod row;
pub mod schedule;
mod secret;
mod server_list;
mod status;
pub mod targeted;
mod tls;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use collector::{Collector, Names};
use format::{Format, MapFormat, Reader, Rows};
use jiff::{SignedDuration, Timestamp};
use json::{JsonReader, Shape};
use map_text::MapText;
use server_list::ServerFormat;

pub use error::{SourceError, SourceErrorKind};
pub use file::keys::FileFormat;
pub use kinds::{KeysOfKinds, SourceKind};
pub use schedule::{PollRequests, ScheduleError};
pub use targeted::TargetedLookups;

use mapsmith_core::status::{PollKind, Watch};
use mapsmith_core::{Content, EntryMap, Rejections, ServerList, Snapshot};

use crate::settings;

/// What a poll brought: always the whole content, however little of it crossed the wire.
#[derive(Debug, Clone)]
pub struct Polled<C = EntryMap> {
    /// How it was learnt.
    pub kind: PollKind,
    /// Every valid entry. The very map of the current snapshot where nothing changed, so that
    /// nothing is held twice.
    pub entries: Arc<C>,
    /// What was left out; likewise shared where nothing changed.
    pub rejections: Arc<Rejections>,
    /// Bytes of the answer's body after decompression; 0 where none was sent.
    pub bytes: u64,
}

/// How much a poll must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What changed will do: a delta or "not modified" is an answer.
    Changes,
    /// Everything, whatever the registry or the file says of its own changes.
    Everything,
}

/// What a source tells of itself beside its answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Whether it notices changes by itself; none where it has no way to.
    pub watch: Option<Watch>,
    /// What is wrong although it answers.
    pub warning: Option<String>,
}

/// A registry that says who owns a node, or which servers there are. Its task (see [`poller::run`])
/// is its only user.
#[async_trait]
pub trait Source<C: Content = EntryMap>: Send + Sync {
    /// Asks the registry. `current` is the last good snapshot, which an answer "not modified" or a
    /// delta builds on where `extent` allows one; `now` is the clock. Bounded in time and size by
    /// the source's settings. Dropping the future abandons the poll.
    ///
    /// # Errors
    /// Anything but a whole, understood answer.
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<C>>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError>;

    /// Asks for these nodes alone where the registry can be asked so, else for everything, as
    /// [`Source::poll`] does. `nodes` are valid keys, as many as [`targeted`] asks for at once. A
    /// node that is not in the answer stays as it is in `current`: what is gone shows in a full
    /// poll.
    ///
    /// # Errors
    /// As [`Source::poll`]; the next poll is as good as without.
    async fn look_up(
        &mut self,
        _nodes: &[String],
        current: &Snapshot<C>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError> {
        self.poll(Extent::Changes, Some(current), now).await
    }

    /// Resolves when the source itself saw that there is something new (a file's watch); pends
    /// forever otherwise. Dropping the future loses nothing.
    async fn changed(&mut self) {
        std::future::pending().await
    }

    /// Another one that knows what this one knows, to be polled beside it; none where that would
    /// wait for the same thing.
    fn beside(&self) -> Option<Box<dyn Source<C>>> {
        None
    }

    /// How it stands, as of its last poll.
    fn notes(&self) -> Notes {
        Notes::default()
    }
}

/// Makes the source of the node map that the settings describe. Certificates and keys are read
/// here; a change of them takes a restart. Nothing is connected yet. `lowercase` is
/// `[map] lowercase`.
///
/// # Errors
/// A certificate, key or URL that can't be used, with the source's name, the file and what is wrong
/// with it.
pub fn build(settings: &settings::Source, lowercase: bool) -> Result<Box<dyn Source>, SourceError> {
    let names = Arc::new(Names::new(lowercase, &settings.masters));
    let format = MapFormat::new(settings, Arc::clone(&names));
    let source: Result<Box<dyn Source>, SourceError> = match settings.kind {
        SourceKind::Puppetdb => puppetdb::PuppetDb::new(settings, Arc::clone(&names))
            .map(|source| Box::new(source) as _),
        SourceKind::HttpJson => {
            http_json::HttpJson::new(settings, format).map(|source| Box::new(source) as _)
        }
        SourceKind::File => match settings.of_kind.file.file_format() {
            FileFormat::Json => {
                file::FileSource::new(settings, format).map(|source| Box::new(source) as _)
            }
            FileFormat::Map => file::FileSource::new(settings, MapText::new(names))
                .map(|source| Box::new(source) as _),
        },
    };
    source.map_err(|error| named(settings, error))
}

/// Makes the source that lists servers; otherwise like [`build`].
///
/// # Errors
/// Those of [`build`], and a type of source that lists none.
pub fn build_list(settings: &settings::Source) -> Result<Box<dyn Source<ServerList>>, SourceError> {
    let source: Result<Box<dyn Source<ServerList>>, SourceError> = match settings.kind {
        SourceKind::HttpJson => {
            http_json::HttpJson::new(settings, ServerFormat).map(|source| Box::new(source) as _)
        }
        SourceKind::File => {
            file::FileSource::new(settings, ServerFormat).map(|source| Box::new(source) as _)
        }
        SourceKind::Puppetdb => {
            let fault = SourceErrorKind::Setup("a puppetdb source lists no servers".to_owned());
            Err(SourceError { place: "type".to_owned(), fault })
        }
    };
    source.map_err(|error| named(settings, error))
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
    let names = Arc::new(Names::new(lowercase, &settings.masters));
    match (settings.kind, settings.of_kind.file.file_format()) {
        (SourceKind::Puppetdb, _) => read(
            JsonReader::new(Shape::List(puppetdb::fields(settings)), Collector::new(names), None),
            chunks,
        ),
        (SourceKind::File, FileFormat::Map) => read(MapText::new(names).reader(None), chunks),
        (SourceKind::HttpJson | SourceKind::File, _) => {
            read(MapFormat::new(settings, names).reader(None), chunks)
        }
    }
}

/// Reads a JSON answer, in whatever chunks it comes, as a source that lists servers does.
///
/// # Errors
/// If it is not whole, or no list.
pub fn read_list<'c>(
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(ServerList, Rejections), SourceErrorKind> {
    read(ServerFormat.reader(None), chunks)
}

fn read<'c, R: Reader<Rows: Rows>>(
    mut reader: R,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(<R::Rows as Rows>::Content, Rejections), SourceErrorKind> {
    chunks.into_iter().try_for_each(|chunk| reader.feed(chunk))?;
    Ok(reader.close()?.settle())
}

/// What some editors put before a text in UTF-8. It says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Whether everything must be asked for again, so long after it was asked for at `last`. A clock
/// that was put back says nothing about how long ago that was.
fn is_due(full_poll: SignedDuration, last: Timestamp, now: Timestamp) -> bool {
    now < last || now.duration_since(last) >= full_poll
}

/// Durations of settings are at most a year: what does not fit counts as the longest.
fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn named(settings: &settings::Source, error: SourceError) -> SourceError {
    SourceError { place: format!("source {:?}, {}", settings.name, error.place), ..error }
}
