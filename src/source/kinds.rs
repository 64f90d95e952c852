//! The kinds of registries: the one list that a new kind has to be put into. All else of a kind,
//! its keys in `[[source]]` among it, is in its own folder.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mapsmith_core::{EntryMap, Rejections};
use serde::Deserialize;
use serde::de::MapAccess;

use super::dns::Dns;
use super::dns::keys::{DnsKeys, DnsSelector};
use super::file::FileRegistry;
use super::file::keys::{FileFormat, FileKeys};
use super::format::{Format, MapFormat, MapText, Names, ServerFields, read};
use super::http_json::HttpJson;
use super::puppetdb::keys::PuppetDbKeys;
use super::puppetdb::{self, PuppetDb};
use super::transport::http::keys::HttpKeys;
use super::transport::servers::ServersKeys;
use super::{Registry, SourceError, SourceErrorKind};
use crate::settings::keys::{Key, Keys, KindKeys, SelectorKeys};
use crate::settings::{self, Selector};

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
    /// Addresses and services in DNS.
    Dns,
}

impl SourceKind {
    /// Whether its registries are asked over HTTP.
    pub(crate) fn is_asked_over_http(self) -> bool {
        matches!(self, Self::Puppetdb | Self::HttpJson)
    }

    /// Whether a source of this kind says who owns which node. `listed`: a backend takes servers
    /// from it. What is one document is one of the two.
    pub(crate) fn maps_nodes(self, _keys: &KeysOfKinds, listed: bool) -> bool {
        match self {
            Self::Puppetdb => true,
            Self::HttpJson | Self::File => !listed,
            Self::Dns => false,
        }
    }

    /// Reports what is wrong with a backend's `from` that names a source of this kind.
    pub(crate) fn selector_problems(self, from: &Selector, mut problem: impl FnMut(String)) {
        match self {
            Self::Puppetdb => problem(format!(
                "from: {:?} is of type {self}, which lists no servers; name a source of another \
                    type",
                from.source
            )),
            Self::HttpJson | Self::File => read_selector::<OneList>(from, problem),
            Self::Dns => read_selector::<DnsSelector>(from, problem),
        }
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
            Self::Dns => Box::new(Dns::new(settings)),
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
            Self::Dns => {
                let why = "what a dns source says is no one text";
                return Err(SourceErrorKind::Setup(why.to_owned()));
            }
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
            Self::Dns => "dns",
        })
    }
}

/// What a backend says beside the name of a source that is one list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneList {}

impl SelectorKeys for OneList {}

/// Reports what is wrong with a backend's `from`, whose keys are these.
fn read_selector<T: SelectorKeys>(from: &Selector, mut problem: impl FnMut(String)) {
    let mut tell = |text: String| problem(format!("from.{text}"));
    match from.read::<T>() {
        Ok(keys) => keys.problems(tell),
        Err(problems) => problems.into_iter().for_each(&mut tell),
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
    /// For documents that list servers.
    pub fields: ServerFields,
    /// Where several servers answer.
    pub servers: ServersKeys,
    /// For DNS.
    pub dns: DnsKeys,
}

impl KeysOfKinds {
    /// The kinds that have them, what they are for, and the keys.
    pub(crate) const ALL: [(&'static str, &'static str, &'static [Key]); 6] = [
        ("`puppetdb` and `http_json`", HttpKeys::ABOUT, HttpKeys::KEYS),
        ("`puppetdb`", PuppetDbKeys::ABOUT, PuppetDbKeys::KEYS),
        ("`file`", FileKeys::ABOUT, FileKeys::KEYS),
        ("`http_json` and `file`: lists of servers", ServerFields::ABOUT, ServerFields::KEYS),
        ("`dns`: servers", ServersKeys::ABOUT, ServersKeys::KEYS),
        ("`dns`", DnsKeys::ABOUT, DnsKeys::KEYS),
    ];

    /// The kinds whose sources have more than one list of servers, what the keys of a backend's
    /// `from` are for, and these keys.
    pub(crate) const OF_SELECTORS: [(&'static str, &'static str, &'static [Key]); 1] =
        [("`dns`", DnsSelector::ABOUT, DnsSelector::KEYS)];

    /// Takes the key's value if it is a key of any kind. Whether it was.
    pub(crate) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        Ok(self.http.take(key, map)?
            || self.puppetdb.take(key, map)?
            || self.file.take(key, map)?
            || self.fields.take(key, map)?
            || self.servers.take(key, map)?
            || self.dns.take(key, map)?)
    }

    /// Reports what is wrong with them for a source of this kind.
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        self.http.problems(kind, &mut problem);
        self.puppetdb.problems(kind, &mut problem);
        self.file.problems(kind, &mut problem);
        self.fields.problems(kind, &mut problem);
        self.servers.problems(kind, &mut problem);
        self.dns.problems(kind, &mut problem);
    }

    /// The paths among them.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.http.paths().chain(&mut self.file.path)
    }
}
