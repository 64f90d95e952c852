//! PuppetDB: a PQL query for everything, and between full polls one for what changed.
//!
//! The query goes by POST, which takes queries of any length (GET is refused beyond about 12 KB)
//! and changes nothing there.
//!
//! A delta alone is unsafe: a queued command shows up late with its old timestamp, deletions never
//! show, and a master with a slow clock stays behind. So a delta reaches back by `overlap` beyond
//! the newest timestamp that a producer gave (or beyond the server's own time of its last answer,
//! if that is older); a full poll follows after `full_poll`, after anything that went wrong, and
//! whenever somebody waits for the answer. While PuppetDB's clock and this machine's differ by more
//! than `overlap`, all polls are full: which of them is wrong, and by how much the producers'
//! differ, nobody knows.

mod delta;
pub(super) mod keys;
mod pql;
mod replicas;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::status::PollKind;
use mapsmith_core::{EntryMap, ServerList, Snapshot};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::time::Instant;
use tracing::warn;

use self::replicas::Replicas;
use super::error::{SourceError, SourceErrorKind};
use super::feed::{is_due, off_thread, signed};
use super::format::{Fields, Format, MapFormat, Names};
use super::transport::http::{self, HttpClient, HttpSettings};
use super::transport::secret::Secret;
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};

/// Puppet Enterprise's header for a token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-authentication");

/// The query for what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeltaQuery {
    /// As the settings say.
    Given(String),
    /// Made of the query for everything.
    Derived(String),
    /// There is none: every poll is full.
    None,
}

/// What the last answer left.
#[derive(Debug, Clone, Copy)]
struct PollState {
    /// The server's time of the last answer.
    answered: Timestamp,
    /// The newest time at which a producer sent facts, by its own clock; none where rows don't
    /// carry it.
    newest: Option<Timestamp>,
    /// Our time of the last full poll.
    full_poll: Timestamp,
}

/// Clocks that differ by no more than this are not distinguished: a `Date` is in whole seconds and
/// travels for a while.
const LEAST_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// A PuppetDB.
pub(super) struct PuppetDb {
    settings: Arc<settings::Source>,
    /// `url`, then the others.
    servers: Vec<HttpClient>,
    names: Arc<Names>,
}

impl PuppetDb {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let usual: HttpSettings = (&*settings).into();
        let fallbacks = settings.of_kind.puppetdb.fallback_urls.iter().cloned();
        let urls = usual.keys.url.clone().into_iter().chain(fallbacks);
        let servers = urls.map(|url| {
            let settings = usual.clone().with_url(url);
            HttpClient::new(settings, Some("/pdb/query/v4"), status::meaning)
        });
        let servers = servers.collect::<Result<_, _>>()?;
        Ok(Self { settings, servers, names })
    }
}

impl Registry for PuppetDb {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        let keys = &self.settings.of_kind.puppetdb;
        let query = keys.query().to_owned();
        let delta_query = match &keys.delta_query {
            Some(given) => DeltaQuery::Given(given.clone()),
            None => pql::derive_delta(&query).map_or(DeltaQuery::None, DeltaQuery::Derived),
        };
        let fields = fields(&self.settings);
        let narrows = fields.node == "certname";
        let format = MapFormat::list(fields, Arc::clone(&self.names));
        let servers = self.servers.iter().map(|http| Nodes {
            http: http.beside(),
            query: query.clone(),
            delta_query: delta_query.clone(),
            narrows,
            format: format.clone(),
            full_poll: self.settings.full_poll,
            overlap: signed(keys.overlap),
            known: None,
            ahead: SignedDuration::ZERO,
        });
        Ok(Box::new(Replicas::new(servers.collect())))
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        Err(Unsupported::new(&self.settings.name, "a puppetdb source lists no servers"))
    }
}

/// The nodes and their masters, as rows of one query.
#[derive(Debug, Clone)]
struct Nodes {
    http: HttpClient,
    query: String,
    delta_query: DeltaQuery,
    format: MapFormat,
    full_poll: Duration,
    overlap: SignedDuration,
    /// None before the first answer and after a failure: then the next poll is full.
    known: Option<PollState>,
    /// By how much PuppetDB's clock was ahead of ours at its last answer.
    ahead: SignedDuration,
    /// Whether single nodes can be asked for, as far as is known.
    narrows: bool,
}

impl Nodes {
    /// The delta query for now, if a delta will do.
    fn delta_query(&self, known: Option<PollState>, now: Timestamp) -> Option<(String, PollState)> {
        let (DeltaQuery::Given(query) | DeltaQuery::Derived(query)) = &self.delta_query else {
            return None;
        };
        let known = known.filter(|known| {
            !self.clocks_differ() && !is_due(self.full_poll, known.full_poll, now)
        })?;
        let latest = known.newest.map_or(known.answered, |newest| newest.min(known.answered));
        let since = latest.checked_sub(self.overlap).ok()?;
        Some((query.replace("{since}", &format!("{since:.3}")), known))
    }

    /// The same, on a connection of its own.
    fn beside_it(&self) -> Self {
        Self { http: self.http.beside(), ..self.clone() }
    }

    fn clocks_differ(&self) -> bool {
        self.ahead.abs() > self.overlap.max(LEAST_SKEW)
    }

    /// The server's time of an answer whose head has just come, `took` after it was asked for at
    /// `now`. It gave that time somewhere in between.
    fn read_clock(&mut self, headers: &HeaderMap, now: Timestamp, took: Duration) -> Timestamp {
        let Some(date) = http::date(headers, &DATE) else { return now };
        let arrived = now.saturating_add(took).unwrap_or(now);
        self.ahead = date.duration_since(date.clamp(now, arrived));
        date
    }

    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot>,
        now: Timestamp,
    ) -> Result<Polled, SourceErrorKind> {
        let token = self.http.token().await?;
        // Taken, and put back by success alone: whatever goes wrong, the next poll is full.
        let known = self.known.take();
        if extent == Extent::Changes
            && let Some(current) = current
            && let Some((query, known)) = self.delta_query(known, now)
        {
            let asked = Instant::now();
            let response = self.ask(&query, token.as_ref()).await?;
            if response.status() == StatusCode::OK {
                let answered = self.read_clock(response.headers(), now, asked.elapsed());
                let (polled, newest) = self.read_changes(response, current, token).await?;
                self.known =
                    Some(PollState { answered, newest: known.newest.max(newest), ..known });
                return Ok(polled);
            }
            let refusal = self.http.refusal(response, token.clone()).await;
            if !matches!(
                (&refusal, &self.delta_query),
                (SourceErrorKind::Status { status: 400, .. }, DeltaQuery::Derived(_))
            ) {
                return Err(refusal);
            }
            warn!(query, %refusal, "PuppetDB rejected the derived delta query; using full polls");
            self.delta_query = DeltaQuery::None;
        }
        let query = self.query.clone();
        let asked = Instant::now();
        let response = self.ask(&query, token.as_ref()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.http.refusal(response, token).await);
        }
        let answered = self.read_clock(response.headers(), now, asked.elapsed());
        let (rows, bytes) = self.http.read(response, self.format.reader(token)).await?;
        let newest = rows.newest();
        let polled = Polled::settle(rows, bytes, current).await;
        self.known = Some(PollState { answered, newest, full_poll: now });
        Ok(polled)
    }

    /// Asks for these nodes alone; what the next delta reaches back to stays as it is.
    async fn look_up_once(
        &mut self,
        nodes: &[String],
        current: &Snapshot,
        now: Timestamp,
    ) -> Result<Polled, SourceErrorKind> {
        let query = if self.narrows { pql::narrow(&self.query, nodes) } else { None };
        let Some(query) = query else {
            return self.poll_once(Extent::Changes, Some(current), now).await;
        };
        let token = self.http.token().await?;
        let response = self.ask(&query, token.as_ref()).await?;
        if response.status() == StatusCode::OK {
            return self.read_changes(response, current, token).await.map(|(polled, _)| polled);
        }
        let refusal = self.http.refusal(response, token).await;
        if !matches!(refusal, SourceErrorKind::Status { status: 400, .. }) {
            return Err(refusal);
        }
        warn!(query, %refusal, "PuppetDB rejected the derived query for single nodes; \
            targeted lookups ask for everything");
        self.narrows = false;
        self.poll_once(Extent::Changes, Some(current), now).await
    }

    /// Lays the rows of an answer over what is known. With the newest timestamp among them.
    async fn read_changes(
        &mut self,
        response: Response,
        current: &Snapshot,
        token: Option<Secret>,
    ) -> Result<(Polled, Option<Timestamp>), SourceErrorKind> {
        let (rows, bytes) = self.http.read(response, self.format.delta_reader(token)).await?;
        let (current, newest) = (current.clone(), rows.newest());
        let (entries, rejections) =
            off_thread(move || delta::lay_over(&current, rows.finish())).await;
        Ok((Polled { kind: PollKind::Delta, entries, rejections, bytes }, newest))
    }

    async fn ask(
        &mut self,
        query: &str,
        token: Option<&Secret>,
    ) -> Result<Response, SourceErrorKind> {
        let mut request = self.http.request(Method::POST, token, (TOKEN_HEADER, ""))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(Body::from(serde_json::json!({ "query": query }).to_string()));
        self.http.send(request).await
    }
}

#[async_trait]
impl Feed<EntryMap> for Nodes {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot>,
        now: Timestamp,
    ) -> Result<Polled, SourceError> {
        self.http.limit().bound(self.poll_once(extent, current, now)).await
    }

    async fn look_up(
        &mut self,
        nodes: &[String],
        current: &Snapshot,
        now: Timestamp,
    ) -> Result<Polled, SourceError> {
        self.http.limit().bound(self.look_up_once(nodes, current, now)).await
    }

    fn beside(&self) -> Option<Box<dyn Feed<EntryMap>>> {
        Some(Box::new(self.beside_it()))
    }

    fn notes(&self) -> Notes {
        let clocks = self.clocks_differ().then(|| {
            let way = if self.ahead.is_positive() { "ahead of" } else { "behind" };
            let by = SignedDuration::from_secs(
                (self.ahead.abs() + SignedDuration::from_millis(500)).as_secs(),
            );
            let overlap = self.overlap;
            format!(
                "PuppetDB's clock is {by:#} {way} this machine's; all polls are full until they \
                    differ by less than overlap ({overlap:#}): set both by NTP"
            )
        });
        let warnings: Vec<_> =
            self.http.warning().map(str::to_owned).into_iter().chain(clocks).collect();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        Notes { warning, ..Notes::default() }
    }
}

/// The fields of a row, as the settings name them or as the default query does.
pub(super) fn fields(settings: &settings::Source) -> Fields {
    let field =
        |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
    Fields {
        node: field(&settings.node_field, "certname"),
        master: field(&settings.master_field, "producer"),
    }
}
