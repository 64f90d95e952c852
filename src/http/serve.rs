//! Connections of the API: how many there may be, and how long a client may take to say what it
//! wants.
//!
//! A client that connects and says nothing needs no token. What it holds must not be missing
//! elsewhere: a descriptor is needed to reach an instance and to write the map file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::heartbeat;
use crate::telemetry::{API_CONNECTIONS, API_CONNECTIONS_REFUSED};

/// The most connections at once, however many descriptors there may be.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take until its request's head is there; also how long a connection may
/// stay without a request.
const HEAD_BOUND: Duration = Duration::from_secs(10);
/// The same on a spare connection, which is closed after one answer.
const SPARE_HEAD_BOUND: Duration = Duration::from_secs(1);
/// How long a client may not take anything of its answer.
const WRITE_BOUND: Duration = Duration::from_secs(30);
const HEAD_SIZE: usize = 16 * 1024;
/// How long requests under way may take to end at a shutdown: a client that never finishes its
/// request must not keep the daemon.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How long nothing is accepted after that failed: what it failed for does not go within
/// microseconds.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// How long whoever has connected before the end may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// How many connections the API may have where `descriptors` may be open in all: a quarter of them,
/// the rest is for routing.
pub fn connections_within(descriptors: usize) -> usize {
    (descriptors / 4).clamp(1, MOST_CONNECTIONS)
}

/// Serves `router` on at most `most` connections at once until shutdown; requests under way have a
/// moment to end. An eighth more get one answer of `spare`, and what comes beyond that is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    spare: Router,
    most: usize,
    shutdown: CancellationToken,
) {
    // There from the start: a counter that begins at 1 has no rise that an alert could see.
    counter!(API_CONNECTIONS_REFUSED).increment(0);
    gauge!(API_CONNECTIONS).set(0.0);
    let (slots, spare_slots) =
        (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(most.div_ceil(8))));
    let (mut serving, mut answering) = (http1::Builder::new(), http1::Builder::new());
    for (builder, bound) in [(&mut serving, HEAD_BOUND), (&mut answering, SPARE_HEAD_BOUND)] {
        builder.timer(TokioTimer::new()).header_read_timeout(bound).max_buf_size(HEAD_SIZE);
    }
    answering.keep_alive(false);
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            () = heartbeat::tick() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let (http, router, slot) = match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => (&serving, &router, slot),
                    Err(_) => {
                        counter!(API_CONNECTIONS_REFUSED).increment(1);
                        match Arc::clone(&spare_slots).try_acquire_owned() {
                            Ok(slot) => (&answering, &spare, slot),
                            Err(_) => continue,
                        }
                    }
                };
                let (http, router) = (http.clone(), router.clone());
                connections.spawn(connection(stream, http, router, slot, shutdown.clone()));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("the API can't accept a connection: {error}");
                }
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(ACCEPT_RETRY) => {}
                }
            }
        }
    }
    drop(listener);
    // What is left then ends with its task.
    let _ =
        timeout(LAST_REQUESTS, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    stream: TcpStream,
    http: http1::Builder,
    router: Router,
    slot: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    gauge!(API_CONNECTIONS).increment(1.0);
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_BOUND));
    let (router, asked) = (TowerToHyperService::new(router), CancellationToken::new());
    let service = service_fn(|request| {
        asked.cancel();
        router.call(request)
    });
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // hyper closes a connection by which nothing was asked yet, also where a request is on its way.
    let is_over = async {
        shutdown.cancelled().await;
        let _ = timeout(FIRST_REQUEST, asked.cancelled()).await;
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = is_over => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection of the API ended: {error}");
    }
    gauge!(API_CONNECTIONS).decrement(1.0);
    drop(slot);
}

/// Whether accepting failed for a client that went away meanwhile.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_request_that_is_on_its_way_at_the_end_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here"));
        let slots = Arc::new(Semaphore::new(1));
        // Which of both is looked at first is a matter of chance.
        for round in 0..30 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let shutdown = CancellationToken::new();
            shutdown.cancel();
            let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new());
            connection(stream, http, router.clone(), slot, shutdown).await;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("here"), "round {round}: {answer:?}");
        }
    }

    #[test]
    fn the_api_gets_a_quarter_of_the_descriptors_at_most() {
        for (descriptors, expected) in
            [(0, 1), (64, 16), (1000, 250), (1024, 256), (1_048_576, 256)]
        {
            assert_eq!(connections_within(descriptors), expected, "{descriptors}");
        }
    }
}
