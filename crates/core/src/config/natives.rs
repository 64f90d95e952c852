//! Native lines: lines of `haproxy.cfg` as HAProxy's manual has them.

use serde::{Deserialize, Serialize};

use crate::render::secrets::masked;
use crate::render::words::{LineError, words};

/// The words that begin a section: what follows one of them would belong to another section than
/// the setting says.
const SECTIONS: [&str; 21] = [
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "userlist",
    "peers",
    "mailers",
    "resolvers",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "log-profile",
    "cache",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
    "namespace_list",
    "dynamic-update",
];

/// A line that is rendered as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Native(String);

/// Why a text is not a native line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NativeError {
    #[error("the line {line:?} {fault}")]
    Line { line: String, fault: LineError },
    #[error("the line is empty or a comment")]
    Empty,
    #[error("the line begins with {0:?}, which would begin another section or a condition")]
    Section(String),
}

impl Native {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with this word.
    pub fn is(&self, keyword: &str) -> bool {
        self.0.split_ascii_whitespace().next() == Some(keyword)
    }
}

impl TryFrom<String> for Native {
    type Error = NativeError;

    fn try_from(line: String) -> Result<Self, NativeError> {
        let words =
            words(&line).map_err(|fault| NativeError::Line { line: shown(&line), fault })?;
        let first = words.first().ok_or(NativeError::Empty)?;
        if SECTIONS.contains(&first.as_str()) || first.starts_with('.') {
            return Err(NativeError::Section(first.clone()));
        }
        Ok(Self(line.trim().to_owned()))
    }
}

/// A line as people see it.
fn shown(line: &str) -> String {
    masked(line).unwrap_or_else(|| line.to_owned())
}

impl From<Native> for String {
    fn from(native: Native) -> Self {
        native.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_in_its_section() {
        let native = |line: &str| Native::try_from(line.to_owned());
        assert_eq!(native("  option abortonclose ").unwrap().as_str(), "option abortonclose");
        for line in ["frontend x", "  .if 1", "'backend' y", "glo\"bal\"", "lis\\ten x"] {
            let refused = native(line);
            let is_section = matches!(refused, Err(NativeError::Section(_)));
            assert!(is_section || line == "lis\\ten x", "{line}: {refused:?}");
        }
        assert_eq!(native("# a comment"), Err(NativeError::Empty));
        assert!(matches!(native("a\nfrontend x"), Err(NativeError::Line { .. })));
        let refused = native("stats auth 'a:geheim").unwrap_err().to_string();
        assert!(refused.contains("stats auth ***") && !refused.contains("geheim"), "{refused}");
    }
}
