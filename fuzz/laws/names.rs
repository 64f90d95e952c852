//! Names.

use std::time::Duration;

use haproxy_runtime::server::command::{ServerCommand, ServerPath};
use haproxy_runtime::table::{Row, TableName, TableSize};
use mapsmith_core::map_file::MapFile;
use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::{EntryMapBuilder, names};

use super::commands::{added, commands, words};
use super::harmless;
use super::map_file::round_trip;
use super::table_replies::{table_head, table_replies, table_row};

/// `KEY|VALUE`: what a header, a registry or an operator names a node and a master.
pub fn names(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let (key, value) = text.split_once('|').unwrap_or((text, text));
    let mut builder = EntryMapBuilder::new();
    let valid = builder.push(key, value).is_ok();
    assert_eq!(valid, names::check_key(key).is_ok() && names::check_value(value).is_ok());
    if valid {
        harmless(key);
        harmless(value);
        commands(key, value);
        round_trip(&MapFile { entries: builder.finish(), ..MapFile::default() });
    }
    // A node that clients name so in their header, and the table that shows it.
    let row = Row {
        key: key.as_bytes().to_vec(),
        expires_in: Duration::from_millis(1),
        server_id: Some(1),
        server: None,
    };
    let head = TableSize { name: "puppet".to_owned(), kind: "string".to_owned(), size: 1, used: 1 };
    table_replies(&[table_head(&head).as_bytes(), &table_row(&row), b"\n"].concat());
    if let Ok(path) = ServerPath::new(key, value) {
        assert_eq!(
            words(&ServerCommand::Delete { at: path }.to_string()),
            ["del", "server", &format!("{key}/{value}")]
        );
    }
    if let Ok(table) = TableName::new(key) {
        assert_eq!(words(&table.show()), ["show", "table", key]);
    }
    // A row of a server list: name, address, and options word by word.
    let mut options = value.split(',').map(str::to_owned);
    let address = options.next().unwrap_or_default();
    let mut list = ServerListBuilder::default();
    list.push(
        "row",
        RawServer {
            name: Some(key.to_owned()),
            address,
            options: Some(options.collect()),
            ..RawServer::default()
        },
    );
    for server in &list.finish(Repeats::First).0.servers {
        added("b", server, &Default::default());
    }
}
