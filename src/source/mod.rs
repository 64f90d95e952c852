//! The registries: who says which master owns a node.
//!
//! A [`Source`] turns a registry's answer into legal entries in HAProxy's words. It never decides what the answer means
//! for a gateway: an empty answer is an answer, and the guard's case. It never hands out part of an answer: what is cut
//! off, too large, too late or no map at all is a [`SourceError`], and the poller keeps the last good snapshot.
//!
//! ```text
//! schedule, reload ──PollRequests──> poller ──poll──> puppetdb | http_json | file
//!                                      │                  │ bytes
//!                                      v                  v
//!                        SourceState (watch)    json ──rows──> collector ──> EntryMap, Rejections
//! ```

mod collector;
mod delta;
mod error;
mod file;
mod http;
mod http_json;
mod json;
pub mod poller;
mod pql;
mod puppetdb;
mod row;
pub mod schedule;
mod secret;
mod status;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use collector::Names;
use jiff::Timestamp;

pub use error::{Fault, SourceError};
pub use schedule::{PollRequests, ScheduleError};

use crate::model::status::PollKind;
use crate::model::{EntryMap, Rejections, Snapshot};
use crate::settings::{self, SourceKind};

/// What a poll brought: always the whole content, however little of it crossed the wire.
#[derive(Debug, Clone)]
pub struct Polled {
    /// How it was learnt.
    pub kind: PollKind,
    /// Every legal entry. The very map of the current snapshot where nothing changed, so that nothing is held twice.
    pub entries: Arc<EntryMap>,
    /// What was left out; likewise shared where nothing changed.
    pub rejections: Arc<Rejections>,
    /// Bytes of the answer's body after decompression; 0 where none was sent.
    pub bytes: u64,
}

/// A registry. Its task (see [`poller::run`]) is its only user.
#[async_trait]
pub trait Source: Send + Sync {
    /// Asks the registry. `current` is the last good snapshot, which an answer "not modified" or a delta builds on; `now` is
    /// the clock. Bounded in time and size by the source's settings. Dropping the future abandons the poll.
    ///
    /// # Errors
    /// Anything but a whole, understood answer.
    async fn poll(&mut self, current: Option<&Snapshot>, now: Timestamp) -> Result<Polled, SourceError>;

    /// Resolves when the source itself saw that there is something new (a file's watch); pends forever otherwise.
    /// Dropping the future loses nothing.
    async fn changed(&mut self) {
        std::future::pending().await
    }
}

/// Makes the source that the settings describe. Certificates and keys are read here; a change of them takes a restart.
/// Nothing is connected yet. `lowercase` is `[map] lowercase`.
///
/// # Errors
/// A certificate, key or URL that can't be used, with the source's name, the file and what is wrong with it.
pub fn build(settings: &settings::Source, lowercase: bool) -> Result<Box<dyn Source>, SourceError> {
    let names = Arc::new(Names::new(lowercase, &settings.masters));
    make(settings, names).map_err(|error| SourceError { place: format!("source {:?}, {}", settings.name, error.place), ..error })
}

fn make(settings: &settings::Source, names: Arc<Names>) -> Result<Box<dyn Source>, SourceError> {
    Ok(match settings.kind {
        SourceKind::Puppetdb => Box::new(puppetdb::PuppetDb::new(settings, names)?),
        SourceKind::HttpJson => Box::new(http_json::HttpJson::new(settings, names)?),
        SourceKind::File => Box::new(file::FileSource::new(settings, names)?),
    })
}
