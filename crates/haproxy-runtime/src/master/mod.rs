//! The master process and its workers: what `show proc` lists, and what `reload` answers. Pure.
//!
//! HAProxy's management guide, section "Master CLI"; the texts are those of 2.6 to 3.4.

#[cfg(feature = "client")]
pub mod client;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ReplyError;
use crate::wire;

/// Lists the master and its workers. See [`processes`].
pub const PROCESSES: &str = "show proc\n";

/// Loads the configuration again. See [`reload_reply`].
pub const RELOAD: &str = "reload\n";

/// The master process and its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The master.
    pub master: Master,
    /// Who serves new connections; nobody after a failed reload on 3.2 and later, where the one
    /// that serves is the youngest of [`Self::old_workers`].
    pub workers: Vec<Worker>,
    /// Those of earlier configurations, which end with their connections.
    pub old_workers: Vec<Worker>,
}

/// The master process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// Its process id, the same over all reloads.
    pub pid: u32,
    /// How many reloads have run, be it with success or not.
    pub reloads: u32,
    /// How many of them have failed since the last one that did not.
    pub failed: u32,
    /// Its version as it names it.
    pub version: String,
}

/// A process that serves connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// How many reloads it has outlived.
    pub reloads: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Its version as it names it.
    pub version: String,
}

/// What the master answers to `reload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadReply {
    /// The new worker serves; with HAProxy's log of the reload.
    Loaded(String),
    /// It does not, and the one before goes on; with HAProxy's log of the reload.
    Refused(String),
    /// Another reload runs: nothing was begun.
    Busy,
    /// 2.6 says nothing, nor does 3.0 while another reload runs.
    Silence,
}

/// A worker as the master's commands name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that serves new connections.
    Current,
    /// The one with this process id.
    Pid(u32),
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its process id.
    pub pid: u32,
    /// Connections that it has now.
    pub connections: u64,
    /// Whether it ends once they have.
    pub stopping: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => write!(out, "@1"),
            Self::Pid(pid) => write!(out, "@!{pid}"),
        }
    }
}

impl Processes {
    /// Every worker, the current one first.
    pub fn all_workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().chain(&self.old_workers)
    }
}

/// Reads the answer to [`PROCESSES`].
///
/// # Errors
/// A cut answer, or one without a master, or with a row that can't be read.
pub fn processes(answer: &[u8]) -> Result<Processes, ReplyError> {
    let reply = one_reply(answer)?;
    let text = str::from_utf8(reply).map_err(|_| ReplyError::unexpected(reply))?;
    let mut lines = text.lines();
    if !lines.next().is_some_and(|head| head.starts_with("#<PID>")) {
        return Err(ReplyError::from_text(reply));
    }
    let (mut master, mut workers, mut old_workers) = (None, Vec::new(), Vec::new());
    let mut group = None;
    for line in lines {
        if let Some(heading) = line.strip_prefix('#') {
            group = Some(heading.trim());
            continue;
        }
        match group {
            None => master = Some(master_of(line)?),
            Some("workers") => workers.push(worker_of(line)?),
            Some("old workers") => old_workers.push(worker_of(line)?),
            // Programs, and what a later version may list.
            Some(_) => {}
        }
    }
    let master = master.ok_or_else(|| ReplyError::unexpected(reply))?;
    Ok(Processes { master, workers, old_workers })
}

/// `PID master N [failed: M] UPTIME VERSION`.
fn master_of(line: &str) -> Result<Master, ReplyError> {
    let wrong = |why| ReplyError::unreadable(line, why);
    let (counted, rest) = line.split_once("[failed:").ok_or_else(|| wrong("no [failed: N]"))?;
    let (failed, rest) = rest.split_once(']').ok_or_else(|| wrong("no [failed: N]"))?;
    let mut counted = counted.split_whitespace();
    let pid = number(counted.next()).ok_or_else(|| wrong("its pid"))?;
    if counted.next() != Some("master") {
        return Err(wrong("its type is not master"));
    }
    let reloads = number(counted.next()).ok_or_else(|| wrong("its reloads"))?;
    let failed = number(Some(failed.trim())).ok_or_else(|| wrong("its failed reloads"))?;
    let version = rest.split_whitespace().nth(1).ok_or_else(|| wrong("its version"))?;
    Ok(Master { pid, reloads, failed, version: version.to_owned() })
}

/// `PID worker N UPTIME VERSION`.
fn worker_of(line: &str) -> Result<Worker, ReplyError> {
    let wrong = |why| ReplyError::unreadable(line, why);
    let mut words = line.split_whitespace();
    let pid = number(words.next()).ok_or_else(|| wrong("its pid"))?;
    if words.next() != Some("worker") {
        return Err(wrong("its type is not worker"));
    }
    let reloads = number(words.next()).ok_or_else(|| wrong("its reloads"))?;
    let uptime_seconds = words.next().and_then(seconds).ok_or_else(|| wrong("its uptime"))?;
    let version = words.next().ok_or_else(|| wrong("its version"))?.to_owned();
    Ok(Worker { pid, reloads, uptime_seconds, version })
}

fn number(word: Option<&str>) -> Option<u32> {
    word?.parse().ok()
}

/// `1d02h03m04s`.
fn seconds(uptime: &str) -> Option<u64> {
    let (days, rest) = uptime.split_once('d')?;
    let (hours, rest) = rest.split_once('h')?;
    let (minutes, rest) = rest.split_once('m')?;
    let part = |text: &str| text.parse::<u64>().ok();
    let hours = part(days)?.checked_mul(24)?.checked_add(part(hours)?)?;
    let minutes = hours.checked_mul(60)?.checked_add(part(minutes)?)?;
    minutes.checked_mul(60)?.checked_add(part(rest.strip_suffix('s')?)?)
}

/// How HAProxy 3.1 and later answer while they reload already.
const BUSY: &str = "Another reload is still in progress";

/// Reads the answer to [`RELOAD`].
///
/// # Errors
/// An answer that is neither a success nor a refusal, nor empty.
pub fn reload_reply(answer: &[u8]) -> Result<ReloadReply, ReplyError> {
    if answer.is_empty() {
        return Ok(ReloadReply::Silence);
    }
    let text = String::from_utf8_lossy(answer);
    let (outcome, log) = text.split_once('\n').ok_or_else(|| ReplyError::cut(answer))?;
    let log = log.strip_prefix("--\n").unwrap_or(log).trim_end().to_owned();
    match outcome {
        "Success=1" => Ok(ReloadReply::Loaded(log)),
        "Success=0" if log.starts_with(BUSY) => Ok(ReloadReply::Busy),
        "Success=0" => Ok(ReloadReply::Refused(log)),
        _ => Err(ReplyError::from_text(answer)),
    }
}

/// Reads a worker's answer to `show info`.
///
/// # Errors
/// A cut answer, or one that lacks a field.
pub fn worker_info(answer: &[u8]) -> Result<WorkerInfo, ReplyError> {
    let reply = one_reply(answer)?;
    let text = String::from_utf8_lossy(reply);
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
    };
    let info = || {
        Some(WorkerInfo {
            pid: u32::try_from(field("Pid")?).ok()?,
            connections: field("CurrConns")?,
            stopping: field("Stopping")? != 0,
        })
    };
    info().ok_or_else(|| ReplyError::from_text(reply))
}

/// The reply of one command; what the master itself says ends with one line's end.
fn one_reply(answer: &[u8]) -> Result<&[u8], ReplyError> {
    if answer.starts_with(b"Can't ") && answer.ends_with(b"\n") {
        return Err(ReplyError::from_text(answer));
    }
    wire::replies(answer, 1).map(|replies| replies[0])
}

#[cfg(test)]
mod tests;
