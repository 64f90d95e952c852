//! The map file behind a thread of its own: a file system that hangs must not hang what decides.
//!
//! One operation at a time, each with a bound. An operation that does not end in time goes on in
//! its thread, and nothing else is asked of the file until it has ended: so a write that was given
//! up can't replace a later one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::map_file::{Header, MapFile};
use mapsmith_core::{EntryMap, Revision};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::store::map_file::{Check, MapFileError, MapFileWriter, WriteError};

/// How long one operation may take: a million entries take a second on a slow disk.
const BOUND: Duration = Duration::from_secs(5);

enum Job {
    Load(oneshot::Sender<Result<Option<MapFile>, MapFileError>>),
    Header(oneshot::Sender<Option<Header>>),
    Check(Arc<EntryMap>, oneshot::Sender<Check>),
    Write(Arc<Revision>, Arc<EntryMap>, Arc<GoneNodes>, oneshot::Sender<Result<(), WriteError>>),
}

/// Reads and writes the map file, within a bound.
#[derive(Debug)]
pub(super) struct MapFileAccess {
    path: PathBuf,
    /// None where nothing is to be written.
    jobs: Option<mpsc::Sender<Job>>,
    /// How long one operation may take.
    pub bound: Duration,
    /// Whether an operation is under way, waited for or not.
    busy: Arc<AtomicBool>,
}

impl MapFileAccess {
    /// Starts the thread, which ends with this value.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(mut writer: MapFileWriter) -> Result<Self, MapFileError> {
        let path = writer.path().to_owned();
        let (jobs, received) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&busy);
        // Not one of the runtime's: at its end it would wait for a file system that hangs.
        let thread = std::thread::Builder::new().name("map-file".to_owned()).spawn(move || {
            for job in received {
                match job {
                    Job::Load(answer) => reply(answer, writer.load(), &done),
                    Job::Header(answer) => reply(answer, writer.header(), &done),
                    Job::Check(entries, answer) => reply(answer, writer.check(&entries), &done),
                    Job::Write(revision, said, gone, answer) => {
                        reply(answer, writer.write(&revision, &said, &gone), &done)
                    }
                }
            }
        });
        match thread {
            Ok(_) => Ok(Self { path, jobs: Some(jobs), bound: BOUND, busy }),
            Err(cause) => Err(MapFileError {
                path,
                what: "no thread can be started for it",
                cause,
                replaced: false,
            }),
        }
    }

    /// For decisions that are only shown: every write succeeds and does nothing.
    pub fn without_writer(path: &Path) -> Self {
        Self { path: path.to_owned(), jobs: None, bound: BOUND, busy: Arc::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`MapFileWriter::load`].
    pub async fn load(&mut self) -> Result<Option<MapFile>, MapFileError> {
        self.ask(Job::Load).await?
    }

    /// See [`MapFileWriter::header`].
    pub async fn header(&mut self) -> Result<Option<Header>, MapFileError> {
        self.ask(Job::Header).await
    }

    /// See [`MapFileWriter::check`].
    pub async fn check(&mut self, wanted: Arc<EntryMap>) -> Check {
        self.ask(|answer| Job::Check(wanted, answer)).await.unwrap_or_else(Check::Unusable)
    }

    /// See [`MapFileWriter::write`]. A write that does not end in time may still replace the file,
    /// which its error says.
    pub async fn write(
        &mut self,
        revision: Arc<Revision>,
        said: Arc<EntryMap>,
        gone: Arc<GoneNodes>,
    ) -> Result<(), WriteError> {
        if self.jobs.is_none() {
            return Ok(());
        }
        let asked = !self.busy.load(Ordering::Acquire);
        match self.ask(|answer| Job::Write(revision, said, gone, answer)).await {
            Ok(result) => result,
            Err(error) => Err(MapFileError { replaced: asked, ..error }.into()),
        }
    }

    async fn ask<T>(
        &mut self,
        job: impl FnOnce(oneshot::Sender<T>) -> Job,
    ) -> Result<T, MapFileError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(self.hangs("still gives no answer".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job(answer)).is_ok());
        match timeout(self.bound, answered).await {
            Ok(Ok(result)) => Ok(result),
            Err(_) if sent => Err(self.hangs(format!("gives no answer within {:?}", self.bound))),
            _ => Err(self
                .error(io::Error::other("the thread that did this has ended; restart Mapsmith"))),
        }
    }

    fn hangs(&self, how: String) -> MapFileError {
        let text = format!("the file system {how}: is a disk or a mount hung?");
        self.error(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    fn error(&self, cause: io::Error) -> MapFileError {
        MapFileError {
            path: self.path.clone(),
            what: "can't be read or written",
            cause,
            replaced: false,
        }
    }
}

/// Free for the next before the answer is there: whoever gets it may ask again at once. An answer
/// that nobody waits for any more is dropped.
fn reply<T>(answer: oneshot::Sender<T>, result: T, busy: &AtomicBool) {
    busy.store(false, Ordering::Release);
    drop(answer.send(result));
}
