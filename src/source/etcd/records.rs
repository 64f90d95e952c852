//! The keys of a prefix and their values -> servers, or entries of the node map. *Pure.*
//!
//! A value is read by itself: one that is no server is rejected with its key, and the rest goes on.
//! While it is, the server that it was before stays in force: a writer that failed half-way is no
//! word that its server is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::{Content, EntryMap, Invalid, Rejections, ServerList};
use serde_json::Value;

use super::keys::ValueFormat;
use crate::source::format::{
    Collector, Field, Names, Row, Rows, raw_server, server_name, without_mark,
};

/// The largest value, in bytes. One has some hundred.
const MAX_VALUE: usize = 64 * 1024;

/// What keys and values are read as.
pub(in crate::source) trait Reading: Clone + Send + Sync + 'static {
    type Content: Content;
    type Rows: Rows<Content = Self::Content>;

    /// Rows of an answer of which nothing has come yet.
    fn rows(&self) -> Self::Rows;

    /// Takes a key, without its prefix, and what it holds.
    fn take(rows: &mut Self::Rows, key: &[u8], value: &[u8]);

    /// Learns of a whole answer what the next one needs.
    fn learn(&mut self, _rows: &mut Self::Rows) {}
}

/// A list of servers.
#[derive(Debug, Clone)]
pub(in crate::source) struct Servers {
    format: ValueFormat,
    /// The name of the server that each key was when it was good last.
    known: Arc<BTreeMap<String, String>>,
}

impl Servers {
    pub(in crate::source) fn new(format: ValueFormat) -> Self {
        Self { format, known: Arc::default() }
    }
}

/// Rows of a list of servers.
pub(in crate::source) struct ServerRows {
    reading: Servers,
    builder: ServerListBuilder,
    names: BTreeMap<String, String>,
}

impl Rows for ServerRows {
    type Content = ServerList;

    fn settle(self) -> (ServerList, Rejections) {
        self.builder.finish(Repeats::LowestAddress)
    }
}

impl Reading for Servers {
    type Content = ServerList;
    type Rows = ServerRows;

    fn rows(&self) -> ServerRows {
        let (builder, names) = (ServerListBuilder::default(), BTreeMap::new());
        ServerRows { reading: self.clone(), builder, names }
    }

    fn take(rows: &mut ServerRows, key: &[u8], value: &[u8]) {
        // The prefix itself: some writers keep a mark there.
        if key.is_empty() {
            return;
        }
        let Ok(key) = std::str::from_utf8(key) else {
            let place = format!("key \"{}\"", key.escape_ascii());
            let detail = "the key is not UTF-8".to_owned();
            return rows.builder.reject(&place, Invalid::ServerRow, detail);
        };
        let place = format!("key {key:?}");
        let by_key = server_name(&key.split('/').collect::<Vec<_>>());
        let read = server(rows.reading.format, value)
            .map_err(|detail| (Invalid::ServerRow, detail))
            .and_then(|server| {
                let name = server.name.or_else(|| Some(by_key.clone()));
                rows.builder.try_push(&place, RawServer { name, ..server })
            });
        let name = read.unwrap_or_else(|(reason, detail)| {
            let name = rows.reading.known.get(key).cloned().unwrap_or(by_key);
            rows.builder.reject_known(&place, &name, reason, detail);
            name
        });
        rows.names.insert(key.to_owned(), name);
    }

    fn learn(&mut self, rows: &mut ServerRows) {
        self.known = Arc::new(std::mem::take(&mut rows.names));
    }
}

/// The server that a value is.
fn server(format: ValueFormat, value: &[u8]) -> Result<RawServer, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("is larger than {MAX_VALUE} bytes"));
    }
    let text = std::str::from_utf8(without_mark(value)).map_err(|_| "does not hold UTF-8")?.trim();
    if text.is_empty() {
        return Err("holds nothing".to_owned());
    }
    match format {
        ValueFormat::Address => Ok(RawServer { address: text.to_owned(), ..RawServer::default() }),
        ValueFormat::Json => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => raw_server(&object),
            Ok(_) => Err("holds JSON, but no object".to_owned()),
            Err(_) => Err("does not hold JSON".to_owned()),
        },
    }
}

/// The node map: each key is a node, and holds its master's name.
#[derive(Debug, Clone)]
pub(in crate::source) struct Nodes(pub Arc<Names>);

impl Reading for Nodes {
    type Content = EntryMap;
    type Rows = Collector;

    fn rows(&self) -> Collector {
        Collector::new(Arc::clone(&self.0))
    }

    fn take(rows: &mut Collector, key: &[u8], value: &[u8]) {
        if key.is_empty() {
            return;
        }
        let node = match std::str::from_utf8(key) {
            Ok(node) => Field::Text(node.into()),
            Err(_) => Field::Other,
        };
        let master = match std::str::from_utf8(without_mark(value)).map(str::trim) {
            Ok("") => Field::Null,
            Ok(master) => Field::Text(master.into()),
            Err(_) => Field::Other,
        };
        rows.take(&Row { node, master, ..Row::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<R: Reading>(reading: &mut R, pairs: &[(&[u8], &[u8])]) -> (R::Content, Rejections) {
        let mut rows = reading.rows();
        pairs.iter().for_each(|(key, value)| R::take(&mut rows, key, value));
        reading.learn(&mut rows);
        rows.settle()
    }

    fn names(list: &ServerList) -> Vec<&str> {
        list.servers.iter().map(|server| &*server.name).collect()
    }

    #[test]
    fn a_value_is_a_server_called_by_its_own_name_or_by_its_key() {
        let json = br#"{"address": "10.0.0.1", "port": "80", "weight": 7, "zone": {}}"#;
        let named = br#" {"name": "m1", "address": "Web.example:80", "backup": true} "#;
        let pairs: [(&[u8], &[u8]); 4] =
            [(b"a", json), (b"eu/b", json), (b"c", named), (b"", b"a mark")];
        let (list, rejections) = read(&mut Servers::new(ValueFormat::Json), &pairs);
        assert_eq!((names(&list), rejections.total()), (vec!["a", "eu:b", "m1"], 0));
        assert_eq!((list.servers[0].port, list.servers[0].weight), (80, Some(7)));
        let pairs: [(&[u8], &[u8]); 2] = [(b"a", b"10.0.0.1:80\n"), (b"b c", b"[fe80::1]:81")];
        let (list, rejections) = read(&mut Servers::new(ValueFormat::Address), &pairs);
        assert_eq!((list.servers.len(), rejections.total()), (2, 0));
        assert!(list.servers[1].name.starts_with("b_c-"), "{}", list.servers[1].name);
    }

    #[test]
    fn a_value_that_is_no_server_is_rejected_by_its_key_and_keeps_the_name_that_it_had() {
        let good: &[u8] = br#"{"name": "m1", "address": "10.0.0.1:80"}"#;
        let mut reading = Servers::new(ValueFormat::Json);
        read(&mut reading, &[(b"a", good)]);
        let large = vec![b' '; MAX_VALUE + 1];
        for bad in [&b""[..], b"{", b"\xff", b"[]", b"{\"address\": \"nowhere:\"}", &large] {
            let pairs: [(&[u8], &[u8]); 3] =
                [(b"a", bad), (b"b", b"{\"address\": \"10.0.0.2:80\"}"), (b"\xff", good)];
            let (list, rejections) = read(&mut reading, &pairs);
            assert_eq!((names(&list), rejections.total()), (vec!["b"], 2));
            let rejected: Vec<_> =
                list.rejected.iter().map(|row| (&*row.place, row.name.as_deref())).collect();
            assert_eq!(rejected, [("key \"a\"", Some("m1")), ("key \"\\xff\"", None)]);
        }
    }

    #[test]
    fn two_keys_of_one_name_are_disputed() {
        let pairs: [(&[u8], &[u8]); 2] = [
            (b"a", br#"{"name": "m", "address": "10.0.0.1:80"}"#),
            (b"b", br#"{"name": "m", "address": "10.0.0.2:80"}"#),
        ];
        let (list, _) = read(&mut Servers::new(ValueFormat::Json), &pairs);
        assert!(list.disputed.contains("m"));
    }

    #[test]
    fn a_key_is_a_node_and_its_value_the_master() {
        let names = Arc::new(Names::new(true, &BTreeMap::new()));
        let pairs: [(&[u8], &[u8]); 6] = [
            (b"", b"a mark"),
            (b"Node1", b"m1\n"),
            (b"b", b""),
            (b"c", b"\xff"),
            (b"\xff", b"m1"),
            (b"d", b"two words"),
        ];
        let (map, rejections) = read(&mut Nodes(names), &pairs);
        assert_eq!(map.iter().collect::<Vec<_>>(), [("node1", "m1")]);
        assert_eq!((rejections.total(), rejections.counts[&Invalid::NoMaster]), (4, 1));
        assert_eq!(rejections.counts[&Invalid::NotString], 2);
    }
}
