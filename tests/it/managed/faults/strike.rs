//! Faults, each at its moment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::laws::Excuse;
use super::processes::{self, Family, family, signal};
use super::schedule::{Fault, Moment};
use super::site::{Whole, ask};
use crate::support::poll;

/// How long a moment is waited for that may not come.
const MOMENT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How long HAProxy may take until it serves again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Of the same master for so long: it serves.
const STEADY: Duration = Duration::from_millis(300);

/// What was there before a change, to see what it brings.
pub struct Before {
    began: Instant,
    candidate: Option<(u64, i64, i64)>,
    config: Option<(u64, i64, i64)>,
    family: Family,
}

impl Before {
    pub fn now(whole: &Whole) -> Self {
        Self {
            began: Instant::now(),
            candidate: version(&whole.file("candidate/haproxy.cfg")),
            config: version(&whole.file("haproxy.cfg")),
            family: family(whole.volume.path()),
        }
    }

    /// Waits for the moment, or no longer than it could take to come.
    fn wait(&self, whole: &Whole, moment: Moment) {
        if let Moment::After(time) = moment {
            let left = Duration::from_millis(time).saturating_sub(self.began.elapsed());
            return thread::sleep(left);
        }
        let deadline = Instant::now() + MOMENT;
        while Instant::now() < deadline && !self.has_come(whole, moment) {
            thread::sleep(LOOK_EVERY);
        }
    }

    fn has_come(&self, whole: &Whole, moment: Moment) -> bool {
        let is_new = |pids: &[u32], known: &[u32]| pids.iter().any(|pid| !known.contains(pid));
        match moment {
            Moment::After(_) => true,
            Moment::Candidate => version(&whole.file("candidate/haproxy.cfg")) != self.candidate,
            Moment::Switched => version(&whole.file("haproxy.cfg")) != self.config,
            Moment::Check => is_new(&family(whole.volume.path()).checks, &self.family.checks),
            Moment::Worker => {
                let now = family(whole.volume.path());
                is_new(&now.workers, &self.family.workers)
                    || is_new(&now.masters, &self.family.masters)
            }
        }
    }
}

/// What tells a file from the one before.
fn version(path: &Path) -> Option<(u64, i64, i64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Whole {
    /// Breaks something at its moment, and ends it where it lasts. False where it can't be done.
    pub fn strike(&mut self, before: &Before, moment: Moment, fault: Fault) -> bool {
        before.wait(self, moment);
        let processes = family(self.volume.path());
        let note = |whole: &Self, what: String| {
            whole.journal.note(&format!("  {what}; there were {processes:?}"));
        };
        match fault {
            Fault::MapsmithKilled { down } => {
                if self.is_down {
                    return false;
                }
                note(self, format!("Mapsmith is killed, for {down} ms"));
                self.laws.excused(Excuse::Unheld);
                self.mapsmith.kill();
                self.is_down = true;
                self.check_file();
                pause(down);
                true
            }
            Fault::MapsmithStopped { time } => {
                if self.is_down {
                    return false;
                }
                note(self, format!("Mapsmith is stopped for {time} ms"));
                let pid = self.mapsmith.id();
                let stopped = signal("STOP", pid);
                pause(time);
                stopped && signal("CONT", pid)
            }
            Fault::MasterKilled | Fault::WorkerKilled => {
                let is_master = fault == Fault::MasterKilled;
                let pids = if is_master { &processes.masters } else { &processes.workers };
                let Some(pid) = pids.first() else { return false };
                note(self, format!("{pid} is killed"));
                self.laws.excused(Excuse::Down);
                let killed = signal("KILL", *pid);
                self.check_file();
                killed
            }
            Fault::OldWorkerKilled => {
                let Some(pid) = processes.workers.get(1) else { return false };
                note(self, format!("the old worker {pid} is killed"));
                self.laws.excused(Excuse::Cut);
                // It may be the one that serves: the younger one did not come to that yet.
                self.laws.excused(Excuse::Down);
                signal("KILL", *pid)
            }
            Fault::MasterStopped { time } | Fault::WorkerStopped { time } => {
                let is_master = matches!(fault, Fault::MasterStopped { .. });
                let pids = if is_master { &processes.masters } else { &processes.workers };
                let Some(pid) = pids.first() else { return false };
                note(self, format!("{pid} is stopped for {time} ms"));
                let stopped = signal("STOP", *pid);
                pause(time);
                stopped && signal("CONT", *pid)
            }
            Fault::FolderReadOnly { time } => {
                if !self.volume.is_own() {
                    return false;
                }
                note(self, format!("the folder is read-only for {time} ms"));
                let reloads = !matches!(moment, Moment::Candidate | Moment::Check)
                    || before.has_come(self, Moment::Switched);
                self.make_read_only(reloads, time);
                true
            }
            Fault::DiskFull { time } => {
                if !self.volume.is_own() {
                    return false;
                }
                note(self, format!("the disk is full for {time} ms"));
                self.volume.fill();
                pause(time);
                self.check_file();
                self.volume.clear();
                true
            }
        }
    }

    /// `reloads`: perhaps in the midst of a reload.
    fn make_read_only(&mut self, reloads: bool, time: u64) {
        if reloads {
            // A master that can't open its socket again ends.
            self.laws.excused(Excuse::Down);
        }
        self.is_read_only = true;
        processes::mount_read_only(self.volume.path());
        pause(time);
        processes::unmount(self.volume.path());
        self.is_read_only = false;
    }

    /// After whatever happened the file is one that HAProxy starts from.
    fn check_file(&self) {
        if let Err(said) = processes::accepts(&self.binary.path, &self.file("haproxy.cfg")) {
            self.laws.broken(format!("the file in force is refused: {said}"));
        }
    }

    /// Starts a Mapsmith that was killed.
    pub fn restart_mapsmith(&mut self) {
        if self.is_down {
            self.journal.note("  Mapsmith is started");
            self.mapsmith.restart();
            self.is_down = false;
        }
    }

    /// Waits until HAProxy serves again, where it was killed: nobody is excused from then on.
    pub fn wait_for_service(&mut self) -> Result<(), String> {
        let mut since: Option<(Vec<u32>, Instant)> = None;
        let served = poll(PATIENCE, || {
            let Family { masters, workers, .. } = family(self.volume.path());
            let is_one = masters.len() == 1 && !workers.is_empty();
            if !is_one || ask(self.web, "/word").is_none() {
                since = None;
                return None;
            }
            // A master ends a moment after its worker.
            let (known, since) = since.get_or_insert_with(|| (masters.clone(), Instant::now()));
            if *known != masters {
                (*known, *since) = (masters, Instant::now());
            }
            (since.elapsed() > STEADY).then_some(())
        });
        self.laws.closed(Excuse::Down);
        self.laws.closed(Excuse::Cut);
        served.ok_or_else(|| {
            format!("nobody serves {PATIENCE:?} after the faults: {:?}", family(self.volume.path()))
        })
    }
}

fn pause(time: u64) {
    thread::sleep(Duration::from_millis(time));
}
