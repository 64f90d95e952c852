//! What HAProxy says of a configuration before it loads it.
//!
//! No configuration is loaded that was not checked by the same program, with the same files and
//! sockets: the master of HAProxy 3.4 dies of a text that can't be parsed.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use haproxy_runtime::HaproxyVersion;
use mapsmith_core::render::Rendered;
use mapsmith_core::render::mask::Mask;
use mapsmith_core::render::verdict::{Level, Remark, remarks};
use tokio::process::Command;
use tokio::task::{JoinError, spawn_blocking};

use super::log;
use super::sockets::Sockets;
use crate::command::{self, CommandError};

/// How long HAProxy may take to check a configuration: ten thousand servers take two seconds.
pub const CHECK_BOUND: Duration = Duration::from_secs(120);
/// How long it may take to name its version.
const VERSION_BOUND: Duration = Duration::from_secs(10);
/// How it ends where it has nothing to listen on: it would load that, and serve nobody.
const NO_LISTENER: i32 = 2;

/// What HAProxy says of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it would load it and listen.
    pub valid: bool,
    /// Its alerts and warnings; there is an alert unless it is valid.
    pub remarks: Vec<Remark>,
    /// All that it printed.
    pub printed: String,
}

impl Verdict {
    /// The alerts, a line each.
    pub fn alerts(&self) -> String {
        let alerts = self.remarks.iter().filter(|remark| remark.level == Level::Alert);
        alerts.map(Remark::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("the configuration can't be checked: {0} (haproxy.binary)")]
    Command(CommandError),
    #[error("{program} -v does not name a version of HAProxy: {printed:?} (haproxy.binary)")]
    Version { program: String, printed: String },
    #[error("what HAProxy says was not read: {0}")]
    Read(#[from] JoinError),
}

impl From<CommandError> for CheckError {
    /// Its text is all that it has to say.
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

/// Asks the program what it says of these files together. The first is the rendered one; it
/// inherits the sockets as HAProxy would.
///
/// # Errors
/// A program that can't be started, or does not end.
pub async fn check(
    program: &str,
    files: &[&Path],
    rendered: &Rendered,
    sockets: &Sockets,
    bound: Duration,
) -> Result<Verdict, CheckError> {
    let mut asked = Command::new(program);
    asked.arg("-c");
    files.iter().for_each(|file| {
        asked.arg("-f").arg(file);
    });
    let spawn = |asked: &mut Command| sockets.inherited(|| asked.spawn());
    let output = command::run(asked, bound, spawn).await?;
    let file = files.first().map_or_else(String::new, |file| file.display().to_string());
    let files: Vec<_> = files.iter().map(|file| file.to_path_buf()).collect();
    let (rendered, status, valid) = (rendered.clone(), output.status, output.status.success());
    let stderr = output.stderr.clone();
    // Thousands of remarks on a large configuration take a while to read.
    let read = move || {
        if valid && stderr.is_empty() {
            return Vec::new();
        }
        let mask = log::mask(rendered.text(), &files);
        let mut remarks = remarks(&stderr, &file, &rendered, &mask);
        if !valid && !remarks.iter().any(|remark| remark.level == Level::Alert) {
            remarks.push(Remark::alert(None, unexplained(status, &stderr, &mask)));
        }
        remarks
    };
    let remarks = spawn_blocking(read).await?;
    let printed = output.stdout + &output.stderr;
    Ok(Verdict { valid, remarks, printed })
}

/// What there is to tell of a refusal without an alert.
fn unexplained(status: ExitStatus, stderr: &str, mask: &Mask) -> String {
    if status.code() == Some(NO_LISTENER) {
        return "no frontend listens, so HAProxy would serve nobody with it".to_owned();
    }
    let last = stderr.lines().rfind(|line| !line.trim().is_empty());
    let last = last.map(|line| mask.over(line, None));
    format!("{} ({status})", last.as_deref().unwrap_or("it says nothing"))
}

/// The version of a program.
///
/// # Errors
/// A program that can't be started, does not end, or is not HAProxy.
pub async fn version(program: &str) -> Result<HaproxyVersion, CheckError> {
    let mut asked = Command::new(program);
    asked.arg("-v");
    let output = command::run(asked, VERSION_BOUND, Command::spawn).await?;
    // `HAProxy version 3.2.26-1 2026/10/14 - https://haproxy.org/`
    let first = output.stdout.lines().next().unwrap_or_default();
    let words = first.strip_prefix("HAProxy version ");
    let parsed = words.and_then(|words| words.split(' ').next()?.parse().ok());
    parsed.ok_or_else(|| CheckError::Version {
        program: program.to_owned(),
        printed: first.chars().take(200).collect(),
    })
}
