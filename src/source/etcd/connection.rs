//! The one connection to an etcd that all feeds of a source share: to one of its members.
//!
//! A connection that failed is given up for one to the next member, and then certificates and the
//! password are read from their files anew. A connection logs in once; a login that is valid no
//! longer ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Channel, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use super::failure::{Failure, needs_no_login, with_remedy};
use super::keys::is_in_tls;
use crate::settings;
use crate::source::error::SourceErrorKind;
use crate::source::feed::off_thread;
use crate::source::transport::handshake;
use crate::source::transport::secret::Secret;
use crate::source::transport::tls::{classify, root_cause};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a member is asked on a connection in use whether it is there, and how long it may take
/// to say so. Members refuse who asks more often than each 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

pub(super) struct Connection {
    settings: Arc<settings::Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// The member that is asked.
    at: usize,
    /// How many sessions there were.
    number: u64,
    /// When the last attempt failed, of which member, and why.
    failed: Option<(Instant, usize, SourceErrorKind)>,
}

/// A connection that was opened and logged in.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    /// The member.
    pub(super) at: usize,
    number: u64,
    /// Whether nothing was asked on it before.
    pub(super) is_new: bool,
}

impl Connection {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A certificate or key that can't be used.
    pub(super) fn new(settings: Arc<settings::Source>) -> Result<Self, SourceErrorKind> {
        handshake::read(&settings.of_kind.http)?;
        Ok(Self { settings, state: Mutex::default() })
    }

    /// The members.
    pub(super) fn endpoints(&self) -> &[String] {
        &self.settings.of_kind.etcd.endpoints
    }

    /// What part of the bound on a poll each member may have for itself.
    pub(super) fn share(&self) -> Duration {
        self.settings.timeout / u32::try_from(self.endpoints().len()).unwrap_or(1).max(1)
    }

    /// The session there is, or one with the member whose turn it is.
    ///
    /// # Errors
    /// The member, and why there is none. The next attempt is for the next one.
    pub(super) async fn session(&self) -> Result<Session, (usize, SourceErrorKind)> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(session) = &state.session {
            return Ok(Session { is_new: false, ..session.clone() });
        }
        // Another feed has just tried.
        if let Some((_, at, fault)) = state.failed.as_ref().filter(|(when, ..)| *when > asked) {
            return Err((*at, fault.clone()));
        }
        let at = state.at;
        let share = self.share();
        let connected = timeout(share, self.connect(&self.endpoints()[at])).await;
        match connected.unwrap_or(Err(SourceErrorKind::NoAnswer(share))) {
            Ok(client) => {
                state.number += 1;
                let session = Session { client, at, number: state.number, is_new: true };
                state.session = Some(session.clone());
                Ok(session)
            }
            Err(fault) => {
                state.at = (at + 1) % self.endpoints().len();
                state.failed = Some((Instant::now(), at, fault.clone()));
                Err((at, fault))
            }
        }
    }

    /// Gives a session up, so that the next one is with the same member.
    pub(super) async fn close(&self, session: &Session) {
        self.end(session, session.at).await;
    }

    /// Gives a session up, so that the next one is with the next member.
    pub(super) async fn pass_over(&self, session: &Session) {
        self.end(session, (session.at + 1) % self.endpoints().len()).await;
    }

    async fn end(&self, session: &Session, next: usize) {
        let mut state = self.state.lock().await;
        if state.session.as_ref().is_some_and(|current| current.number == session.number) {
            (state.session, state.at) = (None, next);
        }
    }

    /// Why a connection broke, where it is TLS's fault: a member refuses a certificate only once
    /// the handshake has ended for the client.
    pub(super) async fn why_broken(&self, at: usize) -> Option<SourceErrorKind> {
        let endpoint = &self.endpoints()[at];
        let server = endpoint.strip_prefix("https://")?.trim_end_matches('/').to_owned();
        handshake::why_not(&self.settings.of_kind.http, &[server]).await
    }

    async fn connect(&self, url: &str) -> Result<Client, SourceErrorKind> {
        let unfit = |error: tonic::transport::Error| {
            SourceErrorKind::Setup(format!("{url}: {}", root_cause(&error)))
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(unfit)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .user_agent(concat!("mapsmith/", env!("CARGO_PKG_VERSION")))
            .map_err(unfit)?;
        if is_in_tls(url) {
            endpoint = endpoint.tls_config(self.tls().await?).map_err(unfit)?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = root_cause(&error);
            classify(&self.settings.of_kind.http, &cause)
                .unwrap_or_else(|| SourceErrorKind::Unreachable { cause: with_remedy(cause) })
        })?;
        let options = ConnectOptions::new().with_require_leader(true);
        let Some((user, password)) = self.login().await? else {
            return self.client(channel, options).await.map_err(|error| self.refusal(&error));
        };
        let with_user = options.clone().with_user(user, password.text());
        match self.client(channel.clone(), with_user).await {
            // Whoever turns authentication off has all read.
            Err(error) if needs_no_login(&error) => self.client(channel, options).await,
            outcome => outcome,
        }
        .map_err(|error| self.refusal(&error))
    }

    async fn client(
        &self,
        channel: tonic::transport::Channel,
        options: ConnectOptions,
    ) -> Result<Client, etcd_client::Error> {
        Client::from_channel(Channel::Tonic(channel), Some(options)).await
    }

    fn refusal(&self, error: &etcd_client::Error) -> SourceErrorKind {
        let user = self.settings.of_kind.etcd.user.as_deref();
        Failure::new(error, "it", user).into_fault("it")
    }

    async fn tls(&self) -> Result<TlsOptions, SourceErrorKind> {
        let keys = self.settings.of_kind.http.clone();
        let texts = off_thread(move || handshake::read(&keys)).await?;
        let options = match texts.ca {
            Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(ca)),
            None => TlsOptions::new().with_native_roots(),
        };
        Ok(match texts.identity {
            Some((cert, key)) => options.identity(Identity::from_pem(cert, key)),
            None => options,
        })
    }

    /// The user and the password.
    async fn login(&self) -> Result<Option<(String, Secret)>, SourceErrorKind> {
        let keys = &self.settings.of_kind.etcd;
        let (Some(user), Some(file)) = (&keys.user, &keys.password_file) else { return Ok(None) };
        let password = Secret::read(file).await.map_err(|error| of_password(file, error))?;
        Ok(Some((user.clone(), password)))
    }
}

fn of_password(file: &PathBuf, error: SourceErrorKind) -> SourceErrorKind {
    match error {
        SourceErrorKind::Token { cause, .. } => {
            SourceErrorKind::Setup(format!("password_file {file:?} {cause}"))
        }
        other => other,
    }
}
