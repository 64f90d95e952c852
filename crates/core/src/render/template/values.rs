//! Values in a template's output: quoted as words, and held there.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output};

use crate::render::words::quoted;

/// Around each quoted value, until the whole line is there to be judged: no value and no template
/// has it.
const BEGIN: char = '\u{1}';
const END: char = '\u{2}';

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.to_owned())
}

/// Prints what `{{ }}` holds: a value as one word, a list as a word for each of its values.
pub(super) fn print(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    if value.is_safe() {
        return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
    }
    out.write_str(&words(value)?).map_err(Error::from)
}

/// The filter `quote`: the same as a text, to be put together with others.
#[expect(clippy::needless_pass_by_value, reason = "as minijinja calls it")]
pub(super) fn quote(value: Value) -> Result<Value, Error> {
    words(&value).map(Value::from_safe_string)
}

/// The filter `log_format`: a text where HAProxy expects a log format.
#[expect(clippy::needless_pass_by_value, reason = "as minijinja calls it")]
pub(super) fn log_format(value: Value) -> Result<Value, Error> {
    Ok(Value::from(scalar(&value)?.replace('%', "%%")))
}

fn words(value: &Value) -> Result<String, Error> {
    if value.kind() != ValueKind::Seq {
        return word(value);
    }
    let words: Result<Vec<_>, _> = value.try_iter()?.map(|value| word(&value)).collect();
    Ok(words?.join(" "))
}

fn word(value: &Value) -> Result<String, Error> {
    if value.is_safe() {
        return Ok(value.to_string());
    }
    let text = scalar(value)?;
    if text.is_empty() {
        return Err(invalid("an empty text, which HAProxy takes for the end of the line"));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid("a text with a line break or another control character"));
    }
    Ok(format!("{BEGIN}{}{END}", quoted(&text)))
}

fn scalar(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Number => Ok(value.to_string()),
        ValueKind::None => Err(invalid("it is not set: ask by `if ... is not none`")),
        ValueKind::Bool => Err(invalid("it is true or false: ask by `if`")),
        ValueKind::Map => Err(invalid("it has keys of its own: name one of them")),
        kind => Err(invalid(&format!("it is a {kind}, which is no word"))),
    }
}

/// What the tokenizer has read so far of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    Quoted(char),
    /// After a backslash; the quotes that it stands in.
    Escaped(Option<char>),
    Comment,
}

/// A line of the output without the marks round values.
///
/// # Errors
/// A value stands where its quotes mean something else.
pub(super) fn read(raw: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(raw.len());
    let mut state = State::Plain;
    for character in raw.chars() {
        match (character, state) {
            (BEGIN, State::Plain | State::Comment) | (END, _) => continue,
            (BEGIN, State::Quoted(_)) => {
                return Err("a value within quotes: leave them out, it gets quotes by itself");
            }
            (BEGIN, State::Escaped(_)) => return Err("a value behind a backslash"),
            (character, _) if character.is_control() && character != '\t' => {
                return Err("it contains a control character");
            }
            _ => {}
        }
        let _ = text.write_char(character);
        state = match (state, character) {
            (State::Plain, '\'' | '"') => State::Quoted(character),
            (State::Plain, '#') => State::Comment,
            (State::Plain, '\\') => State::Escaped(None),
            (State::Quoted('"'), '\\') => State::Escaped(Some('"')),
            (State::Quoted(quote), _) if quote == character => State::Plain,
            (State::Escaped(None), _) => State::Plain,
            (State::Escaped(Some(quote)), _) => State::Quoted(quote),
            (state, _) => state,
        };
    }
    Ok(text)
}
