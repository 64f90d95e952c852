//! One store is one daemon's: a lock file beside the database, held as long as the process lives.
//!
//! SQLite's own locks are held for moments, so a second daemon would open the file and serve
//! overrides that the first one changes. The kernel ends this lock with the process, however that
//! ends; the file stays, with the number of the process that had it last. Who only reads takes no
//! lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::StoreErrorKind;

/// More than the number of any process has digits.
const DIGITS: u64 = 20;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file ends the lock")] File);

impl Lock {
    /// Takes the lock of the store at `store`.
    pub(super) fn take(store: &Path) -> Result<Self, StoreErrorKind> {
        // `mapsmith.db.lock`.
        let mut path = store.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error: std::io::Error| {
            StoreErrorKind::NotOpened(format!("{}: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreErrorKind::InUse(owner(file))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self(file))
    }
}

/// Who has it, for a person.
fn owner(file: File) -> String {
    let mut text = String::new();
    let read = file.take(DIGITS).read_to_string(&mut text);
    match text.parse::<u32>() {
        Ok(id) if read.is_ok() => format!("process {id}"),
        _ => "its process is not known".to_owned(),
    }
}
