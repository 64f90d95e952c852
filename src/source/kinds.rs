//! The kinds of registries: the one list that a new kind has to be put into. All else of a kind,
//! its keys in `[[source]]` among it, is in its own folder.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mapsmith_core::{EntryMap, Rejections, ServerList};
use serde::Deserialize;
use serde::de::MapAccess;

use super::consul::keys::{ConsulKeys, ConsulSelector};
use super::consul::{Consul, HealthFormat};
use super::dns::Dns;
use super::dns::keys::{DnsKeys, DnsSelector};
use super::etcd::Etcd;
use super::etcd::keys::{EtcdKeys, EtcdSelector};
use super::file::FileRegistry;
use super::file::keys::{Confined, FileFormat, FileKeys};
use super::format::{Format, MapFormat, MapText, Names, ServerFields, ServerFormat, read};
use super::http_json::HttpJson;
use super::metadata::Metadata;
use super::metadata::keys::MetadataKeys;
use super::nodes::NodesKeys;
use super::puppetdb::keys::PuppetDbKeys;
use super::puppetdb::{self, PuppetDb};
use super::registrations::Registrations;
use super::registrations::keys::MemberSelector;
use super::transport::http::keys::HttpKeys;
use super::transport::servers::ServersKeys;
use super::zookeeper::ZooKeeper;
use super::zookeeper::keys::ZooKeeperKeys;
use super::zookeeper::selector::{ServicesSelector, ZooKeeperSelector};
use super::{Registry, SourceError, SourceErrorKind, consul};
use crate::settings::keys::{Key, Keys, KindKeys, SelectorKeys};
use crate::settings::{self, Selector};

/// The kinds of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// PuppetDB's query API.
    Puppetdb,
    /// Services and keys of Consul.
    Consul,
    /// ZooKeeper.
    Zookeeper,
    /// etcd, version 3.
    Etcd,
    /// Addresses and services in DNS.
    Dns,
    /// A JSON document over HTTP.
    HttpJson,
    /// A JSON document, a map file or lines on disk.
    File,
    /// The metadata of a load balancer.
    Metadata,
    /// Nodes that are registered with Mapsmith itself.
    Registrations,
}

impl SourceKind {
    /// Whether its registries are asked over HTTP, all of them.
    pub(crate) fn is_asked_over_http(self) -> bool {
        matches!(self, Self::Puppetdb | Self::Consul | Self::HttpJson)
    }

    /// Whether a source of this kind is one document: the node map, or a list that a backend names.
    pub(crate) fn is_one_document(self) -> bool {
        matches!(self, Self::HttpJson | Self::File)
    }

    /// Whether the settings name the fields of a row.
    pub(crate) fn has_fields(self) -> bool {
        matches!(self, Self::Puppetdb | Self::HttpJson | Self::File)
    }

    /// Whether a source of this kind says who owns which node. `listed`: a backend takes servers
    /// from it. What is one document is one of the two.
    pub(crate) fn maps_nodes(self, keys: &KeysOfKinds, listed: bool) -> bool {
        match self {
            Self::Puppetdb | Self::Registrations => true,
            Self::Consul => keys.consul.kv.is_some(),
            Self::Zookeeper | Self::Etcd => keys.nodes.nodes.is_some(),
            Self::Dns | Self::Metadata => false,
            Self::HttpJson | Self::File => !listed,
        }
    }

    /// Reports what is wrong with a backend's `from` that names a source of this kind.
    pub(crate) fn selector_problems(self, from: &Selector, mut problem: impl FnMut(String)) {
        match self {
            Self::Puppetdb | Self::Metadata => problem(format!(
                "from: {:?} is of type {self}, which lists no servers; name a source of another \
                    type",
                from.source
            )),
            Self::Consul => read_selector::<ConsulSelector>(from, problem),
            Self::Zookeeper => read_selector::<ZooKeeperSelector>(from, problem),
            Self::Etcd => read_selector::<EtcdSelector>(from, problem),
            Self::Dns => read_selector::<DnsSelector>(from, problem),
            Self::Registrations => read_selector::<MemberSelector>(from, problem),
            Self::HttpJson | Self::File => read_selector::<OneList>(from, problem),
        }
    }

    /// Reports what is wrong with a `services.from` that names a source of this kind.
    pub(crate) fn services_problems(self, from: &Selector, mut problem: impl FnMut(String)) {
        match self {
            Self::Zookeeper => read_selector::<ServicesSelector>(from, problem),
            Self::File => read_selector::<OneList>(from, problem),
            Self::Metadata => problem(format!(
                "from: {:?} is of type metadata, whose services are a portmap; name it in \
                    portmap.source",
                from.source
            )),
            Self::Puppetdb
            | Self::Consul
            | Self::Etcd
            | Self::Dns
            | Self::HttpJson
            | Self::Registrations => {
                problem(format!(
                    "from: {:?} is of type {self}, which declares no services; name a source of \
                        type zookeeper or file",
                    from.source
                ));
            }
        }
    }

    /// The registry of a source of this kind.
    pub(super) fn registry(
        self,
        settings: Arc<settings::Source>,
        names: Arc<Names>,
        lowercase: bool,
    ) -> Result<Box<dyn Registry>, SourceError> {
        Ok(match self {
            Self::Puppetdb => Box::new(PuppetDb::new(settings, names)?),
            Self::Consul => Box::new(Consul::new(settings, names)?),
            Self::Zookeeper => Box::new(ZooKeeper::new(settings, names)?),
            Self::Etcd => Box::new(Etcd::new(settings, names)?),
            Self::Dns => Box::new(Dns::new(settings)),
            Self::HttpJson => Box::new(HttpJson::new(settings, names)?),
            Self::File => Box::new(FileRegistry::new(settings, names)),
            Self::Metadata => Box::new(Metadata::new(settings, names)?),
            Self::Registrations => Box::new(Registrations::new(settings, lowercase)),
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
            Self::Consul => consul::map_format(names),
            Self::Zookeeper | Self::Etcd | Self::Dns | Self::Metadata | Self::Registrations => {
                return Err(self.is_no_one_text());
            }
            Self::HttpJson | Self::File => MapFormat::document(settings, names),
        };
        read(format.reader(None), chunks)
    }

    /// Reads an answer as a source of this kind does that lists servers.
    pub(super) fn read_list<'c>(
        self,
        chunks: impl IntoIterator<Item = &'c [u8]>,
    ) -> Result<(ServerList, Rejections), SourceErrorKind> {
        match self {
            Self::Consul => read(HealthFormat.reader(None), chunks),
            Self::Zookeeper | Self::Etcd | Self::Dns | Self::Metadata | Self::Registrations => {
                Err(self.is_no_one_text())
            }
            Self::Puppetdb | Self::HttpJson | Self::File => {
                read(ServerFormat::default().reader(None), chunks)
            }
        }
    }

    fn is_no_one_text(self) -> SourceErrorKind {
        SourceErrorKind::Setup(format!("what a {self} source says is no one text"))
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Puppetdb => "puppetdb",
            Self::Consul => "consul",
            Self::Zookeeper => "zookeeper",
            Self::Etcd => "etcd",
            Self::Dns => "dns",
            Self::HttpJson => "http_json",
            Self::File => "file",
            Self::Metadata => "metadata",
            Self::Registrations => "registrations",
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
    /// For a Consul.
    pub consul: ConsulKeys,
    /// Where several servers answer.
    pub servers: ServersKeys,
    /// For a ZooKeeper.
    pub zookeeper: ZooKeeperKeys,
    /// For an etcd.
    pub etcd: EtcdKeys,
    /// For a ZooKeeper and an etcd.
    pub nodes: NodesKeys,
    /// For DNS.
    pub dns: DnsKeys,
    /// For documents that list servers.
    pub fields: ServerFields,
    /// For a file.
    pub file: FileKeys,
    /// For metadata.
    pub metadata: MetadataKeys,
    /// For a file that a service names. No key says it.
    pub confined: Option<Confined>,
    /// For registrations: where they are kept. `[store]` says it.
    pub store: Option<PathBuf>,
}

impl KeysOfKinds {
    /// The kinds that have them, what they are for, and the keys.
    pub(crate) const ALL: [(&'static str, &'static str, &'static [Key]); 11] = [
        (
            "`puppetdb`, `consul`, `http_json`; of TLS: `zookeeper`, `etcd`",
            HttpKeys::ABOUT,
            HttpKeys::KEYS,
        ),
        ("`puppetdb`", PuppetDbKeys::ABOUT, PuppetDbKeys::KEYS),
        ("`consul`", ConsulKeys::ABOUT, ConsulKeys::KEYS),
        ("`zookeeper` and `dns`: servers", ServersKeys::ABOUT, ServersKeys::KEYS),
        ("`zookeeper`", ZooKeeperKeys::ABOUT, ZooKeeperKeys::KEYS),
        ("`etcd`", EtcdKeys::ABOUT, EtcdKeys::KEYS),
        ("`zookeeper` and `etcd`: nodes", NodesKeys::ABOUT, NodesKeys::KEYS),
        ("`dns`", DnsKeys::ABOUT, DnsKeys::KEYS),
        ("`http_json` and `file`: lists of servers", ServerFields::ABOUT, ServerFields::KEYS),
        ("`file`", FileKeys::ABOUT, FileKeys::KEYS),
        ("`metadata`", MetadataKeys::ABOUT, MetadataKeys::KEYS),
    ];

    /// The kinds whose sources have more than one list of servers, what the keys of a backend's
    /// `from` are for, and these keys.
    pub(crate) const OF_SELECTORS: [(&'static str, &'static str, &'static [Key]); 5] = [
        ("`consul`", ConsulSelector::ABOUT, ConsulSelector::KEYS),
        ("`zookeeper`", ZooKeeperSelector::ABOUT, ZooKeeperSelector::KEYS),
        ("`etcd`", EtcdSelector::ABOUT, EtcdSelector::KEYS),
        ("`dns`", DnsSelector::ABOUT, DnsSelector::KEYS),
        ("`registrations`", MemberSelector::ABOUT, MemberSelector::KEYS),
    ];

    /// Takes the key's value if it is a key of any kind. Whether it was.
    pub(crate) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        Ok(self.http.take(key, map)?
            || self.puppetdb.take(key, map)?
            || self.consul.take(key, map)?
            || self.servers.take(key, map)?
            || self.zookeeper.take(key, map)?
            || self.etcd.take(key, map)?
            || self.nodes.take(key, map)?
            || self.dns.take(key, map)?
            || self.fields.take(key, map)?
            || self.file.take(key, map)?
            || self.metadata.take(key, map)?)
    }

    /// Reports what is wrong with them for a source of this kind.
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        self.http.problems(kind, &mut problem);
        self.puppetdb.problems(kind, &mut problem);
        self.consul.problems(kind, &mut problem);
        self.servers.problems(kind, &mut problem);
        self.zookeeper.problems(kind, &mut problem);
        self.etcd.problems(kind, &self.http, &mut problem);
        self.nodes.problems(kind, &mut problem);
        self.dns.problems(kind, &mut problem);
        self.fields.problems(kind, &mut problem);
        self.file.problems(kind, &mut problem);
        self.metadata.problems(kind, self, &mut problem);
    }

    /// The paths among them.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let of_kinds = [
            &mut self.file.path,
            &mut self.zookeeper.auth_file,
            &mut self.etcd.password_file,
            &mut self.store,
        ];
        self.http.paths().chain(of_kinds.into_iter().flatten())
    }
}
