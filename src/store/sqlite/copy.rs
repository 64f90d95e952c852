//! A store of an earlier schema as the daemon will have it: a copy in memory, brought up to date.
//!
//! So whoever only looks needs to know one schema, and the file stays as it is until a daemon opens
//! it.

use rusqlite::{Connection, params_from_iter, types::Value};

use super::schema::{MIGRATIONS, run_migrations, schema};
use super::{StoreErrorKind, history};

/// The copy. `file` has an earlier schema.
pub(super) fn latest(file: &Connection) -> Result<Connection, StoreErrorKind> {
    // One transaction, so that a change does not come between the tables.
    let file = file.unchecked_transaction()?;
    let copy = Connection::open_in_memory()?;
    let version = schema(&file)?;
    run_migrations(&copy, 0, version)?;
    // Nobody who only looks asks for the audit, which may have a million rows, or for events.
    let left_out = ["audit", "events", "events_gone", "sqlite_sequence"];
    for table in tables(&copy)?.iter().filter(|table| !left_out.contains(&table.as_str())) {
        // The first migration writes a row, too.
        copy.execute(&format!("DELETE FROM {table}"), [])?;
        copy_rows(&file, &copy, table)?;
    }
    run_migrations(&copy, version, MIGRATIONS.len() as i64)?;
    Ok(copy)
}

/// The tables that the migrations made, but for those of the history.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names.into_iter().filter(|name| !history::TABLES.contains(&name.as_str())).collect())
}

fn copy_rows(file: &Connection, copy: &Connection, table: &str) -> rusqlite::Result<()> {
    let columns = columns(copy, table)?;
    let mut found = file.prepare(&format!("SELECT {} FROM {table}", columns.join(", ")))?;
    let places = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO {table} ({}) VALUES ({places})", columns.join(", "));
    let mut insert = copy.prepare(&insert)?;
    let mut rows = found.query([])?;
    while let Some(row) = rows.next()? {
        let values: Vec<Value> =
            (0..columns.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?;
        insert.execute(params_from_iter(values))?;
    }
    Ok(())
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut names = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    names.query_map([table], |row| row.get(0))?.collect()
}
