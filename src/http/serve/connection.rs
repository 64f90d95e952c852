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
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::LAST_REQUESTS;
use super::active::{Active, Counted};
use super::outliving::Outliving;
use crate::http::access::Peer;
use crate::telemetry::API_CONNECTIONS;

/// How long a client may not take anything of its answer.
const WRITE_BOUND: Duration = Duration::from_secs(30);
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

/// How a connection is served.
#[derive(Clone)]
pub(super) struct Way {
    pub router: Router,
    /// How long a client may take until its request's head is there; also how long a connection
    /// may stay without a request.
    pub head: Duration,
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
    pub slot: OwnedSemaphorePermit,
    pub outliving: Outliving,
}

/// Serves the requests of one connection.
pub(super) async fn serve<S>(
    stream: S,
    is_http_2: bool,
    Served { peer, way, slot, outliving }: Served,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    gauge!(API_CONNECTIONS).increment(1.0);
    let (stream, once) = (TokioIo::new(stream), way.once);
    let (router, asked) = (TowerToHyperService::new(way.router), CancellationToken::new());
    let active = Active::default();
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        asked.cancel();
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(outliving.clone());
        let (answer, under_way) = (router.call(request), active.begin());
        async move {
            let Ok(response) = answer.await;
            let counted = |body: Body| Body::new(Counted { body, _under_way: under_way });
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
            }
        };
        serve_until!(http.serve_connection(stream, service), idle, active.idle(LAST_REQUESTS))
    } else {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(way.head)
            .max_buf_size(HEAD_SIZE)
            .keep_alive(!once);
        let never = std::future::pending::<()>();
        serve_until!(http.serve_connection(stream, service), is_ending, never)
    };
    if let Err(error) = ended {
        tracing::debug!("a connection of the API ended: {error}");
    }
    gauge!(API_CONNECTIONS).decrement(1.0);
    drop(slot);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_request_that_is_on_its_way_at_the_end_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here"));
        let way = Way { router, head: Duration::from_secs(10), once: false };
        let slots = Arc::new(Semaphore::new(1));
        // Which of both is looked at first is a matter of chance.
        for round in 0..30 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let (stream, address) = listener.accept().await.unwrap();
            let shutdown = CancellationToken::new();
            shutdown.cancel();
            let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let peer = Peer { address, names: Arc::default(), over_tls: false };
            let outliving = Outliving::new(&Default::default());
            let served = Served { peer, way: way.clone(), slot, outliving };
            serve(timed(stream), false, served, shutdown).await;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("here"), "round {round}: {answer:?}");
        }
    }
}
