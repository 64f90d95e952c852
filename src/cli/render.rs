//! `mapsmith render`: the text of `haproxy.cfg`, and what HAProxy says of it.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, bail};
use mapsmith_core::DesiredServers;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::desired::references::Actions;
use mapsmith_core::render::rendered;
use mapsmith_core::render::verdict::{Level, Remark};
use serde::Serialize;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::haproxy::own_files;
use super::local::{members, poll_all, stored};
use super::output::{Colour, error_line, paint};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::engine::preview;
use crate::settings::Settings;
use crate::store::map_file::MapFileWriter;
use crate::supervise::candidate::Candidate;
use crate::supervise::check::CHECK_BOUND;
use crate::supervise::sockets::{Sockets, placed_by};
use crate::supervise::trial::trial;

#[derive(Debug, Serialize)]
struct RenderReport {
    text: String,
    /// Whether HAProxy would start with it; none where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<bool>,
    /// What HAProxy says of it.
    remarks: Vec<Remark>,
}

#[derive(Debug, Serialize)]
struct TakeOverReport {
    path: String,
    /// Whether HAProxy accepts it, and it is in place.
    valid: bool,
    remarks: Vec<Remark>,
}

pub(super) async fn render(
    settings: Settings,
    format: OutputFormat,
    check: bool,
) -> anyhow::Result<u8> {
    let Some(haproxy) = &settings.haproxy else {
        bail!(
            "there is nothing to render: the settings have no [haproxy], so HAProxy's \
                configuration is somebody else's"
        );
    };
    let binary = haproxy.program().to_owned();
    let rendered = rendered(&desired(&settings).await?.config)?;
    let mut report = RenderReport { text: rendered.shown(), valid: None, remarks: Vec::new() };
    if check {
        let verdict = trial(&settings, haproxy, &rendered, CHECK_BOUND).await?;
        (report.valid, report.remarks) = (Some(verdict.valid), verdict.remarks);
    }
    match format {
        OutputFormat::Text => {
            print(format, &report, |report| report.text.clone())?;
            error_line(&verdict(&report, &binary));
        }
        OutputFormat::Json => print(format, &report, |report| report.text.clone())?,
    }
    Ok(if report.valid == Some(false) { FAILED } else { SUCCESS })
}

/// Shows what would change in HAProxy's file.
pub(super) async fn diff(settings: Settings, format: OutputFormat) -> anyhow::Result<u8> {
    let Some(haproxy) = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised()) else {
        bail!(
            "Mapsmith writes no file of HAProxy's here: set haproxy.managed to true or \
                \"attached\", or compare the output of `mapsmith render` yourself"
        );
    };
    let desired = desired(&settings).await?;
    let rendered = rendered(&placed_by(&haproxy.files().sockets(), &desired.config)?)?;
    let report = super::diff::report(&haproxy.configuration(), rendered.text())?;
    print(format, &report, super::diff::text)?;
    Ok(SUCCESS)
}

/// Puts the text in place of HAProxy's file.
pub(super) async fn take_over(settings: Settings, format: OutputFormat) -> anyhow::Result<u8> {
    let Some(haproxy) = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised()) else {
        bail!(
            "Mapsmith writes no file of HAProxy's here: set haproxy.managed to true or \
                \"attached\", or redirect the output of `mapsmith render` yourself"
        );
    };
    own_files(haproxy)?;
    // HAProxy's check reads them.
    crate::tls::supply(&settings).map_err(anyhow::Error::msg)?;
    let desired = desired(&settings).await?;
    if let Some(backend) = desired.unknown.first() {
        bail!(
            "the servers of backend {backend} are not known, and a file without them would take \
                them from service; see `mapsmith check`"
        );
    }
    let candidate = Candidate::new(&Arc::new(desired), &Sockets::default())?;
    let (path, verdict) = {
        let node_map = settings.keeps_map().then(|| settings.map.file());
        candidate.take_over(haproxy, node_map).await?
    };
    let report = TakeOverReport {
        path: path.display().to_string(),
        valid: verdict.valid,
        remarks: verdict.remarks,
    };
    print(format, &report, |report| match report.valid {
        true => format!("{} is Mapsmith's now\n", report.path),
        false => format!("{} stays as it is, for HAProxy refuses the new one:\n", report.path),
    })?;
    if let OutputFormat::Text = format {
        error_line(&remarks_text(&report.remarks));
    }
    Ok(if report.valid { SUCCESS } else { FAILED })
}

/// What the file should say, with the servers that would be in force now.
async fn desired(settings: &Settings) -> anyhow::Result<DesiredConfig> {
    let (states, lists) = poll_all(settings).await;
    let found = MapFileWriter::new(settings.map.file()).peek()?;
    let mut stored = stored(settings).await?;
    let in_force = std::mem::take(&mut stored.lists);
    let members = members(settings).await?;
    let decide = async {
        let map =
            preview::map(settings, Actions::default(), found, Vec::new(), &states, stored).await;
        preview::servers(settings, &lists, &map, &in_force, members).await
    };
    // It decides in earnest and does nothing: what it would log has not happened.
    let servers = decide.with_subscriber(NoSubscriber::new()).await;
    desired_with(settings, &servers.desired).context("the settings have no [haproxy]")
}

/// What the file should say with these servers; none where it is somebody else's.
pub(super) fn desired_with(settings: &Settings, servers: &DesiredServers) -> Option<DesiredConfig> {
    let declared = settings.haproxy_config(&DesiredServers::default())?;
    Some(DesiredConfig::new(&declared, Some(servers)))
}

/// What HAProxy says, for a person; nothing where it was not asked.
fn verdict(report: &RenderReport, binary: &str) -> String {
    let mut text = remarks_text(&report.remarks);
    match report.valid {
        None => {}
        Some(true) => text.push_str(&paint(Colour::Green, &format!("{binary} accepts it"))),
        Some(false) => text.push_str(&paint(Colour::Red, &format!("{binary} refuses it"))),
    }
    text.trim_end().to_owned()
}

/// A line for each.
fn remarks_text(remarks: &[Remark]) -> String {
    let mut text = String::new();
    for remark in remarks {
        let (colour, word) = match remark.level {
            Level::Alert => (Colour::Red, "error"),
            Level::Warning => (Colour::Yellow, "warning"),
        };
        let _ = writeln!(text, "{}: {remark}", paint(colour, word));
    }
    text
}
