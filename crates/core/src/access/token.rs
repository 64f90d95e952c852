//! Bearer tokens: their text, and what is kept of one. The secret itself is kept nowhere.

use jiff::{SignedDuration, Timestamp};

use super::{Grant, Role};

/// What every token's text begins with, so that a scanner finds one that was committed by mistake.
const PREFIX: &str = "ms_";
/// How many characters a token's id has.
pub const ID_LENGTH: usize = 8;
/// The characters of an id: none that is taken for another one.
pub const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How many random bytes a secret has.
pub const SECRET_BYTES: usize = 32;
/// The same in base64.
const SECRET_LENGTH: usize = 43;
/// How long the secret of before is good after a rotation: time enough to give the new one to
/// whoever has it.
pub const ROTATION_OVERLAP: SignedDuration = SignedDuration::from_hours(1);
/// The longest name of a token.
pub const LONGEST_NAME: usize = 64;
/// Names of those who have no token of the store: that of `api.token_file`, whoever asks without
/// one, what ends by itself, what the settings declare.
const RESERVED: [&str; 4] = ["file", "local", "clock", "settings"];
/// What the names of other APIs' clients begin with.
pub(super) const COMPAT: &str = "compat.";

/// A token's text, `ms_ID_SECRET`, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenText<'a> {
    pub id: &'a str,
    pub secret: &'a str,
}

impl<'a> TokenText<'a> {
    /// None where it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (id, secret) = rest.split_at_checked(ID_LENGTH)?;
        let secret = secret.strip_prefix('_')?;
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_token = id.bytes().all(|byte| ID_ALPHABET.contains(&byte))
            && secret.len() == SECRET_LENGTH
            && secret.bytes().all(base64);
        is_token.then_some(Self { id, secret })
    }

    /// The text of these parts.
    pub fn join(id: &str, secret: &str) -> String {
        format!("{PREFIX}{id}_{secret}")
    }
}

/// The id that random bytes make.
pub fn id_of(random: [u8; ID_LENGTH]) -> String {
    random.iter().map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)])).collect()
}

/// The SHA-256 of a secret. It is fast to make, and nobody can turn 256 random bits round.
pub type SecretHash = [u8; 32];

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredToken {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub grants: Vec<Grant>,
    pub hash: SecretHash,
    /// The secret of before a rotation, and until when it is good.
    pub previous: Option<(SecretHash, Timestamp)>,
    pub created_by: String,
    pub created_at: Timestamp,
    /// None: it is good until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// At most a minute late.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl StoredToken {
    /// Whether it admits anybody.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// When it stopped admitting anybody.
    pub fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = self.expires_at.filter(|end| *end <= now);
        self.revoked_at.into_iter().chain(expired).min()
    }

    /// The hashes that are good now; two, so that a look-up takes the same time with and without a
    /// rotation.
    pub fn hashes(&self, now: Timestamp) -> [SecretHash; 2] {
        let previous = self.previous.filter(|(_, until)| now < *until);
        [self.hash, previous.map_or(self.hash, |(hash, _)| hash)]
    }

    /// The same with another secret; the one of before is good for a while.
    pub fn rotated(&self, hash: SecretHash, now: Timestamp) -> Self {
        let until = now.saturating_add(ROTATION_OVERLAP).unwrap_or(Timestamp::MAX);
        Self { hash, previous: Some((self.hash, until)), ..self.clone() }
    }
}

/// Without the hashes.
impl std::fmt::Debug for StoredToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("StoredToken")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// Why a token can't have a name, if it can't.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
    if RESERVED.contains(&name) || name.starts_with(COMPAT) {
        return Err(format!("{name:?} is what Mapsmith itself calls somebody; take another name"));
    }
    if fits {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a token's name: 1 to {LONGEST_NAME} letters, digits, dots, dashes, \
            underscores and @"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "abcdefghijklmnopqrstuvwxyz_-0123456789ABCDE";

    fn token() -> StoredToken {
        StoredToken {
            id: "k3v9x2ab".to_owned(),
            name: "ci".to_owned(),
            role: Role::Operator,
            grants: Vec::new(),
            hash: [1; 32],
            previous: None,
            created_by: "file".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_its_id_and_its_secret() {
        let text = TokenText::join("k3v9x2ab", SECRET);
        let parsed = TokenText::parse(&text).unwrap();
        assert_eq!((parsed.id, parsed.secret), ("k3v9x2ab", SECRET));
        for wrong in [
            "",
            "ms_",
            "ms_k3v9x2ab_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}A"),
            &text.replace("k3v9", "K3V9"),
            &text.replace("ab_", "ab-"),
            &text.replace('A', "+"),
            "ms_k3v9x2a\u{e9}",
        ] {
            assert!(TokenText::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_random_bytes_make_an_id_that_reads_back(random in any::<[u8; ID_LENGTH]>()) {
            let id = id_of(random);
            let text = TokenText::join(&id, SECRET);
            prop_assert_eq!(TokenText::parse(&text).map(|text| text.id), Some(id.as_str()));
        }

        #[test]
        fn no_text_at_all_upsets_the_parser(text in ".*") {
            if let Some(parts) = TokenText::parse(&text) {
                prop_assert_eq!(TokenText::join(parts.id, parts.secret), text);
            }
        }
    }

    #[test]
    fn a_token_has_no_name_that_mapsmith_calls_somebody_by() {
        for taken in ["file", "local", "clock", "settings", "compat.aqueduct"] {
            assert!(check_name(taken).unwrap_err().contains("take another name"), "{taken}");
        }
        for name in ["files", "compat", "compat-ci"] {
            assert_eq!(check_name(name), Ok(()));
        }
    }

    #[test]
    fn a_token_ends_at_its_time_or_when_it_is_revoked() {
        let token = StoredToken { expires_at: Some(at(100)), ..token() };
        assert!(token.is_valid(at(99)) && !token.is_valid(at(100)));
        assert_eq!((token.ended_at(at(99)), token.ended_at(at(100))), (None, Some(at(100))));
        let revoked = StoredToken { revoked_at: Some(at(50)), ..token };
        assert!(!revoked.is_valid(at(60)));
        assert_eq!(revoked.ended_at(at(200)), Some(at(50)));
    }

    #[test]
    fn the_secret_of_before_is_good_for_an_hour_after_a_rotation() {
        let rotated = token().rotated([2; 32], at(0));
        assert_eq!(rotated.hashes(at(3599)), [[2; 32], [1; 32]]);
        assert_eq!(rotated.hashes(at(3600)), [[2; 32], [2; 32]]);
        let again = rotated.rotated([3; 32], at(10));
        assert_eq!(again.hashes(at(11)), [[3; 32], [2; 32]], "only the one before");
        assert!(!format!("{rotated:?}").contains("hash"), "{rotated:?}");
    }

    #[test]
    fn a_name_goes_into_logs_as_it_is() {
        for name in ["ci", "anna@ops", "a.b-c_d", &"x".repeat(LONGEST_NAME)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for wrong in ["", "a b", "a\nb", "\u{e9}", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
