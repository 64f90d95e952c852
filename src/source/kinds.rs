//! The kinds of sources, and the keys that each has in `[[source]]` beside those of all. A new kind
//! has its keys in its own folder, and its place here.
//!
//! Arrows: `settings::{keys, units}` <- a kind's `keys` <- this <- `settings::source` <- the
//! sources themselves.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::MapAccess;

use super::file::keys::FileKeys;
use super::http::keys::HttpKeys;
use super::puppetdb::keys::PuppetDbKeys;
use crate::settings::keys::{Key, Keys, KindKeys};

/// The kinds of sources.
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

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Puppetdb => "puppetdb",
            Self::HttpJson => "http_json",
            Self::File => "file",
        })
    }
}

/// Every kind's keys. Those of another kind than the source's are told as problems, so a source
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

    /// Takes the key's value if it is a key of any kind; tells whether it was.
    pub(crate) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        Ok(self.http.take(key, map)?
            || self.puppetdb.take(key, map)?
            || self.file.take(key, map)?)
    }

    /// Tells what is wrong with them for a source of this kind.
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
