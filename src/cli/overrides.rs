//! `mapsmith pin`, `unpin`, `drain` and `undrain`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Serialize;

use super::output::{Colour, paint};
use super::reload::{exit_code, query_of, report_of};
use super::remote::{Connection, NOTHING};
use super::{OutputFormat, print};
use crate::api::types::{DrainRequest, PinRequest, ReloadOutcome, ReloadReport};

#[derive(Args)]
pub(super) struct Order {
    /// Wait until every HAProxy is in sync, at most this long; 0s does not wait
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "30s")]
    wait: Duration,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// A switch of the verbs that name a master.
#[derive(Args)]
pub(super) struct Force {
    /// Take a master that no HAProxy and no node is known to have
    #[arg(long)]
    force: bool,
}

pub(super) async fn pin(
    (order, force): (Order, Force),
    node: &str,
    master: String,
    duration: Option<String>,
    form: OutputFormat,
) -> anyhow::Result<u8> {
    order
        .send(
            Method::PUT,
            &["v1", "overrides", node],
            force,
            Some(&PinRequest { master, duration }),
            form,
        )
        .await
}

pub(super) async fn unpin(order: Order, node: &str, form: OutputFormat) -> anyhow::Result<u8> {
    order
        .send(Method::DELETE, &["v1", "overrides", node], Force { force: false }, NOTHING, form)
        .await
}

pub(super) async fn drain(
    (order, force): (Order, Force),
    master: &str,
    to: Option<String>,
    form: OutputFormat,
) -> anyhow::Result<u8> {
    order
        .send(
            Method::POST,
            &["v1", "masters", master, "drain"],
            force,
            Some(&DrainRequest { to }),
            form,
        )
        .await
}

pub(super) async fn undrain(order: Order, master: &str, form: OutputFormat) -> anyhow::Result<u8> {
    order
        .send(
            Method::DELETE,
            &["v1", "masters", master, "drain"],
            Force { force: false },
            NOTHING,
            form,
        )
        .await
}

impl Order {
    async fn send(
        self,
        method: Method,
        path: &[&str],
        Force { force }: Force,
        body: Option<&impl Serialize>,
        form: OutputFormat,
    ) -> anyhow::Result<u8> {
        let wait = (!self.wait.is_zero()).then_some(self.wait).map(query_of);
        let query = wait
            .as_deref()
            .map(|wait| ("wait", wait))
            .into_iter()
            .chain(force.then_some(("force", "true")));
        let report = report_of(self.connection.ask(method, path, query, body, self.wait).await?)?;
        print(form, &report, text)?;
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
