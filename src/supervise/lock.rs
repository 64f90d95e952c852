//! One hand at a time on a managed HAProxy: the daemon and the verbs of the command line start,
//! stop and reload it under one lock, which the kernel gives back when its holder dies.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a lock that is taken is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);

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
