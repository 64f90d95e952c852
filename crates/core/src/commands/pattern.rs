//! What a value of a parameter must be: a regular expression over the whole of it.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// The longest value, in bytes.
pub const LONGEST_VALUE: usize = 1024;
/// The longest pattern, in bytes.
const LONGEST: usize = 256;
/// The most bytes that a compiled pattern may take. Time grows with the value alone: there is no
/// backtracking.
const MOST_BYTES: usize = 256 * 1024;

/// A regular expression that a value must match from its first to its last byte.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    text: String,
    whole: Regex,
}

/// Not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPattern {
    #[error("has 1 to {LONGEST} bytes")]
    Length,
    #[error("is not a regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Whether the whole value is what the pattern says, and no more than a value may be.
    pub fn matches(&self, value: &str) -> bool {
        value.len() <= LONGEST_VALUE
            && !value.chars().any(char::is_control)
            && self.whole.is_match(value)
    }
}

impl TryFrom<String> for Pattern {
    type Error = NotAPattern;

    fn try_from(text: String) -> Result<Self, NotAPattern> {
        if !(1..=LONGEST).contains(&text.len()) {
            return Err(NotAPattern::Length);
        }
        let compile = |text: &str| {
            let compiled = RegexBuilder::new(text).size_limit(MOST_BYTES).build();
            // A message of several lines draws where the fault is.
            compiled.map_err(|error| {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default();
                NotAPattern::Syntax(last.trim_start_matches("error: ").to_owned())
            })
        };
        // By itself first: `a)|(b` would end the group around it.
        compile(&text)?;
        let whole = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text, whole })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Result<Pattern, NotAPattern> {
        Pattern::try_from(text.to_owned())
    }

    #[test]
    fn a_value_is_matched_as_a_whole() {
        let matches = |text: &str, value: &str| pattern(text).unwrap().matches(value);
        assert!(matches("true|false", "true") && matches("true|false", "false"));
        for wrong in ["xtrue", "falsex", "true\n", "\ntrue", "true|false", "", "true\0"] {
            assert!(!matches("true|false", wrong), "{wrong:?}");
        }
        // `$` and `^` of a line are not those of the value.
        assert!(!matches("(?m)^a$", "a\nb"));
        assert!(!matches("(?s).*", "a\nb"), "no value has a line break");
        assert!(matches("[0-9]{1,4}", "2026") && !matches("[0-9]{1,4}", "20261"));
        assert!(matches(".*", &"x".repeat(LONGEST_VALUE)));
        assert!(!matches(".*", &"x".repeat(LONGEST_VALUE + 1)));
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for wrong in ["a)|(b", "(", "[", "a{2", "(?x)a #", "(?P<x", "\\"] {
            let error = pattern(wrong).map(|it| it.to_string());
            assert!(matches!(error, Err(NotAPattern::Syntax(_))), "{wrong:?}: {error:?}");
        }
        let big = pattern("((a{100}){100}){100}").unwrap_err().to_string();
        assert!(big.contains("size limit"), "{big}");
        assert_eq!(pattern("").unwrap_err(), NotAPattern::Length);
        assert_eq!(pattern(&"a".repeat(257)).unwrap_err(), NotAPattern::Length);
    }

    proptest! {
        #[test]
        fn no_value_passes_with_something_before_or_behind_it(
            before in "[^a]{0,5}",
            behind in "[^a]{0,5}",
        ) {
            let value = format!("{before}a{behind}");
            let is_whole = before.is_empty() && behind.is_empty();
            prop_assert_eq!(pattern("a").unwrap().matches(&value), is_whole);
            prop_assert_eq!(pattern("a|aa|()a").unwrap().matches(&value), is_whole);
        }
    }
}
