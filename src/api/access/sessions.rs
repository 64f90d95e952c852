//! Browsers in which somebody has logged in. In memory only: they end with the process.

use std::collections::HashMap;
use std::time::Duration;

use mapsmith_core::access::token::SecretHash;

/// How long a session may not be used.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// How long it lasts.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most sessions; one more ends the one that was not used for the longest time.
const MOST: usize = 1000;
/// The most that are begun with one token, so that nobody ends those of others.
const MOST_OF_ONE: usize = 20;

/// With which token somebody has logged in; a session ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// That of `api.token_file`, as it was.
    File(SecretHash),
    /// The one of this id, with the secret that it was shown by.
    Token { id: String, hash: SecretHash },
}

impl Credential {
    /// Whether it is the same token, whatever its secret.
    fn is_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(_), Self::File(_)) => true,
            (Self::Token { id, .. }, Self::Token { id: other, .. }) => id == other,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Session {
    credential: Credential,
    begun: Duration,
    used: Duration,
}

impl Session {
    fn is_over(&self, now: Duration) -> bool {
        now >= self.used + IDLE || now >= self.begun + LONGEST
    }
}

/// By the hash of what the cookie holds. `now` is the time since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<SecretHash, Session>);

impl Sessions {
    pub(super) fn begin(&mut self, cookie: SecretHash, credential: Credential, now: Duration) {
        if self.0.len() >= MOST {
            self.0.retain(|_, session| !session.is_over(now));
        }
        let is_own = |session: &Session| session.credential.is_of(&credential);
        if self.0.values().filter(|session| is_own(session)).count() >= MOST_OF_ONE {
            self.end_oldest(is_own);
        } else if self.0.len() >= MOST {
            self.end_oldest(|_| true);
        }
        self.0.insert(cookie, Session { credential, begun: now, used: now });
    }

    /// Ends the one of these that was not used for the longest time.
    fn end_oldest(&mut self, is_one: impl Fn(&Session) -> bool) {
        let these = self.0.iter().filter(|(_, session)| is_one(session));
        let oldest = these.min_by_key(|(_, session)| session.used).map(|(cookie, _)| *cookie);
        oldest.map(|oldest| self.0.remove(&oldest));
    }

    /// Whose session it is, if it is one, and how long it lasts if it is not used again.
    pub(super) fn use_of(
        &mut self,
        cookie: &SecretHash,
        now: Duration,
    ) -> Option<(Credential, Duration)> {
        let session = self.0.get_mut(cookie)?;
        if session.is_over(now) {
            self.0.remove(cookie);
            return None;
        }
        session.used = now;
        let left = (session.begun + LONGEST).saturating_sub(now).min(IDLE);
        Some((session.credential.clone(), left))
    }

    pub(super) fn end(&mut self, cookie: &SecretHash) {
        self.0.remove(cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn token(id: &str) -> Credential {
        Credential::Token { id: id.to_owned(), hash: [0; 32] }
    }

    fn cookie(number: usize) -> SecretHash {
        let mut cookie = [0; 32];
        cookie[..8].copy_from_slice(&number.to_be_bytes());
        cookie
    }

    #[test]
    fn a_session_ends_after_twelve_idle_hours_and_after_a_day() {
        let mut sessions = Sessions::default();
        sessions.begin([1; 32], token("a"), HOUR);
        let found = sessions.use_of(&[1; 32], 12 * HOUR);
        assert_eq!(found, Some((token("a"), 12 * HOUR)), "half a day if nobody uses it");
        let found = sessions.use_of(&[1; 32], 23 * HOUR);
        assert_eq!(found, Some((token("a"), 2 * HOUR)), "and no more than a day");
        assert_eq!(sessions.use_of(&[1; 32], 25 * HOUR), None, "a day");
        sessions.begin([2; 32], token("a"), HOUR);
        assert_eq!(sessions.use_of(&[2; 32], 13 * HOUR), None, "idle");
        assert_eq!(sessions.use_of(&[3; 32], HOUR), None);
        sessions.begin([3; 32], token("a"), HOUR);
        sessions.end(&[3; 32]);
        assert_eq!(sessions.use_of(&[3; 32], HOUR), None);
    }

    #[test]
    fn one_too_many_ends_the_one_that_was_idle_longest() {
        let mut sessions = Sessions::default();
        for number in 0..=MOST {
            let now = HOUR + Duration::from_secs(number as u64);
            sessions.begin(cookie(number), token(&number.to_string()), now);
        }
        assert_eq!(sessions.0.len(), MOST);
        assert_eq!(sessions.use_of(&cookie(0), 2 * HOUR), None);
        assert!(sessions.use_of(&cookie(1), 2 * HOUR).is_some());
    }

    #[test]
    fn who_logs_in_without_end_ends_only_sessions_of_the_same_token() {
        let mut sessions = Sessions::default();
        sessions.begin(cookie(0), token("other"), HOUR);
        for number in 1..=2 * MOST {
            sessions.begin(cookie(number), token("a"), HOUR + Duration::from_secs(1));
        }
        assert_eq!(sessions.0.len(), 1 + MOST_OF_ONE);
        assert!(sessions.use_of(&cookie(0), 2 * HOUR).is_some_and(|it| it.0 == token("other")));
    }
}
