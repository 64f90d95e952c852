//! How an answer's bytes become content: entries of the node map, or a list of servers. How the
//! bytes are fetched, bounded and kept apart from half an answer is the same for both.

mod collector;
mod json;
mod map_text;
mod repair;
mod row;
mod server_fields;
mod server_lines;
mod server_list;
mod server_name;
mod service_texts;

use std::sync::Arc;

use mapsmith_core::{Content, EntryMap, Rejections};

use collector::EntryOf;
use json::{JsonReader, Shape};

use super::error::SourceErrorKind;
use super::transport::secret::Secret;
use crate::settings;

pub(super) use collector::{Collected, Collector, Field, Names, Row};
pub(super) use map_text::MapText;
pub(super) use row::Fields;
pub(super) use server_fields::ServerFields;
pub(super) use server_list::{ServerFormat, raw_server, whole_number};
pub(super) use server_name::server_name;
pub(super) use service_texts::{ServiceFormat, service_text};

/// What a source's answers are.
pub(super) trait Format: Clone + Send + Sync + 'static {
    type Content: Content;
    type Rows: Rows<Content = Self::Content>;
    type Reader: Reader<Rows = Self::Rows>;

    /// Whether a folder is read, and a file is none.
    const IS_FOLDER: bool = false;

    /// A reader that has seen nothing. `hidden` never shows in an error.
    fn reader(&self, hidden: Option<Secret>) -> Self::Reader;
}

/// Takes an answer as it arrives. Only a whole one gives rows.
pub(super) trait Reader: Send + 'static {
    type Rows;

    /// Bytes seen so far.
    fn bytes(&self) -> u64;

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What makes the answer none, as soon as it shows.
    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind>;

    /// The answer has ended.
    ///
    /// # Errors
    /// If it is not whole, or not what was expected.
    fn close(self) -> Result<Self::Rows, SourceErrorKind>;
}

/// The rows of a whole answer.
pub(super) trait Rows: Send + 'static {
    type Content: Content;

    /// The rows of several texts, each with its name, as those of one; none where a text is the
    /// whole content always.
    fn joined(_texts: Vec<(String, Self)>) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Sorts and settles them. Takes CPU time in proportion to the rows: not for an async task.
    fn settle(self) -> (Self::Content, Rejections);
}

/// Entries of the node map.
#[derive(Debug, Clone)]
pub(super) struct MapFormat {
    shape: Shape,
    names: Arc<Names>,
    entry_of: Option<EntryOf>,
}

impl MapFormat {
    /// A list of objects with these fields.
    pub(super) fn list(fields: Fields, names: Arc<Names>) -> Self {
        Self { shape: Shape::List(fields), names, entry_of: None }
    }

    /// A list of objects where the settings name fields, else an object.
    pub(super) fn document(settings: &settings::Source, names: Arc<Names>) -> Self {
        match (settings.node_field.clone(), settings.master_field.clone()) {
            (Some(node), Some(master)) => Self::list(Fields { node, master }, names),
            _ => Self { shape: Shape::Object, names, entry_of: None },
        }
    }

    /// The same where a row has to be read before it is an entry.
    pub(super) fn with_entries_of(self, entry_of: EntryOf) -> Self {
        Self { entry_of: Some(entry_of), ..self }
    }

    /// A reader of the rows that changed.
    pub(super) fn delta_reader(&self, hidden: Option<Secret>) -> JsonReader {
        let collector = Collector::for_delta(Arc::clone(&self.names));
        JsonReader::new(self.shape.clone(), collector, hidden)
    }
}

impl Format for MapFormat {
    type Content = EntryMap;
    type Rows = Collector;
    type Reader = JsonReader;

    fn reader(&self, hidden: Option<Secret>) -> JsonReader {
        let collector = Collector::new(Arc::clone(&self.names)).with_entries_of(self.entry_of);
        JsonReader::new(self.shape.clone(), collector, hidden)
    }
}

/// What some editors put before a text in UTF-8. It says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The JSON parser's words without its place, which counts from where a row begins.
pub(super) fn parser_message(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    message.truncate(message.rfind(" at line ").unwrap_or(message.len()));
    message
}

/// Reads an answer, in whatever chunks it comes.
pub(super) fn read<'c, R: Reader<Rows: Rows>>(
    mut reader: R,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> Result<(<R::Rows as Rows>::Content, Rejections), SourceErrorKind> {
    chunks.into_iter().try_for_each(|chunk| reader.feed(chunk))?;
    Ok(reader.close()?.settle())
}
