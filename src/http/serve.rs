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
    let mut serving = std::pin::pin!(
        http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
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
    use super::*;

    #[test]
    fn the_api_gets_a_quarter_of_the_descriptors_at_most() {
        for (descriptors, expected) in
            [(0, 1), (64, 16), (1000, 250), (1024, 256), (1_048_576, 256)]
        {
            assert_eq!(connections_within(descriptors), expected, "{descriptors}");
        }
    }
}
