//! Who somebody is who asks the API, and how often they may. Knows nothing of HTTP.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith_core::access::{Identity, IdentityKind, StoredToken, TokenText};

mod file_token;
pub mod limits;
mod sessions;
pub mod tls;

pub use file_token::{FileToken, Token};
pub use tls::ServerTls;

use super::node_commands::RunningCommands;
use super::types::ApiReport;
use crate::settings::{ApiClient, ExternalUrl};
use crate::store::{TokenService, secret};
use limits::Limits;
use sessions::{Credential, Sessions};

/// What goes on where all tasks begin anew: who is logged in, and how often each has asked.
#[derive(Debug)]
pub struct AccessMemory {
    start: Instant,
    sessions: Mutex<Sessions>,
    limits: Limits,
    commands: RunningCommands,
}

impl Default for AccessMemory {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            sessions: Mutex::default(),
            limits: Limits::default(),
            commands: RunningCommands::default(),
        }
    }
}

impl AccessMemory {
    fn sessions(&self) -> (MutexGuard<'_, Sessions>, Duration) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        (sessions, self.start.elapsed())
    }
}

/// Everybody who is known.
#[derive(Debug)]
pub struct Access {
    /// Every program of this machine may do everything.
    is_open_locally: bool,
    file: Option<Arc<FileToken>>,
    tokens: Option<TokenService>,
    clients: Vec<ApiClient>,
    tls: Option<Arc<ServerTls>>,
    external: Option<ExternalUrl>,
    memory: Arc<AccessMemory>,
}

impl Access {
    pub fn new(
        is_open_locally: bool,
        file: Option<Arc<FileToken>>,
        tokens: Option<TokenService>,
        clients: Vec<ApiClient>,
        memory: Arc<AccessMemory>,
    ) -> Self {
        Self { is_open_locally, file, tokens, clients, tls: None, external: None, memory }
    }

    pub fn with_tls(self, tls: Option<Arc<ServerTls>>) -> Self {
        Self { tls, ..self }
    }

    /// With the URL by which others reach the API.
    pub fn reached_by(self, external: Option<ExternalUrl>) -> Self {
        Self { external, ..self }
    }

    /// The URL by which others reach the API.
    pub fn external(&self) -> Option<&ExternalUrl> {
        self.external.as_ref()
    }

    /// Where a path of the API is for those who read an answer.
    pub fn place_of(&self, path: &str) -> String {
        self.external.as_ref().map_or_else(|| path.to_owned(), |url| url.of(path))
    }

    /// Whether a program of this machine need not say who it is.
    pub fn is_open_locally(&self) -> bool {
        self.is_open_locally
    }

    pub(super) fn tokens(&self) -> Option<&TokenService> {
        self.tokens.as_ref()
    }

    /// How the API's own files stand; none where it has none.
    pub(super) fn report(&self) -> Option<ApiReport> {
        let token_file_error = self.file.as_ref().and_then(|file| file.error());
        let tls = self.tls.as_ref().map(|tls| tls.report());
        let has_files = self.file.is_some() || tls.is_some();
        has_files.then_some(ApiReport { token_file_error, tls })
    }

    /// Whose token it is.
    pub fn by_token(&self, text: &str) -> Option<Identity> {
        self.credential(text).map(|(identity, _)| identity)
    }

    fn credential(&self, text: &str) -> Option<(Identity, Credential)> {
        if self.file.as_ref().is_some_and(|file| file.is(text)) {
            return Some((Identity::file(), Credential::File(secret::hash(text))));
        }
        let text = TokenText::parse(text)?;
        let token = self.tokens.as_ref()?.verify(text, Timestamp::now())?;
        let hash = secret::hash(text.secret);
        let credential = Credential::Token { id: token.id.clone(), hash };
        Some((of_token(IdentityKind::Token, token), credential))
    }

    /// Who has shown a certificate with these names.
    pub fn by_certificate(&self, names: &[String]) -> Option<Identity> {
        let has =
            |client: &&ApiClient| names.iter().any(|name| name.eq_ignore_ascii_case(&client.san));
        let ApiClient { san, role, grants } = self.clients.iter().find(has)?.clone();
        let kind = IdentityKind::Certificate;
        Some(Identity { kind, name: san, id: None, role, grants, expires_at: None })
    }

    /// Logs somebody in with a token: who that is, and what their cookie holds.
    ///
    /// # Errors
    /// Why nobody is logged in.
    pub fn log_in(&self, text: &str) -> Result<(Identity, String), NoLogin> {
        let (identity, credential) = self.credential(text).ok_or(NoLogin::Wrong)?;
        self.admit_login(&identity).map_err(NoLogin::TooMany)?;
        let cookie = secret::new_secret()?;
        let (mut sessions, now) = self.memory.sessions();
        sessions.begin(secret::hash(&cookie), credential, now);
        Ok((Identity { kind: IdentityKind::Session, ..identity }, cookie))
    }

    /// Whose session it is; a session ends with the secret that it was begun with.
    pub fn by_session(&self, cookie: &str) -> Option<Identity> {
        let (mut sessions, now) = self.memory.sessions();
        let (credential, left) = sessions.use_of(&secret::hash(cookie), now)?;
        drop(sessions);
        let now = Timestamp::now();
        let identity = match credential {
            Credential::File(hash) => {
                self.file.as_ref().filter(|file| file.has(&hash))?;
                Identity { kind: IdentityKind::Session, ..Identity::file() }
            }
            Credential::Token { id, hash } => {
                let token = self.tokens.as_ref()?.valid(&id, now)?;
                let is_good = token.hashes(now).iter().any(|known| secret::is_same(known, &hash));
                is_good.then(|| of_token(IdentityKind::Session, token))?
            }
        };
        // It ends before its token, which may have no end.
        let end = now.saturating_add(left).ok();
        let ends = identity.expires_at.into_iter().chain(end);
        Some(Identity { expires_at: ends.min(), ..identity })
    }

    pub fn log_out(&self, cookie: &str) {
        self.memory.sessions().0.end(&secret::hash(cookie));
    }

    /// Counts a request of somebody.
    ///
    /// # Errors
    /// How long until they may ask again.
    pub fn admit(&self, identity: &Identity, changes: bool) -> Result<(), Duration> {
        self.memory.limits.admit(identity, changes)
    }

    /// Counts a request of an address, where nobody says who they are.
    ///
    /// # Errors
    /// How long until it may ask again.
    pub fn admit_from(&self, address: IpAddr, changes: bool) -> Result<(), Duration> {
        self.memory.limits.admit_from(address, changes)
    }

    /// Counts what is said of a member, where nobody says who they are.
    ///
    /// # Errors
    /// How long until this address may ask again.
    pub fn admit_member_from(&self, address: IpAddr) -> Result<(), Duration> {
        self.memory.limits.admit_member_from(address)
    }

    /// Counts what is said of a member, which may be often.
    ///
    /// # Errors
    /// How long until they may ask again.
    pub fn admit_member(&self, identity: &Identity) -> Result<(), Duration> {
        self.memory.limits.admit_member(identity)
    }

    /// Counts that somebody logs in or out.
    ///
    /// # Errors
    /// How long until they may again.
    pub fn admit_login(&self, identity: &Identity) -> Result<(), Duration> {
        self.memory.limits.admit_login(identity)
    }

    /// The commands on nodes that run.
    pub(super) fn running_commands(&self) -> &RunningCommands {
        &self.memory.commands
    }

    /// Counts a wrong token.
    ///
    /// # Errors
    /// How long until this address may try again.
    pub fn failed(&self, address: IpAddr) -> Result<(), Duration> {
        self.memory.limits.failed(address)
    }

    /// Whether it is logged that this address was refused: once a second.
    pub fn is_refusal_logged(&self, address: IpAddr) -> bool {
        self.memory.limits.is_logged(address)
    }
}

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum NoLogin {
    #[error("it is no token that admits anybody")]
    Wrong,
    #[error("its owner has logged in too often; again in {0:?}")]
    TooMany(Duration),
    #[error(transparent)]
    NoRandom(#[from] secret::NoRandom),
}

fn of_token(kind: IdentityKind, token: StoredToken) -> Identity {
    let StoredToken { id, name, role, grants, expires_at, .. } = token;
    Identity { kind, name, id: Some(id), role, grants, expires_at }
}

#[cfg(test)]
mod tests {
    use mapsmith_core::access::Role;

    use super::*;
    use crate::store::SqliteStore;
    use crate::store::token_service::NewToken;

    #[tokio::test]
    async fn a_session_ends_with_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret").unwrap();
        let file = Arc::new(FileToken::new(&path, &Token::read(&path).unwrap()));
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let tokens = TokenService::open(store).await.unwrap();
        let new = NewToken {
            name: "anna".to_owned(),
            role: Role::Operator,
            grants: Vec::new(),
            expires_at: None,
            created_by: "file".to_owned(),
        };
        let (token, text) = tokens.create(new, None, Timestamp::now()).await.unwrap();
        let access = Access::new(
            false,
            Some(Arc::clone(&file)),
            Some(tokens.clone()),
            Vec::new(),
            Arc::default(),
        );

        let (identity, cookie) = access.log_in(&text).unwrap();
        assert_eq!((identity.kind, identity.role), (IdentityKind::Session, Role::Operator));
        let known = access.by_session(&cookie).unwrap();
        let left = known.expires_at.unwrap().duration_since(Timestamp::now()).as_secs_f64();
        assert!((left / 3600.0 - 12.0).abs() < 0.1, "it says its own end: {left} s");
        assert_eq!(Identity { expires_at: None, ..known }, identity);
        assert_eq!(access.by_session("other"), None);
        let now = Timestamp::now();
        let (_, text) = tokens.rotate(&token.id, None, now).await.unwrap();
        assert!(access.by_session(&cookie).is_some(), "the secret of before is good for an hour");
        let (_, text) = tokens.rotate(&token.id, None, now).await.map(|new| (text, new.1)).unwrap();
        assert_eq!(access.by_session(&cookie), None, "nobody has its secret any more");
        let (_, cookie) = access.log_in(&text).unwrap();
        tokens.revoke(&token.id, None, Timestamp::now()).await.unwrap();
        assert_eq!(access.by_session(&cookie), None);
        assert!(access.log_in(&text).is_err() && access.by_token(&text).is_none());

        let (_, cookie) = access.log_in("s3cret").unwrap();
        assert!(access.by_session(&cookie).is_some_and(|it| it.role == Role::Admin));
        std::fs::write(&path, "other").unwrap();
        file.read_again();
        assert_eq!(access.by_session(&cookie), None);
        let (_, cookie) = access.log_in("other").unwrap();
        access.log_out(&cookie);
        assert_eq!(access.by_session(&cookie), None);
    }

    #[test]
    fn a_certificate_is_known_by_its_exact_name() {
        let client = |san: &str, role| ApiClient { san: san.to_owned(), role, grants: Vec::new() };
        let clients = vec![client("ops1.example.test", Role::Operator), client("a", Role::Admin)];
        let access = Access::new(false, None, None, clients, Arc::default());
        let role = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            access.by_certificate(&names).map(|identity| identity.role)
        };
        assert_eq!(role(&["x", "OPS1.example.test"]), Some(Role::Operator));
        for other in [&["ops1.example.test.evil.test"][..], &["ops1"], &["*.example.test"], &[]] {
            assert_eq!(role(other), None, "{other:?}");
        }
    }
}
