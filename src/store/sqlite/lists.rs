//! Server lists as the store has them: a JSON text a backend, in the form in which a source lists
//! servers.
//!
//! What is read goes to HAProxy's commands, so it goes through the same checks as a source's
//! answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mapsmith_core::server::list::{Host, RawServer, Repeats, ServerListBuilder};
use mapsmith_core::server::{LastGoodList, Server, ServerAddress};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::StoreErrorKind;

#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    address: String,
    weight: Option<u16>,
    backup: bool,
    options: Vec<String>,
}

impl From<&Server> for Row {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            address: server.address.to_string(),
            weight: server.weight,
            backup: server.backup,
            options: server.options.words(),
        }
    }
}

/// Every list, by backend. One that can't be used is rejected: its backend waits for its source, as
/// without a store.
pub(super) fn read(
    connection: &Connection,
) -> Result<BTreeMap<String, LastGoodList>, StoreErrorKind> {
    let mut lists = BTreeMap::new();
    let mut statement = connection
        .prepare("SELECT backend, origin, servers, since, confirmed FROM server_lists")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (backend, origin, text) =
            (row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?);
        // A time that can't be one is none: the servers are what matters.
        let time = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(column)?.and_then(|at| super::time(at).ok()))
        };
        let (since, confirmed) = (time(3)?, time(4)?);
        match parse(&text) {
            Ok(servers) => {
                lists.insert(backend, LastGoodList { origin, since, confirmed, servers });
            }
            Err(reason) => tracing::warn!(
                backend,
                "the stored server list is not valid and is ignored: {reason}"
            ),
        }
    }
    Ok(lists)
}

/// Keeps a backend's list in place of the one before; without a list forgets it.
pub(super) fn write(
    connection: &Connection,
    backend: &str,
    list: Option<&LastGoodList>,
) -> Result<(), StoreErrorKind> {
    match list {
        Some(list) => {
            let rows: Vec<_> = list.servers.values().map(Row::from).collect();
            let text = serde_json::to_string(&rows)
                .map_err(|error| StoreErrorKind::Other(error.to_string()))?;
            connection.execute(
                "INSERT OR REPLACE INTO server_lists (backend, origin, servers, since, confirmed) \
                    VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    backend,
                    list.origin,
                    text,
                    list.since.map(Timestamp::as_millisecond),
                    list.confirmed.map(Timestamp::as_millisecond)
                ],
            )?
        }
        None => connection.execute("DELETE FROM server_lists WHERE backend = ?1", [backend])?,
    };
    Ok(())
}

/// Writes what is known of these lists beside their servers, in one transaction.
pub(super) fn confirm(
    connection: &mut Connection,
    lists: &BTreeMap<String, LastGoodList>,
) -> Result<(), StoreErrorKind> {
    const CONFIRM: &str = "UPDATE server_lists SET origin = ?2, since = ?3, confirmed = ?4 \
        WHERE backend = ?1";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (backend, list) in lists {
        let since = list.since.map(Timestamp::as_millisecond);
        let confirmed = list.confirmed.map(Timestamp::as_millisecond);
        transaction.execute(CONFIRM, params![backend, list.origin, since, confirmed])?;
    }
    Ok(transaction.commit()?)
}

fn parse(text: &str) -> Result<BTreeMap<String, Server>, String> {
    let rows: Vec<Row> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut builder = ServerListBuilder::default();
    for (index, row) in rows.into_iter().enumerate() {
        let raw = RawServer {
            name: Some(row.name),
            address: row.address,
            port: None,
            weight: row.weight.map(i64::from),
            backup: row.backup,
            options: Some(row.options),
        };
        builder.push(&format!("row {}", index + 1), raw);
    }
    let (list, _) = builder.finish(Repeats::First);
    if let Some(row) = list.rejected.first() {
        return Err(format!("{}: {}", row.place, row.reason));
    }
    let server = |listed: mapsmith_core::server::list::ListedServer| match listed.host {
        Host::Address(ip) => Ok(Server {
            name: listed.name,
            address: ServerAddress { ip, port: listed.port },
            weight: listed.weight,
            backup: listed.backup,
            options: listed.options.unwrap_or_default(),
        }),
        Host::Name(name) => {
            Err(format!("server {:?}: {name} is a host name, not an address", listed.name))
        }
    };
    list.servers
        .into_iter()
        .map(|listed| server(listed).map(|server| (server.name.clone(), server)))
        .collect()
}
