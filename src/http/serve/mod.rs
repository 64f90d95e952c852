//! Connections of the API: how many there may be, and how long a client may take to say what it
//! wants.
//!
//! A client that connects and says nothing needs no token. What it holds must not be missing
//! elsewhere: a descriptor is needed to reach an instance and to write the map file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

mod active;
mod addresses;
mod connection;
mod handshakes;
mod outliving;

use super::access::Peer;
use crate::api::access::ServerTls;
use crate::heartbeat;
use crate::telemetry::{API_CONNECTIONS, API_CONNECTIONS_REFUSED, API_REFUSALS};
use addresses::{Addresses, Own};
use connection::{WRITE_BOUND, Way};
use handshakes::Handshakes;
pub(in crate::http) use outliving::{Begun, Outliving};

/// The most connections at once, however many descriptors there may be.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take until its request's head is there; also how long a connection may
/// stay without a request.
const HEAD_BOUND: Duration = Duration::from_secs(10);
/// The same on a spare connection, which is closed after one answer.
const SPARE_HEAD_BOUND: Duration = Duration::from_secs(1);
/// How long requests under way may take to end at a shutdown: a client that never finishes its
/// request must not keep the daemon.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How often it is looked whether only those are left that outlive it.
const LOOK: Duration = Duration::from_millis(10);
/// How long nothing is accepted after that failed: what it failed for does not go within
/// microseconds.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// How many connections the API may have where `descriptors` may be open in all: a quarter of them,
/// the rest is for routing.
pub fn connections_within(descriptors: usize) -> usize {
    (descriptors / 4).clamp(1, MOST_CONNECTIONS)
}

/// The place of a connection, for as long as it is kept.
struct Place {
    _slot: OwnedSemaphorePermit,
    _own: Option<Own>,
}

/// The connections that are served.
struct Connections {
    slots: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    spare_slots: Arc<Semaphore>,
    way: Way,
    spare: Way,
    serving: JoinSet<()>,
    shutdown: CancellationToken,
    /// Those with a request whose answer comes later than the end.
    outliving: outliving::Connections,
    /// What is left ends, but for these.
    end: CancellationToken,
}

impl Connections {
    /// Serves one, if there is a place.
    fn begin<S>(&mut self, stream: S, is_http_2: bool, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = self.addresses.enter(peer.address.ip()).and_then(|own| {
            let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
            Some(Place { _slot: slot, _own: Some(own) })
        });
        let (way, place) = match place {
            Some(place) => (&self.way, place),
            None => {
                counter!(API_CONNECTIONS_REFUSED).increment(1);
                match Arc::clone(&self.spare_slots).try_acquire_owned() {
                    Ok(slot) => (&self.spare, Place { _slot: slot, _own: None }),
                    Err(_) => return,
                }
            }
        };
        let (way, shutdown) = (way.clone(), self.shutdown.clone());
        let (outliving, end) = (Outliving::new(&self.outliving), self.end.clone());
        let served = connection::Served { peer, way, place, outliving: outliving.clone() };
        self.serving.spawn(async move {
            tokio::select! {
                () = connection::serve(stream, is_http_2, served, shutdown) => {}
                () = outliving.cut(end) => {}
            }
        });
    }
}

/// Has the metrics of all listeners there from the start: a counter that begins at 1 has no rise
/// that an alert could see.
pub fn begin_metrics() {
    counter!(API_CONNECTIONS_REFUSED).increment(0);
    for status in ["401", "403", "429"] {
        counter!(API_REFUSALS, "status" => status).increment(0);
    }
    gauge!(API_CONNECTIONS).set(0.0);
}

/// Serves `router` on at most `most` connections at once until shutdown; requests under way have a
/// moment to end, and those that outlive it ([`Outliving`]) all their time. An eighth more get one answer of `spare`, and what comes beyond that is closed.
/// With TLS another quarter may be in their handshake.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    router: Router,
    spare: Router,
    most: usize,
    shutdown: CancellationToken,
) {
    let mut handshakes = Handshakes::new(tls, most.div_ceil(4));
    let mut connections = Connections {
        slots: Arc::new(Semaphore::new(most)),
        addresses: Arc::new(Addresses::new(most)),
        spare_slots: Arc::new(Semaphore::new(most.div_ceil(8))),
        way: Way { router, head: HEAD_BOUND, write: WRITE_BOUND, once: false },
        spare: Way { router: spare, head: SPARE_HEAD_BOUND, write: WRITE_BOUND, once: true },
        serving: JoinSet::new(),
        shutdown: shutdown.clone(),
        outliving: outliving::Connections::default(),
        end: CancellationToken::new(),
    };
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.serving.join_next() => continue,
            () = heartbeat::tick() => continue,
            shaken = handshakes.next() => {
                connections.begin(shaken.stream, shaken.is_http_2, shaken.peer);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failing = false;
                if let Some(plain) = handshakes.begin(connection::timed(stream), address) {
                    let peer = Peer { address, certificate: None, over_tls: false };
                    connections.begin(plain, false, peer);
                }
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
    drop((listener, handshakes));
    let Connections { mut serving, outliving, end, .. } = connections;
    let last = async {
        while serving.len() > outliving.count() {
            tokio::select! {
                _ = serving.join_next() => {}
                () = sleep(LOOK) => {}
            }
        }
    };
    // What is left then ends.
    let _ = timeout(LAST_REQUESTS, last).await;
    end.cancel();
    serving.detach_all();
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
