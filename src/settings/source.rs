//! `[[source]]`: the registries. The keys of a kind are beside that kind, in `crate::source`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use mapsmith_core::names;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::{Keys, section};
use super::units::{duration, size};
use super::{Map, Selector, Settings, Store, backend, check_names};
use crate::source::registrations::keys::MemberSelector;
use crate::source::{FileFormat, KeysOfKinds, SourceKind, registrations};

/// The name of the source of registrations that is there without being written out.
pub(super) const BUILT_IN: &str = "registrations";

section! {
    /// A registry that says which master owns a node, or that lists servers for a backend. At least
    /// one for the node map is required.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(remote = "Self")]
    pub struct Source {
        /// Its name in status, logs and metrics: 1 to 255 bytes without whitespace.
        #[unset(required)]
        pub name: String,
        /// What it is: `puppetdb` (PuppetDB's query API), `consul` (services and keys of Consul),
        /// `zookeeper` (the children of a path), `etcd` (the keys of a prefix), `dns` (addresses and
        /// services in DNS), `http_json` (a JSON document over HTTP), `file` (a JSON document, a
        /// map file or lines), `metadata` (the keys that declare a load balancer) or
        /// `registrations` (nodes, and members by name and version, that are registered with
        /// Mapsmith itself, over its API; kept in `[store]`; at most one such source). Where there
        /// is a store and no such source, one of the name `registrations` is there for the servers
        /// of backends alone.
        #[unset(required)]
        #[serde(rename = "type")]
        pub kind: SourceKind,
        /// Of a node that several sources know, the one with the greater number counts; at equal
        /// numbers the one listed first.
        #[unset("0")]
        #[serde(default)]
        pub priority: i32,
        /// Whether nothing is applied until it has answered once.
        #[unset("true")]
        #[serde(default = "required")]
        pub required: bool,
        /// Whether it is polled and compared, and never applied: for the way from one registry to
        /// another ([operations.md](operations.md#from-one-registry-to-another)). What it says of
        /// the node map is compared with what the other sources say; a list of servers that a
        /// backend's `shadow_from` takes from it, with the servers in force. It is never required.
        #[unset("false")]
        #[serde(default)]
        pub shadow: bool,
        /// The field of a row that names the node.
        #[unset(says "`puppetdb`: `certname`")]
        pub node_field: Option<String>,
        /// The field of a row that names its master. JSON documents without both fields are one
        /// object, `{"node": "master"}`; with both they are a list of objects.
        #[unset(says "`puppetdb`: `producer`")]
        pub master_field: Option<String>,
        /// How long deltas (`puppetdb`), "not modified" (`http_json`) and an untouched file
        /// (`file`) are trusted before everything is read again.
        #[unset("10m")]
        #[serde(default = "full_poll", deserialize_with = "duration")]
        pub full_poll: Duration,
        /// The bound on a whole poll, connecting and parsing included. Not 0.
        #[unset("30s")]
        #[serde(default = "timeout", deserialize_with = "duration")]
        pub timeout: Duration,
        /// The bound on an answer's size after decompression, in bytes. Not 0.
        #[unset("512MiB")]
        #[serde(default = "max_bytes", deserialize_with = "size")]
        pub max_bytes: u64,
        /// The registry's name of a master and HAProxy's: `"puppet00.example.com" = "master1"`. A
        /// name that is not listed is taken as it is.
        #[unset(says "empty")]
        #[serde(default)]
        pub masters: BTreeMap<String, String>,
    }
    beside {
        /// The keys that it has because of its kind.
        pub of_kind: KeysOfKinds,
        /// Whether it says who owns which node.
        pub maps_nodes: bool,
        /// Whether it keeps the times that the rows carry: `[ownership]` asks for them.
        pub keep_times: bool,
        /// Whether nobody wrote it out: the registrations that are there wherever a store is.
        pub built_in: bool,
    }
}

fn required() -> bool {
    true
}

fn full_poll() -> Duration {
    Duration::from_secs(600)
}

fn timeout() -> Duration {
    Duration::from_secs(30)
}

fn max_bytes() -> u64 {
    512 * 1024 * 1024
}

/// Every key that a source of any kind can have.
static KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let of_kinds = KeysOfKinds::ALL.into_iter().flat_map(|(_, _, keys)| keys);
    Source::KEYS.iter().chain(of_kinds).map(|key| key.name).collect()
});

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Source", &KEYS, SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a source's keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        let mut of_kind = KeysOfKinds::default();
        let rest = KeysOfAll { map, of_kind: &mut of_kind };
        // Not the trait's method: the one that serde derives for `remote`.
        let source = Source::deserialize(MapAccessDeserializer::new(rest))?;
        Ok(Source { of_kind, ..source })
    }
}

/// The entries whose keys every source has; those of kinds are taken out on the way.
struct KeysOfAll<'a, A> {
    map: A,
    of_kind: &'a mut KeysOfKinds,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for KeysOfAll<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if self.of_kind.take(&key, &mut self.map)? {
                continue;
            }
            if !KEYS.contains(&&*key) {
                return Err(de::Error::unknown_field(&key, &KEYS));
            }
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl Source {
    /// One that a service names: it lists servers, and has no credentials.
    pub(super) fn of_services(name: &str, kind: SourceKind, of_kind: KeysOfKinds) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            priority: 0,
            // As a list of the settings is: a reload that does not get it has failed.
            required: true,
            shadow: false,
            node_field: None,
            master_field: None,
            full_poll: full_poll(),
            timeout: timeout(),
            max_bytes: max_bytes(),
            masters: BTreeMap::new(),
            of_kind,
            maps_nodes: false,
            keep_times: false,
            built_in: false,
        }
    }

    /// Whether it says who owns which node, and that is applied.
    pub fn feeds_map(&self) -> bool {
        self.maps_nodes && !self.shadow
    }

    /// What follows from its other keys: a shadow is never required, and registrations are kept in
    /// the store.
    pub(super) fn settle(&mut self, store: Option<&Store>) {
        self.required &= !self.shadow;
        let store = store.filter(|_| self.kind == SourceKind::Registrations);
        self.of_kind.store = store.map(|store| store.path.clone());
    }

    /// Whether a service may have its servers from it, though nothing of the settings has.
    pub(super) fn may_serve_services(&self) -> bool {
        matches!(self.kind, SourceKind::Zookeeper | SourceKind::Dns) && !self.shadow
    }

    fn problems(&self, place: &str, problems: &mut Vec<String>) {
        let mut problem = |text: String| problems.push(format!("{place}: {text}"));
        self.of_kind.problems(self.kind, &mut problem);
        if self.kind != SourceKind::Puppetdb
            && self.node_field.is_some() != self.master_field.is_some()
        {
            problem("node_field and master_field go together".to_owned());
        }
        if !self.kind.has_fields() && (self.node_field.is_some() || self.master_field.is_some()) {
            problem(format!("node_field, master_field: a {} source has none", self.kind));
        }
        if self.timeout.is_zero() || self.max_bytes == 0 {
            problem("timeout and max_bytes must not be 0".to_owned());
        }
        for (registry, haproxy) in &self.masters {
            if let Err(reason) = names::check_value(haproxy) {
                problem(format!("masters.{registry:?}: {reason}"));
            }
        }
    }

    /// Of a source that only lists servers: settings of the node map on it would do nothing.
    fn list_problems(&self, place: &str, problems: &mut Vec<String>) {
        if self.node_field.is_some() || self.master_field.is_some() || !self.masters.is_empty() {
            problems.push(format!(
                "{place}: node_field, master_field and masters are for the node map, but a backend \
                    takes its servers from this source"
            ));
        }
        if self.of_kind.file.format == Some(FileFormat::Map) {
            problems.push(format!("{place}: format: a list of servers is json or lines"));
        }
    }

    /// Of a source of the node map: settings of a list on it would do nothing.
    fn map_problems(&self, place: &str, problems: &mut Vec<String>) {
        let fields = self.of_kind.fields.names();
        if !fields.is_empty() {
            problems.push(format!(
                "{place}: {}: for lists of servers, but no backend takes its servers from this \
                    source; name it in a backend's from",
                fields.join(", ")
            ));
        }
        if self.of_kind.file.format == Some(FileFormat::Lines) {
            problems.push(format!(
                "{place}: format: lines are a list of servers; name the source in a backend's from"
            ));
        }
    }

    /// Its file must be no other file of Mapsmith's.
    fn path_problems(
        &self,
        place: &str,
        map: &Map,
        store: Option<&Store>,
        problems: &mut Vec<String>,
    ) {
        let path = self.of_kind.file.path.as_deref();
        if path == Some(map.file()) {
            problems.push(format!("{place}: path is the map file, which Mapsmith writes itself"));
        }
        if store.is_some_and(|store| path == Some(&store.path)) {
            problems.push(format!("{place}: path is the store, a database"));
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.of_kind.paths().for_each(|path| *path = folder.join(&*path));
    }
}

impl Settings {
    /// The source of the nodes that are registered with Mapsmith itself, if there is one.
    pub fn registrations(&self) -> Option<&Source> {
        let of_kind = |source: &&Source| source.kind == SourceKind::Registrations;
        self.sources.iter().filter(|source| !source.built_in).find(of_kind)
    }

    /// The source that a backend takes members from.
    pub fn members_source(&self) -> &str {
        self.registrations().map_or(BUILT_IN, |source| &source.name)
    }

    /// The backends whose servers are registered with Mapsmith itself, and what of these each takes
    /// by its settings.
    pub fn member_backends(&self) -> Vec<(&str, MemberSelector)> {
        let backends = self.backends.iter();
        backends.filter_map(|it| Some((it.name.as_str(), self.takes_members(it)?))).collect()
    }

    /// What of the members a backend takes; none where its servers come from elsewhere.
    pub fn takes_members(&self, backend: &backend::Backend) -> Option<MemberSelector> {
        self.members_of(backend.from.as_ref()?)
    }

    /// What of the members this list is; none where it is another list.
    pub fn members_of(&self, from: &Selector) -> Option<MemberSelector> {
        let source = self.sources.iter().find(|source| source.name == from.source)?;
        let is_ours = source.kind == SourceKind::Registrations;
        from.read::<MemberSelector>().ok().filter(|_| is_ours)
    }

    /// Has the source there that a backend takes members from, where none is written out.
    pub(super) fn with_registrations(mut self) -> Self {
        let is_named = backend::list_sources(&self.backends).contains(BUILT_IN);
        let is_there =
            |source: &Source| source.kind == SourceKind::Registrations || source.name == BUILT_IN;
        if self.store.is_some() && is_named && !self.sources.iter().any(is_there) {
            let kind = SourceKind::Registrations;
            let source = Source::of_services(BUILT_IN, kind, KeysOfKinds::default());
            self.sources.push(Source { built_in: true, ..source });
        }
        self
    }
}

/// Reports that there is no source of the node map, without which Mapsmith has nothing to do.
pub(super) fn problems_without_map(sources: &[Source], problems: &mut Vec<String>) {
    if sources.is_empty() {
        problems.push("source: there is none; add a [[source]]".to_owned());
    } else if !sources.iter().any(Source::feeds_map) {
        problems.push(
            "source: each lists servers for a backend, or is a shadow; add a [[source]] for the \
                node map"
                .to_owned(),
        );
    }
}

/// The names of the sources that list servers, or services.
pub(super) fn list_sources(settings: &Settings) -> BTreeSet<String> {
    let services = settings.services.iter().map(|services| &services.from.source);
    let portmap = settings.portmap.iter().map(|portmap| &portmap.source);
    let lists = backend::list_sources(&settings.backends).into_iter().map(str::to_owned);
    // What is declared may take its servers from them.
    let may_serve = |source: &&Source| {
        settings.services.is_some() && source.may_serve_services()
            || settings.portmap.is_some() && source.kind == SourceKind::Dns
    };
    let others = settings.sources.iter().filter(may_serve).map(|source| &source.name);
    lists.chain(services.chain(portmap).chain(others).cloned()).collect()
}

/// `lists` are the names of the sources that list servers.
pub(super) fn problems(
    sources: &[Source],
    lists: &BTreeSet<String>,
    map: &Map,
    store: Option<&Store>,
    problems: &mut Vec<String>,
) {
    check_names("source", sources.iter().map(|source| &source.name), problems);
    let has_map = sources.iter().any(Source::feeds_map);
    registrations::keys::problems(sources, store.is_some(), |text| problems.push(text));
    for (index, source) in sources.iter().enumerate() {
        let place = format!("source[{index}] {:?}", source.name);
        source.path_problems(&place, map, store, problems);
        source.problems(&place, problems);
        if source.shadow && source.maps_nodes && !has_map {
            problems.push(format!(
                "{place}: shadow: no other source says which master owns a node, so there is \
                    nothing to compare it with"
            ));
        }
        let key = if source.shadow { "shadow_from" } else { "from" };
        match (source.maps_nodes, lists.contains(source.name.as_str())) {
            (true, _) => source.map_problems(&place, problems),
            (false, true) => source.list_problems(&place, problems),
            (false, false) => problems.push(format!(
                "{place}: nothing is taken from it; name it in a backend's {key}, or give it the \
                    keys of a node map"
            )),
        }
    }
}
