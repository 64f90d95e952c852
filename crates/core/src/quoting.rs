//! Names in commands and paths that a person copies: what a registry says may be any word.

use std::borrow::Cow;

/// A word as a POSIX shell reads it back, and no option of the command.
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    match word.bytes().all(is_plain) && !word.is_empty() && !word.starts_with('-') {
        true => Cow::Borrowed(word),
        false => {
            let options_end = if word.starts_with('-') { "-- " } else { "" };
            Cow::Owned(format!("{options_end}'{}'", word.replace('\'', r"'\''")))
        }
    }
}

/// A part of a URL's path: percent-encoded, but for what RFC 3986 calls unreserved.
pub fn path_segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string can't fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        for (word, quoted) in [
            ("master1.example.com:8140", "master1.example.com:8140"),
            ("m;$(id)", "'m;$(id)'"),
            ("`id`", "'`id`'"),
            ("it's", r"'it'\''s'"),
            ("a\\b", "'a\\b'"),
            ("~", "'~'"),
            ("", "''"),
            ("-x", "-- '-x'"),
            ("m\u{e4}", "'m\u{e4}'"),
        ] {
            assert_eq!(shell_word(word), quoted, "{word}");
        }
    }

    #[test]
    fn a_part_of_a_path_has_no_delimiter() {
        assert_eq!(path_segment("m1.example.com"), "m1.example.com");
        assert_eq!(path_segment("a/b?c#d%\u{e4}"), "a%2Fb%3Fc%23d%25%C3%A4");
    }
}
