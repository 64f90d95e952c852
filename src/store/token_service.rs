//! The tokens as the running program has them: every change goes to the store first, and what
//! admits somebody is looked up in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::access::{Grant, Role, StoredToken, TokenText};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{AuditTicket, SqliteStore, StoreError, secret, tidied};
use crate::heartbeat;

/// The most tokens, those included that are over and still listed.
pub const MOST_TOKENS: usize = 1000;
/// How long a token that is over is listed.
const LISTED: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How often it is written when tokens were used last.
const USES_WRITTEN: Duration = Duration::from_secs(60);

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    pub name: String,
    pub role: Role,
    pub grants: Vec<Grant>,
    pub expires_at: Option<Timestamp>,
    pub created_by: String,
}

/// Why a token was not made or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token has the id {0:?}; `mapsmith token list` shows them")]
    Unknown(String),
    #[error("the token {0} is over; make another one")]
    Over(String),
    #[error(
        "a token that admits somebody is called {0:?} already; take another name, or rotate it"
    )]
    NameInUse(String),
    #[error("there are {MOST_TOKENS} tokens; those that are over go after 90 days")]
    Full,
    #[error(transparent)]
    Random(#[from] secret::NoRandom),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps the tokens.
#[derive(Clone)]
pub struct TokenService {
    store: SqliteStore,
    tokens: Arc<RwLock<BTreeMap<String, StoredToken>>>,
    /// One change at a time: each is made of what the one before left.
    changes: Arc<Mutex<()>>,
}

impl TokenService {
    /// Takes what the store holds.
    pub async fn open(store: SqliteStore) -> Result<Self, StoreError> {
        let before = Timestamp::now().saturating_sub(LISTED).unwrap_or(Timestamp::MIN);
        tidied(store.forget_tokens(before).await)?;
        let tokens = Arc::new(RwLock::new(store.tokens().await?));
        Ok(Self { store, tokens, changes: Arc::default() })
    }

    /// All of them, those that are over included.
    pub fn list(&self) -> Vec<StoredToken> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The token of this id, if it admits anybody now.
    pub fn valid(&self, id: &str, now: Timestamp) -> Option<StoredToken> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).filter(|token| token.is_valid(now)).cloned()
    }

    /// Whose token it is, if it admits anybody now. What it takes to say so does not depend on
    /// whether there is a token of the id.
    pub fn verify(&self, text: TokenText<'_>, now: Timestamp) -> Option<StoredToken> {
        let given = secret::hash(text.secret);
        let token = self.valid(text.id, now);
        let hashes = token.as_ref().map_or([[0; 32]; 2], |token| token.hashes(now));
        let is_right = hashes.map(|hash| secret::is_same(&hash, &given));
        if !(is_right[0] | is_right[1]) {
            return None;
        }
        self.note_use(text.id, now);
        token
    }

    fn note_use(&self, id: &str, now: Timestamp) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get_mut(id) {
            token.last_used_at = Some(now);
        }
    }

    /// Makes a token: the stored one, and its text, which is known nowhere else.
    ///
    /// # Errors
    /// A name that another one has, no room, or a store that did not take it.
    pub async fn create(
        &self,
        new: NewToken,
        ticket: Option<Arc<AuditTicket>>,
        now: Timestamp,
    ) -> Result<(StoredToken, String), TokenError> {
        let _one = self.changes.lock().await;
        let tokens = self.list();
        if tokens.iter().any(|token| token.name == new.name && token.is_valid(now)) {
            return Err(TokenError::NameInUse(new.name));
        }
        if tokens.len() >= MOST_TOKENS {
            return Err(TokenError::Full);
        }
        let (mut id, secret) = (secret::new_id()?, secret::new_secret()?);
        while tokens.iter().any(|token| token.id == id) {
            id = secret::new_id()?;
        }
        let text = TokenText::join(&id, &secret);
        let NewToken { name, role, grants, expires_at, created_by } = new;
        let (hash, created_at) = (secret::hash(&secret), now);
        let token = StoredToken {
            id,
            name,
            role,
            grants,
            hash,
            previous: None,
            created_by,
            created_at,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        self.keep(token.clone(), ticket).await?;
        Ok((token, text))
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// There is no such token, it is over, or the store did not take it.
    pub async fn revoke(
        &self,
        id: &str,
        ticket: Option<Arc<AuditTicket>>,
        now: Timestamp,
    ) -> Result<StoredToken, TokenError> {
        let _one = self.changes.lock().await;
        let token = StoredToken { revoked_at: Some(now), ..self.changeable(id, now)? };
        self.keep(token.clone(), ticket).await?;
        Ok(token)
    }

    /// Gives a token another secret; the one of before is good for an hour.
    ///
    /// # Errors
    /// Those of [`Self::revoke`].
    pub async fn rotate(
        &self,
        id: &str,
        ticket: Option<Arc<AuditTicket>>,
        now: Timestamp,
    ) -> Result<(StoredToken, String), TokenError> {
        let _one = self.changes.lock().await;
        let secret = secret::new_secret()?;
        let token = self.changeable(id, now)?.rotated(secret::hash(&secret), now);
        self.keep(token.clone(), ticket).await?;
        let text = TokenText::join(&token.id, &secret);
        Ok((token, text))
    }

    fn changeable(&self, id: &str, now: Timestamp) -> Result<StoredToken, TokenError> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(id).ok_or_else(|| TokenError::Unknown(id.to_owned()))?;
        if token.is_valid(now) { Ok(token.clone()) } else { Err(TokenError::Over(id.to_owned())) }
    }

    async fn keep(
        &self,
        token: StoredToken,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError> {
        let (store, tokens) = (self.store.clone(), Arc::clone(&self.tokens));
        // On a task of its own: whoever asked may go away between the store and memory.
        let kept = tokio::spawn(async move {
            store.keep_token(token.clone(), ticket).await?;
            let mut tokens = tokens.write().unwrap_or_else(PoisonError::into_inner);
            tokens.insert(token.id.clone(), token);
            Ok(())
        });
        kept.await.unwrap_or_else(|error| Err(self.store.interrupted(&error)))
    }

    /// Writes when tokens were used last, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut written: BTreeMap<String, Timestamp> = BTreeMap::new();
        loop {
            let over = shutdown.run_until_cancelled(heartbeat::waiting(sleep(USES_WRITTEN))).await;
            let used: Vec<_> = self
                .list()
                .into_iter()
                .filter_map(|token| Some((token.id, token.last_used_at?)))
                .filter(|(id, at)| written.get(id) != Some(at))
                .collect();
            if !used.is_empty() {
                match self.store.note_used(used.clone()).await {
                    Ok(()) => written.extend(used),
                    Err(error) => {
                        tracing::warn!("when tokens were used last could not be stored: {error}");
                    }
                }
            }
            if over.is_none() {
                return;
            }
        }
    }
}

impl std::fmt::Debug for TokenService {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TokenService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn new(name: &str) -> NewToken {
        NewToken {
            name: name.to_owned(),
            role: Role::Operator,
            grants: vec!["node:m1".parse().unwrap()],
            expires_at: Some(at(100_000)),
            created_by: "file".to_owned(),
        }
    }

    fn verified(service: &TokenService, text: &str, second: i64) -> Option<String> {
        service.verify(TokenText::parse(text)?, at(second)).map(|token| token.name)
    }

    #[tokio::test]
    async fn a_token_admits_until_it_is_revoked_or_over_and_the_file_does_not_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let service = TokenService::open(store.clone()).await.unwrap();
        let (token, text) = service.create(new("ci"), None, at(10)).await.unwrap();
        assert_eq!(verified(&service, &text, 11), Some("ci".to_owned()));
        assert_eq!(verified(&service, &text, 100_000), None, "it is over");
        let other = TokenText::join(&token.id, &secret::new_secret().unwrap());
        assert_eq!(verified(&service, &other, 11), None);
        let unknown = text.replacen(&token.id, "zzzzzzzz", 1);
        assert_eq!(verified(&service, &unknown, 11), None);
        assert_eq!(
            service.create(new("ci"), None, at(12)).await.unwrap_err(),
            TokenError::NameInUse("ci".to_owned())
        );
        let secret = TokenText::parse(&text).unwrap().secret.to_owned();
        for name in ["m.db", "m.db-wal"] {
            let file = std::fs::read(folder.path().join(name)).unwrap_or_default();
            assert!(memchr::memmem::find(&file, secret.as_bytes()).is_none(), "{name}");
        }

        // As after a restart.
        let again = TokenService::open(store).await.unwrap();
        assert!(again.list().is_empty(), "what ended in 1970 is not listed in our days");
        service.revoke(&token.id, None, at(13)).await.unwrap();
        assert_eq!(verified(&service, &text, 14), None);
        let over = service.revoke(&token.id, None, at(15)).await.unwrap_err();
        assert_eq!(over, TokenError::Over(token.id.clone()));
        assert!(matches!(
            service.rotate("nope", None, at(16)).await.unwrap_err(),
            TokenError::Unknown(_)
        ));
    }

    #[tokio::test]
    async fn a_rotated_token_is_the_same_one_with_another_secret_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let service = TokenService::open(store.clone()).await.unwrap();
        let unlimited = NewToken { expires_at: None, ..new("ci") };
        let (token, old) = service.create(unlimited, None, at(10)).await.unwrap();
        let (rotated, text) = service.rotate(&token.id, None, at(20)).await.unwrap();
        assert_eq!((&rotated.id, &rotated.name), (&token.id, &token.name));
        let service = TokenService::open(store).await.unwrap();
        for (text, second, expected) in
            [(&old, 3619, true), (&old, 3620, false), (&text, 20, true), (&text, 9999, true)]
        {
            assert_eq!(verified(&service, text, second).is_some(), expected, "{second}");
        }
        assert_eq!(service.list()[0].grants, ["node:m1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn when_a_token_was_used_last_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let service = TokenService::open(store.clone()).await.unwrap();
        let unlimited = NewToken { expires_at: None, ..new("ci") };
        let (_, text) = service.create(unlimited, None, at(10)).await.unwrap();
        assert!(verified(&service, &text, 77).is_some());
        let stop = CancellationToken::new();
        stop.cancel();
        service.run(stop).await;
        let tokens = store.tokens().await.unwrap();
        assert_eq!(tokens.values().next().unwrap().last_used_at, Some(at(77)));
    }
}
