//! One connection: its requests, each with who is at the other end, until it is idle, closed or
//! Mapsmith ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::active::{Active, Counted};
use super::outliving::Outliving;
use super::{LAST_REQUESTS, Place};
use crate::http::access::Peer;
use crate::telemetry::API_CONNECTIONS;

/// How long a client may not take anything of its answers.
pub(super) const WRITE_BOUND: Duration = Duration::from_secs(30);
const HEAD_SIZE: usize = 16 * 1024;
/// How long whoever has connected before the end may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_millis(200);
/// How many requests one connection of HTTP/2 may have under way.
const MOST_STREAMS: u32 = 64;
/// How often it is asked whether its client is still there, and how long that may take.
const ALIVE: Duration = Duration::from_secs(20);

/// A connection whose writes have a deadline.
pub(super) type Timed = Pin<Box<TimeoutStream<TcpStream>>>;

pub(super) fn timed(stream: TcpStream) -> Timed {
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_BOUND));
    stream
}

/// Holds a connection: there is no other use for its place while anybody has one of these.
#[derive(Debug, Clone)]
struct Held(#[expect(dead_code, reason = "it is there to be dropped")] mpsc::Sender<Infallible>);

/// How a connection is served.
#[derive(Clone)]
pub(super) struct Way {
    pub router: Router,
    /// How long a client may take until its request's head is there; also how long a connection
    /// may stay without a request.
    pub head: Duration,
    /// How long a client may not take anything of its answers.
    pub write: Duration,
    /// Whether it is closed after one answer.
    pub once: bool,
}

/// Serves `serving` until it ends by itself, or until `$is_over`, when what is under way may end.
macro_rules! serve_until {
    ($serving:expr, $is_over:expr, $ends:expr) => {{
        let mut serving = std::pin::pin!($serving);
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = $is_over => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving => ended,
                    () = $ends => Ok(()),
                }
            }
        }
    }};
}

/// What serves a connection.
pub(super) struct Served {
    pub peer: Peer,
    pub way: Way,
    pub place: Place,
    pub outliving: Outliving,
}

/// Serves the requests of one connection.
pub(super) async fn serve<S>(
    stream: S,
    is_http_2: bool,
    Served { peer, way, place, outliving }: Served,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    gauge!(API_CONNECTIONS).increment(1.0);
    let (stream, once) = (TokioIo::new(stream), way.once);
    let (router, asked) = (TowerToHyperService::new(way.router), CancellationToken::new());
    let active = Active::default();
    // Whoever has taken the connection over, as a WebSocket does, holds it for as long.
    let (held, mut let_go) = mpsc::channel(1);
    let held = Held(held);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        asked.cancel();
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(held.clone());
        request.extensions_mut().insert(outliving.clone());
        let (answer, mut under_way) = (router.call(request), active.begin());
        async move {
            let Ok(response) = answer.await;
            // hyper asks for none of it before the client takes something.
            under_way.waits(false);
            let counted = |body: Body| Body::new(Counted { body, under_way });
            Ok::<Response, Infallible>(response.map(counted))
        }
    });
    // hyper closes a connection by which nothing was asked yet, also where a request is on its way.
    let is_ending = async {
        shutdown.cancelled().await;
        let _ = timeout(FIRST_REQUEST, asked.cancelled()).await;
    };
    let ended = if is_http_2 {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(HEAD_SIZE as u32)
            .keep_alive_interval(Some(ALIVE))
            .keep_alive_timeout(ALIVE);
        let idle = async {
            tokio::select! {
                () = is_ending => {}
                () = active.idle(way.head) => {}
                () = active.stuck(way.write) => {}
            }
        };
        serve_until!(http.serve_connection(stream, service), idle, active.last(LAST_REQUESTS))
    } else {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(way.head)
            .max_buf_size(HEAD_SIZE)
            .keep_alive(!once);
        let never = std::future::pending::<()>();
        let serving = http.serve_connection(stream, service).with_upgrades();
        serve_until!(serving, is_ending, never)
    };
    if let Err(error) = ended {
        tracing::debug!("a connection of the API ended: {error}");
    }
    drop(held);
    let_go.recv().await;
    gauge!(API_CONNECTIONS).decrement(1.0);
    drop(place);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    fn way(router: Router) -> Way {
        let head = Duration::from_secs(10);
        Way { router, head, write: Duration::from_millis(50), once: false }
    }

    #[tokio::test]
    async fn a_client_of_http_2_that_takes_nothing_of_its_answer_loses_its_connection() {
        let router = Router::new().route("/", get(async || "x".repeat(1_000_000)));
        let (mut client, stream) = tokio::io::duplex(64 * 1024);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113, 6.5.2).
        client.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
        // HEADERS of stream 1, all of it: GET http://x/ (RFC 7541, appendix A).
        let headers = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 1, b'x'];
        client.write_all(&headers).await.unwrap();
        let slots = Arc::new(Semaphore::new(1));
        let place = Place { _slot: Arc::clone(&slots).acquire_owned().await.unwrap(), _own: None };
        let address = "192.0.2.1:1".parse().unwrap();
        let peer = Peer { address, certificate: None, over_tls: true };
        let outliving = Outliving::new(&Default::default());
        let served = Served { peer, way: way(router), place, outliving };
        let served = serve(stream, true, served, CancellationToken::new());
        let ended = timeout(Duration::from_secs(30), served).await;
        assert!(ended.is_ok(), "it would keep its place for ever");
        assert_eq!(slots.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_request_that_is_on_its_way_at_the_end_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here"));
        let way = way(router);
        let slots = Arc::new(Semaphore::new(1));
        // Which of both is looked at first is a matter of chance.
        for round in 0..30 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let (stream, address) = listener.accept().await.unwrap();
            let shutdown = CancellationToken::new();
            shutdown.cancel();
            let _slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let place = Place { _slot, _own: None };
            let peer = Peer { address, certificate: None, over_tls: false };
            let outliving = Outliving::new(&Default::default());
            let served = Served { peer, way: way.clone(), place, outliving };
            serve(timed(stream), false, served, shutdown).await;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("here"), "round {round}: {answer:?}");
        }
    }
}
