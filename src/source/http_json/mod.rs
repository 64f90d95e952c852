//! A JSON document over HTTP: the object `{"node": "master"}`, a list of objects with named fields,
//! or a list of servers.
//!
//! Asks conditionally (`ETag`, `Last-Modified`; RFC 9110, section 13), so that an unchanged
//! document costs next to nothing. "Not modified" is trusted for `full_poll` at most, and never
//! where somebody waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::{EntryMap, ServerList, Snapshot};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use super::error::{SourceError, SourceErrorKind};
use super::feed::is_due;
use super::format::{Format, MapFormat, Names, ServerFormat};
use super::transport::http::HttpClient;
use super::transport::http::conditions::conditions;
use super::transport::status;
use super::{Extent, Feed, Notes, Polled, Registry, Unsupported};
use crate::settings::{self, Selector};

/// A JSON document.
pub(super) struct HttpJson {
    settings: Arc<settings::Source>,
    http: HttpClient,
    names: Arc<Names>,
}

impl HttpJson {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let http = HttpClient::new((&*settings).into(), None, status::meaning)?;
        Ok(Self { settings, http, names })
    }

    pub(super) fn feed<F: Format>(&self, format: F) -> Box<dyn Feed<F::Content>> {
        Box::new(Document {
            http: self.http.beside(),
            format,
            conditions: HeaderMap::new(),
            full_poll: self.settings.full_poll,
            read: None,
        })
    }
}

impl Registry for HttpJson {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        Ok(self.feed(MapFormat::document(&self.settings, Arc::clone(&self.names))))
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        Ok(self.feed(ServerFormat::json(&self.settings.of_kind.fields)))
    }
}

/// The document, read as one kind of content.
#[derive(Debug, Clone)]
struct Document<F> {
    http: HttpClient,
    format: F,
    /// What the last whole answer said of its version, as the headers that ask for another one.
    conditions: HeaderMap,
    full_poll: Duration,
    /// Our time of the last whole answer.
    read: Option<Timestamp>,
}

impl<F: Format> Document<F> {
    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceErrorKind> {
        let token = self.http.token().await?;
        let mut request =
            self.http.request(Method::GET, token.as_ref(), (AUTHORIZATION, "Bearer "))?;
        // Without a snapshot "not modified" would leave us with nothing.
        let trusted = extent == Extent::Changes
            && self.read.is_some_and(|read| !is_due(self.full_poll, read, now));
        let conditional = trusted && current.is_some() && !self.conditions.is_empty();
        if conditional {
            request.headers_mut().extend(self.conditions.clone());
        }
        let response = self.http.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => {
                self.http.discard(response).await;
                let current =
                    current.filter(|_| conditional).ok_or(SourceErrorKind::NotModified)?;
                return Ok(Polled::unchanged(current));
            }
            _ => return Err(self.http.refusal(response, token).await),
        }
        let headers = response.headers();
        let conditions = conditions(headers);
        let is_problem =
            |value: &HeaderValue| value.as_bytes().starts_with(b"application/problem+json");
        if headers.get(CONTENT_TYPE).is_some_and(is_problem) {
            return Err(SourceErrorKind::ErrorObject(
                self.http.excerpt(response, token).await.to_string(),
            ));
        }
        let reader = self.format.reader(token);
        let (rows, bytes) = self.http.read(response, reader).await?;
        let polled = Polled::settle(rows, bytes, current).await;
        self.conditions = conditions;
        self.read = Some(now);
        Ok(polled)
    }
}

#[async_trait]
impl<F: Format> Feed<F::Content> for Document<F> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceError> {
        self.http.limit().bound(self.poll_once(extent, current, now)).await
    }

    fn beside(&self) -> Option<Box<dyn Feed<F::Content>>> {
        Some(Box::new(Self { http: self.http.beside(), ..self.clone() }))
    }

    fn notes(&self) -> Notes {
        Notes { warning: self.http.warning().map(str::to_owned), ..Notes::default() }
    }
}
