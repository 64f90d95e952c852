//! A text as it stands in a file or at a URL: for what is no registry and comes the same ways.
//! Whole, or an error; what it means is its reader's to say.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use rustix::fs::OFlags;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::error::{SourceError, SourceErrorKind};
use super::feed::{Extent, off_thread};
use super::file::watch::FileWatch;
use super::transport::http::keys::HttpKeys;
use super::transport::http::{HttpClient, HttpSettings};
use super::transport::status;

/// The most that a text may have, in bytes: a CRL of a million certificates has half of it.
const MAX_BYTES: u64 = 64 << 20;
/// Between an event and the read: a replacement raises several events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long "not modified" is trusted: a server whose clock was put back, or whose file was given
/// an older time, says it wrongly.
const TRUST: Duration = Duration::from_secs(60);
/// How long a server may send the same document again and again before it counts as one that can't
/// tell whether it changed. Right after a change the best of servers does so: times are in whole
/// seconds.
const REPEATS: Duration = Duration::from_secs(5);

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
    Url { client: HttpClient, known: Option<Known> },
}

/// The last whole answer.
struct Known {
    text: Vec<u8>,
    /// The headers that ask whether it still holds.
    conditions: HeaderMap,
    since: Instant,
    /// Since when the same text comes whole where only changes are asked for; none where the server
    /// said that nothing changed, or something did.
    repeated: Option<Instant>,
}

impl Document {
    /// Of a file; touches nothing yet.
    pub(crate) fn file(path: PathBuf, timeout: Duration) -> Self {
        Self(Place::File { path, timeout, watch: None, events: Arc::default(), gap: None })
    }

    /// At the URL of a `[[tls_file]]`. Reads the certificates and the key; connects to nothing yet.
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
        let client = HttpClient::new(settings, None, status::meaning_for_tls_file)?;
        Ok(Self(Place::Url { client, known: None }))
    }

    /// The text of a file, which is not watched.
    ///
    /// # Errors
    /// Why it can't be had, with its place.
    pub(crate) async fn read_once(path: &Path, bound: Duration) -> Result<Vec<u8>, SourceError> {
        let at = path.to_owned();
        let work = timeout(bound, off_thread(move || read_file(&at)));
        let outcome = work.await.unwrap_or(Err(SourceErrorKind::NoAnswer(bound)));
        outcome.map_err(|fault| SourceError { place: path.display().to_string(), fault })
    }

    /// The text as it is now. For [`Extent::Changes`] a server's "not modified" will do, for a
    /// while.
    ///
    /// # Errors
    /// Why it can't be had, with its place.
    pub(crate) async fn read(&mut self, extent: Extent) -> Result<Vec<u8>, SourceError> {
        match &mut self.0 {
            Place::Url { client, known } => {
                let trusted = known
                    .as_ref()
                    .filter(|known| extent == Extent::Changes && known.since.elapsed() < TRUST);
                let conditions = trusted.map(|known| known.conditions.clone()).unwrap_or_default();
                let since = Instant::now();
                match (client.text(&conditions).await?, known.as_mut()) {
                    (Some((text, conditions)), Some(last)) if last.text == text => {
                        (last.conditions, last.since) = (conditions, since);
                        // Who asks for everything gets it, from any server.
                        if extent == Extent::Changes {
                            last.repeated.get_or_insert(since);
                        }
                    }
                    (Some((text, conditions)), _) => {
                        *known = Some(Known { text, conditions, since, repeated: None });
                    }
                    (None, last) => {
                        if let Some(last) = last {
                            last.repeated = None;
                        }
                    }
                }
                Ok(known.as_ref().map(|known| known.text.clone()).unwrap_or_default())
            }
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

    /// Whether a server sends the whole of it at each read, although nothing changed.
    pub(crate) fn is_repeated(&self) -> bool {
        let Place::Url { known: Some(known), .. } = &self.0 else { return false };
        known.repeated.is_some_and(|since| since.elapsed() >= REPEATS)
    }

    /// Resolves when the file may have changed; pends forever for a URL.
    pub(crate) async fn changed(&self) {
        match &self.0 {
            Place::File { events, .. } => {
                events.notified().await;
                sleep(DEBOUNCE).await;
            }
            Place::Url { .. } => std::future::pending().await,
        }
    }

    /// What is wrong although it can be read.
    pub(crate) fn warning(&self) -> Option<String> {
        match &self.0 {
            Place::File { gap, .. } => {
                gap.as_ref().map(|gap| format!("is not watched, only polled: {gap}"))
            }
            Place::Url { client, .. } => client.warning().map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use reqwest::header::IF_MODIFIED_SINCE;
    use wiremock::matchers::{header_exists, method};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    /// As Puppet's CA answers: without a word of the version, and "not modified" all the same.
    async fn puppet_ca(whole_answers: u64, not_modified: u64) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(header_exists(IF_MODIFIED_SINCE))
            .respond_with(ResponseTemplate::new(304))
            .with_priority(1)
            .expect(not_modified)
            .mount(&server)
            .await;
        let whole = ResponseTemplate::new(200)
            .insert_header("Date", "Thu, 26 Nov 2026 10:00:00 GMT")
            .set_body_string("the list");
        Mock::given(method("GET")).respond_with(whole).expect(whole_answers).mount(&server).await;
        server
    }

    #[tokio::test]
    async fn a_list_that_did_not_change_is_not_sent_again_but_to_who_asks_for_all_of_it() {
        let server = puppet_ca(2, 3).await;
        let mut document =
            Document::url(server.uri(), [None, None, None], Duration::from_secs(30)).unwrap();
        for extent in [Extent::Changes, Extent::Changes, Extent::Everything, Extent::Changes] {
            assert_eq!(document.read(extent).await.unwrap(), b"the list");
        }
        assert_eq!(document.read(Extent::Changes).await.unwrap(), b"the list");
    }

    #[tokio::test]
    async fn a_server_that_says_not_modified_is_trusted_for_a_while_only() {
        let server = puppet_ca(2, 1).await;
        let mut document =
            Document::url(server.uri(), [None, None, None], Duration::from_secs(30)).unwrap();
        for _ in 0..2 {
            assert_eq!(document.read(Extent::Changes).await.unwrap(), b"the list");
        }
        let Place::Url { known: Some(known), .. } = &mut document.0 else { panic!("a URL") };
        known.since -= TRUST;
        assert_eq!(document.read(Extent::Changes).await.unwrap(), b"the list");
    }

    impl Document {
        /// Reads once more, long after the same text began to come again, if it did.
        pub(crate) async fn read_later(&mut self, extent: Extent) {
            if let Place::Url { known: Some(known), .. } = &mut self.0 {
                known.repeated = known.repeated.map(|since| since - REPEATS);
            }
            self.read(extent).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_sends_the_same_list_again_and_again_is_known_by_that() {
        let date =
            ResponseTemplate::new(200).insert_header("Date", "Thu, 26 Nov 2026 10:00:00 GMT");
        let tag = ResponseTemplate::new(200).insert_header("ETag", "\"v1\"");
        for answer in [ResponseTemplate::new(200), date, tag] {
            let server = MockServer::start().await;
            let answers = |text: &str| {
                Mock::given(method("GET")).respond_with(answer.clone().set_body_string(text))
            };
            let first = answers("one").mount_as_scoped(&server).await;
            let mut document =
                Document::url(server.uri(), [None, None, None], Duration::from_secs(30)).unwrap();
            for extent in [Extent::Changes, Extent::Everything, Extent::Changes] {
                document.read_later(extent).await;
                assert!(!document.is_repeated(), "it may just have changed");
            }
            document.read_later(Extent::Changes).await;
            assert!(document.is_repeated());
            drop(first);
            answers("two").mount(&server).await;
            document.read_later(Extent::Changes).await;
            assert!(!document.is_repeated(), "another change may follow");
        }
    }

    #[tokio::test]
    async fn a_server_that_says_not_modified_repeats_nothing() {
        let server = puppet_ca(4, 1).await;
        let mut document =
            Document::url(server.uri(), [None, None, None], Duration::from_secs(30)).unwrap();
        let everything = Extent::Everything;
        for extent in [everything, everything, everything, Extent::Changes] {
            document.read_later(extent).await;
            assert!(!document.is_repeated());
        }
        let Place::Url { known: Some(known), .. } = &mut document.0 else { panic!("a URL") };
        known.since -= TRUST;
        document.read_later(Extent::Changes).await;
        assert!(!document.is_repeated(), "all of it was asked for");
    }
}
