//! What HAProxy answers to the load balancer in front of it: not ready until the first map and
//! server lists are in force, and while HAProxy is being stopped.
//!
//! The answer is a row of a small map. It is in the map's file before it is in memory, so a reload
//! changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::RuntimeClient;
use mapsmith_core::config::Health as Key;
use tokio::time::timeout;

use super::files::create;
use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// HAProxy's user must be able to read it.
const MODE: u32 = 0o644;
/// How long HAProxy may take to change its answer.
const ANSWER_BOUND: Duration = Duration::from_secs(2);

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Starting,
    Ready,
    Stopping,
}

impl Answer {
    fn value(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => Key::READY,
            Self::Stopping => "stopping",
        }
    }
}

/// The map of one HAProxy.
#[derive(Debug, Clone)]
pub struct Health {
    file: PathBuf,
    runtime: RuntimeClient,
}

impl Health {
    pub fn new(file: &Path, runtime: RuntimeClient) -> Self {
        Self { file: file.to_owned(), runtime }
    }

    pub fn is_there(&self) -> bool {
        self.file.exists()
    }

    /// Has the next process that is started give this answer.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, answer: Answer) -> Result<(), MapFileError> {
        let row = format!("{} {}\n", Key::KEY, answer.value());
        if std::fs::read(&self.file).is_ok_and(|text| text == row.as_bytes()) {
            return Ok(());
        }
        if let Some(folder) = self.file.parent() {
            // A folder that can't be created is told by the file that can't be.
            let _ = create(folder);
        }
        replace(&self.file, row.as_bytes(), MODE)
    }

    /// Has the process that runs give this answer; whether it does.
    pub async fn set(&self, answer: Answer) -> bool {
        let (file, key, value) = (self.file.display(), Key::KEY, answer.value());
        let line = format!("set map {file} {key} {value};get map {file} {key}\n");
        match timeout(ANSWER_BOUND, self.runtime.call(line)).await {
            // `type=str, case=sensitive, found=yes, idx=list, key="health", value="ready", type="str"`
            Ok(Ok(said)) => String::from_utf8_lossy(&said).contains(&format!("value=\"{value}\"")),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
