//! Consul: the instances of services (`/v1/health/service`), and the node map in its key-value
//! store (`/v1/kv`).
//!
//! Every poll asks for everything. In between a request that Consul answers once something has
//! changed asks for the next poll, see [`changes`].
//!
//! Consul answers with success where it left out what the token may not read, and where the server
//! that answers has lost its leader; headers say so. Neither answer is taken. And a server that was
//! just started leads before it knows again all that it knew: so what is older than the answer
//! before, and the first answer, is asked for in the mode in which a leader answers once it does.

mod changes;
mod health;
pub(super) mod keys;
mod kv;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::status::Watch;
use mapsmith_core::{EntryMap, ServerList, Snapshot};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Response, StatusCode, Url};

use super::error::{Excerpt, SourceError, SourceErrorKind};
use super::format::{Format, MapFormat, Names, Reader};
use super::transport::http::HttpClient;
use super::transport::secret::Secret;
use super::transport::status;
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};
use changes::{Changes, index_of};
pub(super) use health::HealthFormat;
use keys::{Consistency, ConsulSelector};

/// Where the token stands.
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// The keys below a folder.
pub(super) fn map_format(names: Arc<Names>) -> MapFormat {
    MapFormat::list(kv::fields(), names).with_entries_of(kv::entry)
}

/// A Consul.
pub(super) struct Consul {
    settings: Arc<settings::Source>,
    http: HttpClient,
    names: Arc<Names>,
}

impl Consul {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let http = HttpClient::new((&*settings).into(), None, meaning)?;
        Ok(Self { settings, http, names })
    }

    /// What is asked for at this path.
    fn request(&self, path: &[&str], datacenter: Option<&str>) -> Request {
        let keys = &self.settings.of_kind.consul;
        let mut url = self.http.url().clone();
        // A URL of http or https has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if let Some(datacenter) = datacenter.or(keys.datacenter.as_deref()) {
            url.query_pairs_mut().append_pair("dc", datacenter);
        }
        let http = self.http.at(url);
        Request { http, consistency: keys.consistency }
    }
}

impl Registry for Consul {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        let Some(folder) = &self.settings.of_kind.consul.kv else {
            return Err(Unsupported::new(&self.settings.name, "a consul without kv has no nodes"));
        };
        let path: Vec<_> = ["kv"].into_iter().chain(folder.split('/')).collect();
        let mut request = self.request(&path, None);
        request.add("recurse", "");
        if request.consistency == Consistency::Cached {
            request.consistency = Consistency::Default;
        }
        Ok(Box::new(ConsulFeed::new(request, map_format(Arc::clone(&self.names)), true)))
    }

    fn servers(&self, of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        let selector = of.read::<ConsulSelector>();
        let ConsulSelector { service, tag, passing, datacenter } = selector
            .map_err(|problems| Unsupported::new(&self.settings.name, problems.join("; ")))?;
        let mut request = self.request(&["health", "service", &service], datacenter.as_deref());
        if passing {
            request.add("passing", "1");
        }
        tag.iter().for_each(|tag| request.add("tag", tag));
        Ok(Box::new(ConsulFeed::new(request, HealthFormat, false)))
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
struct Request {
    http: HttpClient,
    consistency: Consistency,
}

impl Request {
    fn add(&mut self, parameter: &str, value: &str) {
        let mut url = self.http.url().clone();
        url.query_pairs_mut().append_pair(parameter, value);
        self.http = self.http.at(url);
    }

    /// Asks, with further parameters.
    async fn send(
        &mut self,
        consistency: Consistency,
        more: &[(&str, &str)],
    ) -> Result<(Response, Option<Secret>), SourceErrorKind> {
        let token = self.http.token().await?;
        let mut request = self.http.request(Method::GET, token.as_ref(), (TOKEN, ""))?;
        extend(request.url_mut(), consistency, more);
        Ok((self.http.send(request).await?, token))
    }

    /// Asks Consul to answer once the index is another, or after `wait`. The body is left: dropping
    /// the answer closes its connection.
    async fn send_waiting(&mut self, index: u64, wait: Duration) -> Result<HeaderMap, String> {
        let (index, wait) = (index.to_string(), format!("{}s", wait.as_secs()));
        let waiting = [("index", index.as_str()), ("wait", wait.as_str())];
        let sent = self.send(self.consistency, &waiting).await;
        let (response, token) = sent.map_err(|fault| fault.to_string())?;
        match response.status() {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(response.headers().clone()),
            _ => Err(self.http.refusal(response, token).await.to_string()),
        }
    }
}

fn extend(url: &mut Url, consistency: Consistency, more: &[(&str, &str)]) {
    let mode = consistency.parameter().map(|mode| (mode, ""));
    if mode.is_some() || !more.is_empty() {
        url.query_pairs_mut().extend_pairs(mode.iter().chain(more));
    }
}

/// What a request is answered with, read as one kind of content.
struct ConsulFeed<F> {
    request: Request,
    format: F,
    /// Whether "not found" says that nothing is there: so Consul answers of an empty folder.
    may_be_missing: bool,
    /// The index of the last answer.
    known: Option<u64>,
    changes: Changes,
}

impl<F: Format> ConsulFeed<F> {
    fn new(request: Request, format: F, may_be_missing: bool) -> Self {
        Self { request, format, may_be_missing, known: None, changes: Changes::new() }
    }

    /// Asks; twice where the leader's first answer is older than the one before.
    async fn ask(
        &mut self,
        consistency: Consistency,
    ) -> Result<(Response, Option<Secret>), SourceErrorKind> {
        let known = match (consistency, self.known) {
            (Consistency::Default, Some(known)) => known,
            (Consistency::Default, None) => {
                return self.request.send(Consistency::Consistent, &[]).await;
            }
            // Whoever chose another mode has chosen how old an answer may be.
            _ => return self.request.send(consistency, &[]).await,
        };
        let (response, token) = self.request.send(consistency, &[]).await?;
        let is_older = index_of(response.headers()).is_some_and(|index| index < known);
        if !is_older {
            return Ok((response, token));
        }
        self.request.http.discard(response).await;
        self.request.send(Consistency::Consistent, &[]).await
    }

    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
    ) -> Result<Polled<F::Content>, SourceErrorKind> {
        // Who waits for everything must not get what an agent has kept.
        let consistency = match (self.request.consistency, extent) {
            (Consistency::Cached, Extent::Everything) => Consistency::Default,
            (consistency, _) => consistency,
        };
        let (response, token) = self.ask(consistency).await?;
        let index = index_of(response.headers());
        // A "not found" of Consul's own has an index.
        let is_empty =
            self.may_be_missing && response.status() == StatusCode::NOT_FOUND && index.is_some();
        if response.status() != StatusCode::OK && !is_empty {
            return Err(self.request.http.refusal(response, token).await);
        }
        check_headers(response.headers())?;
        let mut reader = self.format.reader(token);
        let (rows, bytes) = match is_empty {
            true => {
                self.request.http.discard(response).await;
                reader.feed(b"[]")?;
                (reader.close()?, 0)
            }
            false => self.request.http.read(response, reader).await?,
        };
        let polled = Polled::settle(rows, bytes, current).await;
        self.known = index;
        let request = &self.request;
        self.changes.follow(index, || request.beside());
        Ok(polled)
    }
}

#[async_trait]
impl<F: Format> Feed<F::Content> for ConsulFeed<F> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        _now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceError> {
        let limit = self.request.http.limit();
        let outcome = limit.bound(self.poll_once(extent, current)).await;
        if outcome.is_err() {
            self.changes.stop();
        }
        outcome
    }

    async fn changed(&mut self) {
        self.changes.next().await;
    }

    fn beside(&self) -> Option<Box<dyn Feed<F::Content>>> {
        let request = self.request.beside();
        Some(Box::new(Self::new(request, self.format.clone(), self.may_be_missing)))
    }

    fn notes(&self) -> Notes {
        let failure = self.changes.failure();
        let polled_only = || Some(format!("changes are noticed at polls only: {}", failure?));
        Notes {
            watch: Some(match self.changes.is_waiting() {
                true => Watch::Watched,
                false => Watch::PolledOnly,
            }),
            warning: self.request.http.warning().map(str::to_owned).or_else(polled_only),
        }
    }
}

impl Request {
    /// The same for a request at the same time.
    fn beside(&self) -> Self {
        Self { http: self.http.beside(), consistency: self.consistency }
    }
}

/// What Consul says of its own answer.
fn check_headers(headers: &HeaderMap) -> Result<(), SourceErrorKind> {
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
    if says("x-consul-results-filtered-by-acls", "true") {
        return Err(SourceErrorKind::NotWhole(
            "Consul left out what the token may not read; give the token of token_file \
                service:read and node:read for all of the service's instances (for kv: key:read)",
        ));
    }
    if says("x-consul-knownleader", "false") {
        return Err(SourceErrorKind::NotWhole(
            "the Consul server that answered knows no leader, so its answer may be old; see to \
                the Consul servers (consul operator raft list-peers)",
        ));
    }
    Ok(())
}

/// What a status means where a Consul was asked.
fn meaning(code: StatusCode, location: &Excerpt, text: &Excerpt) -> String {
    let number = code.as_u16();
    let said = text.to_string();
    match number {
        401 | 403 => format!(
            "access was refused ({number}): {text}; the token of token_file needs service:read and \
                node:read (for kv: key:read)"
        ),
        500 if said.contains("No cluster leader") => format!(
            "the Consul servers have no leader (500): {text}; see to them (consul operator raft \
                list-peers)"
        ),
        500 if said.contains("No path to datacenter") => {
            format!("does not know the datacentre (500): {text}; see datacenter")
        }
        404 => format!("answered 404: {text}; is the url the root of a Consul?"),
        _ => status::meaning(code, location, text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::status::assert_meanings;
    use super::*;

    #[test]
    fn a_status_says_what_to_do() {
        assert_meanings(
            meaning,
            &[
                (403, &["refused (403): TEXT", "service:read", "token_file"]),
                (404, &["the root of a Consul"]),
                (500, &["failed (500): TEXT"]),
                (503, &["unavailable"]),
            ],
        );
        let leaderless = {
            let mut excerpt = Excerpt::new(None);
            excerpt.push(b"No cluster leader");
            meaning(StatusCode::INTERNAL_SERVER_ERROR, &Excerpt::new(None), &excerpt)
        };
        assert!(leaderless.contains("have no leader (500): No cluster leader"), "{leaderless}");
    }
}
