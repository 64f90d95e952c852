//! TLS handshakes, beside one another and beside everything else.
//!
//! A client that connects and says nothing is nobody yet. So there are only so many handshakes at
//! once, and where one too many begins, the oldest gives way: who means to ask something is through
//! within milliseconds, however many others say nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Timed;
use crate::api::access::ServerTls;
use crate::api::access::tls::{HTTP_2, ShownCertificate};
use crate::http::access::Peer;

/// A connection by which requests may come.
pub(super) struct Shaken {
    pub stream: TlsStream<Timed>,
    pub peer: Peer,
    pub is_http_2: bool,
}

pub(super) struct Handshakes {
    tls: Option<Arc<ServerTls>>,
    most: usize,
    running: JoinSet<Option<Shaken>>,
    /// The oldest first.
    begun: VecDeque<AbortHandle>,
}

impl Handshakes {
    pub(super) fn new(tls: Option<Arc<ServerTls>>, most: usize) -> Self {
        Self { tls, most, running: JoinSet::new(), begun: VecDeque::new() }
    }

    /// Begins one; gives the stream back where there is no TLS.
    pub(super) fn begin(&mut self, stream: Timed, address: SocketAddr) -> Option<Timed> {
        let Some(tls) = &self.tls else { return Some(stream) };
        self.begun.retain(|handshake| !handshake.is_finished());
        if self.begun.len() >= self.most
            && let Some(oldest) = self.begun.pop_front()
        {
            oldest.abort();
        }
        let acceptor = TlsAcceptor::from(tls.config());
        let work = timeout(tls.handshake_timeout(), acceptor.accept(stream));
        let tls = Arc::clone(tls);
        self.begun.push_back(self.running.spawn(async move {
            match work.await {
                Ok(Ok(stream)) => Some(shaken(&tls, stream, address)),
                Ok(Err(error)) => {
                    tracing::debug!(%address, "a TLS handshake with the API failed: {error}");
                    None
                }
                Err(_) => None,
            }
        }));
        None
    }

    /// The next that is through; never, while there is none.
    pub(super) async fn next(&mut self) -> Shaken {
        loop {
            match self.running.join_next().await {
                Some(Ok(Some(shaken))) => return shaken,
                // Failed, or gave way.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

fn shaken(tls: &Arc<ServerTls>, stream: TlsStream<Timed>, address: SocketAddr) -> Shaken {
    let connection = stream.get_ref().1;
    let certificate = ShownCertificate::of(tls, connection).map(Arc::new);
    let is_http_2 = connection.alpn_protocol() == Some(HTTP_2);
    Shaken { stream, peer: Peer { address, certificate, over_tls: true }, is_http_2 }
}
