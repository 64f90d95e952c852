//! A HAProxy that runs: reloaded, and stopped.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use haproxy_runtime::master::Target;
use haproxy_runtime::{MasterClient, RuntimeAddress, RuntimeClient};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::time::{sleep, timeout};

use super::check::Verdict;
use super::files;
use super::identity::Identity;
use super::log::{self, Mark};
use super::process::{ANSWER_BOUND, ProcessError, mark, remove};
use super::reload::{Outcome, Reloader};
use super::server_states;
use super::sockets::Sockets;
use crate::settings::supervision::Folder;

/// How often it is seen whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it may take to end after a signal that cuts its connections.
const CUT_BOUND: Duration = Duration::from_secs(5);
/// How often that signal is sent: one that comes just when a reload begins is lost.
const CUTS: usize = 3;

/// A HAProxy that runs. It runs on when this is dropped.
#[derive(Debug)]
pub struct Running {
    pub(super) identity: Identity,
    /// What signals are sent to.
    pub(super) process: OwnedFd,
    pub(super) master: MasterClient,
    pub(super) reloader: Reloader,
    pub(super) sockets: Sockets,
    pub(super) folder: Folder,
    /// What it loads.
    pub(super) files: Vec<PathBuf>,
    /// The Runtime API's socket.
    pub(super) admin_socket: PathBuf,
    pub(super) log: Mark,
}

/// How a HAProxy ended that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// With its last connection.
    Softly,
    /// Its connections were cut when the time was over.
    Cut,
}

/// What a HAProxy has said, with the secrets that it may have.
pub struct LastWords {
    said: String,
    configurations: Vec<PathBuf>,
}

impl LastWords {
    /// Without the secrets of what it loads, and of what was tried before and since. They
    /// are read and searched, which takes its time where they are large: call it off the async
    /// threads.
    pub fn without_secrets(&self) -> String {
        log::without_secrets(&self.said, &self.configurations)
    }
}

impl fmt::Debug for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastWords").finish_non_exhaustive()
    }
}

impl Running {
    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn master(&self) -> &MasterClient {
        &self.master
    }

    pub fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    pub fn sockets_mut(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    /// Has it load its configuration, which was checked, without a change for servers that were put
    /// into maintenance or drain.
    pub async fn reload(&self, checked: &Verdict) -> Outcome {
        let address = RuntimeAddress::Unix(self.admin_socket.clone());
        let shown = RuntimeClient::new(address, ANSWER_BOUND).call("show servers state\n").await;
        let shown = shown.unwrap_or_default();
        let states = server_states::all_out(&String::from_utf8_lossy(&shown));
        let file = self.folder.server_states();
        if let Err(error) = server_states::write(&file, &states) {
            tracing::warn!("maintenance and drains of servers are lost at this reload: {error}");
        }
        let outcome = self.reloader.reload(checked).await;
        if let Err(error) = server_states::clear(&file) {
            tracing::warn!("the states of servers stay in their file: {error}");
        }
        outcome
    }

    /// Whether it ends with its connections, and takes no new ones.
    pub async fn is_ending(&self) -> bool {
        self.master.worker(Target::Current).await.is_ok_and(|worker| worker.stopping)
    }

    /// The sockets that outlive it.
    pub fn into_sockets(self) -> Sockets {
        self.sockets
    }

    /// Waits for its end. Cancel-safe.
    pub async fn ended(&self) {
        while self.identity.is_alive() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// The end of what it has printed since it was started or found.
    pub fn said(&self) -> LastWords {
        let kept = files::kept(self.folder.path());
        let configurations = [self.files.clone(), kept].concat();
        LastWords { said: self.log.since(), configurations }
    }

    /// Empties its log where that is too large. Whoever supervises it calls this now and then.
    ///
    /// # Errors
    /// A log that can't be emptied.
    pub fn bound_log(&self) -> io::Result<()> {
        log::bound(&self.folder.log())
    }

    /// Has it serve its connections to their end, for at most this time, and then cuts them. Waits
    /// for a reload that runs. Gives back the sockets, in which connections wait from now on.
    ///
    /// # Errors
    /// It can't be signalled, or does not end even so.
    pub async fn stop(self, grace: Duration) -> Result<(Stopped, Sockets), ProcessError> {
        let idle = self.reloader.idle().await?;
        mark(&self.folder.stopped())?;
        let stopped = self.end(grace).await?;
        remove(&self.folder.pid())?;
        drop(idle);
        Ok((stopped, self.sockets))
    }

    /// The same, for a new start: whoever keeps it running starts it, also where the caller does
    /// not live to do so.
    ///
    /// # Errors
    /// Those of [`Self::stop`].
    pub async fn end_for_restart(self, grace: Duration) -> Result<Sockets, ProcessError> {
        let idle = self.reloader.idle().await?;
        mark(&self.folder.restarting())?;
        self.end(grace).await?;
        remove(&self.folder.pid())?;
        drop(idle);
        Ok(self.sockets)
    }

    async fn end(&self, grace: Duration) -> Result<Stopped, ProcessError> {
        if !grace.is_zero() {
            self.signal(Signal::USR1)?;
            if timeout(grace, self.ended()).await.is_ok() {
                return Ok(Stopped::Softly);
            }
        }
        for _ in 0..CUTS {
            self.signal(Signal::TERM)?;
            if timeout(CUT_BOUND, self.ended()).await.is_ok() {
                return Ok(Stopped::Cut);
            }
        }
        self.signal(Signal::KILL)?;
        match timeout(CUT_BOUND, self.ended()).await {
            Ok(()) => Ok(Stopped::Cut),
            Err(_) => Err(ProcessError::Signal {
                pid: self.identity.pid,
                action: "ended",
                cause: io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.process, signal) {
            // It has ended already.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(cause) => Err(ProcessError::Signal {
                pid: self.identity.pid,
                action: "signalled",
                cause: cause.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_told_without_secrets_and_printed_by_no_accident() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, "stats auth admin:one-secret\n").unwrap();
        let said = "[ALERT] (7) : unexpected 'admin:one-secret'".to_owned();
        let words = LastWords { said, configurations: vec![file] };
        assert_eq!(words.without_secrets(), "[ALERT] (7) : unexpected '***'");
        assert_eq!(format!("{words:?}"), "LastWords { .. }");
    }
}
