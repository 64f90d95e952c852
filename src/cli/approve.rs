//! `mapsmith approve [ID]`.

use std::time::Duration;

use clap::Args;
use mapsmith_core::HeldChange;
use reqwest::Method;

use super::remote::Connection;
use super::rollout::{Canary, open_text};
use super::status::held_text;
use super::{HELD, OutputFormat, SUCCESS, print};
use crate::api::types::{ApproveHeldRequest, ApproveReport};

#[derive(Args)]
pub(super) struct Held {
    /// The id that status shows: nothing but exactly that change is let through. Without it the
    /// held changes are shown
    id: Option<String>,
    /// Why: the audit has it, and so has the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what would be let through; changes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    canary: Canary,
}

/// Shows what is held, so that nobody lets a change through that they have not seen.
pub(super) async fn show(connection: Connection, format: OutputFormat) -> anyhow::Result<u8> {
    let held: Vec<HeldChange> = connection.get(&["v1", "held"]).await?;
    print(format, &held, |held| match held.as_slice() {
        [] => "nothing is held back".to_owned(),
        held => held.iter().map(held_text).collect::<String>().trim_end().to_owned(),
    })?;
    Ok(if held.is_empty() { SUCCESS } else { HELD })
}

/// Lets the change with this id through; without one shows what is held.
pub(super) async fn approve(
    connection: Connection,
    asked: Held,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let Held { id, reason, dry_run, canary } = asked;
    let Some(id) = id else { return show(connection, format).await };
    let request = ApproveHeldRequest { reason, canary: canary.request() };
    let path = ["v1", "held", id.as_str(), "approve"];
    let query = dry_run.then_some(("dry_run", "true"));
    let asked = connection.ask(Method::POST, &path, query, Some(&request), Duration::ZERO);
    let approved: ApproveReport = asked.await?.good()?;
    print(format, &approved, |ApproveReport { held, rollout, dry_run }| {
        let (counts, reason) = (held.counts, &held.reason);
        if *dry_run {
            return format!(
                "would be let through: {counts} (it is held because {reason}); nothing is changed"
            );
        }
        if let Some(rollout) = rollout {
            return format!(
                "approved: {counts} (it was held because {reason})\n{}",
                open_text(rollout)
            );
        }
        let outcome = match held.of.as_str() {
            HeldChange::MAP => "approved and in force".to_owned(),
            HeldChange::SERVICES => "approved, and in force within seconds".to_owned(),
            of => format!("approved for {of}, and in force as fast as damping lets it"),
        };
        format!("{outcome}: {counts} (it was held because {reason})")
    })?;
    Ok(SUCCESS)
}
