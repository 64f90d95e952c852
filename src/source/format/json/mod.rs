//! A JSON answer parsed as it arrives: chunks in, rows out, nothing kept but the row that is cut by
//! a chunk's end.
//!
//! `serde_json` parses slices several times faster than readers, and a reader would need a thread
//! that a hanging body holds for ever. So the text is cut here into rows, each parsed as a slice of
//! the bytes at hand; one that turns out incomplete is parsed again when more has come. Only a
//! whole answer (its bracket closed, nothing but whitespace after it) gives a [`Collector`].

use serde::de::{DeserializeSeed, IgnoredAny};

use super::collector::{Collector, Field, Row};
use super::repair::repair;
use super::row::{FieldSeed, Fields, RowSeed};
use super::{BYTE_ORDER_MARK, Reader, parser_message};
use crate::source::error::{Excerpt, Position, SourceErrorKind};
use crate::source::transport::secret::Secret;

/// The largest row, in bytes: a node with all its facts is far smaller.
const MAX_ROW_BYTES: usize = 16 * 1024 * 1024;
/// Keys of an object that make it an error and no map, as a rule.
pub(super) const ERROR_KEYS: [&str; 3] = ["error", "errors", "exception"];
/// So many valid entries has no object that tells of an error.
const LIKE_A_MAP: usize = 8;

/// What the answer should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `[{"node field": ..., "master field": ...}, ...]`.
    List(Fields),
    /// `{"node": "master", ...}`.
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before everything, a byte order mark perhaps.
    Mark,
    /// Before the opening bracket.
    Start,
    /// After it: a row, or the closing bracket.
    First,
    /// After a comma: a row.
    Next,
    /// After the closing bracket.
    End,
    /// It is no answer; the rest is read for the text of the error only.
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotJson,
    WrongShape,
}

/// What one step through the bytes at hand came to.
enum Step {
    /// That many bytes are done with.
    Took(usize),
    /// The rest has to come first.
    Incomplete,
}

/// Parses an answer chunk by chunk.
#[derive(Debug)]
pub(crate) struct JsonReader {
    shape: Shape,
    collector: Collector,
    state: State,
    /// Bytes that are not done with.
    pending: Vec<u8>,
    /// No further step before `pending` has this length: a row of many chunks is parsed a few
    /// times, not at each chunk.
    next_parse: usize,
    /// Where `pending` begins.
    position: Position,
    bytes: u64,
    rows: u64,
    node_seen: bool,
    master_seen: bool,
    fields_seen: Vec<String>,
    /// Of an object: whether it has one of the [`ERROR_KEYS`].
    error_seen: bool,
    /// Of an object: its valid entries under other keys.
    entries: usize,
    excerpt: Excerpt,
}

impl JsonReader {
    /// A reader that has seen nothing. `hidden` never shows in an error.
    pub(crate) fn new(shape: Shape, collector: Collector, hidden: Option<Secret>) -> Self {
        Self {
            shape,
            collector,
            state: State::Mark,
            pending: Vec::new(),
            next_parse: 0,
            position: Position::START,
            bytes: 0,
            rows: 0,
            node_seen: false,
            master_seen: false,
            fields_seen: Vec::new(),
            error_seen: false,
            entries: 0,
            excerpt: Excerpt::new(hidden),
        }
    }

    fn refused(&self, refusal: Refusal) -> SourceErrorKind {
        let text = self.excerpt.to_string();
        match refusal {
            Refusal::NotJson => SourceErrorKind::NotJson(text),
            Refusal::WrongShape => SourceErrorKind::WrongShape {
                expected: match self.shape {
                    Shape::List(_) => {
                        "a list of objects was expected (without node_field and master_field: an \
                            object {\"node\": \"master\"})"
                    }
                    Shape::Object => {
                        "an object {\"node\": \"master\"} was expected (for a list of objects set \
                            node_field and master_field)"
                    }
                },
                text,
            },
        }
    }

    /// Parses as far as the bytes go. `last`: there will be no more.
    fn parse_pending(&mut self, last: bool) -> Result<(), SourceErrorKind> {
        let mut pending = std::mem::take(&mut self.pending);
        let mut done = 0;
        let outcome = loop {
            match self.step(&pending[done..], last) {
                Ok(Step::Took(bytes)) => done += bytes,
                Ok(Step::Incomplete) => break Ok(()),
                // One row never fails the rest: where only its texts and numbers are wrong, it is
                // read again without that.
                Err(Mistake::Syntax { .. }) if repair(&mut pending[done..], last) => {}
                Err(mistake) => break Err(self.fault(mistake, &pending, done)),
            }
        };
        self.position = self.position.after(&pending[..done]);
        self.pending = pending;
        self.pending.drain(..done);
        self.next_parse = self.pending.len() * 2;
        outcome?;
        if self.pending.len() > MAX_ROW_BYTES {
            Err(SourceErrorKind::RowTooLarge(MAX_ROW_BYTES))
        } else {
            Ok(())
        }
    }

    fn fault(&self, mistake: Mistake, text: &[u8], done: usize) -> SourceErrorKind {
        let position = |offset: usize| self.position.after(&text[..text.len().min(done + offset)]);
        match mistake {
            Mistake::Truncated => SourceErrorKind::Truncated {
                position: self.position.after(text),
                bytes: self.bytes,
            },
            Mistake::Trailing => SourceErrorKind::Trailing(position(0)),
            Mistake::Syntax { offset, message } => {
                SourceErrorKind::Syntax { position: position(offset), message }
            }
        }
    }

    fn step(&mut self, text: &[u8], last: bool) -> Result<Step, Mistake> {
        let Some(first) = text.first().copied() else { return Ok(Step::Incomplete) };
        if self.state == State::Mark {
            if text.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(text) && !last {
                return Ok(Step::Incomplete);
            }
            self.state = State::Start;
            if text.starts_with(BYTE_ORDER_MARK) {
                return Ok(Step::Took(BYTE_ORDER_MARK.len()));
            }
        }
        let blanks = blanks(text);
        if blanks > 0 {
            return Ok(Step::Took(blanks));
        }
        let (open, close) = if self.shape == Shape::Object { (b'{', b'}') } else { (b'[', b']') };
        match self.state {
            State::Mark | State::Start if first == open => self.state = State::First,
            State::Mark | State::Start => {
                self.state = State::Refused(if matches!(first, b'{' | b'[') {
                    Refusal::WrongShape
                } else {
                    Refusal::NotJson
                });
                return Ok(Step::Took(text.len()));
            }
            State::First if first == close => self.state = State::End,
            State::First | State::Next => {
                return if self.shape == Shape::Object {
                    self.object_entry(text, last)
                } else {
                    self.list_row(text, last)
                };
            }
            State::End => return Err(Mistake::Trailing),
            State::Refused(_) => return Ok(Step::Took(text.len())),
        }
        Ok(Step::Took(1))
    }

    /// A row counts when the comma or bracket after it is there: then it is whole, and nothing
    /// counts twice.
    fn list_row(&mut self, text: &[u8], last: bool) -> Result<Step, Mistake> {
        let Shape::List(fields) = &self.shape else { return Ok(Step::Incomplete) };
        let in_doubt = !(self.node_seen && self.master_seen);
        let seed = RowSeed { fields, seen: in_doubt.then_some(&mut self.fields_seen) };
        let Some((row, end)) = parse(text, 0, last, seed)? else { return Ok(Step::Incomplete) };
        let Some((end, state)) = delimiter(text, end, b']', last)? else {
            return Ok(Step::Incomplete);
        };
        match row {
            Some(row) => {
                self.node_seen |= row.node != Field::Absent;
                self.master_seen |= row.master != Field::Absent;
                self.collector.take(&row);
            }
            None => self.collector.take_no_row(),
        }
        self.rows += 1;
        self.state = state;
        Ok(Step::Took(end))
    }

    fn object_entry(&mut self, text: &[u8], last: bool) -> Result<Step, Mistake> {
        if text[0] != b'"' {
            return Err(Mistake::Syntax {
                offset: 0,
                message: "a node's name in quotes was expected".to_owned(),
            });
        }
        let Some((node, end)) = parse(text, 0, last, FieldSeed)? else {
            return Ok(Step::Incomplete);
        };
        let colon = end + blanks(&text[end..]);
        match text.get(colon) {
            None if last => return Err(Mistake::Truncated),
            None => return Ok(Step::Incomplete),
            Some(b':') => {}
            Some(_) => {
                return Err(Mistake::Syntax {
                    offset: colon,
                    message: "`:` was expected".to_owned(),
                });
            }
        }
        let Some((master, end)) = parse(text, colon + 1, last, FieldSeed)? else {
            return Ok(Step::Incomplete);
        };
        let Some((end, state)) = delimiter(text, end, b'}', last)? else {
            return Ok(Step::Incomplete);
        };
        let is_error = matches!(&node, Field::Text(node) if ERROR_KEYS.contains(&&**node));
        let taken = self.collector.taken();
        self.collector.take(&Row { node, master, producer_timestamp: Field::Absent });
        if is_error {
            self.error_seen = true;
        } else {
            self.entries += self.collector.taken() - taken;
        }
        self.rows += 1;
        self.state = state;
        Ok(Step::Took(end))
    }

    /// Whether the object tells of an error. A node may be named `error`, too: then there are other
    /// entries, and they are valid, or many.
    fn is_error_object(&self) -> bool {
        let like_a_map = self.entries >= LIKE_A_MAP
            || self.entries > 0 && self.collector.a_rejection().is_none();
        self.error_seen && !like_a_map
    }
}

impl Reader for JsonReader {
    type Rows = Collector;

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        self.bytes += chunk.len() as u64;
        self.excerpt.push(chunk);
        if let State::Refused(refusal) = self.state {
            return if self.excerpt.is_full() { Err(self.refused(refusal)) } else { Ok(()) };
        }
        self.pending.extend_from_slice(chunk);
        if self.pending.len() < self.next_parse { Ok(()) } else { self.parse_pending(false) }
    }

    fn close(mut self) -> Result<Collector, SourceErrorKind> {
        if !matches!(self.state, State::Refused(_)) {
            self.parse_pending(true)?;
        }
        match self.state {
            State::Refused(refusal) => return Err(self.refused(refusal)),
            State::End => {}
            State::Mark | State::Start | State::First | State::Next => {
                return Err(SourceErrorKind::Truncated {
                    position: self.position.after(&self.pending),
                    bytes: self.bytes,
                });
            }
        }
        if let Shape::List(fields) = &self.shape
            && self.rows > 0
        {
            for (seen, setting, field) in [
                (self.node_seen, "node_field", &fields.node),
                (self.master_seen, "master_field", &fields.master),
            ] {
                if !seen {
                    return Err(SourceErrorKind::NoField {
                        setting,
                        field: field.clone(),
                        seen: self.fields_seen,
                    });
                }
            }
        }
        if self.is_error_object() {
            return Err(SourceErrorKind::ErrorObject(self.excerpt.to_string()));
        }
        if self.shape == Shape::Object
            && self.collector.taken() == 0
            && let Some(reason) = self.collector.a_rejection()
        {
            return Err(SourceErrorKind::NothingValid { entries: self.rows, reason });
        }
        Ok(self.collector)
    }
}

/// What is wrong with the text; offsets are from where the step began.
enum Mistake {
    Truncated,
    Trailing,
    Syntax { offset: usize, message: String },
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// The value at `from` and where it ends; none where it does not end within the bytes at hand.
fn parse<'de, S: DeserializeSeed<'de>>(
    text: &'de [u8],
    from: usize,
    last: bool,
    seed: S,
) -> Result<Option<(S::Value, usize)>, Mistake> {
    let mut parser = serde_json::Deserializer::from_slice(&text[from..]);
    match seed.deserialize(&mut parser) {
        Ok(value) => Ok(Some((value, from + parser.into_iter::<IgnoredAny>().byte_offset()))),
        Err(error) if error.is_eof() => {
            if last {
                Err(Mistake::Truncated)
            } else {
                Ok(None)
            }
        }
        Err(error) => {
            let line_begins = match error.line() {
                0 | 1 => 0,
                line => memchr::memchr_iter(b'\n', &text[from..])
                    .nth(line - 2)
                    .map_or(0, |newline| newline + 1),
            };
            let offset = from + line_begins + error.column().saturating_sub(1);
            // A number that is cut (`-`, `1.`) counts as a mistake, not as an end, to the parser.
            if offset + 1 >= text.len() {
                let in_number = text.last().is_some_and(|byte| {
                    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                });
                match (last, in_number) {
                    (false, _) => return Ok(None),
                    (true, true) => return Err(Mistake::Truncated),
                    (true, false) => {}
                }
            }
            Err(Mistake::Syntax { offset, message: parser_message(&error) })
        }
    }
}

/// What stands after a row: where the text goes on, and with what. None where it has not come yet.
fn delimiter(
    text: &[u8],
    from: usize,
    close: u8,
    last: bool,
) -> Result<Option<(usize, State)>, Mistake> {
    let at = from + blanks(&text[from..]);
    match text.get(at) {
        None if last => Err(Mistake::Truncated),
        None => Ok(None),
        Some(b',') => Ok(Some((at + 1, State::Next))),
        Some(byte) if *byte == close => Ok(Some((at + 1, State::End))),
        Some(_) => Err(Mistake::Syntax {
            offset: at,
            message: format!("`,` or `{}` was expected", close as char),
        }),
    }
}

#[cfg(test)]
mod tests;
