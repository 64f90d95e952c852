//! A server that a test owns: its folder, its command, and its process while it runs. It can be
//! killed and started again with what its folder holds; both are gone on drop.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Ending, Process};
use crate::{poll, text_of};

/// A cold start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server, whatever it serves.
pub struct Daemon {
    name: &'static str,
    command: Vec<String>,
    log: PathBuf,
    /// None while it is stopped. Before the folder, since fields are dropped in this order.
    process: Mutex<Option<Process>>,
    folder: TempDir,
}

impl Daemon {
    /// A server that does not run yet. `command` is made for the folder.
    pub fn new(name: &'static str, command: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let prefix = format!("mapsmith-{}-", name.to_ascii_lowercase());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a folder");
        let command = command(folder.path());
        let log = folder.path().join("log");
        Self { name, command, log, process: Mutex::new(None), folder }
    }

    /// Starts it, and waits until it is ready; what it stored before is there again.
    ///
    /// # Panics
    /// With all that it has printed, when it ends or never gets ready.
    pub fn launch(&self, mut is_ready: impl FnMut() -> bool) {
        self.kill();
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let mut process = Process::start(&command, &self.log, Ending::default());
        let ready = poll(PATIENCE, || {
            let ended = process.exit_status().is_some();
            assert!(!ended, "{} ended by itself:\n{}", self.name, process.log());
            is_ready().then_some(())
        });
        assert!(ready.is_some(), "{} is not ready in {PATIENCE:?}:\n{}", self.name, process.log());
        *self.lock() = Some(process);
    }

    /// Ends it with SIGKILL, if it runs.
    pub fn kill(&self) {
        if let Some(mut process) = self.lock().take() {
            process.kill();
        }
    }

    /// Ends it with SIGTERM, and waits for its end.
    pub fn stop(&self) {
        if let Some(mut process) = self.lock().take() {
            process.signal("TERM");
            process.wait(PATIENCE);
        }
    }

    /// Sends it a signal: `STOP` has it take connections and answer none, `CONT` ends that.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, name: &str) {
        self.lock().as_mut().expect("it runs").signal(name);
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it was started and not ended by [`Self::kill`] or [`Self::stop`].
    pub fn runs(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
