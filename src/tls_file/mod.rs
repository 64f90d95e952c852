//! A file of certificates or revocations that HAProxy has loaded: read from where it comes from,
//! checked, written whole, published for the instances. A task for each; none waits for another.
//!
//! ```text
//! Document (file or URL) ──text──> Content ──in order?──> the file ──> InForce (watch) ──> instances
//!          ^
//!   poll, watch, PollRequests
//! ```
//!
//! What HAProxy loads at its next start is replaced before any memory is, so a restart never brings
//! back what was revoked. What is not whole, not in date or older than what is in force changes
//! nothing.

pub mod content;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::cert::FileKind;
use jiff::Timestamp;
use mapsmith_core::tls_file::TlsFileStatus;
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::heartbeat;
use crate::settings::{self, tls_file::Origin};
use crate::source::{Document, Extent, Round, SourceError};
use crate::store::replace::{probe, replace};
use crate::telemetry::{TLS_FILE_EXPIRY, TLS_FILE_FAILED, TLS_FILE_LIFETIME};
use content::{Content, Unfit};

/// Between a failure and the next try, see [`TlsFile::pause_after_failure`].
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// The longest such pause where `poll` is shorter: a CA that is down is not asked as often as one
/// that answers.
const SHORT_POLLS_PAUSE: Duration = Duration::from_secs(5);
/// Between two reads where `poll` was not set and the server sends all of it each time.
const REPEATS_POLL: Duration = Duration::from_secs(10);
/// The least time from one round's beginning to the next one's: reloads in a loop are a few reads a
/// second. A shorter `poll` stands.
const SPACING: Duration = Duration::from_millis(300);

/// The mode of a file that is created: with a private key it is its owner's alone, else HAProxy's
/// user must be able to read it.
const NEW_FILE_MODES: [u32; 2] = [0o600, 0o644];

/// What a task publishes.
#[derive(Debug, Clone)]
pub struct InForce {
    /// For people.
    pub status: TlsFileStatus,
    /// What the file holds and every memory should; none before the first.
    pub content: Option<Arc<Content>>,
    /// The number of that content: another one has another, 0 is none.
    pub number: u64,
    /// The highest [poll request](crate::source::PollRequests) that `from` was read for since.
    pub answered: u64,
}

/// Why what `from` holds is not in force.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreadable(#[from] SourceError),
    #[error("{place}: {unfit}")]
    Unfit { place: String, unfit: Unfit },
    #[error("{0}")]
    Write(String),
}

/// The task of one `[[tls_file]]`.
pub struct TlsFile {
    settings: settings::TlsFile,
    from: Document,
    /// The file with the private key, where it has one of its own.
    key: Option<Document>,
    /// What `from` was last found to hold, so that what did not change is not parsed again.
    last: Option<Parsed>,
    /// How long the server of `from` asked to be left alone in place of its last answer.
    rest: Duration,
    state: watch::Sender<InForce>,
}

struct Parsed {
    text: Vec<u8>,
    key: Option<Vec<u8>>,
    content: Arc<Content>,
}

impl TlsFile {
    /// From its settings; the receiver is told of everything. Touches nothing but the certificates
    /// and the key for `from`.
    ///
    /// # Errors
    /// Those of them that can't be used.
    pub fn new(
        settings: &settings::TlsFile,
    ) -> Result<(Self, watch::Receiver<InForce>), SourceError> {
        let (bound, origin) = (settings.timeout, settings.origin());
        let place = match &origin {
            Origin::File(path) => path.display().to_string(),
            // A query might hold a token.
            Origin::Url(url) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        };
        let from = match origin {
            Origin::File(path) => Document::file(path, bound),
            Origin::Url(url) => {
                let files = [&settings.ca, &settings.cert, &settings.key].map(Clone::clone);
                Document::url(url, files, bound).map_err(|error| SourceError {
                    place: format!("tls_file {}, {}", settings.path.display(), error.place),
                    ..error
                })?
            }
        };
        let status = TlsFileStatus {
            path: settings.path.display().to_string(),
            kind: settings.kind,
            from: place,
            contents: Vec::new(),
            expires_at: None,
            in_force_since: None,
            polled_at: None,
            error: None,
            warning: None,
        };
        let key = settings.key_from.clone().map(|path| Document::file(path, bound));
        let nothing = InForce { status, content: None, number: 0, answered: 0 };
        let (state, receiver) = watch::channel(nothing);
        let (last, rest) = (None, Duration::ZERO);
        Ok((Self { settings: settings.clone(), from, key, last, rest, state }, receiver))
    }

    /// Keeps the file as `from` has it, until shutdown. Whoever waits for a poll request gets what
    /// `from` holds then.
    pub async fn run(mut self, round: Round, shutdown: CancellationToken) {
        let mut requests = round.subscribe();
        // The first read covers what was asked for before.
        let (mut backoff, mut answered) = (BACKOFF, 0);
        let mut request = requests.borrow_and_update().latest;
        while !shutdown.is_cancelled() {
            let extent = match request > answered {
                true => Extent::Everything,
                false => Extent::Changes,
            };
            let began = Instant::now();
            let pause = match self.round(extent, Timestamp::now()).await {
                true => {
                    backoff.reset();
                    self.poll()
                }
                false => self.pause_after_failure(backoff.pause()),
            };
            answered = request;
            self.state.send_modify(|state| state.answered = answered);
            let key_changed = async {
                match &self.key {
                    Some(key) => key.changed().await,
                    None => std::future::pending().await,
                }
            };
            heartbeat::waiting(async {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.from.changed() => {}
                    () = key_changed => {}
                    _ = requests.wait_for(|requested| requested.urgent > answered) => {}
                    () = sleep(pause) => {}
                }
                let is_urgent = requests.borrow().urgent > answered;
                let spacing = if is_urgent { SPACING } else { SPACING.min(self.settings.poll()) };
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = sleep_until(began + spacing) => {}
                }
            })
            .await;
            request = answered.max(requests.borrow_and_update().urgent);
        }
    }

    /// Between two reads while all is well.
    fn poll(&self) -> Duration {
        match self.settings.poll {
            None if self.from.is_repeated() => REPEATS_POLL,
            _ => self.settings.poll(),
        }
    }

    fn pause_after_failure(&self, backoff: Duration) -> Duration {
        backoff.min(self.settings.poll().max(SHORT_POLLS_PAUSE)).max(self.rest)
    }

    /// Reads `from` and the file, and puts the one in force that should be. Whether all went well;
    /// what is published says the rest.
    pub async fn round(&mut self, extent: Extent, now: Timestamp) -> bool {
        let known = self.state.borrow().content.clone();
        let on_disk = self.on_disk(known.as_ref()).await;
        let base = adopted(known, on_disk.clone(), now);
        let outcome = match self.candidate(extent, base.as_deref(), now).await {
            Ok(candidate) => self.put_in_force(candidate, on_disk.as_deref()).await,
            Err(failure) => {
                // Meanwhile the file is kept as what is in force.
                let kept = match base.clone() {
                    Some(base) => self.put_in_force(base, on_disk.as_deref()).await.map(drop),
                    None => Ok(()),
                };
                Err(kept.err().unwrap_or(failure))
            }
        };
        let (content, failure) = match outcome {
            Ok(content) => (Some(content), None),
            Err(failure) => (base, Some(failure)),
        };
        let good = failure.is_none();
        self.publish(content, failure, now);
        good
    }

    /// What `from` holds, as it would come into force now. Writes nothing.
    ///
    /// # Errors
    /// Why it would not.
    pub async fn preview(&mut self, now: Timestamp) -> Result<Vec<String>, String> {
        let on_disk = self.on_disk(None).await;
        let candidate = self.candidate(Extent::Everything, on_disk.as_deref(), now).await;
        let content = candidate.map_err(|failure| failure.to_string())?;
        probe(self.settings.file()).map_err(|error| error.to_string())?;
        Ok(content.described())
    }

    /// What `from` holds, if it may follow what is in force.
    async fn candidate(
        &mut self,
        extent: Extent,
        base: Option<&Content>,
        now: Timestamp,
    ) -> Result<Arc<Content>, Failure> {
        let text = self.from.read(extent).await;
        let rest = text.as_ref().err().and_then(|error| error.fault.retry_after());
        self.rest = rest.unwrap_or_default();
        let text = text?;
        let key = match &mut self.key {
            Some(key) => Some(key.read(extent).await?),
            None => None,
        };
        let checked = self.parse(text, key).and_then(|content| {
            content.check_dates(now)?;
            if let Some(base) = base {
                content.check_order(base)?;
                content.check_whole(base)?;
            }
            Ok(content)
        });
        checked.map_err(|unfit| Failure::Unfit {
            place: self.state.borrow().status.from.clone(),
            unfit,
        })
    }

    fn parse(&mut self, text: Vec<u8>, key: Option<Vec<u8>>) -> Result<Arc<Content>, Unfit> {
        if let Some(last) = self.last.as_ref().filter(|last| last.text == text && last.key == key) {
            return Ok(Arc::clone(&last.content));
        }
        let content = Content::parse(self.settings.kind, &text, key.as_deref()).map(Arc::new)?;
        self.last = Some(Parsed { text, key, content: Arc::clone(&content) });
        Ok(content)
    }

    /// What the file holds now, if that is whole.
    async fn on_disk(&self, known: Option<&Arc<Content>>) -> Option<Arc<Content>> {
        let text = Document::read_once(self.settings.file(), self.settings.timeout).await.ok()?;
        match known.filter(|known| known.text() == text) {
            Some(known) => Some(Arc::clone(known)),
            None => Content::parse(self.settings.kind, &text, None).ok().map(Arc::new),
        }
    }

    /// Writes the file, if it does not hold the content already.
    async fn put_in_force(
        &self,
        content: Arc<Content>,
        on_disk: Option<&Content>,
    ) -> Result<Arc<Content>, Failure> {
        if on_disk == Some(&*content) {
            return Ok(content);
        }
        let [with_key, without] = NEW_FILE_MODES;
        let mode = if content.kind() == FileKind::Certificate { with_key } else { without };
        let (path, written): (PathBuf, _) = (self.settings.file().to_owned(), Arc::clone(&content));
        let work = tokio::task::spawn_blocking(move || replace(&path, written.text(), mode));
        match tokio::time::timeout(self.settings.timeout, work).await {
            Ok(Ok(Ok(()))) => Ok(content),
            Ok(Ok(Err(error))) => Err(Failure::Write(error.to_string())),
            Ok(Err(error)) => Err(Failure::Write(error.to_string())),
            Err(_) => Err(Failure::Write(format!(
                "{}: can't be written within {:?}; look at its disk",
                self.settings.file().display(),
                self.settings.timeout
            ))),
        }
    }

    fn publish(&self, content: Option<Arc<Content>>, failure: Option<Failure>, now: Timestamp) {
        let error = failure.map(|failure| failure.to_string());
        let warning = self.from.warning().or_else(|| self.key.as_ref()?.warning());
        self.log(content.as_ref(), error.as_deref());
        let labels = [
            ("file", self.settings.path.display().to_string()),
            ("kind", self.settings.kind.label().to_owned()),
        ];
        gauge!(TLS_FILE_FAILED, &labels).set(f64::from(u8::from(error.is_some())));
        let expires_at = content.as_ref().and_then(|content| content.expires_at(now));
        if let Some(at) = expires_at {
            gauge!(TLS_FILE_EXPIRY, &labels).set(at.as_second() as f64);
        }
        let served = content.as_ref().and_then(|content| content.served());
        if let Some(served) = served.filter(|_| self.settings.kind == FileKind::Certificate) {
            let lifetime = served.expires_at.duration_since(served.issued_at);
            gauge!(TLS_FILE_LIFETIME, &labels).set(lifetime.as_secs_f64());
        }
        self.state.send_modify(|state| {
            let is_new = state.content != content;
            let status = &mut state.status;
            if is_new {
                status.in_force_since = content.as_ref().map(|_| now);
                status.contents =
                    content.as_ref().map(|content| content.described()).unwrap_or_default();
                // The same content stays the same allocation, by which instances know it.
                (state.content, state.number) = (content, state.number + 1);
            }
            (status.expires_at, status.polled_at) = (expires_at, Some(now));
            (status.error, status.warning) = (error, warning);
        });
    }

    /// One line a change of condition.
    fn log(&self, content: Option<&Arc<Content>>, error: Option<&str>) {
        let state = self.state.borrow();
        let path = &state.status.path;
        if let Some(content) = content.filter(|content| Some(*content) != state.content.as_ref()) {
            tracing::info!(path, content = ?content, "{} in force", self.settings.kind);
        }
        match (error, &state.status.error) {
            (Some(error), known) if known.as_deref() != Some(error) => {
                let meanwhile = match content {
                    Some(_) => "what is in force stays",
                    None => "nothing is in force yet",
                };
                tracing::warn!(path, error, "{}: not taken; {meanwhile}", self.settings.kind);
            }
            (None, Some(_)) => tracing::info!(path, "{}: good again", self.settings.kind),
            _ => {}
        }
    }
}

/// What counts as in force: what is known to be, unless the file was given something else since
/// that is as good and as new. At the start it is what the file holds.
fn adopted(
    known: Option<Arc<Content>>,
    on_disk: Option<Arc<Content>>,
    now: Timestamp,
) -> Option<Arc<Content>> {
    match (known, on_disk) {
        (Some(known), Some(found)) if *known != *found => {
            let fit = found.check_dates(now).and_then(|()| found.check_order(&known)).is_ok();
            Some(if fit { found } else { known })
        }
        (Some(known), _) => Some(known),
        (None, found) => found,
    }
}

#[cfg(test)]
mod tests;
