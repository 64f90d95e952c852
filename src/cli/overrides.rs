//! `mapsmith pin`, `unpin`, `drain`, `undrain` and `own`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Serialize;

use super::output::{Colour, paint};
use super::reload::{exit_code, query_of, report_of};
use super::remote::Connection;
use super::{OutputFormat, print};
use crate::api::types::{ReloadOutcome, ReloadReport};

#[derive(Args)]
pub(super) struct Order {
    /// Wait until every HAProxy is in sync, at most this long; 0s does not wait
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "30s")]
    wait: Duration,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl Order {
    /// Sends one order, with those of the flags that are given.
    pub(super) async fn send(
        self,
        method: Method,
        path: &[&str],
        flags: &[(&str, bool)],
        body: Option<&impl Serialize>,
        format: OutputFormat,
    ) -> anyhow::Result<u8> {
        let wait = (!self.wait.is_zero()).then_some(self.wait).map(query_of);
        let query = wait
            .as_deref()
            .map(|wait| ("wait", wait))
            .into_iter()
            .chain(self.reason.as_deref().map(|reason| ("reason", reason)))
            .chain(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag, "true")));
        let report = report_of(self.connection.ask(method, path, query, body, self.wait).await?)?;
        print(format, &report, text)?;
        Ok(exit_code(report.outcome))
    }
}

fn text(report: &ReloadReport) -> String {
    let colour = match report.outcome {
        ReloadOutcome::InSync => Colour::Green,
        ReloadOutcome::Requested => Colour::Yellow,
        _ => Colour::Red,
    };
    let mut text = paint(colour, &report.message);
    text.push('\n');
    if report.outcome == ReloadOutcome::Behind {
        for instance in report.instances.iter().filter(|instance| !instance.verified) {
            let _ = writeln!(text, "  instance {}: {}", instance.name, instance.state);
        }
    }
    text
}
