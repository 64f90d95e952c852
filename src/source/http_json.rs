//! A JSON document over HTTP: the object `{"node": "master"}`, a list of objects with named fields, or a list of servers.
//!
//! Asks conditionally (`ETag`, `Last-Modified`; RFC 9110, section 13), so that an unchanged document costs next to nothing.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, StatusCode, Url};

use super::collector;
use super::error::{Fault, SourceError};
use super::format::Format;
use super::http::HttpClient;
use super::{Polled, Source};
use crate::model::Snapshot;
use crate::model::status::PollKind;
use crate::settings::{self, SourceKind};

/// A header of an answer and the one that asks whether it still holds.
const CONDITIONS: [(HeaderName, HeaderName); 2] = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];

/// A JSON document.
#[derive(Debug)]
pub(super) struct HttpJson<F> {
    http: HttpClient,
    url: Url,
    format: F,
    /// What the last whole answer said of its version, as the headers that ask for another one.
    conditions: HeaderMap,
}

impl<F: Format> HttpJson<F> {
    pub(super) fn new(settings: &settings::Source, format: F) -> Result<Self, SourceError> {
        let place = settings.url.as_deref().unwrap_or_default();
        let url = Url::parse(place)
            .map_err(|error| SourceError { place: place.to_owned(), fault: Fault::Setup(format!("url: {error}")) })?;
        Ok(Self { http: HttpClient::new(settings, &url)?, url, format, conditions: HeaderMap::new() })
    }

    async fn poll_once(&mut self, current: Option<&Snapshot<F::Content>>) -> Result<Polled<F::Content>, Fault> {
        let token = self.http.token().await?;
        let mut request = self.http.request(Method::GET, &self.url, token.as_ref(), (AUTHORIZATION, "Bearer "))?;
        // Without a snapshot "not modified" would leave us with nothing.
        let conditional = current.is_some() && !self.conditions.is_empty();
        if conditional {
            request.headers_mut().extend(self.conditions.clone());
        }
        let response = self.http.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => {
                self.http.discard(response).await;
                let current = current.filter(|_| conditional).ok_or(Fault::NotModified)?;
                return Ok(Polled {
                    kind: PollKind::Unchanged,
                    entries: Arc::clone(&current.entries),
                    rejections: Arc::clone(&current.rejections),
                    bytes: 0,
                });
            }
            _ => return Err(self.http.refusal(response, SourceKind::HttpJson, token).await),
        }
        let headers = response.headers();
        let conditions = CONDITIONS
            .iter()
            .filter_map(|(answer, question)| headers.get(answer).map(|value| (question.clone(), value.clone())))
            .collect();
        let is_problem = |value: &HeaderValue| value.as_bytes().starts_with(b"application/problem+json");
        if headers.get(CONTENT_TYPE).is_some_and(is_problem) {
            return Err(Fault::ErrorObject(self.http.excerpt(response, token).await.to_string()));
        }
        let reader = self.format.reader(token);
        let (rows, bytes) = self.http.read(response, reader).await?;
        let (entries, rejections) = collector::settle(rows, current.cloned()).await;
        self.conditions = conditions;
        Ok(Polled { kind: PollKind::Full, entries, rejections, bytes })
    }
}

#[async_trait]
impl<F: Format> Source<F::Content> for HttpJson<F> {
    async fn poll(&mut self, current: Option<&Snapshot<F::Content>>, _now: Timestamp) -> Result<Polled<F::Content>, SourceError> {
        let outcome = self.http.limit().bound(self.poll_once(current)).await;
        outcome.map_err(|fault| self.http.error(fault))
    }
}
