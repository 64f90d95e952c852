//! `mapsmith haproxy`: starts, stops and reloads the HAProxy that the settings declare, without the
//! daemon and beside it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use mapsmith_core::render::Rendered;
use rustix::process::geteuid;
use serde::Serialize;
use tokio::select;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, sleep};

use super::output::{Colour, paint};
use super::{FAILED, OutputFormat, SUCCESS, duration, print};
use crate::settings::supervision::{Folder, Managed};
use crate::settings::{Haproxy, Settings};
use crate::supervise::check::{self, CHECK_BOUND, Verdict};
use crate::supervise::health::{Answer, Health};
use crate::supervise::process::Launch;
use crate::supervise::refusal;
use crate::supervise::reload::{Outcome, Reloader};
use crate::supervise::running::{Running, Stopped};
use crate::supervise::sockets::Sockets;

/// How long the Mapsmith that runs may take to start it.
const START_BOUND: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is done to it.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum HaproxyVerb {
    /// Start it with the configuration that was written last (managed = true)
    Start,
    /// Let it serve its connections to their end, then end it; it stays so until it is started
    /// (managed = true)
    Stop {
        /// Cut the connections that are left after this time. With haproxy.health, that answers
        /// 503 for as long before
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
        grace: Duration,
    },
    /// Stop and start it, with the program as it is installed now (managed = true)
    Restart {
        /// As of stop
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
        grace: Duration,
    },
    /// Have it load its configuration again, and say what came of it
    Reload,
}

#[derive(Debug, Serialize)]
struct Report {
    outcome: &'static str,
    /// The master's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// The process that has the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
    message: String,
}

impl Report {
    fn new(outcome: &'static str, pid: Option<u32>, message: String) -> Self {
        Self { outcome, pid, worker: None, message }
    }

    fn refused(verdict: &Verdict) -> Self {
        let message = format!("HAProxy refuses its configuration:\n{}", verdict.alerts());
        Self::new("refused", None, message)
    }

    fn is_good(&self) -> bool {
        matches!(self.outcome, "running" | "stopped" | "loaded")
    }
}

pub(super) async fn haproxy(
    settings: Settings,
    verb: HaproxyVerb,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let Some(haproxy) = &settings.haproxy else {
        bail!("the settings have no [haproxy], so HAProxy is somebody else's");
    };
    let report = match (haproxy.managed, verb) {
        (Managed::No, _) => bail!(
            "haproxy.managed is false, so HAProxy is somebody else's: set it to true, or to \
                \"attached\" for reloads"
        ),
        (Managed::Attached, HaproxyVerb::Reload) => {
            own_files(haproxy)?;
            reload_attached(&settings, haproxy).await?
        }
        (Managed::Attached, _) => bail!(
            "haproxy.managed is \"attached\": HAProxy is started and stopped by who runs it, as by \
                systemctl"
        ),
        (Managed::Yes, verb) => {
            own_files(haproxy)?;
            managed(&Launch::new(haproxy), verb, Health::of(haproxy)).await?
        }
    };
    print(format, &report, |report| {
        let colour = if report.is_good() { Colour::Green } else { Colour::Red };
        paint(colour, &report.message)
    })?;
    Ok(if report.is_good() { SUCCESS } else { FAILED })
}

/// What one user starts and writes, a Mapsmith of another could neither reach nor write.
pub(super) fn own_files(haproxy: &Haproxy) -> anyhow::Result<()> {
    let folder = haproxy.files();
    let Ok(metadata) = fs::metadata(folder.path()) else { return Ok(()) };
    let (owner, own) = (metadata.uid(), geteuid().as_raw());
    if owner != own {
        bail!(
            "{} belongs to user {owner}, and this is user {own}: run it as that user, like `sudo \
                -u '#{owner}' mapsmith ...` (haproxy.folder)",
            folder.path().display()
        );
    }
    Ok(())
}

async fn managed(
    launch: &Launch,
    verb: HaproxyVerb,
    health: Option<Health>,
) -> anyhow::Result<Report> {
    let running = launch.find().await?;
    match (verb, running) {
        (HaproxyVerb::Start, Some(running)) => {
            // A stop that was called off.
            launch.unmark_stopped()?;
            let pid = running.identity().pid;
            if running.is_ending().await {
                // It listens again by a reload only.
                let verdict = verdict(&launch.program, &launch.files(), running.sockets()).await?;
                let outcome = running.reload(&verdict).await;
                let refused = refusal(&launch.folder, &launch.folder.configuration());
                return Ok(reloaded(outcome, &launch.files(), Some(pid), refused));
            }
            Ok(Report::new("running", Some(pid), format!("HAProxy runs already, pid {pid}")))
        }
        (HaproxyVerb::Start, None) if launch.is_kept() => {
            launch.unmark_stopped()?;
            kept(launch, None).await
        }
        (HaproxyVerb::Start, None) => {
            start(launch, Sockets::of_file(&launch.folder.sockets())?, health).await
        }
        (HaproxyVerb::Stop { grace }, Some(running)) => {
            turn_away(health, grace).await?;
            let (stopped, sockets) = running.stop(grace).await?;
            // Nobody is to wait in them.
            sockets.close();
            Ok(Report::new("stopped", None, ended(stopped, grace)))
        }
        (HaproxyVerb::Stop { .. }, None) => {
            launch.mark_stopped()?;
            Ok(Report::new("stopped", None, "HAProxy does not run".to_owned()))
        }
        (HaproxyVerb::Restart { grace }, Some(running)) => {
            // What would not start is not stopped for.
            let verdict = verdict(&launch.program, &launch.files(), running.sockets()).await?;
            if !verdict.valid {
                return Ok(Report::refused(&verdict));
            }
            turn_away(health.clone(), grace).await?;
            restart(launch, running, grace, health).await
        }
        (HaproxyVerb::Restart { .. } | HaproxyVerb::Reload, None) => {
            bail!("HAProxy does not run; `mapsmith haproxy start` starts it")
        }
        (HaproxyVerb::Reload, Some(running)) => {
            let verdict = verdict(&launch.program, &launch.files(), running.sockets()).await?;
            let outcome = running.reload(&verdict).await;
            let refused = refusal(&launch.folder, &launch.folder.configuration());
            Ok(reloaded(outcome, &launch.files(), Some(running.identity().pid), refused))
        }
    }
}

/// Waits for the Mapsmith that runs to start it, as a process other than this one.
async fn kept(launch: &Launch, before: Option<u32>) -> anyhow::Result<Report> {
    let deadline = Instant::now() + START_BOUND;
    while Instant::now() < deadline {
        let found = launch.find().await?.map(|running| running.identity().pid);
        if let Some(pid) = found.filter(|pid| Some(*pid) != before) {
            return Ok(Report::new("running", Some(pid), format!("HAProxy runs, pid {pid}")));
        }
        if launch.is_stopped() {
            bail!("HAProxy was stopped meanwhile, by `mapsmith haproxy stop`");
        }
        sleep(LOOK_EVERY).await;
    }
    bail!(
        "the Mapsmith that runs has not started HAProxy within {START_BOUND:?}: `mapsmith status` \
            says why"
    )
}

async fn start(
    launch: &Launch,
    mut sockets: Sockets,
    health: Option<Health>,
) -> anyhow::Result<Report> {
    let configuration = launch.folder.configuration();
    if !configuration.exists() {
        bail!(
            "{} is not there yet: `mapsmith run` writes it, and starts HAProxy",
            configuration.display()
        );
    }
    let verdict = verdict(&launch.program, &launch.files(), &sockets).await?;
    if !verdict.valid {
        return Ok(Report::refused(&verdict));
    }
    // Until a Mapsmith has brought map and servers into force in it.
    if let Some(health) = &health {
        health.write(Answer::Starting)?;
    }
    let pid = launch.start(&mut sockets).await?.identity().pid;
    Ok(Report::new("running", Some(pid), format!("HAProxy runs, pid {pid}")))
}

/// Has the balancer in front send nobody any more, while connections are still taken.
///
/// # Errors
/// It was called off.
async fn turn_away(health: Option<Health>, grace: Duration) -> anyhow::Result<()> {
    let Some(health) = health else { return Ok(()) };
    if !health.set(Answer::Stopping).await {
        return Ok(());
    }
    select! {
        () = sleep(grace) => Ok(()),
        _ = ctrl_c() => {
            health.set(Answer::Ready).await;
            bail!("called off; HAProxy serves on");
        }
    }
}

async fn restart(
    launch: &Launch,
    running: Running,
    grace: Duration,
    health: Option<Health>,
) -> anyhow::Result<Report> {
    let before = running.identity().pid;
    let mut sockets = running.end_for_restart(grace).await?;
    if launch.is_kept() {
        // Mapsmith has them too, and connections wait in its own.
        drop(sockets);
        return kept(launch, Some(before)).await;
    }
    if let Some(health) = &health {
        health.write(Answer::Starting)?;
    }
    if !sockets.are_real() {
        sockets = Sockets::of_file(&launch.folder.sockets())?;
    }
    let pid = launch.start(&mut sockets).await?.identity().pid;
    Ok(Report::new("running", Some(pid), format!("HAProxy runs again, pid {pid}")))
}

async fn reload_attached(settings: &Settings, haproxy: &Haproxy) -> anyhow::Result<Report> {
    let Some(config) = &haproxy.config else { bail!("haproxy.config is missing") };
    let own = settings.own_instance().and_then(|own| settings.instances.get(own));
    let runtime = own.map(|instance| instance.runtime.clone());
    let includes = haproxy.includes.iter().map(|file| PathBuf::from(file.as_str()));
    let files: Vec<_> = [PathBuf::from(config.as_str())].into_iter().chain(includes).collect();
    let verdict = verdict(haproxy.program(), &files, &Sockets::default()).await?;
    let outcome = Reloader::attached(haproxy, runtime).reload(&verdict).await;
    let refused = refusal(&haproxy.files(), Path::new(config.as_str()));
    Ok(reloaded(outcome, &files, None, refused))
}

async fn verdict(program: &str, files: &[PathBuf], sockets: &Sockets) -> anyhow::Result<Verdict> {
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    Ok(check::check(program, &files, &Rendered::default(), sockets, CHECK_BOUND).await?)
}

fn ended(stopped: Stopped, grace: Duration) -> String {
    match stopped {
        Stopped::Softly => "HAProxy ended with its last connection".to_owned(),
        Stopped::Cut => format!(
            "HAProxy ended; connections that were left after {} were cut",
            humantime::format_duration(grace)
        ),
    }
}

/// Why the newest configuration is not what was loaded, where Mapsmith has found that HAProxy
/// refuses it, and nobody has repaired by hand what is in place.
fn refusal(folder: &Folder, config: &Path) -> Option<String> {
    refusal::kept(&folder.refused(), config).ok().flatten()
}

/// What came of it, without the secrets of the files that were to be loaded.
fn reloaded(
    outcome: Outcome,
    files: &[PathBuf],
    pid: Option<u32>,
    refused: Option<String>,
) -> Report {
    let with = |said: &str| if said.is_empty() { String::new() } else { format!(":\n{said}") };
    let (outcome, worker, message) = match outcome.without_secrets(files) {
        Outcome::Loaded { worker, .. } => match refused {
            None => {
                let message = format!("the configuration is in force in process {worker}");
                ("loaded", Some(worker), message)
            }
            Some(why) => {
                let message = format!(
                    "the last good configuration was loaded in process {worker}; the newer one is \
                        refused: {why}"
                );
                ("refused", Some(worker), message)
            }
        },
        Outcome::Refused { said } => {
            ("refused", None, format!("refused; the one before stays in force{}", with(&said)))
        }
        Outcome::Unknown { why } => {
            ("unknown", None, format!("it is not known which configuration is in force: {why}"))
        }
        Outcome::MasterDied { said } => {
            ("died", None, format!("HAProxy ended at the reload{}", with(&said)))
        }
        Outcome::Unreachable { why } => ("unreachable", None, format!("not reloaded: {why}")),
    };
    Report { outcome, pid, worker, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_while_a_newer_configuration_is_refused_says_so_and_fails() {
        let loaded = || Outcome::Loaded { worker: 7, said: String::new() };
        let report = reloaded(loaded(), &[], Some(1), Some("port 80 is taken".to_owned()));
        assert!(!report.is_good(), "{report:?}");
        assert!(report.message.contains("last good configuration was loaded in process 7"));
        assert!(report.message.ends_with("refused: port 80 is taken"), "{}", report.message);
        let report = reloaded(loaded(), &[], Some(1), None);
        assert!(report.is_good(), "{report:?}");
    }

    #[test]
    fn haproxys_words_at_a_reload_are_told_without_the_secrets_of_what_it_was_to_load() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("own.cfg")];
        fs::write(&files[0], "http-request set-header X-Token one-secret\n").unwrap();
        let said = "unexpected 'one-secret'".to_owned();
        for outcome in [Outcome::Refused { said: said.clone() }, Outcome::MasterDied { said }] {
            let message = reloaded(outcome, &files, Some(1), None).message;
            assert!(message.ends_with(":\nunexpected '***'"), "{message}");
        }
    }
}
