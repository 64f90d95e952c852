//! Lines of HAProxy's configuration, word by word, as its tokenizer reads them (`parse_line` of
//! HAProxy 2.6 to 3.4).
//!
//! A value must reach HAProxy unchanged, in the one word that it was written for: it may not end its
//! word, begin another, or be read as an environment variable.

use std::fmt::{self, Write};

/// The most words that HAProxy takes in a line; what is beyond them it cuts off, or refuses.
pub const MAX_WORDS: usize = 64;

/// A line that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    text: String,
    words: usize,
}

impl Line {
    /// A line that begins with words in HAProxy's own syntax.
    pub fn new(keywords: &str) -> Self {
        Self { words: keywords.split_ascii_whitespace().count(), text: keywords.to_owned() }
    }

    /// More words in HAProxy's own syntax.
    #[must_use]
    pub fn words(mut self, keywords: &str) -> Self {
        self.push_words(keywords);
        self
    }

    /// A value, as one word.
    #[must_use]
    pub fn value(mut self, value: &str) -> Self {
        self.push_value(value);
        self
    }

    /// A value where HAProxy expects a log format, as plain text.
    #[must_use]
    pub fn text(self, value: &str) -> Self {
        self.value(&value.replace('%', "%%"))
    }

    /// A value and a line break, as one word.
    #[must_use]
    pub fn value_line(mut self, value: &str) -> Self {
        self.push_value(value);
        self.text.push_str(r#""\n""#);
        self
    }

    pub fn push_words(&mut self, keywords: &str) {
        self.words += keywords.split_ascii_whitespace().count();
        self.text.push(' ');
        self.text.push_str(keywords);
    }

    pub fn push_value(&mut self, value: &str) {
        self.words += 1;
        self.text.push(' ');
        quote(&mut self.text, value);
    }

    /// How many words it has; HAProxy takes [`MAX_WORDS`].
    pub fn len(&self) -> usize {
        self.words
    }

    pub fn is_empty(&self) -> bool {
        self.words == 0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Whether a character stands for itself outside of quotes, wherever it is in a word.
fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_.:-/@,+=%*".contains(character)
}

/// Appends a value as one word: bare where every character stands for itself, or in single quotes,
/// within which only the quote itself means something.
fn quote(text: &mut String, value: &str) {
    if !value.is_empty() && value.chars().all(is_plain) {
        return text.push_str(value);
    }
    text.push('\'');
    for character in value.chars() {
        match character {
            '\'' => text.push_str(r"'\''"),
            _ => text.push(character),
        }
    }
    text.push('\'');
}

/// A value as one word.
pub fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    quote(&mut text, value);
    text
}

/// Why a text is not a line of HAProxy's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("has a quote that is not closed")]
    OpenQuote,
    #[error("ends with a backslash")]
    OpenEscape,
    #[error(r"has a \x without two hexadecimal digits, or \x00")]
    Escape,
    #[error("contains a line break or another control character")]
    Control,
    #[error("has more than 64 words, HAProxy's limit")]
    TooLong,
    #[error("has an empty word, which ends the line in some versions of HAProxy")]
    EmptyWord,
    #[error(
        "has an environment variable ($NAME in double quotes): write its value, or set the key by a MAPSMITH__ variable"
    )]
    Variable,
}

/// The words of a line, as HAProxy reads them.
///
/// # Errors
/// HAProxy refuses the line, its versions read it differently, or it reads the environment.
pub fn words(line: &str) -> Result<Vec<String>, LineError> {
    if line.chars().any(|character| character.is_control() && character != '\t') {
        return Err(LineError::Control);
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '#') => break,
            (Some('"'), '$') => return Err(LineError::Variable),
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push_str(&escaped(&mut characters)?);
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(LineError::OpenQuote);
    }
    words.extend(word);
    if words.iter().any(String::is_empty) {
        return Err(LineError::EmptyWord);
    }
    if words.len() > MAX_WORDS {
        return Err(LineError::TooLong);
    }
    Ok(words)
}

/// What a backslash and what follows it stand for.
fn escaped(characters: &mut std::str::Chars<'_>) -> Result<String, LineError> {
    let mut text = String::new();
    match characters.next().ok_or(LineError::OpenEscape)? {
        'n' => text.push('\n'),
        'r' => text.push('\r'),
        't' => text.push('\t'),
        'x' => {
            let digits = characters.as_str().get(..2).ok_or(LineError::Escape)?;
            let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0);
            text.push(char::from(byte.ok_or(LineError::Escape)?));
            characters.nth(1);
        }
        character @ (' ' | '#' | '\\' | '"' | '\'') => text.push(character),
        // Not an escape: both characters stay.
        character => write!(text, "\\{character}").unwrap_or_default(),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_read_as_haproxy_reads_it() {
        for (line, expected) in [
            ("server a 127.0.0.1:80 check", &["server", "a", "127.0.0.1:80", "check"][..]),
            ("  a\tb  # c", &["a", "b"]),
            ("a#b", &["a"]),
            (r"a\#b \ c", &["a#b", " c"]),
            (r#"a "b c" 'd "e"' "f'g""#, &["a", "b c", "d \"e\"", "f'g"]),
            (r#"set "a\nb" 'a\nb'"#, &["set", "a\nb", r"a\nb"]),
            (r"\x41\x20b", &["A b"]),
            (r"'it'\''s'", &["it's"]),
            (r"rex ^/a\.b$", &["rex", r"^/a\.b$"]),
            ("'$HOME' $HOME", &["$HOME", "$HOME"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for (line, expected) in [
            ("a 'b", LineError::OpenQuote),
            ("a \"b", LineError::OpenQuote),
            ("a \\", LineError::OpenEscape),
            (r"a \x0", LineError::Escape),
            (r"a \x00", LineError::Escape),
            ("a\nb", LineError::Control),
            ("a ''", LineError::EmptyWord),
            ("a \"${HOME}\"", LineError::Variable),
        ] {
            assert_eq!(words(line), Err(expected), "{line}");
        }
        assert_eq!(words(&"a ".repeat(65)), Err(LineError::TooLong));
    }

    #[test]
    fn a_value_that_needs_no_quotes_has_none() {
        let line = Line::new("server").value("web-1").value("10.0.0.1:80").words("check inter 2s");
        assert_eq!(
            (line.to_string().as_str(), line.len()),
            ("server web-1 10.0.0.1:80 check inter 2s", 6)
        );
        let line = Line::new("http-request set-header").value("X-A").text("50% off; it's");
        assert_eq!(line.to_string(), r"http-request set-header X-A '50%% off; it'\''s'");
    }

    proptest! {
        #[test]
        fn any_value_stays_in_its_word(values in proptest::collection::vec("[^\\p{Cc}]{1,20}", 1..20)) {
            let line = values.iter().fold(Line::new("key"), |line, value| line.value(value));
            let mut read = words(&line.to_string()).unwrap();
            prop_assert_eq!(read.len(), line.len());
            prop_assert_eq!(read.split_off(1), values);
        }
    }
}
