//! Answers of registries.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use mapsmith::settings::{Settings, Source};
use mapsmith::source::{self, SourceErrorKind, SourceKind};
use mapsmith_core::{EntryMap, Invalid, Rejections, ServerList, names};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::commands::added;
use super::{harmless, whatever_the_pieces};

/// Sources of the settings that answers are read for.
pub(super) static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let text = r#"
        map = { path = "/m" }
        instance = [{ name = "edge1", runtime = "unix@/s" }]
        [[source]]
        name = "puppetdb"
        type = "puppetdb"
        url = "http://localhost"
        [[source]]
        name = "list"
        type = "http_json"
        url = "http://localhost"
        node_field = "node"
        master_field = "master"
        masters = { "puppet00.example.test" = "master1" }
        [[source]]
        name = "object"
        type = "http_json"
        url = "http://localhost"
        [[source]]
        name = "file"
        type = "file"
        path = "nodes.map"
        [[source]]
        name = "consul"
        type = "consul"
        url = "http://localhost"
        kv = "nodes/"
    "#;
    Settings::of_text(Path::new("/mapsmith.toml"), text, [])
        .expect("these settings are right")
        .sources
});

/// A JSON answer: PuppetDB's rows, a list of objects, an object, Consul's keys, a list of servers,
/// instances of a service; or a list of servers as lines.
pub fn answers(text: &[u8]) {
    // A byte order mark is skipped.
    let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let value = serde_json::from_slice::<Value>(plain);
    // A control character within a text costs a row at most.
    let harmless: Vec<_> =
        plain.iter().map(|byte| if *byte < 0x20 { b' ' } else { *byte }).collect();
    for source in SOURCES.iter().filter(|source| !["file", "consul"].contains(&&*source.name)) {
        let fields = match source.name.as_str() {
            "puppetdb" => Some(("certname", "producer")),
            "list" => Some(("node", "master")),
            _ => None,
        };
        let answer = whatever_the_pieces(text, |pieces| {
            source::read_map(source, true, pieces.iter().copied())
        });
        entries_are_harmless(&answer);
        if answer.is_ok() {
            assert!(
                serde_json::from_slice::<IgnoredAny>(&harmless).is_ok(),
                "what is not JSON was taken"
            );
        }
        let Ok(value) = &value else { continue };
        match (&answer, plain_rows(plain, value, fields)) {
            (Ok((entries, rejections)), Some(rows)) => compare(entries, rejections, &rows, source),
            (Ok(_), None) => panic!("an answer of another shape was taken: {value}"),
            (
                Err(
                    SourceErrorKind::NoField { .. }
                    | SourceErrorKind::NothingValid { .. }
                    | SourceErrorKind::ErrorObject(_),
                ),
                Some(_),
            )
            | (Err(_), None) => {}
            (Err(fault), Some(_)) => panic!("a whole answer was refused: {fault}"),
        }
    }
    for consul in SOURCES.iter().filter(|source| source.name == "consul") {
        entries_are_harmless(&whatever_the_pieces(text, |pieces| {
            source::read_map(consul, true, pieces.iter().copied())
        }));
    }
    for kind in [SourceKind::HttpJson, SourceKind::Consul] {
        let list =
            whatever_the_pieces(text, |pieces| source::read_list(kind, pieces.iter().copied()));
        if list.is_ok() {
            assert!(value.as_ref().map_or_else(|error| !error.is_eof(), Value::is_array));
        }
        servers_are_harmless(list);
    }
    let lines = whatever_the_pieces(text, |pieces| source::read_lines(pieces.iter().copied()));
    if lines.is_ok() {
        assert!(
            !value.is_ok_and(|value| value.is_array() || value.is_object()),
            "JSON is no lines"
        );
    }
    servers_are_harmless(lines);
}

/// What a list of servers holds, wherever it is from.
fn servers_are_harmless(list: Result<(ServerList, Rejections), SourceErrorKind>) {
    if let Ok((list, rejections)) = list {
        let ServerList { servers, rejected, rejected_count, unknown, unnamed, disputed } = list;
        assert!(servers.is_sorted_by(|one, next| one.name < next.name), "each name once, in order");
        assert!(rejected.len() as u64 <= rejected_count && rejected_count <= rejections.total());
        assert!(unknown.len() as u64 + unnamed <= rejected_count);
        assert!(
            disputed.iter().all(|name| servers.iter().any(|server| server.name == *name)),
            "what is disputed is there"
        );
        servers.iter().for_each(|server| added("b", server, &Default::default()));
    }
}

type Plain = Vec<(Value, Value)>;

/// The rows as nodes and masters, read at once; none where the answer has another shape.
fn plain_rows(text: &[u8], answer: &Value, fields: Option<(&str, &str)>) -> Option<Plain> {
    match (answer, fields) {
        (Value::Array(rows), Some((node, master))) => {
            let field = |row: &Value, name| row.get(name).cloned().unwrap_or_default();
            Some(rows.iter().map(|row| (field(row, node), field(row, master))).collect())
        }
        (Value::Object(_), None) => serde_json::from_slice::<Pairs>(text).ok().map(|pairs| pairs.0),
        _ => None,
    }
}

/// An object's entries in their order, also those whose name stands there twice.
struct Pairs(Plain);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((node, master)) = map.next_entry::<String, Value>()? {
                    pairs.push((Value::String(node), master));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Every valid row whose node stands in the answer once is an entry, and no entry comes from
/// nowhere.
fn compare(entries: &EntryMap, rejections: &Rejections, rows: &Plain, source: &Source) {
    let mut valid: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, master) in rows {
        if let (Some(node), Some(master)) = (node.as_str(), master.as_str()) {
            let master = source.masters.get(master).map_or(master, String::as_str);
            let node = node.to_ascii_lowercase();
            if names::check_key(&node).is_ok() && names::check_value(master).is_ok() {
                valid.entry(node).or_default().push(master);
            }
        }
    }
    assert!(
        entries.iter().map(|(key, _)| key).eq(valid.keys().map(String::as_str)),
        "other nodes: {entries:?}, {valid:?}"
    );
    for (node, master) in entries.iter() {
        assert!(valid[node].contains(&master), "{node} is at {master}");
    }
    let conflicts = rejections.counts.get(&Invalid::Conflict).copied().unwrap_or(0);
    let taken: usize = valid.values().map(Vec::len).sum();
    assert_eq!(rejections.total() - conflicts, (rows.len() - taken) as u64, "{rejections:?}");
}

pub(super) fn entries_are_harmless(answer: &Result<(EntryMap, Rejections), SourceErrorKind>) {
    match answer {
        Ok((entries, _)) => entries.iter().for_each(|(key, value)| {
            harmless(key);
            harmless(value);
        }),
        Err(fault) => {
            let shown = fault.to_string();
            assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
        }
    }
}
