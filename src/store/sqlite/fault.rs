//! What SQLite's errors mean to whoever has the store.

use rusqlite::ErrorCode;

use super::StoreErrorKind;

impl From<rusqlite::Error> for StoreErrorKind {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Locked(text),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly(text),
            Some(ErrorCode::DiskFull) => Self::Full(text),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::CannotOpen) => Self::NotOpened(text),
            _ => Self::Other(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mapsmith_core::OverrideChange;

    use super::*;
    use crate::store::{SqliteStore, Store};

    #[tokio::test]
    async fn nothing_is_taken_for_stored_where_the_file_is_gone_or_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("s.db"), folder.path().join("aside.db"));
        let store = SqliteStore::open(&path).await.unwrap();
        let change = || OverrideChange::Expire { now: Timestamp::UNIX_EPOCH };
        assert_eq!(store.change(change(), None).await, Ok(None));
        std::fs::rename(&path, &aside).unwrap();
        for text in [None, Some("another")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            assert_eq!(store.is_at(&path), text.is_none(), "whoever begins anew goes on with it");
            let known = store.load_registrations(true, false).await;
            assert!(store.load().await.is_ok() && known.is_ok(), "what is in force can be read");
            let error = store.change(change(), None).await.unwrap_err();
            assert_eq!(error.fault, StoreErrorKind::Gone);
            assert_eq!(store.loss(), Some(error));
        }
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(store.change(change(), None).await, Ok(None), "it is back");
        assert_eq!(store.loss(), None);
        assert!(store.is_at(&path) && !store.is_at(&aside));
    }
}
