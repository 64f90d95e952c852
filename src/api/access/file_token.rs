//! The token of `api.token_file`, and that file as it changes.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use mapsmith_core::access::token::SecretHash;

use crate::store::secret;

/// The most that is read of the file.
const LARGEST: u64 = 64 * 1024;
/// The fewest characters of a token that nobody guesses.
const SHORTEST: usize = 16;

/// A bearer token of a file. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads it from a file, without the whitespace round it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |why: &dyn fmt::Display| format!("api.token_file {}: {why}", path.display());
        let size = std::fs::metadata(path).map_err(|error| named(&error))?.len();
        if size > LARGEST {
            return Err(named(&"the file is larger than any token"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        // Some editors put a byte order mark there.
        match text.trim_start_matches('\u{feff}').trim() {
            "" => Err(named(&"the file is empty")),
            token => Ok(Self(token.to_owned())),
        }
    }

    /// What is unsafe about the token of a file, if anything.
    pub fn weakness(&self, path: &Path) -> Option<String> {
        let length = self.0.chars().count();
        if length < SHORTEST {
            return Some(format!(
                "the token has {length} characters, which can be guessed: use {SHORTEST} random \
                    ones or more (`openssl rand -base64 32`)"
            ));
        }
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o007 != 0).then(|| {
            format!(
                "every user of this machine may use the file (mode {mode:03o}): `chmod o= FILE`"
            )
        })
    }

    /// The token itself, for one who has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(hidden)")
    }
}

/// The file's token as it was read last.
#[derive(Debug)]
pub struct FileToken {
    path: PathBuf,
    state: RwLock<State>,
}

struct State {
    hash: SecretHash,
    /// Why the file can't be read any more; the token of before is good meanwhile.
    error: Option<String>,
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("State").field("error", &self.error).finish_non_exhaustive()
    }
}

impl FileToken {
    pub fn new(path: &Path, token: &Token) -> Self {
        warn_of(token, path);
        let state = State { hash: secret::hash(token.reveal()), error: None };
        Self { path: path.to_owned(), state: RwLock::new(state) }
    }

    /// Reads the file again; blocks.
    pub fn read_again(&self) {
        let read = Token::read(&self.path);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(token) => {
                let hash = secret::hash(token.reveal());
                if hash != state.hash {
                    tracing::info!("api.token_file {}: another token", self.path.display());
                    warn_of(&token, &self.path);
                }
                *state = State { hash, error: None };
            }
            Err(error) => {
                if state.error.as_ref() != Some(&error) {
                    tracing::error!("{error}; the token of before stays good");
                }
                state.error = Some(error);
            }
        }
    }

    /// Why the file can't be read, if it can't.
    pub fn error(&self) -> Option<String> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// Whether this is the token, in a time that does not tell how much of it is right.
    pub(super) fn is(&self, given: &str) -> bool {
        self.has(&secret::hash(given))
    }

    pub(super) fn has(&self, hash: &SecretHash) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        secret::is_same(&state.hash, hash)
    }
}

fn warn_of(token: &Token, path: &Path) {
    if let Some(weakness) = token.weakness(path) {
        tracing::warn!("api.token_file {}: {weakness}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_token_in_the_file_is_good_at_once_and_a_file_that_is_gone_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "\u{feff}one\n").unwrap();
        let token = FileToken::new(&path, &Token::read(&path).unwrap());
        assert!(token.is("one") && !token.is("one\n") && !token.is("on") && !token.is(""));
        std::fs::write(&path, " two ").unwrap();
        token.read_again();
        assert!(token.is("two") && !token.is("one") && token.error().is_none());
        for (text, words) in [(Some("\n"), "is empty"), (None, "No such file")] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            token.read_again();
            assert!(token.is("two") && !token.is(""));
            assert!(token.error().is_some_and(|error| error.contains(words)), "{token:?}");
        }
        assert!(!format!("{token:?} {:?}", Token("two".to_owned())).contains("two"));
    }

    #[test]
    fn a_token_that_can_be_guessed_or_read_by_everybody_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let weakness = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::read(&path).unwrap().weakness(&path).unwrap_or_default()
        };
        assert_eq!(weakness("0123456789abcdef\n", 0o640), "");
        assert!(weakness("0123456789abcde", 0o600).contains("15 characters"));
        let open = weakness("0123456789abcdef", 0o644);
        assert!(open.contains("mode 644") && !open.contains("0123"), "{open}");
    }
}
