//! Tokens of the store, and what somebody may know of themselves.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::access::{Identity, Rate, StoredToken};

use super::access::limits::{CHANGES, FAILED_LOGINS, LOGINS, READS};
use super::types::{About, Limit, Limits, NewTokenReport, TokenReport};
use super::{Api, Error};
use crate::store::token_service::{NewToken, TokenError};
use crate::store::{AuditTicket, TokenService};

fn limit(rate: Rate) -> Limit {
    let per_minute = Duration::from_secs(60).as_secs_f64() / rate.every.as_secs_f64();
    Limit { burst: rate.burst, per_minute: per_minute.round() as u32 }
}

fn report(token: StoredToken, now: Timestamp) -> TokenReport {
    let ended_at = token.ended_at(now);
    let StoredToken { id, name, role, grants, created_by, created_at, .. } = token;
    let StoredToken { expires_at, last_used_at, revoked_at, .. } = token;
    TokenReport {
        id,
        name,
        role,
        grants,
        created_by,
        created_at,
        expires_at,
        last_used_at,
        revoked_at,
        valid: ended_at.is_none(),
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        let text = error.to_string();
        match error {
            TokenError::Unknown(_) => Self::NoToken(text),
            TokenError::Over(_) | TokenError::NameInUse(_) | TokenError::Full => {
                Self::TokenConflict(text)
            }
            TokenError::Random(_) | TokenError::Store(_) => Self::Store(text),
        }
    }
}

impl Api {
    /// What this Mapsmith is, what bounds it has, and who asks.
    pub fn about(&self, identity: Identity) -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            site: self.settings.site.name.clone(),
            external_url: self.access.external().map(ToString::to_string),
            identity,
            limits: Limits {
                reads: limit(READS),
                changes: limit(CHANGES),
                logins: limit(LOGINS),
                failed_logins: limit(FAILED_LOGINS),
            },
            store: self.store.is_some(),
        }
    }

    fn token_service(&self) -> Result<&TokenService, Error> {
        self.access.tokens().ok_or(Error::NoStore("tokens"))
    }

    /// All tokens, those included that are over.
    ///
    /// # Errors
    /// There is no store.
    pub fn tokens(&self) -> Result<Vec<TokenReport>, Error> {
        let now = Timestamp::now();
        Ok(self.token_service()?.list().into_iter().map(|token| report(token, now)).collect())
    }

    /// Makes a token; its text is in this answer and nowhere else.
    ///
    /// # Errors
    /// There is no store, it did not take the token, there are too many, or the name is in use.
    pub async fn create_token(
        &self,
        new: NewToken,
        ticket: Arc<AuditTicket>,
    ) -> Result<NewTokenReport, Error> {
        let now = Timestamp::now();
        let (token, text) = self.token_service()?.create(new, Some(ticket), now).await?;
        Ok(NewTokenReport { token: text, about: report(token, now) })
    }

    /// Ends a token, and the sessions that were begun with it.
    ///
    /// # Errors
    /// There is no store, it did not take the change, or no such token that is not over.
    pub async fn revoke_token(
        &self,
        id: &str,
        ticket: Arc<AuditTicket>,
    ) -> Result<TokenReport, Error> {
        let now = Timestamp::now();
        Ok(report(self.token_service()?.revoke(id, Some(ticket), now).await?, now))
    }

    /// Gives a token another secret; the one of before is good for an hour.
    ///
    /// # Errors
    /// Those of [`Self::revoke_token`].
    pub async fn rotate_token(
        &self,
        id: &str,
        ticket: Arc<AuditTicket>,
    ) -> Result<NewTokenReport, Error> {
        let now = Timestamp::now();
        let (token, text) = self.token_service()?.rotate(id, Some(ticket), now).await?;
        Ok(NewTokenReport { token: text, about: report(token, now) })
    }
}
