//! A reload, and what came of it.
//!
//! From 3.0 on the master says so. 2.6 says nothing, and any version may lose the connection on
//! which it would have: then `show proc` tells, by its counters and by a worker that was not there
//! before. No answer in time is neither a success nor a failure.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use haproxy_runtime::master::{Processes, ReloadReply, Target, worker_info};
use haproxy_runtime::{MasterClient, RuntimeAddress, RuntimeClient, RuntimeError};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use super::check::Verdict;
use super::identity::{Identity, is_stopped_child};
use super::lock::{self, LockError};
use super::log::{self, Mark};
use crate::command::{self, CommandError};
use crate::settings::Haproxy;

/// How long a reload may take: 14,000 servers with TLS take six seconds.
pub(super) const BOUND: Duration = Duration::from_secs(60);
/// How long the master, or a worker, may take to say how things stand.
const ANSWER_BOUND: Duration = Duration::from_secs(2);
/// How often that is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// A master that answers after so long, and has not begun, has lost the request: 2.6 does so under
/// load.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// How often a request is sent.
const ATTEMPTS: usize = 3;
/// A master that nobody has reached for so long, and whose process is gone, has died. It can't be
/// reached for a moment at each reload.
const DEAD_AFTER: Duration = Duration::from_millis(500);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The configuration is in force: this worker has it.
    Loaded { worker: u32, said: String },
    /// HAProxy goes on with the one before, for this reason.
    Refused { said: String },
    /// Nobody answered in time: either may be in force.
    Unknown { why: String },
    /// The master ended, and all its workers with it: nobody serves.
    MasterDied { said: String },
    /// Nothing was asked for, since nobody can be asked.
    Unreachable { why: String },
}

impl Outcome {
    /// What was said.
    pub(super) fn words(&mut self) -> &mut String {
        let (Self::Loaded { said: words, .. }
        | Self::Refused { said: words }
        | Self::MasterDied { said: words }
        | Self::Unknown { why: words }
        | Self::Unreachable { why: words }) = self;
        words
    }

    /// Without the secrets of these files, which HAProxy was to load. They are read and searched,
    /// which takes its time where they are large.
    #[must_use]
    pub fn without_secrets(mut self, files: &[PathBuf]) -> Self {
        if let Self::Loaded { said, .. } | Self::Refused { said } | Self::MasterDied { said } =
            &mut self
        {
            *said = log::without_secrets(said, files);
        }
        self
    }

    /// With the last so many bytes of that.
    pub(super) fn with_words(mut self, most: usize) -> Self {
        let words = self.words();
        let mut cut = words.len().saturating_sub(most);
        while !words.is_char_boundary(cut) {
            cut += 1;
        }
        words.drain(..cut);
        self
    }
}

/// By what HAProxy is reloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the master's command `reload`.
    Master,
    /// By a program with its arguments.
    Command(Vec<String>),
}

/// Reloads one HAProxy, once at a time.
#[derive(Debug)]
pub struct Reloader {
    way: Way,
    /// Tells what came of it.
    master: Option<MasterClient>,
    /// Tells it where there is no master to ask.
    runtime: Option<RuntimeClient>,
    /// Where HAProxy's standard error goes, where that is a file.
    log: Option<PathBuf>,
    /// Of the other programs that reload it.
    lock: Option<PathBuf>,
    bound: Duration,
    running: Mutex<()>,
}

/// Nobody reloads, starts or stops this HAProxy while this lives.
#[derive(Debug)]
pub struct Idle<'a> {
    _here: MutexGuard<'a, ()>,
    _elsewhere: Option<File>,
}

/// What a look at the master says of a reload.
enum Progress {
    Loaded(u32),
    Refused,
    Running,
    /// The master answers, and has not begun.
    NotBegun,
    Died,
}

impl Reloader {
    /// By the master's socket. `bound` is how long a reload may take.
    pub fn by_master(master: MasterClient, log: Option<PathBuf>, bound: Duration) -> Self {
        let master = Some(master.within(ANSWER_BOUND));
        let (way, running) = (Way::Master, Mutex::new(()));
        Self { way, master, runtime: None, log, lock: None, bound, running }
    }

    /// Also other programs that take this lock wait for one another.
    pub fn with_lock(self, lock: PathBuf) -> Self {
        Self { lock: Some(lock), ..self }
    }

    /// By a command; what came of it is told by the master's socket, or else by the process that
    /// answers on the Runtime API.
    pub fn by_command(
        command: Vec<String>,
        master: Option<MasterClient>,
        runtime: Option<RuntimeClient>,
        bound: Duration,
    ) -> Self {
        let master = master.map(|master| master.within(ANSWER_BOUND));
        let (way, running) = (Way::Command(command), Mutex::new(()));
        Self { way, master, runtime, log: None, lock: None, bound, running }
    }

    /// As the settings say of a HAProxy that another supervisor runs; `runtime` is its Runtime API.
    pub fn attached(haproxy: &Haproxy, runtime: Option<RuntimeAddress>) -> Self {
        let socket = haproxy.master_socket.as_ref();
        let master = socket.map(|socket| MasterClient::new(socket.as_str(), ANSWER_BOUND));
        let runtime = runtime.map(|address| RuntimeClient::new(address, ANSWER_BOUND));
        let words = haproxy.reload_command.iter().map(ToString::to_string).collect::<Vec<_>>();
        let reloader = match master {
            Some(master) if words.is_empty() => Self::by_master(master, None, BOUND),
            master => Self::by_command(words, master, runtime, BOUND),
        };
        reloader.with_lock(haproxy.files().lock())
    }

    /// Waits until no reload runs, and keeps the next one back: signals to a master that reloads
    /// are lost, or kill it.
    ///
    /// # Errors
    /// Another program has kept the lock for longer than a reload may take.
    pub async fn idle(&self) -> Result<Idle<'_>, LockError> {
        let _here = self.running.lock().await;
        let _elsewhere = match &self.lock {
            Some(path) => Some(lock::acquire(path, self.bound).await?),
            None => None,
        };
        Ok(Idle { _here, _elsewhere })
    }

    /// Has HAProxy load its configuration, which was checked; one that was refused is not loaded.
    pub async fn reload(&self, checked: &Verdict) -> Outcome {
        if !checked.valid {
            return Outcome::Refused { said: checked.alerts() };
        }
        let _one = match self.idle().await {
            Ok(idle) => idle,
            Err(error) => return Outcome::Unreachable { why: error.to_string() },
        };
        let deadline = Instant::now() + self.bound;
        match (&self.way, &self.master) {
            (Way::Master, Some(master)) => self.ask_master(master, deadline).await,
            (Way::Command(command), _) => self.run_command(command, deadline).await,
            (Way::Master, None) => Outcome::Unreachable { why: "it has no socket".to_owned() },
        }
    }

    async fn ask_master(&self, master: &MasterClient, deadline: Instant) -> Outcome {
        let before = match listed(master).await {
            Ok(before) => before,
            Err(error) => return Outcome::Unreachable { why: error.to_string() },
        };
        let log = self.log.as_deref().map(Mark::now);
        let said = || log.as_ref().map(Mark::since).unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let left = deadline.saturating_duration_since(Instant::now());
            match master.within(left).reload().await {
                Ok(ReloadReply::Refused(said)) => return self.refused(master, &before, said).await,
                Ok(ReloadReply::Loaded(said)) => {
                    return match settle(master, &before, deadline, false).await {
                        Progress::Loaded(worker) => Outcome::Loaded { worker, said },
                        progress => self.outcome(&progress, said),
                    };
                }
                // Somebody else's reload, 2.6, or a connection that was lost: the counters tell.
                Ok(ReloadReply::Busy | ReloadReply::Silence) | Err(_) => {}
            }
            match settle(master, &before, deadline, true).await {
                Progress::NotBegun => {}
                progress => return self.outcome(&progress, said()),
            }
        }
        Outcome::Unknown { why: format!("the master took none of {ATTEMPTS} requests to reload") }
    }

    /// A refusal, unless the master died of it.
    async fn refused(&self, master: &MasterClient, before: &Processes, said: String) -> Outcome {
        let deadline = Instant::now() + ANSWER_BOUND;
        match settle(master, before, deadline, false).await {
            Progress::Died => Outcome::MasterDied { said },
            _ => Outcome::Refused { said },
        }
    }

    fn outcome(&self, progress: &Progress, said: String) -> Outcome {
        match progress {
            Progress::Loaded(worker) => Outcome::Loaded { worker: *worker, said },
            Progress::Refused => Outcome::Refused { said },
            Progress::Died => Outcome::MasterDied { said },
            Progress::Running | Progress::NotBegun => Outcome::Unknown {
                why: format!("HAProxy has not said what came of the reload in {:?}", self.bound),
            },
        }
    }

    async fn run_command(&self, words: &[String], deadline: Instant) -> Outcome {
        let Some((program, arguments)) = words.split_first() else {
            return Outcome::Unreachable { why: "haproxy.reload_command is empty".to_owned() };
        };
        let before = match &self.master {
            Some(master) => match listed(master).await {
                Ok(before) => Some((master, before)),
                Err(error) if self.runtime.is_none() => {
                    return Outcome::Unreachable { why: error.to_string() };
                }
                Err(_) => None,
            },
            None => None,
        };
        let pid_before = self.serving().await;
        let mut command = Command::new(program);
        command.args(arguments);
        let left = deadline.saturating_duration_since(Instant::now());
        let output = match command::run(command, left, Command::spawn).await {
            Ok(output) => output,
            Err(error @ CommandError::Start { .. }) => {
                return Outcome::Unreachable { why: format!("{error} (haproxy.reload_command)") };
            }
            Err(error) => return Outcome::Unknown { why: error.to_string() },
        };
        let said = (output.stdout + &output.stderr).trim().to_owned();
        if !output.status.success() {
            let said = if said.is_empty() { output.status.to_string() } else { said };
            return Outcome::Refused { said };
        }
        match before {
            Some((master, before)) => {
                self.outcome(&settle(master, &before, deadline, false).await, said)
            }
            None => self.proof_by_pid(pid_before, deadline, said).await,
        }
    }

    /// The process that serves, by the Runtime API.
    async fn serving(&self) -> Option<u32> {
        let answer = self.runtime.as_ref()?.call("show info\n").await.ok()?;
        worker_info(&answer).ok().filter(|info| !info.stopping).map(|info| info.pid)
    }

    async fn proof_by_pid(&self, before: Option<u32>, deadline: Instant, said: String) -> Outcome {
        let Some(before) = before else {
            let why = "the command succeeded, and no socket tells what came of it; give \
                haproxy.master_socket";
            return Outcome::Unknown { why: why.to_owned() };
        };
        while Instant::now() < deadline {
            match self.serving().await {
                Some(worker) if worker != before => return Outcome::Loaded { worker, said },
                _ => sleep(ASK_EVERY).await,
            }
        }
        let said = format!(
            "the command succeeded, and process {before} still serves after {:?}. {said}",
            self.bound
        );
        Outcome::Refused { said: said.trim_end().to_owned() }
    }
}

/// How things stand before a reload. A master that somebody else reloads can't be reached for a
/// moment.
async fn listed(master: &MasterClient) -> Result<Processes, RuntimeError> {
    let deadline = Instant::now() + ANSWER_BOUND;
    loop {
        match master.processes().await {
            Err(_) if Instant::now() < deadline => sleep(ASK_EVERY).await,
            listed => return listed,
        }
    }
}

/// Waits until the master says what came of a reload. Where `may_be_lost`, it also ends when the
/// request was.
async fn settle(
    master: &MasterClient,
    before: &Processes,
    deadline: Instant,
    may_be_lost: bool,
) -> Progress {
    let began = Instant::now();
    let mut reached = began;
    loop {
        match master.processes().await {
            Ok(now) => {
                reached = Instant::now();
                match progress(master, before, &now).await {
                    Progress::Running => {}
                    Progress::NotBegun if !may_be_lost || began.elapsed() < LOST_AFTER => {}
                    progress => return progress,
                }
            }
            Err(RuntimeError::Connect { .. })
                if reached.elapsed() > DEAD_AFTER && Identity::of(before.master.pid).is_none() =>
            {
                return Progress::Died;
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Progress::Running;
        }
        wake_stopped(before);
        sleep(ASK_EVERY).await;
    }
}

/// A new worker that fails calls the one before back by SIGTTIN, which stops it where it has begun
/// to end (seen on 3.0): the master then waits for it for ever, and nobody serves. One that is not
/// stopped must get no SIGCONT: the kernel drops a SIGTTIN that has not arrived for it, and the
/// worker, which has closed its ports for the new one, would never open them again.
fn wake_stopped(before: &Processes) {
    let master = before.master.pid;
    let workers = before.all_workers().map(|worker| worker.pid);
    for worker in workers.filter(|worker| is_stopped_child(*worker, master)) {
        let pid = i32::try_from(worker).ok().and_then(Pid::from_raw);
        // It may have ended this very moment.
        let _ = pid.map(|pid| kill_process(pid, Signal::CONT));
    }
}

async fn progress(master: &MasterClient, before: &Processes, now: &Processes) -> Progress {
    if now.master.pid != before.master.pid {
        return Progress::Died;
    }
    if now.master.reloads == before.master.reloads {
        return Progress::NotBegun;
    }
    if now.master.failed > 0 {
        return Progress::Refused;
    }
    let is_new = |pid: u32| before.all_workers().all(|worker| worker.pid != pid);
    let new = now.workers.iter().find(|worker| worker.reloads == 0 && is_new(worker.pid));
    let Some(new) = new else { return Progress::Running };
    // It is listed before it serves.
    match master.worker(Target::Current).await {
        Ok(info) if info.pid == new.pid && !info.stopping => Progress::Loaded(new.pid),
        _ => Progress::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_came_of_a_reload_is_told_without_the_secrets_of_the_files_that_were_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["haproxy.cfg", "own.cfg"].map(|name| folder.path().join(name));
        std::fs::write(&files[0], "stats auth admin:one-secret\n").unwrap();
        std::fs::write(&files[1], "http-request set-header X-Token other-one\n").unwrap();
        let said = || "no timeouts for 'admin:one-secret' and 'other-one'".to_owned();
        for mut outcome in [
            Outcome::Loaded { worker: 7, said: said() },
            Outcome::Refused { said: said() },
            Outcome::MasterDied { said: said() },
        ] {
            outcome = outcome.without_secrets(&files);
            assert_eq!(outcome.words(), "no timeouts for '***' and '***'");
        }
    }
}
