//! What a person did to servers (maintenance, drain) outlives a reload: the worker that takes over
//! reads the states of these servers, and of no others, at its start.
//!
//! The file has rows only while a reload runs. A HAProxy that is started again begins with what the
//! settings say, as it would without Mapsmith: what was seen last may be long out of date by then.

use std::path::Path;

use mapsmith_core::plan::servers::ExternalChange;

use super::files::{FilesError, create};
use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// A file of states without rows: the number of its format, without which HAProxy warns of it.
pub(crate) const NONE: &str = "1\n";
/// HAProxy reads it before it gives up its rights.
const MODE: u32 = 0o600;

/// The rows of `show servers state` that are of these servers, as a file of states.
pub(super) fn of_servers(shown: &str, servers: &[ExternalChange]) -> String {
    let of_them = |row: &&str| {
        // `be_id be_name srv_id srv_name` and more.
        let mut fields = row.split(' ').skip(1).step_by(2);
        let (backend, server) = (fields.next(), fields.next());
        servers
            .iter()
            .any(|one| Some(one.backend.as_str()) == backend && Some(one.server.as_str()) == server)
    };
    let rows = shown.lines().filter(of_them);
    rows.fold(NONE.to_owned(), |text, row| format!("{text}{row}\n"))
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

/// Writes it where it says something else.
///
/// # Errors
/// It can't be written.
pub(super) fn write(file: &Path, text: &str) -> Result<(), MapFileError> {
    if std::fs::read(file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    replace(file, text.as_bytes(), MODE)
}

#[cfg(test)]
mod tests {
    use mapsmith_core::plan::servers::Hand;

    use super::*;

    #[test]
    fn only_servers_that_a_person_changed_have_rows() {
        let change = |backend: &str, server: &str| ExternalChange {
            backend: backend.to_owned(),
            server: server.to_owned(),
            hand: Hand::Drain,
        };
        let shown = "1\n# be_id be_name srv_id srv_name srv_addr\n3 app 1 one 127.0.0.1 2\n\
            3 app 2 two 127.0.0.1 2\n4 two 1 app 127.0.0.1 2\n\n";
        assert_eq!(
            of_servers(shown, &[change("app", "two"), change("app", "gone")]),
            "1\n3 app 2 two 127.0.0.1 2\n"
        );
        assert_eq!(of_servers(shown, &[]), NONE);
    }
}
