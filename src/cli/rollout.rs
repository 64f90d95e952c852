//! `mapsmith rollout`, and where a change goes first.

use std::fmt::Write as _;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use mapsmith_core::desired::rollout::{State, Then};
use reqwest::Method;

use super::output::{Colour, ago, paint, pluralize, table};
use super::overrides::{Order, length};
use super::reload::{exit_code, query_of};
use super::remote::{Answer, Connection};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::api::types::{
    CanaryRequest, ReloadOutcome, RolloutChangeReport, RolloutReport, RolloutRequest,
    RolloutsReport,
};

/// How many rollouts that are over are listed.
const LISTED: usize = 5;

/// Where a change goes first.
#[derive(Args)]
pub(super) struct Canary {
    /// Have these instances get it first: the others and the map file keep what is in force
    #[arg(long, value_name = "INSTANCE", value_delimiter = ',', group = "first")]
    canary: Option<Vec<String>>,
    /// The same with so many of all instances, like 10%
    #[arg(long, value_name = "PERCENT", group = "first")]
    share: Option<String>,
    /// How long it stays there before it goes everywhere, a day at most; 5m without it
    #[arg(long, value_name = "DURATION", value_parser = length, requires = "first")]
    bake: Option<String>,
    /// What happens then: it goes everywhere by itself, unless an instance fell behind, or it waits
    /// for `rollout promote`
    #[arg(long, value_name = "WHAT", value_parser = then, requires = "first")]
    then: Option<Then>,
}

fn then(text: &str) -> Result<Then, String> {
    match text {
        "auto" => Ok(Then::Auto),
        "wait" => Ok(Then::Wait),
        _ => Err("write auto or wait".to_owned()),
    }
}

impl Canary {
    /// None where it goes everywhere at once.
    pub(super) fn request(self) -> Option<CanaryRequest> {
        let Self { canary, share, bake, then } = self;
        let is_one = canary.is_some() || share.is_some();
        let then = then.unwrap_or_default();
        is_one.then_some(CanaryRequest { instances: canary, share, bake, then })
    }
}

#[derive(Subcommand)]
pub(super) enum RolloutVerb {
    /// Have it go everywhere now; one that waits for its last instances ends
    Promote {
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        order: Order,
    },
    /// Bring back what was before, everywhere
    Abort {
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        order: Order,
    },
}

/// How an order about a rollout is meant.
#[derive(Args)]
pub(super) struct Terms {
    /// The rollout that you mean: with another one nothing is done. Without it that of this moment
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Show what it would come to; changes nothing
    #[arg(long)]
    dry_run: bool,
}

impl RolloutVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::Promote { order, .. } | Self::Abort { order, .. } => &mut order.connection,
        }
    }
}

/// Shows the rollouts, or promotes or aborts one.
pub(super) async fn rollout(
    verb: Option<RolloutVerb>,
    connection: Connection,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    match verb {
        None => {
            let report: RolloutsReport = connection.get(&["v1", "rollouts"]).await?;
            print(format, &report, list)?;
            let needs = report.items.iter().any(|it| it.rollout.needs_a_person());
            Ok(if needs { FAILED } else { SUCCESS })
        }
        Some(RolloutVerb::Promote { terms, order }) => {
            decide("promote", terms, order, format).await
        }
        Some(RolloutVerb::Abort { terms, order }) => decide("abort", terms, order, format).await,
    }
}

async fn decide(
    verb: &str,
    terms: Terms,
    order: Order,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let Order { wait, reason, connection } = order;
    let rollouts: RolloutsReport = connection.get(&["v1", "rollouts"]).await?;
    let meant = meant(verb, terms.id.as_deref(), &rollouts)?;
    let (id, version) = (&meant.rollout.id, meant.rollout.version);
    let waits = (!wait.is_zero()).then(|| query_of(wait));
    let waits = waits.as_deref().map(|wait| ("wait", wait));
    let query = waits.into_iter().chain(terms.dry_run.then_some(("dry_run", "true")));
    let path = ["v1", "rollouts", id.as_str(), verb];
    let if_match = Some(format!("\"{version:x}\""));
    let request = RolloutRequest { reason };
    let asked = connection.ask_if(Method::POST, &path, query, Some(&request), wait, if_match);
    let answer: Answer<RolloutChangeReport> = asked.await?;
    let report = match answer.failure() {
        Ok(report) => {
            print(format, &report, |report| paint(Colour::Red, &report.message))?;
            return Ok(exit_code(report.outcome));
        }
        Err(answer) => answer.good()?,
    };
    print(format, &report, changed)?;
    Ok(report.report.map_or(SUCCESS, |report| exit_code(report.outcome)))
}

/// The rollout that an order is about: one that is over is told by the API as that, unless another
/// one is on its way.
fn meant<'a>(
    verb: &str,
    id: Option<&str>,
    rollouts: &'a RolloutsReport,
) -> anyhow::Result<&'a RolloutReport> {
    let current = rollouts.items.iter().find(|it| it.rollout.is_open());
    let Some(id) = id else {
        let none = || anyhow!("there is no rollout to {verb}: see `mapsmith rollout`");
        return current.ok_or_else(none);
    };
    match current {
        Some(current) if current.rollout.id != id => {
            let current = &current.rollout.id;
            bail!("{current} is the current one, and not {id}: see `mapsmith rollout`")
        }
        _ => {
            let named = rollouts.items.iter().find(|it| it.rollout.id == id);
            named.ok_or_else(|| anyhow!("there is no rollout {id}: see `mapsmith rollout`"))
        }
    }
}

fn changed(report: &RolloutChangeReport) -> String {
    match &report.report {
        None => format!("{}; nothing is changed", report.rollout.text),
        Some(outcome) => {
            let colour = match outcome.outcome {
                ReloadOutcome::InSync => Colour::Green,
                _ => Colour::Yellow,
            };
            paint(colour, &outcome.message)
        }
    }
}

fn list(report: &RolloutsReport) -> String {
    let mut text = String::new();
    let (open, over): (Vec<_>, Vec<_>) = report.items.iter().partition(|it| it.rollout.is_open());
    if open.is_empty() {
        text.push_str("no rollout is on its way\n");
    }
    open.iter().for_each(|rollout| text.push_str(&open_text(rollout)));
    let rows: Vec<_> = over
        .iter()
        .take(LISTED)
        .map(|it| vec![it.rollout.id.clone(), ago(it.rollout.since), it.text.clone()])
        .collect();
    text.push_str(&table("  ", &rows));
    text
}

/// A rollout that is on its way.
pub(super) fn open_text(report: &RolloutReport) -> String {
    let RolloutReport { rollout, canary, rest, waiting, text: what, .. } = report;
    let mut text = String::new();
    let colour = if rollout.needs_a_person() { Colour::Red } else { Colour::Yellow };
    let by = rollout.note.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
    let reason = rollout.note.reason.as_ref();
    let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let state = rollout.state.name();
    let note = format!("{} {state} since {}{by}{reason}", rollout.id, ago(rollout.since));
    let _ = writeln!(text, "rollout    {}", paint(colour, &note));
    let _ = writeln!(text, "  {what}");
    if rollout.in_force.is_none() && rollout.state != State::Aborting {
        let rest = pluralize(*rest, "other");
        let _ = writeln!(
            text,
            "  revision {}; {rest} and the map file have {}",
            rollout.revision, rollout.stable
        );
    }
    for instance in canary {
        let _ = writeln!(text, "  {}: {}", instance.name, instance.state);
    }
    if let Some(counts) = waiting {
        let _ = writeln!(text, "  1 change waits: {counts}");
    }
    let _ = writeln!(text, "  (`mapsmith rollout promote`, `mapsmith rollout abort`)");
    text
}
