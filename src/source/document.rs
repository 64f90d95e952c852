//! A text as it stands in a file or at a URL: for what is no registry and comes the same ways.
//! Whole, or an error; what it means is its reader's to say.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::error::{SourceError, SourceErrorKind};
use super::feed::off_thread;
use super::file::watch::FileWatch;
use super::transport::http::keys::HttpKeys;
use super::transport::http::{HttpClient, HttpSettings};
use super::transport::status;

/// The most that a text may have, in bytes: a CRL of a million certificates has half of it.
const MAX_BYTES: u64 = 64 << 20;
/// Between an event and the read: a replacement raises several events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A text at a place.
pub(crate) struct Document(Place);

enum Place {
    /// A file, which is watched.
    File {
        path: PathBuf,
        timeout: Duration,
        /// None before the first read, and while a read has it.
        watch: Option<FileWatch>,
        /// Raised by the watch.
        events: Arc<Notify>,
        /// Why not all of the way to it is watched, if so.
        gap: Option<String>,
    },
    /// A document over HTTP.
    Url(HttpClient),
}

impl Document {
    /// Of a file; touches nothing yet.
    pub(crate) fn file(path: PathBuf, timeout: Duration) -> Self {
        Self(Place::File { path, timeout, watch: None, events: Arc::default(), gap: None })
    }

    /// At a URL. Reads the certificates and the key; connects to nothing yet.
    ///
    /// # Errors
    /// A certificate or key that can't be used.
    pub(crate) fn url(
        url: String,
        [ca, cert, key]: [Option<PathBuf>; 3],
        timeout: Duration,
    ) -> Result<Self, SourceError> {
        let keys = HttpKeys { url: Some(url), ca, cert, key, token_file: None };
        let settings = HttpSettings { keys, timeout, max_bytes: MAX_BYTES };
        let client = HttpClient::new(settings, None, status::meaning)?;
        Ok(Self(Place::Url(client)))
    }

    /// The text as it is now.
    ///
    /// # Errors
    /// Why it can't be had, with its place.
    pub(crate) async fn read(&mut self) -> Result<Vec<u8>, SourceError> {
        match &mut self.0 {
            Place::Url(client) => client.text().await,
            Place::File { path, timeout: bound, watch, events, gap } => {
                let (at, taken) = (path.clone(), watch.take());
                let mut armed =
                    taken.unwrap_or_else(|| FileWatch::new(path.clone(), Arc::clone(events)));
                // Watched before it is read: what changes from then on raises an event.
                let work = off_thread(move || (armed.arm().err(), read_file(&at), armed));
                let outcome = match timeout(*bound, work).await {
                    Ok((why, outcome, armed)) => {
                        (*watch, *gap) = (Some(armed), why);
                        outcome
                    }
                    Err(_) => Err(SourceErrorKind::NoAnswer(*bound)),
                };
                outcome.map_err(|fault| SourceError { place: path.display().to_string(), fault })
            }
        }
    }

    /// Resolves when the file may have changed; pends forever for a URL.
    pub(crate) async fn changed(&self) {
        match &self.0 {
            Place::File { events, .. } => {
                events.notified().await;
                sleep(DEBOUNCE).await;
            }
            Place::Url(_) => std::future::pending().await,
        }
    }

    /// What is wrong although it can be read.
    pub(crate) fn warning(&self) -> Option<String> {
        match &self.0 {
            Place::File { gap, .. } => {
                gap.as_ref().map(|gap| format!("is not watched, only polled: {gap}"))
            }
            Place::Url(client) => client.warning().map(str::to_owned),
        }
    }
}

/// Reads a regular file that does not change meanwhile; blocks.
fn read_file(path: &Path) -> Result<Vec<u8>, SourceErrorKind> {
    let fault = |error: io::Error| SourceErrorKind::File(format!("can't be read: {error}"));
    let nonblocking =
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let mut file = nonblocking.map_err(fault)?;
    let before = file.metadata().map_err(fault)?;
    if !before.is_file() {
        return Err(SourceErrorKind::File("is not a regular file".to_owned()));
    }
    let mut text = Vec::new();
    file.by_ref().take(MAX_BYTES + 1).read_to_end(&mut text).map_err(fault)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(SourceErrorKind::File(format!("has more than {MAX_BYTES} bytes")));
    }
    let stamp = |metadata: &Metadata| (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    if stamp(&file.metadata().map_err(fault)?) != stamp(&before) {
        return Err(SourceErrorKind::File(
            "was changed while it was read; replace it by a rename".to_owned(),
        ));
    }
    Ok(text)
}
