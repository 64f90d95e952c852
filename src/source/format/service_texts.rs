//! Services as files of a folder: `NAME.json` each.

use std::collections::BTreeMap;

use mapsmith_core::{Rejections, ServiceTexts};

use super::{Format, Reader, Rows, without_mark};
use crate::source::error::SourceErrorKind;
use crate::source::transport::secret::Secret;

/// The largest service, in bytes. One has some hundred.
const MAX_SERVICE: usize = 64 * 1024;
/// How the name of a service's file ends.
const ENDING: &str = ".json";

/// A service's text, or why it has none.
pub(crate) fn service_text(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > MAX_SERVICE {
        return Err(format!("it is larger than {MAX_SERVICE} bytes"));
    }
    let text = std::str::from_utf8(without_mark(bytes));
    text.map(str::to_owned).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// The services of a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServiceFormat;

impl Format for ServiceFormat {
    type Content = ServiceTexts;
    type Rows = Texts;
    type Reader = TextReader;

    const IS_FOLDER: bool = true;

    fn reader(&self, _hidden: Option<Secret>) -> TextReader {
        TextReader(Vec::new(), 0)
    }
}

/// Keeps as much of a text as a service may have, and how long it is.
#[derive(Debug)]
pub(crate) struct TextReader(Vec<u8>, u64);

impl Reader for TextReader {
    type Rows = Texts;

    fn bytes(&self) -> u64 {
        self.1
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        self.1 += chunk.len() as u64;
        let room = (MAX_SERVICE + 1).saturating_sub(self.0.len());
        self.0.extend_from_slice(&chunk[..chunk.len().min(room)]);
        Ok(())
    }

    fn close(self) -> Result<Texts, SourceErrorKind> {
        Ok(Texts(BTreeMap::from([(String::new(), service_text(&self.0))])))
    }
}

/// Texts by the names of their services; of a single file that is none yet.
#[derive(Debug)]
pub(crate) struct Texts(BTreeMap<String, Result<String, String>>);

impl Rows for Texts {
    type Content = ServiceTexts;

    fn joined(texts: Vec<(String, Self)>) -> Option<Self> {
        let of_file = |(file, Self(text)): (String, Self)| {
            let name = file.strip_suffix(ENDING)?.to_owned();
            Some((name, text.into_values().next()?))
        };
        Some(Self(texts.into_iter().filter_map(of_file).collect()))
    }

    fn settle(self) -> (ServiceTexts, Rejections) {
        (ServiceTexts { texts: self.0 }, Rejections::default())
    }
}
