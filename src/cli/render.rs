//! `mapsmith render`: the text of `haproxy.cfg`, and what HAProxy says of it.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use mapsmith_core::desired::references::Actions;
use mapsmith_core::render::verdict::{Level, Remark};
use mapsmith_core::render::{Rendered, render as text_of};
use serde::Serialize;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::local::{poll_all, poll_lists, stored};
use super::output::{Colour, error_line, paint};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::engine::preview;
use crate::settings::Settings;
use crate::store::map_file::MapFileWriter;
use crate::supervise::check::{self, CHECK_BOUND, Verdict};
use crate::supervise::sockets::Sockets;

#[derive(Debug, Serialize)]
struct RenderReport {
    text: String,
    /// Whether HAProxy would start with it; none where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<bool>,
    /// What HAProxy says of it.
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
    let rendered = rendered(&settings).await?;
    let mut report =
        RenderReport { text: rendered.text().to_owned(), valid: None, remarks: Vec::new() };
    if check {
        let verdict = ask(&binary, &rendered).await?;
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

/// The text, with the servers that the lists have now.
async fn rendered(settings: &Settings) -> anyhow::Result<Rendered> {
    let (states, lists) = tokio::join!(poll_all(settings), poll_lists(settings));
    let found = MapFileWriter::new(settings.map.file()).peek()?;
    let stored = stored(settings).await?;
    let decide = async {
        let map =
            preview::map(settings, Actions::default(), found, Vec::new(), &states, stored).await;
        preview::servers(settings, &lists, &map).await
    };
    // It decides in earnest and does nothing: what it would log has not happened.
    let servers = decide.with_subscriber(NoSubscriber::new()).await;
    let config = settings.haproxy_config(&servers.desired);
    config.map(|config| text_of(&config)).context("the settings have no [haproxy]")
}

/// What HAProxy says of it.
async fn ask(program: &str, rendered: &Rendered) -> anyhow::Result<Verdict> {
    let folder = tempfile::tempdir().context("no folder for a candidate can be made")?;
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, rendered.text())
        .with_context(|| format!("{} can't be written", file.display()))?;
    Ok(check::check(program, &[&file], rendered, &Sockets::default(), CHECK_BOUND).await?)
}

/// What HAProxy says, for a person; nothing where it was not asked.
fn verdict(report: &RenderReport, binary: &str) -> String {
    let mut text = String::new();
    for remark in &report.remarks {
        let (colour, word) = match remark.level {
            Level::Alert => (Colour::Red, "error"),
            Level::Warning => (Colour::Yellow, "warning"),
        };
        let _ = writeln!(text, "{}: {remark}", paint(colour, word));
    }
    match report.valid {
        None => {}
        Some(true) => text.push_str(&paint(Colour::Green, &format!("{binary} takes it"))),
        Some(false) => text.push_str(&paint(Colour::Red, &format!("{binary} refuses it"))),
    }
    text.trim_end().to_owned()
}
