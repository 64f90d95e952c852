//! One hand at a time on a managed HAProxy: the daemon and the verbs of the command line start,
//! stop and reload it under one lock, which the kernel gives back when its holder dies.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::files;
use crate::settings::supervision::Folder;

/// How often a lock that is taken is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// How long one that is just ending may still have the folder.
const OWNER_BOUND: Duration = Duration::from_secs(5);

/// Why the lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another mapsmith has started, stopped or reloaded this HAProxy for {0:?}; try again")]
    Taken(Duration),
    #[error("{}: can't be locked: {cause} (haproxy.folder)", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// Waits for the lock, which is held as long as the file lives.
pub(super) async fn acquire(path: &Path, bound: Duration) -> Result<File, LockError> {
    let error = |cause| LockError::File { path: path.to_owned(), cause };
    let file = File::options().create(true).append(true).open(path).map_err(error)?;
    let deadline = Instant::now() + bound;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(TRY_EVERY).await,
            Err(TryLockError::WouldBlock) => return Err(LockError::Taken(bound)),
            Err(TryLockError::Error(cause)) => return Err(error(cause)),
        }
    }
}

/// Makes the folder this Mapsmith's: two that write one configuration would undo each other's work
/// for ever. A folder that can't be written at the moment keeps nobody from starting.
pub(super) async fn own_folder(folder: Folder) -> anyhow::Result<Option<File>> {
    let locked = match files::create(folder.path()) {
        Ok(()) => acquire(&folder.owner(), OWNER_BOUND).await,
        Err(error) => {
            tracing::warn!("{error}");
            return Ok(None);
        }
    };
    match locked {
        Ok(file) => Ok(Some(file)),
        Err(LockError::Taken(_)) => bail!(
            "haproxy.folder: another Mapsmith keeps HAProxy's configuration in {}; stop it, or \
                give this one a folder of its own",
            folder.path().display()
        ),
        Err(error) => {
            tracing::warn!("{error}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = acquire(&path, Duration::from_secs(30)).await.unwrap();
        let taken = acquire(&path, Duration::from_millis(10)).await.unwrap_err();
        assert!(matches!(taken, LockError::Taken(_)), "{taken}");
        let second = tokio::spawn(async move { acquire(&path, Duration::from_secs(30)).await });
        drop(first);
        second.await.unwrap().unwrap();
    }
}
