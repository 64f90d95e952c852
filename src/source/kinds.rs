//! The kinds of registries: the one list that a new kind has to be put into. All else of a kind,
//! its keys in `[[source]]` among it, is in its own folder.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mapsmith_core::{EntryMap, Rejections};
use serde::Deserialize;
use serde::de::MapAccess;

use super::file::FileRegistry;
use super::file::keys::{FileFormat, FileKeys};
use super::format::{Format, MapFormat, MapText, Names, read};
use super::http_json::HttpJson;
use super::puppetdb::keys::PuppetDbKeys;
use super::puppetdb::{self, PuppetDb};
use super::transport::http::keys::HttpKeys;
use super::{Registry, SourceError, SourceErrorKind};
use crate::settings;
use crate::settings::keys::{Key, Keys, KindKeys};

/// The kinds of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// PuppetDB's query API.
    Puppetdb,
    /// A JSON document over HTTP.
    HttpJson,
    /// A JSON document or a map file on disk.
    File,
}

impl SourceKind {
    /// Whether its registries are asked over HTTP.
    pub(crate) fn is_asked_over_http(self) -> bool {
        matches!(self, Self::Puppetdb | Self::HttpJson)
    }

    /// Whether its registries list servers.
    pub(crate) fn lists_servers(self) -> bool {
        matches!(self, Self::HttpJson | Self::File)
    }

    /// The registry of a source of this kind.
    pub(super) fn registry(
        self,
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Box<dyn Registry>, SourceError> {
        Ok(match self {
            Self::Puppetdb => Box::new(PuppetDb::new(settings, names)?),
            Self::HttpJson => Box::new(HttpJson::new(settings, names)?),
            Self::File => Box::new(FileRegistry::new(settings, names)),
        })
    }

    /// Reads an answer as a full poll of a source of this kind does.
    pub(super) fn read_map<'c>(
        self,
        settings: &settings::Source,
        names: Arc<Names>,
        chunks: impl IntoIterator<Item = &'c [u8]>,
    ) -> Result<(EntryMap, Rejections), SourceErrorKind> {
        let format = match self {
            Self::File if settings.of_kind.file.file_format() == FileFormat::Map => {
                return read(MapText::new(names).reader(None), chunks);
            }
            Self::Puppetdb => MapFormat::list(puppetdb::fields(settings), names),
            Self::HttpJson | Self::File => MapFormat::document(settings, names),
        };
        read(format.reader(None), chunks)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Puppetdb => "puppetdb",
            Self::HttpJson => "http_json",
            Self::File => "file",
        })
    }
}

/// Every kind's keys. Those of another kind than the source's are reported as problems, so a source
/// whose settings were checked has none of them.
#[derive(Debug, Clone, Default)]
pub struct KeysOfKinds {
    /// For sources that are asked over HTTP.
    pub http: HttpKeys,
    /// For a PuppetDB.
    pub puppetdb: PuppetDbKeys,
    /// For a file.
    pub file: FileKeys,
}

impl KeysOfKinds {
    /// The kinds that have them, what they are for, and the keys.
    pub(crate) const ALL: [(&'static str, &'static str, &'static [Key]); 3] = [
        ("`puppetdb` and `http_json`", HttpKeys::ABOUT, HttpKeys::KEYS),
        ("`puppetdb`", PuppetDbKeys::ABOUT, PuppetDbKeys::KEYS),
        ("`file`", FileKeys::ABOUT, FileKeys::KEYS),
    ];

    /// Takes the key's value if it is a key of any kind. Whether it was.
    pub(crate) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        Ok(self.http.take(key, map)?
            || self.puppetdb.take(key, map)?
            || self.file.take(key, map)?)
    }

    /// Reports what is wrong with them for a source of this kind.
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        self.http.problems(kind, &mut problem);
        self.puppetdb.problems(kind, &mut problem);
        self.file.problems(kind, &mut problem);
    }

    /// The paths among them.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.http.paths().chain(&mut self.file.path)
    }
}
