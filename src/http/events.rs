//! Events: a page of them, or a stream of server-sent events that resumes where it ended.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use mapsmith_core::access::{Identity, Role};
use mapsmith_core::events::Event;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::access::{Peer, identify};
use super::error::HttpError;
use super::request::{ActivityQuery, EventsQuery, Parameters};
use crate::api::events::Topics;
use crate::api::places::Place;
use crate::api::types::ActivityReport;
use crate::api::{Api, requests};
use crate::events::EventsError;

type Shared = State<Arc<Api>>;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(super) const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How often something is sent, be it nothing: proxies end what is silent.
pub(super) const COMMENT: Duration = Duration::from_secs(15);
/// How often it is looked whether whoever follows still may.
pub(super) const MAY_FOLLOW: Duration = Duration::from_secs(1);
/// How many events are sent at once.
const BATCH: usize = 100;
/// When to come back after the end, in milliseconds.
pub(super) const RETRY: std::ops::Range<u64> = 1000..5000;
/// Greater than any number that is given.
const NO_NUMBER: u64 = u64::MAX;

/// Events, page by page.
#[utoipa::path(
    get,
    path = "/v1/activity",
    params(ActivityQuery),
    responses(
        (status = 200, body = ActivityReport),
        (status = 410, description = "what follows is no longer kept; `oldest` is"),
    )
)]
pub(super) async fn activity(
    State(api): Shared,
    Parameters(query): Parameters<ActivityQuery>,
) -> Result<Json<ActivityReport>, HttpError> {
    let (topics, limit) = (requests::topics(&query.topics)?, requests::limit(query.limit)?);
    let after = (
        requests::event_number("after", query.after)?,
        requests::event_number("oldest", query.oldest)?,
    );
    Ok(Json(api.activity(after, &topics, limit).await?))
}

/// Events as they happen, as server-sent events that resume where they ended.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(EventsQuery,
        (
            "Last-Event-ID" = Option<String>,
            Header,
            description = "the last event that the client has; counts more than `after`",
        )),
    responses(
        (
            status = 200,
            body = inline(Object),
            content_type = "text/event-stream",
            description = "a stream that does not end by itself",
        ),
    )
)]
pub(super) async fn events(
    State(api): Shared,
    Extension(identity): Extension<Identity>,
    Parameters(query): Parameters<EventsQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    let topics = requests::topics(&query.topics)?;
    let given = requests::event_number("after", query.after)?;
    let (parts, _) = request.into_parts();
    let place = api.follow(&identity, parts.version < Version::HTTP_2)?;
    let after = last_id(&parts.headers).or(given);
    let follower = Follower::new(api, parts, after, topics, place);
    let body = stream::unfold(follower, |mut follower| async move {
        let text = follower.next().await?;
        Some((Ok::<_, Infallible>(text), follower))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (ACCEL_BUFFERING, "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The last event that a client has got over a stream that has ended. It has the address of before
/// still, so this counts more than what stands there.
fn last_id(headers: &HeaderMap) -> Option<u64> {
    let id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty())?;
    Some(id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(NO_NUMBER))
}

/// Somebody who follows the events.
struct Follower {
    api: Arc<Api>,
    /// What has shown who that is.
    parts: Parts,
    peer: Peer,
    topics: Topics,
    /// The number of the last event that was looked at.
    position: u64,
    /// Up to here it knows that some are gone.
    known: u64,
    last: watch::Receiver<u64>,
    waiting: VecDeque<String>,
    comment_at: Instant,
    is_over: bool,
    _place: Place,
}

impl Follower {
    fn new(api: Arc<Api>, parts: Parts, after: Option<u64>, topics: Topics, place: Place) -> Self {
        let ((last, oldest), peer) = (api.events.bounds(&topics), Peer::of(&parts));
        let position = after.unwrap_or(last);
        let revision = api.decision.borrow().map.in_force.as_ref().map(|it| it.number);
        let hello = json!({
            "at": Timestamp::now(),
            "id": last,
            "oldest": oldest,
            "revision": revision,
            "site": api.settings.site.name,
        });
        let id = (position != NO_NUMBER).then_some(position);
        Self {
            last: api.events.subscribe(),
            api,
            parts,
            peer,
            topics,
            position,
            // All that are kept: what is not was told with it.
            known: if position == 0 { oldest.saturating_sub(1) } else { 0 },
            waiting: VecDeque::from([message(id, "hello", &hello)]),
            comment_at: Instant::now() + COMMENT,
            is_over: false,
            _place: place,
        }
    }

    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                self.comment_at = Instant::now() + COMMENT;
                return Some(text);
            }
            if self.is_over {
                return None;
            }
            if !self.may_follow() {
                self.end("whoever you are may not follow the events any more");
                continue;
            }
            self.last.borrow_and_update();
            match self.api.events.after(self.position, BATCH, (&self.topics, self.known)).await {
                Ok(found) if found.is_empty() => self.wait().await,
                Ok(found) => self.send(&found),
                Err(EventsError::Gone { oldest, .. }) => self.resync(oldest),
                Err(EventsError::Store(error)) => {
                    tracing::error!("a stream of events ends: {error}");
                    self.end("the events can't be read; come back later");
                }
            }
        }
    }

    /// A token may have been revoked, and a session ended.
    fn may_follow(&self) -> bool {
        let identity = identify(&self.api.access, &self.parts, &self.peer, false);
        identity.is_ok_and(|identity| identity.role >= Role::Viewer)
    }

    async fn wait(&mut self) {
        let api = Arc::clone(&self.api);
        tokio::select! {
            () = api.shutdown.cancelled() => self.end("Mapsmith ends, or takes other settings"),
            changed = self.last.changed() => self.is_over |= changed.is_err(),
            () = sleep_until(self.comment_at) => self.waiting.push_back(":\n\n".to_owned()),
            () = sleep(MAY_FOLLOW) => {}
        }
    }

    fn send(&mut self, found: &[Arc<Event>]) {
        let is_asked = |event: &&Arc<Event>| {
            self.topics.is_empty() || self.topics.contains(&event.happening.kind)
        };
        let texts = found.iter().filter(is_asked).map(|event| {
            let data = serde_json::to_value(&**event).unwrap_or_default();
            message(Some(event.id), event.happening.kind.name(), &data)
        });
        let text: String = texts.collect();
        self.position = found.last().map_or(self.position, |event| event.id);
        self.waiting.extend((!text.is_empty()).then_some(text));
    }

    /// What followed is not kept: there is all there is to know in the status.
    fn resync(&mut self, oldest: u64) {
        self.position = self.api.events.bounds(&self.topics).0;
        let data = json!({
            "at": Timestamp::now(),
            "id": self.position,
            "oldest": oldest,
            "snapshot": self.api.access.place_of("/v1/status"),
        });
        self.waiting.push_back(message(Some(self.position), "resync", &data));
    }

    fn end(&mut self, why: &str) {
        self.is_over = true;
        let data = json!({"at": Timestamp::now(), "text": why});
        let retry = format!("retry: {}\n", fastrand::u64(RETRY));
        self.waiting.push_back(retry + &message(None, "bye", &data));
    }
}

/// One event of a stream. JSON has no line breaks in it.
pub(super) fn message(id: Option<u64>, kind: &str, data: &Value) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_event_whatever_its_words_are() {
        let data = json!({"text": "a\nb\r\n\nid: 7"});
        let expected = "id: 3\nevent: bye\ndata: {\"text\":\"a\\nb\\r\\n\\nid: 7\"}\n\n";
        assert_eq!(message(Some(3), "bye", &data), expected);
    }

    #[test]
    fn a_last_id_that_is_none_of_ours_is_none_that_is_kept() {
        let id = |given: &'static str| {
            let given = given.parse().unwrap();
            last_id(&HeaderMap::from_iter([(LAST_EVENT_ID, given)]))
        };
        assert_eq!(
            (id("17"), id(""), id("x1"), id("-1")),
            (Some(17), None, Some(NO_NUMBER), Some(NO_NUMBER))
        );
        assert_eq!(last_id(&HeaderMap::new()), None);
    }
}
