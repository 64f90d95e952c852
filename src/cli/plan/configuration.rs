//! What of `haproxy.cfg` would change, and what that would take.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::stamp::{self, Stamp};
use mapsmith_core::render::verdict::Remark;
use serde::Serialize;

use crate::cli::diff;
use crate::cli::output::{Colour, paint};
use crate::settings::supervision::Managed;
use crate::settings::{Haproxy, Settings};
use crate::supervise::candidate::Candidate;
use crate::supervise::check::CHECK_BOUND;
use crate::supervise::sockets::{Sockets, placed_by};
use crate::supervise::trial::trial;

/// How many lines of the difference are printed unless all are asked for.
const SHOWN: usize = 40;

/// What a Mapsmith that runs would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Nothing: the file is as it should be.
    None,
    /// Nothing yet: the servers of a backend are not known.
    Wait,
    /// There is no file: it is written, and HAProxy started or reloaded.
    Start,
    /// Only servers differ: the Runtime API changes them, and the file follows.
    RuntimeApi,
    Reload,
    /// Another hand has edited the file: it is kept aside and the rendered one written again.
    Restore,
    /// The file is somebody else's and stays until `mapsmith render --take-over`.
    TakeOver,
    /// HAProxy refuses the candidate: the file stays.
    Refuse,
}

#[derive(Debug, Serialize)]
pub(super) struct ConfigurationPlan {
    /// The file that HAProxy starts from.
    path: String,
    action: Action,
    /// The backends whose servers are not known.
    unknown: Vec<String>,
    /// As `diff -u` writes it; empty where nothing would change.
    diff: String,
    /// What HAProxy says of the candidate.
    remarks: Vec<Remark>,
}

impl ConfigurationPlan {
    /// Whether something is to be done.
    pub fn has_changes(&self) -> bool {
        self.action != Action::None
    }

    /// Whether there is no file that HAProxy could have started from.
    pub fn starts(&self) -> bool {
        self.action == Action::Start
    }

    /// Whether somebody must do something before it can be done.
    pub fn failed(&self) -> bool {
        matches!(self.action, Action::Wait | Action::Refuse)
    }
}

/// None where HAProxy's configuration is somebody else's.
pub(super) async fn plan(
    settings: &Settings,
    desired: Option<DesiredConfig>,
) -> anyhow::Result<Option<ConfigurationPlan>> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised());
    let (Some(haproxy), Some(desired)) = (haproxy, desired) else { return Ok(None) };
    let path = haproxy.configuration();
    let unknown = desired.unknown.clone();
    let sockets = haproxy.files().sockets();
    let placed = placed_by(&sockets, &desired.config)?;
    let desired = Arc::new(desired);
    let candidate = Candidate::placed(&desired, &placed)?;
    // The sockets that are held for HAProxy are not here to be passed to it.
    let asked = Candidate::new(&desired, &Sockets::default())?;
    let verdict = trial(settings, haproxy, &asked.rendered, CHECK_BOUND).await?;
    let action = match needed(&path, &candidate, haproxy.managed) {
        Action::None => Action::None,
        _ if !verdict.valid => Action::Refuse,
        Action::Start => Action::Start,
        _ if !unknown.is_empty() => Action::Wait,
        action => action,
    };
    let diff = diff::report(&path, candidate.rendered.text())?.diff;
    let (path, remarks) = (path.display().to_string(), verdict.remarks);
    Ok(Some(ConfigurationPlan { path, action, unknown, diff, remarks }))
}

fn needed(path: &Path, candidate: &Candidate, managed: Managed) -> Action {
    let Ok(text) = fs::read(path) else { return Action::Start };
    if text == candidate.text.as_bytes() {
        return Action::None;
    }
    match (stamp::read(&text), managed) {
        (Stamp::Whole { mark }, _) if mark == candidate.mark => Action::RuntimeApi,
        (Stamp::Whole { .. }, _) => Action::Reload,
        (Stamp::Edited | Stamp::Foreign, Managed::Attached) => Action::TakeOver,
        (Stamp::Edited | Stamp::Foreign, _) => Action::Restore,
    }
}

/// For a person; `all` shows the whole difference.
pub(super) fn text(plan: &ConfigurationPlan, haproxy: &Haproxy, all: bool) -> String {
    let what = match plan.action {
        Action::None => "unchanged".to_owned(),
        Action::Wait => format!(
            "stays as it is until the servers of backend {} are known",
            plan.unknown.join(", ")
        ),
        Action::Start if haproxy.managed == Managed::Yes => {
            "will be written, and HAProxy started with it".to_owned()
        }
        Action::Start => "will be written, and HAProxy reloaded".to_owned(),
        Action::RuntimeApi => "servers change, by the Runtime API; HAProxy is reloaded only for \
            what that can't do"
            .to_owned(),
        Action::Reload => "changes, and HAProxy is reloaded".to_owned(),
        Action::Restore => {
            "was edited externally: the edit is kept aside, and the file written again".to_owned()
        }
        Action::TakeOver => {
            "is somebody else's and stays as it is; `mapsmith render --take-over` replaces it"
                .to_owned()
        }
        Action::Refuse => format!("stays as it is, for {} refuses the new one", haproxy.program()),
    };
    let colour = match plan.action {
        Action::None => None,
        Action::Refuse | Action::Wait => Some(Colour::Red),
        _ => Some(Colour::Yellow),
    };
    let what = colour.map_or_else(|| what.clone(), |colour| paint(colour, &what));
    let mut text = format!("configuration\n  {}: {what}\n", plan.path);
    for remark in &plan.remarks {
        let _ = writeln!(text, "  {remark}");
    }
    let shown = if all { usize::MAX } else { SHOWN };
    for line in plan.diff.lines().take(shown) {
        let _ = writeln!(text, "  {}", diff::coloured(line));
    }
    let more = plan.diff.lines().count().saturating_sub(shown);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more lines (--all prints them)");
    }
    text
}
