//! `mapsmith reload`.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Method;

use super::output::{Colour, paint, steps};
use super::remote::{Answer, Connection, NOTHING};
use super::status::held_text;
use super::{FAILED, HELD, OutputFormat, SUCCESS, print};
use crate::api::types::{ReloadOutcome, ReloadReport};

pub(super) async fn reload(
    connection: Connection,
    wait: Option<Duration>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let text_of_wait = wait.map(query_of);
    let query = text_of_wait.as_deref().map(|wait| ("wait", wait));
    let report = report_of(
        connection
            .ask(Method::POST, &["v1", "reload"], query, NOTHING, wait.unwrap_or_default())
            .await?,
    )?;
    print(format, &report, text)?;
    Ok(exit_code(report.outcome))
}

/// A wait as the API takes it: without blanks between the parts.
pub(super) fn query_of(wait: Duration) -> String {
    humantime::format_duration(wait).to_string().replace(' ', "")
}

/// The report of an answer, be it a good one or the problem's.
pub(super) fn report_of(answer: Answer<ReloadReport>) -> anyhow::Result<ReloadReport> {
    answer.failure().or_else(Answer::good)
}

pub(super) fn exit_code(outcome: ReloadOutcome) -> u8 {
    match outcome {
        ReloadOutcome::Requested | ReloadOutcome::InSync => SUCCESS,
        ReloadOutcome::Held => HELD,
        _ => FAILED,
    }
}

fn text(report: &ReloadReport) -> String {
    let mut text = match report.outcome {
        ReloadOutcome::Requested => {
            return "every source is polled now; `mapsmith reload --wait 30s` would say how it \
                ends"
                .to_owned();
        }
        // The whole story of it comes last.
        ReloadOutcome::Held => paint(Colour::Red, "held back by the guard"),
        ReloadOutcome::InSync => paint(Colour::Green, &report.message),
        _ => paint(Colour::Red, &report.message),
    };
    text.push('\n');
    for change in report.changes.iter().filter(|_| report.outcome == ReloadOutcome::Held) {
        let _ = writeln!(text, "  applied: revision {}: {}", change.number, change.counts);
    }
    for source in &report.sources {
        let took = source
            .poll
            .as_ref()
            .map_or(String::new(), |poll| format!(" in {:.1} ms", poll.milliseconds));
        let outcome = match (&source.error, source.answered) {
            (_, false) => paint(Colour::Red, "no answer yet"),
            (Some(error), true) => paint(Colour::Red, error),
            (None, true) => format!("answered{took}"),
        };
        let _ = writeln!(text, "  source {}: {outcome}", source.name);
    }
    if !report.steps.is_empty() {
        let _ = writeln!(text, "  map: {}", steps(&report.steps));
    }
    for instance in &report.instances {
        let _ = writeln!(text, "  instance {}: {}", instance.name, instance.state);
        if let Some(apply) = &instance.apply {
            let _ = writeln!(text, "    by {}: {}", apply.strategy.label(), steps(&apply.steps));
        }
        if let Some(servers) = &instance.servers {
            let _ = writeln!(text, "    {}", servers.state);
            servers.needs_reload.iter().for_each(|cause| text.push_str(&format!("    {cause}\n")));
        }
    }
    let _ = writeln!(text, "  in all {:.1} ms", report.milliseconds);
    report.held.iter().for_each(|held| text.push_str(&held_text(held)));
    text
}
