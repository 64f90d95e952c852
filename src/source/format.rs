//! How an answer's bytes become content: entries of the node map, or a list of servers. How the
//! bytes are fetched, bounded and kept apart from half an answer is the same for both.

use std::sync::Arc;

use mapsmith_core::{Content, EntryMap, Rejections};

use super::collector::{Collector, Names};
use super::error::SourceErrorKind;
use super::json::{JsonReader, Shape};
use super::row::Fields;
use super::secret::Secret;
use crate::settings;

/// What a source's answers are.
pub(super) trait Format: Clone + Send + Sync + 'static {
    type Content: Content;
    type Rows: Rows<Content = Self::Content>;
    type Reader: Reader<Rows = Self::Rows>;

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

    /// Sorts and settles them. Takes CPU time in proportion to the rows: not for an async task.
    fn settle(self) -> (Self::Content, Rejections);
}

/// Entries of the node map.
#[derive(Debug, Clone)]
pub(super) struct MapFormat {
    shape: Shape,
    names: Arc<Names>,
}

impl MapFormat {
    /// A list of objects where the settings name fields, else an object.
    pub(super) fn new(settings: &settings::Source, names: Arc<Names>) -> Self {
        let shape = match (&settings.node_field, &settings.master_field) {
            (Some(node), Some(master)) => {
                Shape::List(Fields { node: node.clone(), master: master.clone() })
            }
            _ => Shape::Object,
        };
        Self { shape, names }
    }
}

impl Format for MapFormat {
    type Content = EntryMap;
    type Rows = Collector;
    type Reader = JsonReader;

    fn reader(&self, hidden: Option<Secret>) -> JsonReader {
        JsonReader::new(self.shape.clone(), Collector::new(Arc::clone(&self.names)), hidden)
    }
}
