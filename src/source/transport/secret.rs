//! A token: never in `Debug`, a log or an error.

use std::fmt;
use std::path::Path;

use reqwest::header::HeaderValue;

use crate::source::error::SourceErrorKind;

/// A token as it stands in its file, whitespace around it removed.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// Reads the token again, so that a rotated one is used from the next poll on.
    pub(crate) async fn read(path: &Path) -> Result<Self, SourceErrorKind> {
        let fault = |cause: String| SourceErrorKind::Token { path: path.to_owned(), cause };
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| fault(format!("can't be read: {error}")))?;
        let token = text.trim_start_matches('\u{feff}').trim();
        if token.is_empty() {
            return Err(fault("is empty".to_owned()));
        }
        Ok(Self(token.to_owned()))
    }

    /// The token as a header's value after `prefix`, marked so that no library prints it.
    pub(crate) fn header(&self, prefix: &str, path: &Path) -> Result<HeaderValue, SourceErrorKind> {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).map_err(|_| {
            SourceErrorKind::Token {
                path: path.to_owned(),
                cause: "holds characters that no header can carry".to_owned(),
            }
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The token itself, for those that send it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// `text` without the token, for servers that repeat what they were sent.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> Result<Secret, SourceErrorKind> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        Secret::read(&path).await
    }

    #[tokio::test]
    async fn a_token_is_trimmed_and_never_printed() {
        let secret = read("\u{feff}  s3cret\n").await.unwrap();
        let header = secret.header("Bearer ", Path::new("token")).unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer s3cret");
        assert!(!format!("{secret:?} {header:?}").contains("s3cret"));
        assert_eq!(secret.hide_in("no s3cret here"), "no *** here");
    }

    #[tokio::test]
    async fn a_token_that_can_not_be_used_is_named_by_its_file_only() {
        assert!(read(" \n").await.unwrap_err().to_string().contains("is empty"));
        let message = read("s3cret\nsecond")
            .await
            .unwrap()
            .header("", Path::new("token"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("no header") && !message.contains("s3cret"), "{message}");
        let missing = Secret::read(Path::new("/nonexistent/token")).await.unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/token"), "{missing}");
    }
}
