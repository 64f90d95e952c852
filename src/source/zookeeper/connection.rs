//! The one session with a ZooKeeper that all feeds of a source share.
//!
//! A session that lost its connection is given up for a new one. Nothing here is bound to a session
//! but watches, and those do not outlive the connection; so its expiry is no case of its own, and a
//! new session has the certificates and the password that are in their files now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use zookeeper_client::{Client, Error, SessionState};

use super::tls;
use crate::settings;
use crate::source::error::SourceErrorKind;
use crate::source::transport::handshake;
use crate::source::transport::secret::Secret;

/// How long a server may take to be asked why there is no session.
const PROBE: Duration = Duration::from_secs(1);

pub(super) struct Connection {
    settings: Arc<settings::Source>,
    state: Mutex<State>,
}

/// When a file was last changed, and its size; none where it can't be read.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Default)]
struct State {
    client: Option<Client>,
    /// The files that say who the session speaks for, as they were when it was opened.
    credentials: Vec<Stamp>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, SourceErrorKind)>,
}

impl Connection {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A certificate or key that can't be used.
    pub(super) fn new(settings: Arc<settings::Source>) -> Result<Self, SourceErrorKind> {
        tls::read(&settings.of_kind.http)?;
        Ok(Self { settings, state: Mutex::default() })
    }

    /// A client that is connected.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn client(&self) -> Result<Client, SourceErrorKind> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        let connected = |client: &&Client| client.state() == SessionState::SyncConnected;
        if let Some(client) = state.client.as_ref().filter(connected) {
            return Ok(client.clone());
        }
        // Another feed has just tried.
        if let Some((_, fault)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(fault.clone());
        }
        state.client = None;
        // Before they are read: what changes from then on is a change.
        state.credentials = self.credentials().await;
        match self.connect().await {
            Ok(client) => {
                state.client = Some(client.clone());
                Ok(client)
            }
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Gives the session up if who it speaks for has another password or certificate by now; whether
    /// it was. All feeds share it, and their watches end with it.
    pub(super) async fn close_if_outdated(&self) -> bool {
        let credentials = self.credentials().await;
        let mut state = self.state.lock().await;
        let is_outdated = state.credentials != credentials;
        if is_outdated {
            state.client = None;
        }
        is_outdated
    }

    async fn credentials(&self) -> Vec<Stamp> {
        let keys = &self.settings.of_kind;
        let mut stamps = Vec::new();
        for file in [&keys.zookeeper.auth_file, &keys.http.cert, &keys.http.key] {
            let Some(file) = file else { continue };
            let found = tokio::fs::metadata(file).await.ok();
            stamps.push(found.and_then(|found| Some((found.modified().ok()?, found.len()))));
        }
        stamps
    }

    /// Where a path is, for messages.
    pub(super) fn place(&self, path: &str) -> String {
        let keys = &self.settings.of_kind.zookeeper;
        let chroot = keys.chroot.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{} {chroot}{path}", self.settings.of_kind.servers.servers.join(","))
    }

    async fn connect(&self) -> Result<Client, SourceErrorKind> {
        let keys = &self.settings.of_kind.zookeeper;
        let mut connector =
            Client::connector().with_session_timeout(keys.session_timeout).with_fail_eagerly();
        if let Some(secret) = self.secret().await? {
            connector = connector.with_auth("digest", secret.text().as_bytes());
        }
        let servers = self.settings.of_kind.servers.addresses();
        let cluster = servers.join(",");
        let options = tls::read_off_thread(&self.settings.of_kind.http).await?;
        let connected = async {
            match options {
                Some(options) => connector.with_tls(options).secure_connect(&cluster).await,
                None => connector.connect(&cluster).await,
            }
        };
        // A server that is no ZooKeeper may be silent for ever: there is time left to ask why.
        let client = match timeout(self.settings.timeout / 2, connected).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(self.why_not(&servers, &error).await),
            Err(_) => return Err(self.why_not(&servers, &Error::Timeout).await),
        };
        match &keys.chroot {
            None => Ok(client),
            Some(chroot) => client.chroot(chroot.as_str()).map_err(|_| {
                SourceErrorKind::Setup(format!("chroot {chroot:?} is not a path of ZooKeeper's"))
            }),
        }
    }

    /// `user:password`.
    async fn secret(&self) -> Result<Option<Secret>, SourceErrorKind> {
        let Some(file) = &self.settings.of_kind.zookeeper.auth_file else { return Ok(None) };
        let fault = |cause: &str| SourceErrorKind::Setup(format!("auth_file {file:?} {cause}"));
        let secret = Secret::read(file).await.map_err(|error| match error {
            SourceErrorKind::Token { cause, .. } => fault(&cause),
            other => other,
        })?;
        match secret.text().split_once(':') {
            Some((user, _)) if !user.is_empty() => Ok(Some(secret)),
            _ => Err(fault("must hold user:password")),
        }
    }

    /// The client keeps to itself why a server gave no session: so each is asked.
    async fn why_not(&self, servers: &[String], error: &Error) -> SourceErrorKind {
        if *error == Error::AuthFailed {
            return SourceErrorKind::Registry(
                "the server refused the authentication (auth_file)".to_owned(),
            );
        }
        if let Some(fault) = handshake::why_not(&self.settings.of_kind.http, servers).await {
            return fault;
        }
        let probes = servers.iter().map(async |server| {
            match timeout(PROBE, TcpStream::connect(server.as_str())).await {
                Ok(Ok(_)) => format!(
                    "{server} takes connections, and opens no session: is it ZooKeeper's client \
                        port, does it speak TLS there (ca), and has the ensemble a quorum?"
                ),
                Ok(Err(error)) => format!("{server}: {error}"),
                Err(_) => format!("{server}: no answer"),
            }
        });
        SourceErrorKind::Unreachable { cause: join_all(probes).await.join("; ") }
    }

    /// What an error that the client gave for a path means.
    pub(super) fn fault(&self, error: &Error, path: &str) -> SourceErrorKind {
        let during = "before or within the answer";
        match error {
            Error::NoNode => SourceErrorKind::Registry(format!(
                "there is no node {path}; is it the right path (and chroot), and has whoever \
                    registers there done so?"
            )),
            Error::NoAuth => SourceErrorKind::Registry(format!(
                "no permission to read {path}: {}",
                match &self.settings.of_kind.zookeeper.auth_file {
                    Some(file) => format!("its ACL must let the user of auth_file {file:?} read"),
                    None => "its ACL lets only some users read; set auth_file".to_owned(),
                }
            )),
            Error::ConnectionLoss | Error::SessionExpired | Error::ClientClosed => {
                SourceErrorKind::Disconnected { during, cause: error.to_string() }
            }
            other => SourceErrorKind::Registry(format!("{path}: {other}")),
        }
    }
}
