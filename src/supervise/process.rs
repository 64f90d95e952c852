//! A HAProxy that Mapsmith runs: started, and found again.
//!
//! It is a master process with a session of its own, so neither a signal to Mapsmith nor a closed
//! terminal reaches it, and it serves on when Mapsmith ends. The file with its pid and start time is
//! how a later Mapsmith finds it. Signals go through a pidfd, so to this process or to none.

use std::fs::{self, TryLockError};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use haproxy_runtime::master::{Processes, worker_info};
use haproxy_runtime::{MasterClient, RuntimeAddress, RuntimeClient};
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::files::{self, FilesError};
use super::identity::Identity;
use super::lock::{self, LockError};
use super::log::{self, Mark};
use super::reload::{BOUND, Reloader};
use super::running::Running;
use super::server_states;
use super::sockets::{Sockets, SocketsError};
use crate::settings::Haproxy;
use crate::settings::supervision::Folder;
use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// How long a socket may take to answer.
pub(super) const ANSWER_BOUND: Duration = Duration::from_secs(2);
/// How often a process that starts is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
const PID_FILE_MODE: u32 = 0o644;

/// A process that was started, and a hold on it.
type Spawned = (Box<dyn ChildWrapper>, Identity, OwnedFd);

/// How a HAProxy is started.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: String,
    pub folder: Folder,
    /// Files that are loaded together with the folder's own configuration.
    pub extra: Vec<PathBuf>,
    /// The Runtime API's socket in the configuration.
    pub admin_socket: PathBuf,
    /// How long a start or a reload may take.
    pub bound: Duration,
}

/// Why a HAProxy does not run, or can't be stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{program} can't be started: {cause} (haproxy.binary)")]
    Program { program: String, cause: io::Error },
    #[error("HAProxy did not start ({status}): {said}")]
    Refused { status: String, said: String },
    #[error(
        "HAProxy did not answer on {} and {} within {bound:?}, and was ended: {said}",
        master.display(), admin.display()
    )]
    Silent { master: PathBuf, admin: PathBuf, bound: Duration, said: String },
    #[error("HAProxy runs already, as process {0}")]
    Running(u32),
    #[error(
        "process {pid} was started as this HAProxy, and its master's socket {} gives no answer: \
            {why}; end the process if it hangs",
        socket.display()
    )]
    Unreachable { pid: u32, socket: PathBuf, why: String },
    #[error("{}: can't be {action}: {cause} (haproxy.folder)", path.display())]
    File { path: PathBuf, action: &'static str, cause: io::Error },
    #[error("process {pid} can't be {action}: {cause}")]
    Signal { pid: u32, action: &'static str, cause: io::Error },
    #[error(transparent)]
    Folder(#[from] FilesError),
    #[error(transparent)]
    Write(#[from] MapFileError),
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Launch {
    /// As the settings say.
    pub fn new(haproxy: &Haproxy) -> Self {
        let folder = haproxy.files();
        let socket = haproxy.socket.as_ref().map(|socket| PathBuf::from(socket.as_str()));
        let extra = haproxy.includes.iter().map(|file| PathBuf::from(file.as_str()));
        Self {
            program: haproxy.program().to_owned(),
            extra: extra.collect(),
            admin_socket: socket.unwrap_or_else(|| folder.admin_socket()),
            folder,
            bound: BOUND,
        }
    }

    /// The files that are loaded, in their order.
    pub fn files(&self) -> Vec<PathBuf> {
        let own = std::iter::once(self.folder.configuration());
        own.chain(self.extra.iter().cloned()).collect()
    }

    /// Whether it was stopped on purpose, and not started since.
    pub fn is_stopped(&self) -> bool {
        self.folder.stopped().exists()
    }

    /// The HAProxy that an earlier Mapsmith, or another one now, has started here; none where it
    /// does not run. One that is just being started is waited for.
    ///
    /// # Errors
    /// It runs and does not answer, or a file of it can't be read.
    pub async fn find(&self) -> Result<Option<Running>, ProcessError> {
        self.find_with(&mut None).await
    }

    /// The same; these are its sockets where some are held, and are taken.
    pub(super) async fn find_with(
        &self,
        held: &mut Option<Sockets>,
    ) -> Result<Option<Running>, ProcessError> {
        let Some((identity, process)) = self.known()? else { return Ok(None) };
        let deadline = Instant::now() + self.bound;
        loop {
            let why = match self.serves(identity).await {
                Ok(_) => break,
                Err(why) => why,
            };
            if !identity.is_alive() {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let (pid, socket) = (identity.pid, self.folder.master_socket());
                return Err(ProcessError::Unreachable { pid, socket, why });
            }
            sleep(ASK_EVERY).await;
        }
        let sockets = match held.take() {
            Some(sockets) => sockets,
            None => Sockets::take_back(&self.folder.sockets(), &process)?,
        };
        Ok(Some(self.running(identity, process, sockets)))
    }

    /// The process that the file names; or one that has the master's socket on its command line,
    /// whose start was cut off before the file was written.
    fn known(&self) -> Result<Option<(Identity, OwnedFd)>, ProcessError> {
        let path = self.folder.pid();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => String::new(),
            Err(cause) => return Err(ProcessError::File { path, action: "read", cause }),
        };
        if let Some(known) = Identity::parse(&text).and_then(open) {
            return Ok(Some(known));
        }
        let named = format!("{},", self.folder.master_socket().display());
        let Some((identity, process)) = Identity::of_argument(&named).and_then(open) else {
            return Ok(None);
        };
        self.keep_pid(identity);
        Ok(Some((identity, process)))
    }

    /// Whether it was ended in order to be started again.
    pub fn was_restarted(&self) -> bool {
        self.folder.restarting().exists()
    }

    /// Whether somebody is ending it, in order to start it again.
    pub fn is_restarting(&self) -> bool {
        let lock = fs::File::open(self.folder.lock());
        let is_locked =
            lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        is_locked && self.was_restarted()
    }

    /// Where the file can't be written the process is found without it.
    fn keep_pid(&self, identity: Identity) {
        let path = self.folder.pid();
        if let Err(error) = replace(&path, identity.line().as_bytes(), PID_FILE_MODE) {
            tracing::warn!("HAProxy's pid can't be kept (haproxy.folder): {error}");
        }
    }

    /// Has it stay as it is, where it does not run.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn mark_stopped(&self) -> Result<(), ProcessError> {
        files::create(self.folder.path())?;
        mark(&self.folder.stopped())
    }

    /// Lets the Mapsmith that runs start it, or keep it running, where it was stopped on purpose.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn unmark_stopped(&self) -> Result<(), ProcessError> {
        remove(&self.folder.stopped())
    }

    /// Whether a Mapsmith runs that keeps this HAProxy running.
    pub fn is_kept(&self) -> bool {
        let owner = fs::File::open(self.folder.owner());
        owner.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Starts it, and waits until it serves. It inherits the sockets, which the configuration in
    /// the folder names by their numbers; they are left where it does not start.
    ///
    /// # Errors
    /// It runs already, or does not start, with its own words.
    pub async fn start(&self, sockets: &mut Sockets) -> Result<Running, ProcessError> {
        files::create(self.folder.path())?;
        let _lock = lock::acquire(&self.folder.lock(), self.bound).await?;
        if let Some(running) = self.find().await? {
            return Err(ProcessError::Running(running.identity.pid));
        }
        sockets.save(&self.folder.sockets())?;
        // It begins with what the settings say. A file that can't be written is told by HAProxy's.
        let _ = server_states::clear(&self.folder.server_states());
        let path = self.folder.log();
        // One that is not there needs no bound.
        let _ = log::bound(&path);
        let mark = Mark::now(&path);
        let Some((mut child, identity, process)) = self.spawn(sockets)? else {
            let (status, said) = ("it ended at once".to_owned(), self.said(&mark).await);
            return Err(ProcessError::Refused { status, said });
        };
        self.keep_pid(identity);
        remove(&self.folder.stopped())?;
        remove(&self.folder.restarting())?;
        let deadline = Instant::now() + self.bound;
        while self.is_ready(identity).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                remove(&self.folder.pid())?;
                let (status, said) = (status.to_string(), self.said(&mark).await);
                return Err(ProcessError::Refused { status, said });
            }
            if Instant::now() >= deadline {
                let _ = pidfd_send_signal(&process, Signal::KILL);
                remove(&self.folder.pid())?;
                return Err(ProcessError::Silent {
                    master: self.folder.master_socket(),
                    admin: self.admin_socket.clone(),
                    bound: self.bound,
                    said: self.said(&mark).await,
                });
            }
            sleep(ASK_EVERY).await;
        }
        Ok(self.running(identity, process, mem::take(sockets)))
    }

    /// What it has said since then, without the secrets of what it was to load.
    async fn said(&self, mark: &Mark) -> String {
        let (said, files) = (mark.since(), self.files());
        spawn_blocking(move || log::without_secrets(&said, &files)).await.unwrap_or_default()
    }

    /// The process; none where it has ended already.
    fn spawn(&self, sockets: &Sockets) -> Result<Option<Spawned>, ProcessError> {
        let path = self.folder.log();
        let error = |cause| ProcessError::File { path: path.clone(), action: "opened", cause };
        let output = log::open(&path).map_err(error)?;
        let errors = output.try_clone().map_err(error)?;
        let socket = format!("{},mode,600,level,admin", self.folder.master_socket().display());
        let mut command = CommandWrap::with_new(&self.program, |command| {
            command.args(["-W", "-db", "-S", &socket]);
            self.files().iter().for_each(|file| {
                command.arg("-f").arg(file);
            });
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
            // They are between Mapsmith and who started it.
            for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"] {
                command.env_remove(name);
            }
        });
        command.wrap(ProcessSession);
        let program = |cause| ProcessError::Program { program: self.program.clone(), cause };
        let group = sockets.inherited(|| command.spawn()).map_err(program)?;
        // What is waited for is the master's end, not that of all its workers.
        let child = group.into_inner();
        let pid = child.id().unwrap_or_default();
        // It is our child, so its pid is nobody else's before it was waited for.
        let opened = Identity::of(pid).and_then(open);
        Ok(opened.map(|(identity, process)| (child, identity, process)))
    }

    /// Whether the master answers, is this process, and has a worker. Of one that has served for a
    /// while this is all that can be asked: a reload that failed may have closed the Runtime API's
    /// socket.
    async fn serves(&self, identity: Identity) -> Result<Processes, String> {
        let listed = self.master().processes().await.map_err(|error| error.to_string())?;
        if listed.master.pid != identity.pid {
            return Err(format!("process {} answers there", listed.master.pid));
        }
        if listed.all_workers().next().is_none() {
            return Err("it has no worker".to_owned());
        }
        Ok(listed)
    }

    /// Whether the Runtime API answers too.
    async fn is_ready(&self, identity: Identity) -> Result<(), String> {
        let listed = self.serves(identity).await?;
        let address = RuntimeAddress::Unix(self.admin_socket.clone());
        let answer = RuntimeClient::new(address, ANSWER_BOUND).call("show info\n").await;
        let answer = answer.map_err(|error| error.to_string())?;
        let pid = worker_info(&answer).map_err(|error| error.to_string())?.pid;
        match listed.all_workers().any(|worker| worker.pid == pid) {
            true => Ok(()),
            false => Err(format!("{}: process {pid} answers there", self.admin_socket.display())),
        }
    }

    fn master(&self) -> MasterClient {
        MasterClient::new(self.folder.master_socket(), ANSWER_BOUND)
    }

    fn running(&self, identity: Identity, process: OwnedFd, sockets: Sockets) -> Running {
        let log = self.folder.log();
        let reloader = Reloader::by_master(self.master(), Some(log.clone()), self.bound)
            .with_lock(self.folder.lock());
        let (master, log) = (self.master(), Mark::now(&log));
        let (folder, files) = (self.folder.clone(), self.files());
        let admin_socket = self.admin_socket.clone();
        Running { identity, process, master, reloader, sockets, folder, files, admin_socket, log }
    }
}

/// A hold on the process, if it is still this one.
fn open(identity: Identity) -> Option<(Identity, OwnedFd)> {
    let pid = Pid::from_raw(i32::try_from(identity.pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Whoever has the pid now is held; was it that one before?
    identity.is_alive().then_some((identity, process))
}

pub(super) fn mark(path: &Path) -> Result<(), ProcessError> {
    fs::write(path, "").map_err(|cause| ProcessError::File {
        path: path.to_owned(),
        action: "written",
        cause,
    })
}

pub(super) fn remove(path: &Path) -> Result<(), ProcessError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(ProcessError::File { path: path.to_owned(), action: "removed", cause })
        }
        _ => Ok(()),
    }
}
