//! A JSON document over HTTP: the object `{"node": "master"}`, a list of objects with named fields,
//! or a list of servers.
//!
//! Asks conditionally (`ETag`, `Last-Modified`; RFC 9110, section 13), so that an unchanged
//! document costs next to nothing. "Not modified" is trusted for `full_poll` at most, and never
//! where somebody waits for the answer.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::Snapshot;
use mapsmith_core::status::PollKind;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, StatusCode, Url};

use super::collector;
use super::error::{SourceError, SourceErrorKind};
use super::format::Format;
use super::http::{self, HttpClient};
use super::kinds::SourceKind;
use super::{Extent, Polled, Source, is_due, signed};
use crate::settings;

/// A header of an answer and the one that asks whether it still holds.
const CONDITIONS: [(HeaderName, HeaderName); 2] =
    [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];

/// Two changes of a document this close together may bear one time: it is told in whole seconds.
const GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// A JSON document.
#[derive(Debug, Clone)]
pub(super) struct HttpJson<F> {
    http: HttpClient,
    url: Url,
    format: F,
    /// What the last whole answer said of its version, as the headers that ask for another one.
    conditions: HeaderMap,
    full_poll: SignedDuration,
    /// Our time of the last whole answer.
    read: Option<Timestamp>,
}

impl<F: Format> HttpJson<F> {
    pub(super) fn new(settings: &settings::Source, format: F) -> Result<Self, SourceError> {
        let place = settings.of_kind.http.url.as_deref().unwrap_or_default();
        let url = Url::parse(place).map_err(|error| SourceError {
            place: place.to_owned(),
            fault: SourceErrorKind::Setup(format!("url: {error}")),
        })?;
        Ok(Self {
            http: HttpClient::new(settings, &url)?,
            url,
            format,
            conditions: HeaderMap::new(),
            full_poll: signed(settings.full_poll),
            read: None,
        })
    }

    async fn poll_once(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceErrorKind> {
        let token = self.http.token().await?;
        let mut request = self.http.request(
            Method::GET,
            &self.url,
            token.as_ref(),
            (AUTHORIZATION, "Bearer "),
        )?;
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
        let (entries, rejections) = collector::settle(rows, current.cloned()).await;
        self.conditions = conditions;
        self.read = Some(now);
        Ok(Polled { kind: PollKind::Full, entries, rejections, bytes })
    }
}

/// The headers that ask whether the answer with these still holds. None where the document was
/// changed within the [`GRAIN`] before the answer: a change right after it would bear the same
/// time, and so may the same `ETag` (nginx makes it of time and size).
fn conditions(headers: &HeaderMap) -> HeaderMap {
    if headers.contains_key(LAST_MODIFIED) {
        let dates = http::date(headers, &LAST_MODIFIED).zip(http::date(headers, &DATE));
        if dates.is_none_or(|(modified, answered)| answered.duration_since(modified) < GRAIN) {
            return HeaderMap::new();
        }
    }
    let kept = |(answer, question): &(HeaderName, HeaderName)| {
        Some((question.clone(), headers.get(answer)?.clone()))
    };
    CONDITIONS.iter().filter_map(kept).collect()
}

#[async_trait]
impl<F: Format> Source<F::Content> for HttpJson<F> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<F::Content>>,
        now: Timestamp,
    ) -> Result<Polled<F::Content>, SourceError> {
        let outcome = self.http.limit().bound(self.poll_once(extent, current, now)).await;
        outcome.map_err(|fault| self.http.error(fault))
    }

    fn beside(&self) -> Option<Box<dyn Source<F::Content>>> {
        Some(Box::new(Self { http: self.http.beside(), ..self.clone() }))
    }
}
