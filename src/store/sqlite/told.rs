//! What the command of `[notify]` was told last.

use mapsmith_core::attention::Key;
use rusqlite::OptionalExtension;

use super::{SqliteStore, StoreErrorKind};
use crate::store::StoreError;

impl SqliteStore {
    /// What was told last; none where all was fine, and before the first time.
    pub async fn told(&self) -> Result<Option<Key>, StoreError> {
        self.read(|connection| {
            let read = "SELECT item FROM told";
            let item: Option<String> =
                connection.query_row(read, [], |row| row.get(0)).optional()?;
            // An item of another version is told again.
            Ok(item.and_then(|item| serde_json::from_str(&item).ok()))
        })
        .await
    }

    /// Keeps what was told.
    pub async fn keep_told(&self, told: Option<Key>) -> Result<(), StoreError> {
        const KEEP: &str = "INSERT INTO told (id, item) VALUES (1, ?1) \
            ON CONFLICT (id) DO UPDATE SET item = excluded.item";
        let item =
            serde_json::to_string(&told).map_err(|error| StoreErrorKind::Other(error.to_string()));
        self.with(move |connection| {
            connection.execute(KEEP, [item?])?;
            Ok(())
        })
        .await
    }
}
