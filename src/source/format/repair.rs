//! What a registry's JSON should not hold, made harmless in place, so that one row never fails the
//! rest. Pure.
//!
//! Only what is wrong within a text or a number is touched: half a surrogate pair, a raw control
//! character, bytes that are no UTF-8, a number beyond all range. A row that is cut, or whose
//! brackets don't match, stays as it is. What is put in is as long as what it replaces, so that
//! positions stay right, and is nothing that a name or a number may be: the row is left out with
//! its reason.

/// DEL: JSON may hold it, and no name.
const MARK: u8 = 0x7f;
/// The same as an escape, as long as each half of a surrogate pair.
const ESCAPED_MARK: &[u8] = br"\u007f";

/// Mends the first value of `text`, or the pair `"name": value`, as far as it goes; `last`: no more
/// will come. Whether anything was changed.
pub(super) fn repair(text: &mut [u8], last: bool) -> bool {
    let (mut changed, mut depth, mut at) = (false, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => match mend_text(&mut text[at..], last, &mut changed) {
                Some(length) => at += length,
                None => break,
            },
            b'-' | b'0'..=b'9' => {
                let rest = &mut text[at..];
                let length =
                    rest.iter().position(|byte| !is_of_number(*byte)).unwrap_or(rest.len());
                if length == rest.len() && !last {
                    break;
                }
                changed |= mend_number(&mut rest[..length]);
                at += length;
            }
            b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b']' | b'}' | b',' if depth == 0 => break,
            b']' | b'}' => {
                depth -= 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    changed
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

/// A number that no program can hold becomes an empty list, which is no number and no text.
fn mend_number(number: &mut [u8]) -> bool {
    let beyond = str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .is_some_and(f64::is_infinite);
    if beyond {
        number.fill(b' ');
        number[..2].copy_from_slice(b"[]");
    }
    beyond
}

/// Mends a text that begins with its quote. Its length with both quotes, or none where its end, or
/// the end of a character in doubt, is not there.
fn mend_text(text: &mut [u8], last: bool, changed: &mut bool) -> Option<usize> {
    let mut at = 1;
    loop {
        let rest = &mut text[at..];
        at += match *rest.first()? {
            b'"' => return Some(at + 1),
            b'\\' => match escape(rest, last)? {
                Escape::Fine(length) => length,
                Escape::Half => {
                    rest[..ESCAPED_MARK.len()].copy_from_slice(ESCAPED_MARK);
                    *changed = true;
                    ESCAPED_MARK.len()
                }
            },
            0..0x20 => {
                rest[0] = MARK;
                *changed = true;
                1
            }
            0x20..0x80 => 1,
            _ => match character(rest, last)? {
                Ok(length) => length,
                Err(length) => {
                    rest[..length].fill(MARK);
                    *changed = true;
                    length
                }
            },
        };
    }
}

enum Escape {
    /// To be left as it is, with its length: the parser judges it.
    Fine(usize),
    /// One half of a surrogate pair alone.
    Half,
}

/// None where more has to come first.
fn escape(text: &[u8], last: bool) -> Option<Escape> {
    let unit = |from: usize| {
        let digits = text.get(from..from + 6)?.strip_prefix(br"\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let incomplete = |from: usize| {
        let there = &text[from.min(text.len())..];
        there.len() < 6
            && (there.len() < 2 && br"\u".starts_with(there) || there.starts_with(br"\u"))
    };
    if incomplete(0) {
        return last.then_some(Escape::Fine(1));
    }
    match unit(0) {
        Some(0xd800..0xdc00) if incomplete(6) && !last => None,
        Some(0xd800..0xdc00) if unit(6).is_some_and(|low| (0xdc00..0xe000).contains(&low)) => {
            Some(Escape::Fine(12))
        }
        Some(0xd800..0xe000) => Some(Escape::Half),
        _ => Some(Escape::Fine(2)),
    }
}

/// The length of the character at the beginning, or of the bytes that are none. None where more has
/// to come first.
fn character(text: &[u8], last: bool) -> Option<Result<usize, usize>> {
    let window = &text[..text.len().min(4)];
    let valid = match str::from_utf8(window) {
        Ok(characters) => characters,
        Err(error) if error.valid_up_to() > 0 => {
            str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return error.error_len().or_else(|| last.then_some(window.len())).map(Err),
    };
    valid.chars().next().map(|character| Ok(character.len_utf8()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn repaired(text: &[u8]) -> (bool, Value) {
        let mut text = text.to_vec();
        let changed = repair(&mut text, true);
        (
            changed,
            serde_json::from_slice(&text)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text))),
        )
    }

    #[test]
    fn what_is_wrong_within_texts_and_numbers_becomes_something_that_no_name_holds() {
        for (text, value) in [
            (
                &br#"["\ud800", "a\ud83dz", "\udc00b", "\ud83d\ud83d\ude00"]"#[..],
                json!(["\u{7f}", "a\u{7f}z", "\u{7f}b", "\u{7f}😀"]),
            ),
            (b"[\"a\nb\", \"\x00\"]", json!(["a\u{7f}b", "\u{7f}"])),
            (b"{\"a\xff\": \"\xc3(\xe2\x82\"}", json!({"a\u{7f}": "\u{7f}(\u{7f}\u{7f}"})),
            (b"[1e999, -1E+400, [2]]", json!([[], [], [2]])),
        ] {
            assert_eq!(repaired(text), (true, value), "{}", String::from_utf8_lossy(text));
        }
        let huge = format!("[{}]", "9".repeat(400));
        assert_eq!(repaired(huge.as_bytes()), (true, json!([[]])));
    }

    #[test]
    fn only_the_first_value_is_mended() {
        let mut text = b"\"a\x01\": \"\x02\", \"\x03\": 1e999}".to_vec();
        assert!(repair(&mut text, true));
        assert_eq!(text, b"\"a\x7f\": \"\x7f\", \"\x03\": 1e999}");
    }

    #[test]
    fn what_has_not_ended_is_left_until_it_has() {
        for whole in [&br#""\ud83d\ude00""#[..], "\"é€😀\"".as_bytes(), b"1e99 ", br#""\\ud800""#]
        {
            for cut in 0..whole.len() {
                let mut text = whole[..cut].to_vec();
                assert!(!repair(&mut text, false), "{:?}", String::from_utf8_lossy(&text));
            }
            let mut text = whole.to_vec();
            assert!(
                !repair(&mut text, true) && text == whole,
                "{:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    proptest! {
        #[test]
        fn a_good_text_is_never_touched(text in ".{0,40}", number: f64) {
            let whole = json!([text, {"k": number}]).to_string();
            let mut repaired = whole.clone().into_bytes();
            prop_assert!(!repair(&mut repaired, true));
            prop_assert_eq!(repaired, whole.into_bytes());
        }

        #[test]
        fn mending_twice_is_mending_once_whatever_the_bytes(
            text in proptest::collection::vec(any::<u8>(), 0..60),
            last: bool,
        ) {
            let mut once = text;
            repair(&mut once, last);
            let mut twice = once.clone();
            prop_assert!(!repair(&mut twice, last));
            prop_assert_eq!(once, twice);
        }
    }
}
