//! What may stand as a key (a node) or a value (a master) in a HAProxy map.
//!
//! HAProxy itself takes almost anything and fails late: a key without a value swallows the next
//! payload line, a line break splits an entry in two, `#` starts a comment in a map file but not in
//! a payload. Nothing that breaks these rules may reach a command, so every entry passes here
//! first.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

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
)]
#[serde(rename_all = "snake_case")]
pub enum Illegal {
    /// The key is an empty text.
    #[error("the node's name is empty")]
    EmptyKey,
    /// The key holds white space, which ends a key in HAProxy.
    #[error("the node's name holds white space")]
    KeyWhiteSpace,
    /// The key holds a control character, or another that can't be seen.
    #[error("the node's name holds a control or invisible character")]
    KeyControl,
    /// The key is longer than [`MAX_BYTES`].
    #[error("the node's name is longer than 255 bytes")]
    KeyTooLong,
    /// The key begins with `#` (a comment in a map file), or has `<<` at an end (a payload mark on
    /// a command line: 2.6 looks for it at the line's end and waits for a payload, later versions
    /// at the beginning of the last word).
    #[error(
        "the node's name begins with `#` or has `<<` at an end, which HAProxy reads as a comment \
            or a payload mark"
    )]
    KeyMark,
    /// The registry knows the node but names no master for it.
    #[error("the registry names no master for the node (null)")]
    NoMaster,
    /// The value is an empty text, which would swallow the next entry.
    #[error("the master's name is empty")]
    EmptyValue,
    /// The value holds white space.
    #[error("the master's name holds white space")]
    ValueWhiteSpace,
    /// The value holds a control character, or another that can't be seen.
    #[error("the master's name holds a control or invisible character")]
    ValueControl,
    /// The value is longer than [`MAX_BYTES`].
    #[error("the master's name is longer than 255 bytes")]
    ValueTooLong,
    /// The value begins with `#` or has `<<` at an end.
    #[error(
        "the master's name begins with `#` or has `<<` at an end, which HAProxy reads as a \
            comment or a payload mark"
    )]
    ValueMark,
    /// The key or the value is a number, a list or an object where a text must stand.
    #[error("the node or its master is no text")]
    NotText,
    /// The row lacks the field that names the node.
    #[error("the row has no field for the node")]
    NoNode,
    /// The answer names the node more than once with different masters; see `Snapshot` for which
    /// one is kept.
    #[error("the answer names the node twice with different masters")]
    Conflict,
    /// A row of a server list that is no object, lacks the address, or has a field of another type
    /// than it should have.
    #[error("the row describes no server")]
    ServerRow,
    /// A server's name that HAProxy does not take.
    #[error("the server's name is none that HAProxy takes")]
    ServerName,
    /// A server's address or port that is none.
    #[error("the server's address is none")]
    ServerAddress,
    /// A weight out of its range.
    #[error("the server's weight is not within 0 to 256")]
    ServerWeight,
    /// An option that a server can't be given at runtime.
    #[error("the server has an option that HAProxy does not take at runtime")]
    ServerOption,
    /// Another server of the list has the name already.
    #[error("the list names the server twice")]
    ServerTwice,
}

impl Illegal {
    /// The reason as a metric label and in JSON: the variant in snake case.
    pub fn label(self) -> &'static str {
        match self {
            Illegal::EmptyKey => "empty_key",
            Illegal::KeyWhiteSpace => "key_white_space",
            Illegal::KeyControl => "key_control",
            Illegal::KeyTooLong => "key_too_long",
            Illegal::KeyMark => "key_mark",
            Illegal::NoMaster => "no_master",
            Illegal::EmptyValue => "empty_value",
            Illegal::ValueWhiteSpace => "value_white_space",
            Illegal::ValueControl => "value_control",
            Illegal::ValueTooLong => "value_too_long",
            Illegal::ValueMark => "value_mark",
            Illegal::NotText => "not_text",
            Illegal::NoNode => "no_node",
            Illegal::Conflict => "conflict",
            Illegal::ServerRow => "server_row",
            Illegal::ServerName => "server_name",
            Illegal::ServerAddress => "server_address",
            Illegal::ServerWeight => "server_weight",
            Illegal::ServerOption => "server_option",
            Illegal::ServerTwice => "server_twice",
        }
    }
}

enum Fault {
    Empty,
    WhiteSpace,
    Control,
    TooLong,
    Mark,
}

fn fault(word: &str) -> Option<Fault> {
    if word.is_empty() {
        return Some(Fault::Empty);
    }
    if word.len() > MAX_BYTES {
        return Some(Fault::TooLong);
    }
    if word.starts_with('#') || word.starts_with("<<") || word.ends_with("<<") {
        return Some(Fault::Mark);
    }
    // Registry names are ASCII almost always; the slow walk over characters is for the rest.
    if word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    word.chars().find_map(|character| {
        if character.is_whitespace() {
            Some(Fault::WhiteSpace)
        } else if is_invisible(character) {
            Some(Fault::Control)
        } else {
            None
        }
    })
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
///
/// # Errors
/// The first rule that it breaks.
pub fn check_key(key: &str) -> Result<(), Illegal> {
    match fault(key) {
        None => Ok(()),
        Some(Fault::Empty) => Err(Illegal::EmptyKey),
        Some(Fault::WhiteSpace) => Err(Illegal::KeyWhiteSpace),
        Some(Fault::Control) => Err(Illegal::KeyControl),
        Some(Fault::TooLong) => Err(Illegal::KeyTooLong),
        Some(Fault::Mark) => Err(Illegal::KeyMark),
    }
}

/// Whether `value` may be a map value.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_value(value: &str) -> Result<(), Illegal> {
    match fault(value) {
        None => Ok(()),
        Some(Fault::Empty) => Err(Illegal::EmptyValue),
        Some(Fault::WhiteSpace) => Err(Illegal::ValueWhiteSpace),
        Some(Fault::Control) => Err(Illegal::ValueControl),
        Some(Fault::TooLong) => Err(Illegal::ValueTooLong),
        Some(Fault::Mark) => Err(Illegal::ValueMark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_haproxy_takes_are_legal() {
        let longest = "n".repeat(MAX_BYTES);
        for name in
            ["node1.example.com", "a;b", r"a\b", "\"q\"", "knöten.example", "a#b", "a<<b", &longest]
        {
            assert_eq!(check_key(name), Ok(()), "{name:?} as a key");
            assert_eq!(check_value(name), Ok(()), "{name:?} as a value");
        }
    }

    #[test]
    fn names_that_would_corrupt_a_map_are_refused_with_their_reason() {
        let too_long = "n".repeat(MAX_BYTES + 1);
        for (name, key, value) in [
            ("", Illegal::EmptyKey, Illegal::EmptyValue),
            (" ", Illegal::KeyWhiteSpace, Illegal::ValueWhiteSpace),
            ("a b", Illegal::KeyWhiteSpace, Illegal::ValueWhiteSpace),
            ("a\nb", Illegal::KeyWhiteSpace, Illegal::ValueWhiteSpace),
            ("a\u{a0}b", Illegal::KeyWhiteSpace, Illegal::ValueWhiteSpace),
            ("a\0b", Illegal::KeyControl, Illegal::ValueControl),
            ("a\u{7f}", Illegal::KeyControl, Illegal::ValueControl),
            ("a\u{200b}b", Illegal::KeyControl, Illegal::ValueControl),
            ("\u{202e}a", Illegal::KeyControl, Illegal::ValueControl),
            ("\u{feff}a", Illegal::KeyControl, Illegal::ValueControl),
            ("a\u{ad}", Illegal::KeyControl, Illegal::ValueControl),
            ("a\u{fffd}", Illegal::KeyControl, Illegal::ValueControl),
            ("a\u{e0061}", Illegal::KeyControl, Illegal::ValueControl),
            ("#a", Illegal::KeyMark, Illegal::ValueMark),
            ("<<", Illegal::KeyMark, Illegal::ValueMark),
            ("a<<", Illegal::KeyMark, Illegal::ValueMark),
            (&too_long, Illegal::KeyTooLong, Illegal::ValueTooLong),
        ] {
            assert_eq!(check_key(name), Err(key), "{name:?} as a key");
            assert_eq!(check_value(name), Err(value), "{name:?} as a value");
        }
    }

    #[test]
    fn a_reason_has_one_name_in_metrics_and_json() {
        for reason in [
            Illegal::EmptyKey,
            Illegal::NoMaster,
            Illegal::ValueTooLong,
            Illegal::Conflict,
            Illegal::ServerTwice,
        ] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json.trim_matches('"'), reason.label());
        }
    }
}
