//! What may stand as a key (a node) or a value (a master) in a HAProxy map.
//!
//! HAProxy itself takes almost anything and fails late: a key without a value swallows the next
//! payload line, a line break splits an entry in two, `#` starts a comment in a map file but not in
//! a payload. Nothing that breaks these rules may reach a command, so every entry passes here
//! first.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest key or value, in bytes: what the shipped stick table (`type string len 255`) and a
/// DNS name can carry.
pub const MAX_BYTES: usize = 255;

/// Why an entry is left out of the map, or a row out of a server list.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    thiserror::Error,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    #[error("node name is empty")]
    EmptyKey,
    /// The key contains whitespace, which ends a key in HAProxy.
    #[error("node name contains whitespace")]
    KeyWhitespace,
    /// The key holds a control character, or another that can't be seen.
    #[error("node name contains a control or invisible character")]
    KeyControl,
    #[error("node name is longer than 255 bytes")]
    KeyTooLong,
    /// The key begins with `#` (a comment in a map file), or has `<<` at an end (a payload mark on
    /// a command line: 2.6 looks for it at the line's end and waits for a payload, later versions
    /// at the beginning of the last word).
    #[error(
        "node name begins with `#` or has `<<` at an end, which HAProxy reads as a comment \
            or a payload mark"
    )]
    KeyMark,
    #[error("the registry names no master for the node (null)")]
    NoMaster,
    /// The value is an empty text, which would swallow the next entry.
    #[error("master name is empty")]
    EmptyValue,
    #[error("master name contains whitespace")]
    ValueWhitespace,
    #[error("master name contains a control or invisible character")]
    ValueControl,
    #[error("master name is longer than 255 bytes")]
    ValueTooLong,
    #[error(
        "master name begins with `#` or has `<<` at an end, which HAProxy reads as a \
            comment or a payload mark"
    )]
    ValueMark,
    /// The key or the value is a number, a list or an object where a text must stand.
    #[error("node or master is not a string")]
    NotString,
    #[error("the row has no field for the node")]
    NoNode,
    /// The answer names the node more than once with different masters; see `Snapshot` for which
    /// one is kept.
    #[error("the answer names the node twice with different masters")]
    Conflict,
    /// A row of a server list that is no object, lacks the address, or has a field of another type
    /// than it should have.
    #[error("the row does not describe a server")]
    ServerRow,
    #[error("the server's name is not valid in HAProxy")]
    ServerName,
    #[error("the server's address is not valid")]
    ServerAddress,
    #[error("the server's weight is not within 0 to 256")]
    ServerWeight,
    #[error("the server has an option that HAProxy does not take at runtime")]
    ServerOption,
    #[error("the list names the server twice")]
    ServerTwice,
    /// A record of another type than a selector asks for: somebody else's, and no mistake.
    #[error("the record is of a type that is not asked for")]
    RecordType,
}

impl Invalid {
    pub fn label(self) -> String {
        crate::label(self)
    }
}

/// Whether a word may stand in a map; `invalid` are the reasons: empty, too long, a mark of
/// HAProxy's, whitespace, an invisible character.
fn check(word: &str, invalid: [Invalid; 5]) -> Result<(), Invalid> {
    let [empty, too_long, mark, white_space, control] = invalid;
    if word.is_empty() {
        return Err(empty);
    }
    if word.len() > MAX_BYTES {
        return Err(too_long);
    }
    if word.starts_with('#') || word.starts_with("<<") || word.ends_with("<<") {
        return Err(mark);
    }
    // Registry names are ASCII almost always; the slow walk over characters is for the rest.
    if word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let problem = word.chars().find_map(|character| match character {
        _ if character.is_whitespace() => Some(white_space),
        _ if is_invisible(character) => Some(control),
        _ => None,
    });
    problem.map_or(Ok(()), Err)
}

/// What leaves no mark on a screen, or changes what is around it (Unicode's format characters and
/// those that it has ignored by default), and the sign for bytes that were none: two names that
/// look alike must be one, and no name may turn a line of a log round.
const INVISIBLE: [RangeInclusive<char>; 15] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff0}'..='\u{fffd}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether the character can't be seen, or makes others be seen wrongly: a control character, or
/// one of Unicode's invisible ones.
pub fn is_invisible(character: char) -> bool {
    character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character))
}

/// Whether `key` may be a map key.
pub fn check_key(key: &str) -> Result<(), Invalid> {
    use Invalid::{EmptyKey, KeyControl, KeyMark, KeyTooLong, KeyWhitespace};
    check(key, [EmptyKey, KeyTooLong, KeyMark, KeyWhitespace, KeyControl])
}

/// Whether `value` may be a map value.
pub fn check_value(value: &str) -> Result<(), Invalid> {
    use Invalid::{EmptyValue, ValueControl, ValueMark, ValueTooLong, ValueWhitespace};
    check(value, [EmptyValue, ValueTooLong, ValueMark, ValueWhitespace, ValueControl])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_haproxy_takes_are_valid() {
        let longest = "n".repeat(MAX_BYTES);
        for name in
            ["node1.example.com", "a;b", r"a\b", "\"q\"", "knöten.test", "a#b", "a<<b", &longest]
        {
            assert_eq!(check_key(name), Ok(()), "{name:?} as a key");
            assert_eq!(check_value(name), Ok(()), "{name:?} as a value");
        }
    }

    #[test]
    fn names_that_would_corrupt_a_map_are_refused_with_their_reason() {
        let too_long = "n".repeat(MAX_BYTES + 1);
        for (name, key, value) in [
            ("", Invalid::EmptyKey, Invalid::EmptyValue),
            (" ", Invalid::KeyWhitespace, Invalid::ValueWhitespace),
            ("a b", Invalid::KeyWhitespace, Invalid::ValueWhitespace),
            ("a\nb", Invalid::KeyWhitespace, Invalid::ValueWhitespace),
            ("a\u{a0}b", Invalid::KeyWhitespace, Invalid::ValueWhitespace),
            ("a\0b", Invalid::KeyControl, Invalid::ValueControl),
            ("a\u{7f}", Invalid::KeyControl, Invalid::ValueControl),
            ("a\u{200b}b", Invalid::KeyControl, Invalid::ValueControl),
            ("\u{202e}a", Invalid::KeyControl, Invalid::ValueControl),
            ("\u{feff}a", Invalid::KeyControl, Invalid::ValueControl),
            ("a\u{ad}", Invalid::KeyControl, Invalid::ValueControl),
            ("a\u{fffd}", Invalid::KeyControl, Invalid::ValueControl),
            ("a\u{e0061}", Invalid::KeyControl, Invalid::ValueControl),
            ("#a", Invalid::KeyMark, Invalid::ValueMark),
            ("<<", Invalid::KeyMark, Invalid::ValueMark),
            ("a<<", Invalid::KeyMark, Invalid::ValueMark),
            (&too_long, Invalid::KeyTooLong, Invalid::ValueTooLong),
        ] {
            assert_eq!(check_key(name), Err(key), "{name:?} as a key");
            assert_eq!(check_value(name), Err(value), "{name:?} as a value");
        }
    }

    #[test]
    fn a_reason_has_one_name_in_metrics_and_json() {
        for reason in [
            Invalid::EmptyKey,
            Invalid::NoMaster,
            Invalid::ValueTooLong,
            Invalid::Conflict,
            Invalid::ServerTwice,
            Invalid::RecordType,
        ] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json.trim_matches('"'), reason.label());
        }
    }
}
