//! What the task of an instance shares with whoever reloads its process.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

/// One of the two does something with the process at a time. Shared.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    lock: Arc<Mutex<()>>,
    another: Arc<Notify>,
}

impl Turn {
    /// Waits until the other one has done what it was about to do.
    pub async fn take(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.lock).lock_owned().await
    }

    /// Another process answers from now on: it is looked at at once.
    pub fn tell(&self) {
        self.another.notify_one();
    }

    /// Resolves when that was told. Cancel-safe.
    pub(super) async fn told(&self) {
        self.another.notified().await;
    }
}
