//! Statistics of backends and servers: one reading, or a stream of them over a WebSocket or as
//! server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use mapsmith_core::access::{Identity, Role};
use mapsmith_core::stats::{self, Subscription};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use utoipa::IntoParams;

use super::access::{Peer, identify, opens_a_socket};
use super::error::HttpError;
use super::events::{ACCEL_BUFFERING, COMMENT, MAY_FOLLOW, RETRY, message};
use super::request::{Parameters, QueryParameters};
use crate::api::places::Place;
use crate::api::types::StatsReport;
use crate::api::{Api, requests};
use crate::stats::Watching;

type Shared = State<Arc<Api>>;

/// How long a client of a WebSocket may say nothing, not even that it is there.
const SILENCE: Duration = Duration::from_secs(45);
/// The largest message that a client may send: 500 names of series.
const LARGEST_MESSAGE: usize = 300 * 1024;
/// How long the last frame may take once Mapsmith ends.
const LAST_FRAME: Duration = Duration::from_millis(500);
/// The most bytes of the reason of an end (RFC 6455, section 5.5).
const LONGEST_REASON: usize = 123;

/// Which figures.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsQuery {
    /// Series like `backend/web` or `edge1/server/web/*`, with commas between; all of them where
    /// none is named.
    #[serde(default)]
    pub(super) series: String,
}

impl QueryParameters for StatsQuery {
    const KNOWN: &str = "the only parameter is series";
}

/// Which figures, how often, and how much of what was. Over a WebSocket a message may say so, too.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsStreamQuery {
    /// Series like `backend/web` or `edge1/server/web/*`, with commas between.
    #[serde(default)]
    pub(super) series: String,
    /// How often, from 1s to 60s: 2s unless given.
    pub(super) every: Option<String>,
    /// How much of what was is sent first, up to 300s.
    pub(super) backlog: Option<String>,
}

impl QueryParameters for StatsStreamQuery {
    const KNOWN: &str = "the parameters are series, every and backlog";
}

/// What backends and servers do right now, in every HAProxy.
#[utoipa::path(
    get,
    path = "/v1/stats",
    params(StatsQuery),
    responses((status = 200, body = StatsReport))
)]
pub(super) async fn stats(
    State(api): Shared,
    Parameters(query): Parameters<StatsQuery>,
) -> Result<Json<StatsReport>, HttpError> {
    let wanted = requests::series(&query.series)?;
    let items = api.stats.reading(&wanted).await.map_err(HttpError::BadRequest)?;
    Ok(Json(StatsReport { as_of: Timestamp::now(), items }))
}

/// What backends and servers do, as it comes: over a WebSocket, or as server-sent events.
///
/// Both send the same frames, each a JSON text of at most 64 KiB with a `type`: `schema`, `stats`,
/// `gap`, `error`. docs/api.md describes them.
#[utoipa::path(
    get,
    path = "/v1/stats/stream",
    params(
        StatsStreamQuery,
        ("Upgrade" = Option<String>, Header, description = "`websocket`"),
    ),
    responses(
        (status = 101, description = "a WebSocket: send a subscription, get frames"),
        (
            status = 200,
            body = String,
            content_type = "text/event-stream",
            description = "with `Accept: text/event-stream`; it does not end by itself",
        ),
    )
)]
pub(super) async fn stream(
    State(api): Shared,
    Extension(identity): Extension<Identity>,
    Parameters(query): Parameters<StatsStreamQuery>,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Result<Response, HttpError> {
    let (parts, _) = request.into_parts();
    let place = api.follow(&identity, parts.version < Version::HTTP_2);
    let subscription = query.subscription()?;
    match socket {
        Ok(socket) => {
            let socket = socket.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE);
            Ok(socket.on_upgrade(async move |socket| match place {
                Ok(place) => {
                    let follower = Follower::new(api, identity, parts, place, subscription);
                    talk(socket, follower).await;
                }
                // A page sees why a socket was closed, and never why it was not opened.
                Err(full) => end(socket, &api, close_code::AGAIN, &full.to_string()).await,
            }))
        }
        Err(error) if opens_a_socket(&parts) => Err(HttpError::BadRequest(error.body_text())),
        Err(_) if takes_events(&parts.headers) => {
            let subscription = subscription.ok_or_else(|| {
                HttpError::BadRequest("name series, like series=backend/web".to_owned())
            })?;
            let follower = Follower::new(api, identity, parts, place?, Some(subscription));
            Ok(events(follower))
        }
        Err(_) => Err(HttpError::BadRequest(
            "open a WebSocket, or ask for server-sent events by `Accept: text/event-stream`"
                .to_owned(),
        )),
    }
}

/// Whether a client says that it takes server-sent events.
fn takes_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NoRights,
    Shutdown,
}

impl End {
    fn why(self) -> &'static str {
        match self {
            Self::NoRights => "whoever you are may not watch any more",
            Self::Shutdown => "Mapsmith ends, or takes other settings",
        }
    }

    fn code(self) -> u16 {
        match self {
            Self::NoRights => close_code::POLICY,
            Self::Shutdown => close_code::AWAY,
        }
    }
}

/// Somebody who watches, and what has shown who that is.
struct Follower {
    api: Arc<Api>,
    identity: Identity,
    parts: Parts,
    peer: Peer,
    watching: Watching,
    waiting: VecDeque<String>,
    /// When it was last looked whether they still may.
    checked: Instant,
    _place: Place,
}

impl Follower {
    fn new(
        api: Arc<Api>,
        identity: Identity,
        parts: Parts,
        place: Place,
        subscription: Option<Subscription>,
    ) -> Self {
        let (peer, watching) = (Peer::of(&parts), Watching::new(Arc::clone(&api.stats)));
        let (waiting, checked) = (VecDeque::new(), Instant::now());
        let mut follower =
            Self { api, identity, parts, peer, watching, waiting, checked, _place: place };
        if let Some(subscription) = subscription {
            follower.subscribe(subscription);
        }
        follower
    }

    fn subscribe(&mut self, subscription: Subscription) {
        // What waits is of the one before.
        self.waiting.clear();
        let first = self.watching.subscribe(subscription);
        self.waiting.push_back(first.unwrap_or_else(|error| stats::error(&error)));
    }

    /// Takes a message of the client.
    fn asked(&mut self, text: &str) {
        if self.api.access.admit(&self.identity, false).is_err() {
            self.waiting.push_back(stats::error("too many requests; say less in a second"));
            return;
        }
        match Subscription::parse(text) {
            Ok(subscription) => self.subscribe(subscription),
            Err(error) => self.waiting.push_back(stats::error(&error.to_string())),
        }
    }

    /// The next frame; why there is none any more. Nothing is lost where it is dropped.
    async fn next(&mut self) -> Result<String, End> {
        loop {
            if self.checked.elapsed() >= MAY_FOLLOW {
                self.checked = Instant::now();
                if !self.may_follow() {
                    return Err(End::NoRights);
                }
            }
            if let Some(frame) = self.waiting.pop_front() {
                return Ok(frame);
            }
            self.waiting.extend(self.watching.take());
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.api.shutdown.cancelled() => return Err(End::Shutdown),
                () = self.watching.changed() => {}
                () = sleep(MAY_FOLLOW) => {}
            }
        }
    }

    /// A token may have been revoked, and a session ended.
    fn may_follow(&self) -> bool {
        let identity = identify(&self.api.access, &self.parts, &self.peer, false);
        identity.is_ok_and(|identity| identity.role >= Role::Viewer)
    }
}

/// Serves a WebSocket to its end.
async fn talk(mut socket: WebSocket, mut follower: Follower) {
    let api = Arc::clone(&follower.api);
    let (mut heard, mut ping_at) = (Instant::now(), Instant::now() + COMMENT);
    loop {
        let message = tokio::select! {
            received = socket.recv() => {
                heard = Instant::now();
                match received {
                    Some(Ok(Message::Text(text))) => follower.asked(&text),
                    Some(Ok(Message::Binary(_))) => {
                        let error = stats::error("a subscription is a JSON text");
                        follower.waiting.push_back(error);
                    }
                    // The answer to a ping is sent by itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                }
                continue;
            }
            next = follower.next() => match next {
                Ok(frame) => Message::Text(frame.into()),
                Err(why) => return end(socket, &api, why.code(), why.why()).await,
            },
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + COMMENT;
                Message::Ping(Vec::new().into())
            }
            () = sleep_until(heard + SILENCE) => {
                let why = "nothing was heard of you for 45 seconds";
                return end(socket, &api, close_code::AWAY, why).await;
            }
        };
        if !send(&mut socket, &api, message).await {
            return;
        }
    }
}

/// Sends a frame, however slowly it is taken, but at the end of Mapsmith. Whether it was sent.
async fn send(socket: &mut WebSocket, api: &Api, message: Message) -> bool {
    let over = async {
        api.shutdown.cancelled().await;
        sleep(LAST_FRAME).await;
    };
    tokio::select! {
        sent = socket.send(message) => sent.is_ok(),
        () = over => false,
    }
}

/// Closes a WebSocket: says why, and waits a moment until the client has heard it.
async fn end(mut socket: WebSocket, api: &Api, code: u16, why: &str) {
    let mut end = why.len().min(LONGEST_REASON);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame { code, reason: why[..end].into() };
    if send(&mut socket, api, Message::Close(Some(frame))).await {
        let closed = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(LAST_FRAME, closed).await;
    }
}

/// The same frames as server-sent events.
fn events(follower: Follower) -> Response {
    let text = |frame: &str| {
        let data: Value = serde_json::from_str(frame).unwrap_or_default();
        let kind = data["type"].as_str().unwrap_or_default().to_owned();
        format!("event: {kind}\ndata: {frame}\n\n")
    };
    let body = stream::unfold(Some(follower), move |follower| async move {
        let mut follower = follower?;
        let next = timeout(COMMENT, follower.next()).await;
        match next {
            Ok(Ok(frame)) => Some((Ok::<_, Infallible>(text(&frame)), Some(follower))),
            Err(_) => Some((Ok(":\n\n".to_owned()), Some(follower))),
            Ok(Err(why)) => {
                let data = serde_json::json!({"at": Timestamp::now(), "text": why.why()});
                let retry = format!("retry: {}\n", fastrand::u64(RETRY));
                Some((Ok(retry + &message(None, "bye", &data)), None))
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (ACCEL_BUFFERING, "no"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

impl From<stats::SubscriptionError> for HttpError {
    fn from(error: stats::SubscriptionError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl StatsStreamQuery {
    /// What the query asks for; none where it asks for nothing.
    fn subscription(&self) -> Result<Option<Subscription>, HttpError> {
        let (every, backlog) = (self.every.as_deref(), self.backlog.as_deref());
        let series: Vec<_> = self.series.split(',').filter(|name| !name.is_empty()).collect();
        let subscription = Subscription::new(series.iter().copied(), every, backlog)?;
        Ok((!series.is_empty()).then_some(subscription))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_to_whoever_says_that_they_take_them() {
        let takes = |given: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, given.parse().unwrap())]);
            takes_events(&headers)
        };
        assert!(takes("text/event-stream") && takes("text/html, Text/Event-Stream;q=0.9"));
        assert!(!takes("*/*") && !takes("application/json") && !takes_events(&HeaderMap::new()));
    }
}
