//! Metadata as one document: an object with the keys, in JSON or TOML.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mapsmith_core::portmap::metadata::KEYS;
use mapsmith_core::{Rejections, ServiceTexts};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::settings;
use crate::source::error::{Excerpt, Position, SourceErrorKind};
use crate::source::format::{Format, Reader, Rows, parser_message, without_mark};
use crate::source::transport::secret::Secret;

/// The largest document, in bytes. A portmap has 1 MiB at most.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// How the document is read.
#[derive(Debug, Clone)]
pub(super) struct DocumentFormat {
    prefix: Arc<str>,
    is_toml: bool,
}

impl DocumentFormat {
    pub(super) fn new(settings: &settings::Source) -> Self {
        let path = settings.of_kind.file.path.as_deref();
        let ending = path.and_then(Path::extension);
        Self {
            prefix: settings.of_kind.metadata.prefix().into(),
            is_toml: ending.is_some_and(|ending| ending.eq_ignore_ascii_case("toml")),
        }
    }
}

impl Format for DocumentFormat {
    type Content = ServiceTexts;
    type Rows = Keys;
    type Reader = DocumentReader;

    fn reader(&self, hidden: Option<Secret>) -> DocumentReader {
        DocumentReader { format: self.clone(), hidden, bytes: Vec::new() }
    }
}

/// Keeps the document until it is whole.
#[derive(Debug)]
pub(super) struct DocumentReader {
    format: DocumentFormat,
    hidden: Option<Secret>,
    bytes: Vec<u8>,
}

impl DocumentReader {
    fn excerpt(&self) -> String {
        let mut excerpt = Excerpt::new(self.hidden.clone());
        excerpt.push(&self.bytes);
        excerpt.to_string()
    }

    fn object(&self) -> Result<Map<String, Value>, SourceErrorKind> {
        let bytes = without_mark(&self.bytes);
        if self.format.is_toml {
            let no_text = |_| SourceErrorKind::File("it is not text in UTF-8".to_owned());
            let text = std::str::from_utf8(bytes).map_err(no_text)?;
            let no_toml = |error: toml::de::Error| {
                let at = error.span().map_or(0, |span| span.start).min(text.len());
                let position = Position::START.after(&bytes[..at]);
                let what = format!("it is not TOML, at {position}: {}", error.message());
                SourceErrorKind::File(what)
            };
            return DeTable::parse(text).map(of_table).map_err(no_toml);
        }
        let value = serde_json::from_slice(bytes).map_err(|error| {
            if error.is_eof() {
                let position = Position::START.after(bytes);
                return SourceErrorKind::Truncated { position, bytes: bytes.len() as u64 };
            }
            SourceErrorKind::Syntax {
                position: Position { line: error.line(), column: error.column() },
                message: parser_message(&error),
            }
        })?;
        match value {
            Value::Object(object) => Ok(object),
            _ => Err(SourceErrorKind::WrongShape {
                expected: "an object with the keys of metadata was expected",
                text: self.excerpt(),
            }),
        }
    }
}

impl Reader for DocumentReader {
    type Rows = Keys;

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        if self.bytes.len() + chunk.len() > MAX_DOCUMENT {
            let what = format!("metadata has at most {MAX_DOCUMENT} bytes; this is more");
            return Err(SourceErrorKind::File(what));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn close(self) -> Result<Keys, SourceErrorKind> {
        let object = self.object()?;
        let value = |key: &str| {
            let whole = object.get(&format!("{}{key}", self.format.prefix));
            let bare = object.get(key).filter(|_| !self.format.prefix.is_empty());
            let text = match (given(whole), given(bare)) {
                (Some(one), Some(other)) if one != other => {
                    Err(format!("{key} is there with and without the prefix; keep one of both"))
                }
                (Some(text), _) | (None, Some(text)) => text,
                (None, None) => return None,
            };
            Some((key.to_owned(), text))
        };
        Ok(Keys(KEYS.into_iter().filter_map(value).collect()))
    }
}

/// A table's own values, as JSON would have them.
#[expect(clippy::needless_pass_by_value, reason = "as the parser gives it")]
fn of_table(table: Spanned<DeTable<'_>>) -> Map<String, Value> {
    let value = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Boolean(answer) => Value::Bool(*answer),
        DeValue::Integer(number) => Value::String(number.as_str().to_owned()),
        DeValue::Float(number) => Value::String(number.as_str().to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => Value::Array(Vec::new()),
    };
    let rows = table.get_ref().iter();
    rows.map(|(key, row)| (key.get_ref().clone().into_owned(), value(row.get_ref()))).collect()
}

/// A value as the text that `mdata-put` would be given; none where there is none.
fn given(value: Option<&Value>) -> Option<Result<String, String>> {
    Some(match value? {
        Value::Null => return None,
        Value::String(text) => Ok(text.clone()),
        Value::Bool(answer) => Ok(answer.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err("it is a list or an object; write it as one string".to_owned())
        }
    })
}

/// The keys that are there.
#[derive(Debug)]
pub(super) struct Keys(BTreeMap<String, Result<String, String>>);

impl Rows for Keys {
    type Content = ServiceTexts;

    fn settle(self) -> (ServiceTexts, Rejections) {
        (ServiceTexts { texts: self.0 }, Rejections::default())
    }
}
