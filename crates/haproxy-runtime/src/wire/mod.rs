//! Frames: words on a command line, payloads within a size, replies of a batch, lines of a listing.
//! Pure.

pub mod pace;
pub(crate) mod statistics;

use std::borrow::Cow;

use crate::error::ReplyError;

/// Escapes a word for a command line: HAProxy takes the character after a backslash as it is.
pub fn escape(word: &str) -> Cow<'_, str> {
    if !word.contains([';', '\\']) {
        return Cow::Borrowed(word);
    }
    let mut escaped = String::with_capacity(word.len() + 8);
    for character in word.chars() {
        if matches!(character, ';' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Cow::Owned(escaped)
}

/// Whether a text can stand on a command line as one word, once it is escaped.
pub fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|character: char| character.is_whitespace() || character.is_control())
}

/// Joins commands with `;` to lines of at most `limit` bytes, the line's end included, and at most
/// `most` commands. A single longer command stands alone.
#[derive(Debug)]
pub struct Batches<I, C> {
    commands: I,
    pending: Option<C>,
    limit: usize,
    most: usize,
    last: &'static str,
}

impl<C: AsRef<[u8]>, I: Iterator<Item = C>> Batches<I, C> {
    /// Over commands without a line's end.
    pub fn new(commands: I, limit: usize, most: usize) -> Self {
        Self { commands, pending: None, limit, most, last: "" }
    }

    /// Each line ends with this command, which is not counted.
    pub fn ending_with(self, last: &'static str) -> Self {
        Self { last, ..self }
    }
}

impl<C: AsRef<[u8]>, I: Iterator<Item = C>> Iterator for Batches<I, C> {
    /// A line with its end, and how many commands it holds.
    type Item = (Vec<u8>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = self.pending.take().or_else(|| self.commands.next())?.as_ref().to_vec();
        let end = if self.last.is_empty() { 1 } else { self.last.len() + 2 };
        let mut count = 1;
        while count < self.most
            && let Some(command) = self.commands.next()
        {
            if line.len() + 1 + command.as_ref().len() + end > self.limit {
                self.pending = Some(command);
                break;
            }
            line.push(b';');
            line.extend_from_slice(command.as_ref());
            count += 1;
        }
        if !self.last.is_empty() {
            line.push(b';');
            line.extend_from_slice(self.last.as_bytes());
        }
        line.push(b'\n');
        Some((line, count))
    }
}

/// Splits entries into payload commands of at most `limit` bytes each: header, lines, the empty
/// line that ends them.
pub struct Payloads<'h, I: Iterator> {
    header: &'h str,
    entries: std::iter::Peekable<I>,
    limit: usize,
    taken: usize,
}

impl<'h, 'e, I: Iterator<Item = (&'e str, &'e str)>> Payloads<'h, I> {
    /// `header` is the command with its `<<`, without the line's end. Entries are valid keys and
    /// values (`model::name`).
    pub fn new(header: &'h str, entries: I, limit: usize) -> Self {
        Self { header, entries: entries.peekable(), limit, taken: 0 }
    }

    /// How many entries stand in the payloads so far.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Writes the next payload command over `buffer`; false when no entry is left. An entry that is
    /// larger than the limit by itself is sent alone: at 255 bytes a word that can't be below the
    /// settings' least limit.
    pub fn next_into(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.entries.peek().is_none() {
            return false;
        }
        buffer.clear();
        buffer.extend_from_slice(self.header.as_bytes());
        buffer.push(b'\n');
        let empty = buffer.len();
        while let Some((key, value)) = self.entries.peek() {
            let line = key.len() + 1 + value.len() + 1;
            if buffer.len() > empty && buffer.len() + line + 1 > self.limit {
                break;
            }
            buffer.extend_from_slice(key.as_bytes());
            buffer.push(b' ');
            buffer.extend_from_slice(value.as_bytes());
            buffer.push(b'\n');
            self.entries.next();
            self.taken += 1;
        }
        buffer.push(b'\n');
        true
    }
}

/// HAProxy's names of severities, as `severity-output string` writes them; `number` writes a digit.
const SEVERITIES: [&[u8]; 8] =
    [b"emerg", b"alert", b"crit", b"err", b"warning", b"notice", b"info", b"debug"];

/// A message without the severity that stands before it where the socket has `severity-output`:
/// `[3]: ` or `[err]: `. Listings have none.
pub fn without_severity(text: &[u8]) -> &[u8] {
    let Some(rest) = text.strip_prefix(b"[") else { return text };
    let Some(end) = memchr::memchr(b']', rest) else { return text };
    let severity = &rest[..end];
    let known = matches!(severity, [b'0'..=b'7']) || SEVERITIES.contains(&severity);
    if known { rest[end..].strip_prefix(b"]: ").unwrap_or(text) } else { text }
}

/// Splits the answer to a line of `commands` commands into one text a command. Each text keeps the
/// ends of its lines and lacks the empty line that ends it, and a severity before it; a silent
/// success is an empty text.
///
/// # Errors
/// When the answer is shorter (cut) or longer than the commands explain.
pub fn replies(answer: &[u8], commands: usize) -> Result<Vec<&[u8]>, ReplyError> {
    let mut rest = answer;
    let mut replies = Vec::with_capacity(commands);
    for _ in 0..commands {
        let end = if rest.first() == Some(&b'\n') {
            0
        } else {
            memchr::memmem::find(rest, b"\n\n").ok_or_else(|| ReplyError::cut(answer))? + 1
        };
        replies.push(without_severity(&rest[..end]));
        rest = &rest[end + 1..];
    }
    if rest.is_empty() { Ok(replies) } else { Err(ReplyError::unexpected(rest)) }
}

/// The longest line of a listing, in bytes: what HAProxy's own buffer lets anybody put into a map,
/// and more.
const LONGEST_LINE: usize = 1024 * 1024;

/// The lines of a listing as it streams in.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    carry: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes; calls `each` with every whole line, without its end.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        longest: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), ReplyError>,
    ) -> Result<(), ReplyError> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if self.carry.is_empty() {
                each(&rest[..end])?;
            } else {
                self.carry.extend_from_slice(&rest[..end]);
                each(&self.carry)?;
                self.carry.clear();
            }
            rest = &rest[end + 1..];
        }
        if self.carry.len() + rest.len() > longest {
            return Err(ReplyError::unexpected(&self.carry));
        }
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    /// What came behind the last whole line.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.carry
    }
}

/// Reads a `show map NAME` listing as it streams in: lines `0xPTR key value`, an empty line at the
/// end.
#[derive(Debug, Default)]
pub struct Listing {
    carry: Lines,
    lines: u64,
    ended: bool,
}

impl Listing {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; calls `entry` with the key and the value of each whole line.
    ///
    /// # Errors
    /// When the first line is not an entry: HAProxy refused the command, and this is its text. A
    /// later line that is not one is part of an entry with a line break in it, which another writer
    /// left: it is reported as an entry that no valid key matches.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut entry: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), ReplyError> {
        let mut carry = std::mem::take(&mut self.carry);
        let fed = carry.feed(bytes, LONGEST_LINE, |line| self.line(line, &mut entry));
        self.carry = carry;
        fed
    }

    fn line(
        &mut self,
        line: &[u8],
        entry: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), ReplyError> {
        if self.ended {
            entry(b"", b"");
            self.ended = false;
        }
        if line.is_empty() {
            self.ended = true;
            return Ok(());
        }
        self.lines += 1;
        let parsed = line.strip_prefix(b"0x").and_then(|rest| {
            let key = &rest[memchr::memchr(b' ', rest)? + 1..];
            let end = memchr::memchr(b' ', key)?;
            Some((&key[..end], &key[end + 1..]))
        });
        match parsed {
            Some((key, value)) => entry(key, value),
            None if self.lines == 1 => return Err(ReplyError::from_text(line)),
            None => entry(line, b""),
        }
        Ok(())
    }

    /// Called at the end of the stream.
    ///
    /// # Errors
    /// When the empty line that ends a listing has not come: the answer was cut.
    pub fn finish(self) -> Result<(), ReplyError> {
        match (self.ended, self.carry.rest()) {
            (true, []) => Ok(()),
            (false, []) if self.lines > 0 => {
                Err(ReplyError::Cut(format!("{} whole lines", self.lines)))
            }
            (_, rest) => Err(ReplyError::cut(rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(answer: &[u8], chunk: usize) -> Result<Vec<(String, String)>, ReplyError> {
        let mut entries = Vec::new();
        let mut listing = Listing::new();
        for part in answer.chunks(chunk.max(1)) {
            listing.feed(part, |key, value| {
                entries.push((
                    String::from_utf8_lossy(key).into_owned(),
                    String::from_utf8_lossy(value).into_owned(),
                ));
            })?;
        }
        listing.finish().map(|()| entries)
    }

    #[test]
    fn words_with_special_characters_stay_one_word() {
        assert_eq!(escape("plain"), "plain");
        assert_eq!(escape(r"a;b\c"), r"a\;b\\c");
    }

    #[test]
    fn replies_of_a_batch_are_told_apart() {
        assert_eq!(replies(b"\n\n\n", 3).unwrap(), [b"", b"", b""]);
        assert_eq!(
            replies(b"\nentry not found.\n\n\n", 3).unwrap(),
            [b"".as_slice(), b"entry not found.\n", b""]
        );
        assert_eq!(
            replies(b"New version created: 6\n\nadmin\n\n", 2).unwrap(),
            [b"New version created: 6\n".as_slice(), b"admin\n"]
        );
        assert!(replies(b"\n\n", 1).is_err(), "more than was asked for");
        assert!(replies(b"", 1).is_err(), "an empty answer is no success");
    }

    /// As 2.6 to 3.4 answer behind `severity-output number` and `string`.
    #[test]
    fn a_severity_before_a_message_is_no_part_of_it() {
        for severity in ["[3]: ", "[6]: ", "[err]: ", "[warning]: ", "[info]: "] {
            let answer = format!("{severity}New version created: 6\n\n\n{severity}admin\n\n");
            let seen = replies(answer.as_bytes(), 3).unwrap();
            assert_eq!(
                seen,
                [b"New version created: 6\n".as_slice(), b"", b"admin\n"],
                "{severity}"
            );
            let error = list(
                format!("{severity}Unknown map identifier. Please use #<id> or <file>.\n\n")
                    .as_bytes(),
                9,
            )
            .unwrap_err();
            assert_eq!(error, ReplyError::UnknownMap, "{severity}");
        }
        for other in ["[", "[3", "[8]: x", "[3]:x", "[error]: x", "[]: x", "x [3]: y"] {
            assert_eq!(without_severity(other.as_bytes()), other.as_bytes());
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_listing() {
        let error =
            list(b"Unknown map identifier. Please use #<id> or <file>.\n\n", 1000).unwrap_err();
        assert_eq!(error, ReplyError::UnknownMap);
    }

    #[test]
    fn an_entry_with_a_line_break_in_memory_is_reported_and_does_not_end_the_listing() {
        let entries = list(b"0x1 a m1\n0x2 lonely\ny m2\n0x3 \nq2 m2\n0x4 b m1\n\n", 7).unwrap();
        assert_eq!(entries.first().unwrap(), &("a".to_owned(), "m1".to_owned()));
        assert_eq!(entries.last().unwrap(), &("b".to_owned(), "m1".to_owned()));
        assert!(entries.len() > 2);
    }

    proptest! {
        #[test]
        fn a_listing_is_read_the_same_however_it_is_cut_into_packets(
            entries in proptest::collection::vec(("[!-~]{1,9}", "[!-~]{1,9}"), 0..20),
            chunk in 1usize..40,
        ) {
            let mut answer: String = entries
                .iter()
                .map(|(key, value)| {
                    format!(
                        "0x55d0 {key} \
                {value}\n"
                    )
                })
                .collect();
            answer.push('\n');
            prop_assert_eq!(list(answer.as_bytes(), chunk).unwrap(), entries);
        }

        #[test]
        fn a_listing_cut_at_any_byte_is_an_error(
            entries in proptest::collection::vec(("[!-~]{1,9}", "[!-~]{1,9}"), 1..8),
            cut: prop::sample::Index,
        ) {
            let mut answer: String = entries
                .iter()
                .map(|(key, value)| {
                    format!(
                        "0x55d0 {key} \
                {value}\n"
                    )
                })
                .collect();
            answer.push('\n');
            let cut = cut.index(answer.len());
            prop_assert!(list(&answer.as_bytes()[..cut], 1000).is_err());
        }

        #[test]
        fn replies_cut_at_any_byte_are_an_error(
            texts in proptest::collection::vec("([a-z ]{1,9}\n){0,2}", 1..6),
            cut: prop::sample::Index,
        ) {
            let answer: String = texts.iter().map(|text| format!("{text}\n")).collect();
            prop_assert_eq!(
                replies(answer.as_bytes(), texts.len()).unwrap(),
                texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>()
            );
            let cut = cut.index(answer.len());
            prop_assert!(replies(&answer.as_bytes()[..cut], texts.len()).is_err());
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(
            answer in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b' '), Just(b'0'), Just(b'x'), any::<u8>()],
                0..100,
            ),
            chunk in 1usize..9,
            commands in 0usize..5,
        ) {
            let _ = list(&answer, chunk);
            let _ = replies(&answer, commands);
        }

        #[test]
        fn payloads_stay_within_the_bound_and_lose_nothing(
            entries in proptest::collection::vec(("[a-z]{1,60}", "[a-z]{1,30}"), 0..60),
            limit in 200usize..600,
        ) {
            let mut payloads = Payloads::new(
                "add map @1 F \
                <<",
                entries.iter().map(|(key, value)| (key.as_str(), value.as_str())),
                limit,
            );
            let (mut buffer, mut sent) = (Vec::new(), Vec::new());
            prop_assert_eq!(payloads.taken(), 0);
            while payloads.next_into(&mut buffer) {
                prop_assert!(buffer.len() <= limit);
                let text = str::from_utf8(&buffer).unwrap();
                let lines = text
                    .strip_prefix(
                        "add map @1 F \
                    <<\n",
                    )
                    .unwrap()
                    .strip_suffix("\n\n")
                    .unwrap();
                sent.extend(lines.lines().map(|line| {
                    line.split_once(' ')
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .unwrap()
                }));
                prop_assert_eq!(payloads.taken(), sent.len());
            }
            prop_assert_eq!(sent, entries);
        }

        #[test]
        fn batches_stay_within_the_bound_and_lose_nothing(
            commands in proptest::collection::vec("[a-z]{1,30}", 0..40),
            limit in 40usize..100,
            most in 1usize..5,
        ) {
            let batches: Vec<_> = Batches::new(commands.iter().cloned(), limit, most).collect();
            let mut sent = Vec::new();
            for (line, count) in &batches {
                prop_assert!(line.len() <= limit && *count <= most);
                let line = str::from_utf8(line).unwrap();
                let parts: Vec<_> = line.trim_end().split(';').map(str::to_owned).collect();
                prop_assert_eq!(parts.len(), *count);
                sent.extend(parts);
            }
            prop_assert_eq!(sent, commands);
        }
    }
}
