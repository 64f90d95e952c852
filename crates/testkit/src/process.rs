//! Processes that end with the test that started them, however that test ends.
//!
//! Each runs under a small shell that waits on a pipe held by us. The pipe closes when the
//! [`Process`] is dropped and also when the test process is killed, and then the shell ends the
//! process and its whole group. (The kernel's "signal me when my parent dies" would not do: it
//! means the parent *thread*, and a test's thread ends before the servers it shares.)

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::eventually;

/// Arguments: log file, signal that ends the process, folder to remove afterwards (or nothing),
/// command... The process gets a session of its own, so that its children are ended too, by the
/// number of its group.
const SUPERVISOR: &str = r#"
log=$1 signal=$2 remove=$3
shift 3
exec 3<&0
setsid "$@" </dev/null >>"$log" 2>&1 3<&- &
process=$!
( exec >/dev/null
  while read -r line; do :; done
  [ -z "$remove" ] || : >"$remove/ending"
  kill -s "$signal" "$process" ) <&3 &
watcher=$!
echo "$process"
exec >/dev/null 2>&1
wait "$process"
status=$?
kill "$watcher"
kill -s KILL -- "-$process"
[ -z "$remove" ] || [ ! -e "$remove/ending" ] || rm -rf "$remove"
exit "$status"
"#;

/// Longer than a process takes to obey.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a process ends when its owner goes.
pub struct Ending {
    /// The signal's name, as `kill -s` knows it.
    pub signal: &'static str,
    /// A folder to remove after it, which must outlive an owner that is killed. It stays, with the
    /// log in it, where the process ended by itself.
    pub remove: Option<PathBuf>,
}

impl Default for Ending {
    fn default() -> Self {
        Self { signal: "KILL", remove: None }
    }
}

/// A running server, ended on drop.
pub struct Process {
    id: u32,
    log: PathBuf,
    supervisor: Child,
    /// Closing it ends the process.
    lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts a command; what it prints is appended to `log`.
    pub fn start(command: &[&str], log: &Path, ending: Ending) -> Self {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(log)
            .arg(ending.signal)
            .arg(ending.remove.unwrap_or_default())
            .args(command)
            // Ctrl-C is for the tests; this shell must outlive them by a moment.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let lifeline = supervisor.stdin.take();
        let mut id = String::new();
        BufReader::new(supervisor.stdout.take().expect("stdout is a pipe"))
            .read_line(&mut id)
            .expect("the supervisor answers");
        let id = id.trim().parse().expect("a process id");
        Self { id, log: log.to_owned(), supervisor, lifeline }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to the process alone. After `STOP` it stands still: on a busy machine it would
    /// do some more before it sees the signal.
    pub fn signal(&mut self, name: &str) {
        self.send(name, &self.id.to_string());
        if name == "STOP" {
            eventually("the process stands still", PATIENCE, || self.stands_still().then_some(()));
        }
    }

    /// Whether each of its threads does.
    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id)).into_iter().flatten();
        let stats = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
        // One that has just ended says nothing.
        stats.flatten().all(|stat| {
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            state.starts_with(['T', 't', 'Z', 'X'])
        })
    }

    /// Sends a signal to the process and its children.
    pub fn signal_group(&mut self, name: &str) {
        self.send(name, &format!("-{}", self.id));
    }

    fn send(&mut self, name: &str, target: &str) {
        // Only the shell knows the process's id to be still its own.
        assert!(self.exit_status().is_none(), "the process has ended already\n{}", self.log());
        assert!(self.try_send(name, target), "cannot send {name} to {target}\n{}", self.log());
    }

    /// False where there is none any more.
    fn try_send(&self, name: &str, target: &str) -> bool {
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$1\" -- \"$2\"", "kill", name, target])
            .stderr(Stdio::null())
            .status();
        sent.expect("sh starts").success()
    }

    /// How it ended, if it has; 128 and the signal's number when a signal ended it.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.supervisor.try_wait().expect("the supervisor is our child")
    }

    /// Waits for its end; returns its exit code, or 128 and the signal's number.
    pub fn wait(&mut self, bound: Duration) -> i32 {
        let log = self.log.clone();
        let what = format!("process {} ends (its log: {})", self.id, log.display());
        let status = eventually(&what, bound, || self.exit_status());
        status.code().expect("nobody kills the supervisor")
    }

    /// Ends it and its children with SIGKILL, and waits until they are gone.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            // It may end by itself, or by another's hand, at this very moment.
            self.try_send("KILL", &format!("-{}", self.id));
            self.wait(PATIENCE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // An error would mean that it has been waited for already.
        let _ = self.supervisor.wait();
    }
}
