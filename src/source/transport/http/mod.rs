//! What the registries that are asked over HTTP share: one client, one bounded exchange, errors in
//! plain words.
//!
//! HTTP/1.1 only: a source asks one thing at a time, and Jetty speaks nothing else here. No
//! redirects: a registry that moves is for its operator to notice. No proxy, whatever the
//! environment says: a gateway must not route by what a proxy kept.

pub(crate) mod conditions;
pub(crate) mod keys;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Request, Response, StatusCode, Url};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::body::{Body, Bounded};
use super::secret::Secret;
use super::status::{self, Meaning};
use super::tls::{self, TlsFiles, root_cause};
use crate::settings;
use crate::source::error::{Excerpt, SourceError, SourceErrorKind};
use crate::source::feed::off_thread;
use crate::source::format::Reader;
use conditions::conditions_or_date;
use keys::HttpKeys;

/// How long a connection may take to open; a whole poll has `timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// PuppetDB's Jetty closes idle connections after about 30 s: ours go first, so that few requests
/// meet a dead one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a request goes out again within one poll, see [`HttpClient::send`].
const MOST_REPETITIONS: u32 = 5;

/// What a client is made of.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    /// URL, certificates and token.
    pub keys: HttpKeys,
    /// The bound on a whole poll.
    pub timeout: Duration,
    /// The bound on an answer after decompression, in bytes.
    pub max_bytes: u64,
}

impl From<&settings::Source> for HttpSettings {
    fn from(source: &settings::Source) -> Self {
        let keys = source.of_kind.http.clone();
        Self { keys, timeout: source.timeout, max_bytes: source.max_bytes }
    }
}

impl HttpSettings {
    /// The same for another URL.
    pub(crate) fn with_url(mut self, url: String) -> Self {
        self.keys.url = Some(url);
        self
    }
}

/// A client for one URL.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client,
    /// What the client trusts and shows.
    files: TlsFiles,
    /// Why the files as they are now can't be used, if so: the client is of those before.
    warning: Option<String>,
    url: Url,
    meaning: Meaning,
    settings: Arc<HttpSettings>,
    limit: Limit,
    /// When a connection was last left open for the next request.
    kept_since: Option<Instant>,
}

/// The bound on a whole poll: connecting, waiting, reading and parsing.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    timeout: Duration,
    /// The URL without what might hold a token, for errors.
    place: String,
    /// Whether the answer's head has come: what distinguishes a silent server from a slow one.
    head_came: Arc<AtomicBool>,
}

impl Limit {
    fn new(timeout: Duration, place: String) -> Self {
        Self { timeout, place, head_came: Arc::default() }
    }

    /// Runs `exchange` within the bound.
    pub(crate) async fn bound<T>(
        self,
        exchange: impl Future<Output = Result<T, SourceErrorKind>>,
    ) -> Result<T, SourceError> {
        self.head_came.store(false, Ordering::Relaxed);
        let outcome = tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            Err(match self.head_came.load(Ordering::Relaxed) {
                true => SourceErrorKind::SlowAnswer(self.timeout),
                false => SourceErrorKind::NoAnswer(self.timeout),
            })
        });
        outcome.map_err(|fault| SourceError { place: self.place, fault })
    }
}

impl HttpClient {
    /// A client for `path` below the settings' URL, or that URL itself where there is none, that
    /// trusts and shows what the settings say. Connects to nothing yet.
    pub(crate) fn new(
        settings: HttpSettings,
        path: Option<&str>,
        meaning: Meaning,
    ) -> Result<Self, SourceError> {
        let keys = &settings.keys;
        let root = keys.url.as_deref().unwrap_or_default();
        let url = match path {
            Some(path) => Url::parse(&format!("{}{path}", root.trim_end_matches('/'))),
            None => Url::parse(root),
        };
        let url = url.map_err(|error| SourceError {
            place: root.to_owned(),
            fault: SourceErrorKind::Setup(format!("url: {error}")),
        })?;
        let place = sanitize(&url);
        let made = TlsFiles::read(keys).and_then(|files| Ok((build(keys, &files)?, files)));
        let (client, files) = made.map_err(|fault| SourceError { place: place.clone(), fault })?;
        Ok(Self {
            client,
            files,
            warning: None,
            url,
            meaning,
            limit: Limit::new(settings.timeout, place),
            settings: Arc::new(settings),
            kept_since: None,
        })
    }

    /// The same client for another URL of its server.
    pub(crate) fn at(&self, url: Url) -> Self {
        let limit = Limit::new(self.limit.timeout, sanitize(&url));
        Self { url, limit, ..self.clone() }
    }

    /// What is asked for.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL without what might hold a token.
    pub(crate) fn place(&self) -> &str {
        &self.limit.place
    }

    /// Why the certificates and the key as their files hold them now can't be used, if so. Those
    /// from before are in use meanwhile.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Takes other certificates or another key into use, once their files hold some.
    async fn renew(&mut self) {
        let keys = &self.settings.keys;
        if keys.ca.is_none() && keys.cert.is_none() {
            return;
        }
        let (settings, known) = (Arc::clone(&self.settings), self.files.clone());
        let renewed = off_thread(move || {
            let files = TlsFiles::read(&settings.keys)?;
            let client = match files == known {
                true => None,
                false => Some(build(&settings.keys, &files)?),
            };
            Ok::<_, SourceErrorKind>((files, client))
        });
        let place = &self.limit.place;
        match renewed.await {
            Ok((files, client)) => {
                if let Some(client) = client {
                    info!(place, "ca, cert or key was renewed, and is in use");
                    (self.client, self.files, self.kept_since) = (client, files, None);
                }
                self.warning = None;
            }
            Err(fault) => {
                let warning = format!("{fault}; the certificates and key from before are in use");
                if self.warning.as_ref() != Some(&warning) {
                    warn!(place, "{warning}");
                }
                self.warning = Some(warning);
            }
        }
    }

    /// The same client for a request at the same time. It begins on a connection of its own: one
    /// that was kept open may be dead.
    pub(crate) fn beside(&self) -> Self {
        let limit = Limit::new(self.limit.timeout, self.limit.place.clone());
        Self { limit, ..self.clone() }
    }

    /// The bound to run a poll in.
    pub(crate) fn limit(&self) -> Limit {
        self.limit.clone()
    }

    /// The token as its file holds it now.
    pub(crate) async fn token(&self) -> Result<Option<Secret>, SourceErrorKind> {
        match &self.settings.keys.token_file {
            Some(path) => Secret::read(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes a request; the token stands in `header` after `prefix`.
    pub(crate) fn request(
        &self,
        method: Method,
        token: Option<&Secret>,
        (header, prefix): (HeaderName, &str),
    ) -> Result<Request, SourceErrorKind> {
        let mut request = Request::new(method, self.url.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let (Some(token), Some(path)) = (token, &self.settings.keys.token_file) {
            request.headers_mut().insert(header, token.header(prefix, path)?);
        }
        Ok(request)
    }

    /// Asks for the document, whatever its type, within the bound. As it is, with the headers that
    /// ask whether it still holds; none where these `conditions` hold still.
    pub(crate) async fn text(
        &mut self,
        conditions: &HeaderMap,
    ) -> Result<Option<(Vec<u8>, HeaderMap)>, SourceError> {
        let mut request = Request::new(Method::GET, self.url.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/plain, */*"));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        request.headers_mut().extend(conditions.clone());
        let limit = self.limit();
        let exchange = async {
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_MODIFIED if conditions.is_empty() => {
                    return Err(SourceErrorKind::NotModified);
                }
                StatusCode::NOT_MODIFIED => {
                    self.discard(response).await;
                    return Ok(None);
                }
                _ => return Err(self.refusal(response, None).await),
            }
            let next = conditions_or_date(response.headers());
            let (text, _) = self.read(response, Verbatim::default()).await?;
            Ok(Some((text, next)))
        };
        limit.bound(exchange).await
    }

    /// Sends a request that changes nothing at the server. Where a connection that was kept open
    /// turns out dead, it is sent once more on a fresh one. Where a server ends a TLS connection
    /// before the request left, it is tried again a few times: under TLS 1.3 the refusal of this
    /// client's certificate comes after the handshake, and the HTTP library keeps its words only if
    /// it arrives once the request is on its way. Every other failure is the poller's to repeat.
    pub(crate) async fn send(&mut self, request: Request) -> Result<Response, SourceErrorKind> {
        self.renew().await;
        let kept = self.kept_since.take().is_some_and(|since| since.elapsed() <= POOL_IDLE_TIMEOUT);
        let secure = request.url().scheme() == "https";
        let copy = request.try_clone();
        let mut outcome = self.client.execute(request).await;
        for attempt in 0..MOST_REPETITIONS {
            let (Err(error), Some(request)) =
                (&outcome, copy.as_ref().and_then(Request::try_clone))
            else {
                break;
            };
            let dead = kept
                && attempt == 0
                && error.is_request()
                && !error.is_connect()
                && !error.is_timeout();
            if !(dead || secure && never_sent(error)) {
                break;
            }
            debug!(
                place = self.limit.place,
                error = root_cause(error),
                "the connection was dead before it was used: asking again"
            );
            outcome = self.client.execute(request).await;
        }
        let response = outcome.map_err(|error| self.failure(&error, "before the answer"))?;
        self.limit.head_came.store(true, Ordering::Relaxed);
        Ok(response)
    }

    /// Parses the body as it comes. Gives the rows and the bytes after decompression.
    pub(crate) async fn read<R: Reader>(
        &mut self,
        mut response: Response,
        reader: R,
    ) -> Result<(R::Rows, u64), SourceErrorKind> {
        let mut body =
            Body::new(response.headers(), Bounded::new(reader, self.settings.max_bytes))?;
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.failure(&error, "within the answer"))?
        {
            body.feed(&chunk).map_err(|error| body.sink().why(&error))?;
        }
        body.finish().map_err(|error| body.sink().why(&error))?;
        self.kept_since = Some(Instant::now());
        let reader = body.into_sink()?.into_reader();
        let bytes = reader.bytes();
        Ok((reader.close()?, bytes))
    }

    /// Why an answer other than success was given: its status and the beginning of its text.
    pub(crate) async fn refusal(
        &self,
        response: Response,
        token: Option<Secret>,
    ) -> SourceErrorKind {
        let status = response.status();
        let mut location = Excerpt::new(token.clone());
        location.push(
            response
                .headers()
                .get(LOCATION)
                .map_or(&b"an unnamed place"[..], HeaderValue::as_bytes),
        );
        let retry_after = status::retry_after(status, response.headers());
        let text = self.excerpt(response, token).await;
        SourceErrorKind::Status {
            status: status.as_u16(),
            meaning: (self.meaning)(status, &location, &text),
            retry_after,
        }
    }

    /// The beginning of a body. One that breaks off is better than none: the status has said what
    /// counts.
    pub(crate) async fn excerpt(&self, mut response: Response, token: Option<Secret>) -> Excerpt {
        let Ok(mut body) = Body::new(response.headers(), Excerpt::new(token.clone())) else {
            return Excerpt::new(token);
        };
        while let Ok(Some(chunk)) = response.chunk().await {
            if body.feed(&chunk).is_err() || body.sink().is_full() {
                break;
            }
        }
        let _ = body.finish();
        std::mem::replace(body.sink(), Excerpt::new(token))
    }

    /// Reads a body that has nothing to say, so that its connection can serve again.
    pub(crate) async fn discard(&mut self, response: Response) {
        if matches!(response.content_length(), None | Some(0)) && response.bytes().await.is_ok() {
            self.kept_since = Some(Instant::now());
        }
    }

    fn failure(&self, error: &reqwest::Error, during: &'static str) -> SourceErrorKind {
        let cause = root_cause(error);
        if let Some(fault) = tls::classify(&self.settings.keys, &cause) {
            return fault;
        }
        if error.is_connect() {
            let cause = if error.is_timeout() {
                format!("no connection within {CONNECT_TIMEOUT:?}")
            } else {
                cause
            };
            SourceErrorKind::Unreachable { cause }
        } else {
            SourceErrorKind::Disconnected { during, cause }
        }
    }
}

/// Takes a body as it is.
#[derive(Default)]
struct Verbatim(Vec<u8>);

impl Reader for Verbatim {
    type Rows = Vec<u8>;

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn close(self) -> Result<Vec<u8>, SourceErrorKind> {
        Ok(self.0)
    }
}

/// A client that trusts and shows what the files hold.
fn build(keys: &HttpKeys, files: &TlsFiles) -> Result<Client, SourceErrorKind> {
    files
        .apply(keys, Client::builder())?
        .tls_backend_rustls()
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .user_agent(concat!("mapsmith/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| tls::unfit(keys, &error))
}

/// A date among an answer's headers (RFC 9110, section 5.6.7).
pub(crate) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let date = headers.get(name)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// Whether the connection ended before any byte of the request was written.
fn never_sent(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_canceled)
}

/// A URL without query and fragment, which might hold a token; one with a user is refused by the
/// settings.
fn sanitize(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}
