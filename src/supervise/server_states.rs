//! What a person did to servers (maintenance, drain) outlives a reload: the worker that takes over
//! reads the states of these servers, and of no others, at its start.
//!
//! The file has rows only while a reload runs. A HAProxy that is started again begins with what the
//! settings say, as it would without Mapsmith: what was seen last may be long out of date by then.

use std::path::Path;

use mapsmith_core::server::AdminState;

use super::files::{FilesError, create};
use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// A file of states without rows: the number of its format, without which HAProxy warns of it.
pub(crate) const NONE: &str = "1\n";
/// HAProxy reads it before it gives up its rights.
const MODE: u32 = 0o600;

/// The rows of `show servers state` of these servers, by their backend, their name and the flags of
/// their administrative state, as a file of states.
pub(crate) fn rows(shown: &str, of: impl Fn(&str, &str, AdminState) -> bool) -> String {
    let is_of_them = |row: &&str| {
        // `be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state` and more.
        let fields: Vec<_> = row.split(' ').collect();
        let flags = fields.get(6).and_then(|flags| flags.parse().ok());
        match (fields.get(1), fields.get(3), flags) {
            (Some(backend), Some(server), Some(flags)) => of(backend, server, AdminState(flags)),
            _ => false,
        }
    };
    let rows = shown.lines().filter(is_of_them);
    rows.fold(NONE.to_owned(), |text, row| format!("{text}{row}\n"))
}

/// Those that are out, whoever took them out.
pub(crate) fn all_out(shown: &str) -> String {
    rows(shown, |_, _, AdminState(flags)| {
        flags & (AdminState::MAINTENANCE | AdminState::DRAIN) != 0
    })
}

/// Creates a file without rows where there is none.
///
/// # Errors
/// It can't be written.
pub(super) fn supply(file: &Path) -> Result<(), FilesError> {
    if file.exists() {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        create(folder)?;
    }
    Ok(write(file, NONE)?)
}

/// Takes the rows out of a file that is there.
///
/// # Errors
/// It can't be written.
pub(crate) fn clear(file: &Path) -> Result<(), MapFileError> {
    if file.exists() { write(file, NONE) } else { Ok(()) }
}

/// Writes it where it says something else.
///
/// # Errors
/// It can't be written.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), MapFileError> {
    if std::fs::read(file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    replace(file, text.as_bytes(), MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_that_are_meant_have_rows() {
        let shown = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n\
            3 app 1 one 127.0.0.1 2 0\n3 app 2 two 127.0.0.1 0 1\n4 two 1 app 127.0.0.1 2 8\n\n";
        let named = |backend: &str, server: &str, _| (backend, server) == ("app", "two");
        assert_eq!(rows(shown, named), "1\n3 app 2 two 127.0.0.1 0 1\n");
        let out = "1\n3 app 2 two 127.0.0.1 0 1\n4 two 1 app 127.0.0.1 2 8\n";
        assert_eq!(all_out(shown), out);
        assert_eq!(all_out(""), NONE);
    }
}
