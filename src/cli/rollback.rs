//! `mapsmith rollback`, `resume`, `reject` and `unreject`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapsmith_core::history::Shift;
use reqwest::Method;

use super::output::{Colour, paint, pluralize, table};
use super::overrides::{Order, Trial, length};
use super::reload::{exit_code, query_of};
use super::remote::{Answer, Connection, NOTHING};
use super::rollout::{Canary, open_text};
use super::status::held_text;
use super::{OutputFormat, SUCCESS, print};
use crate::api::types::{
    MasterShare, RejectReport, ReloadOutcome, RollbackReport, RollbackRequest, StatusReport,
    UnrejectReport, VerdictRequest,
};

#[derive(Subcommand)]
pub(super) enum HoldVerb {
    /// Go back to what the sources had said at a revision, with today's pins and drains over it,
    /// and hold the sources back: they are asked and compared, and nothing of what they say is
    /// applied until `resume`, or until its time is over; then it is a held change
    Rollback {
        /// The revision, as `history` shows it
        revision: u64,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        order: Order,
    },
    /// Follow the sources again after a rollback: the guard judges what they say
    Resume {
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Reject a held change of the map: it is not shown again while the sources say the same
    Reject {
        /// The id that status shows. Without it the held changes are shown
        id: Option<String>,
        /// Show what would be rejected; changes nothing
        #[arg(long)]
        dry_run: bool,
        /// Why: the audit has it, and so has `status`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a rejection back: what the sources say is a held change again, which can be approved
    Unreject {
        /// The id that status shows
        id: String,
        /// Show what would be taken back; changes nothing
        #[arg(long)]
        dry_run: bool,
        /// Why: the audit has it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
}

/// How a rollback is meant.
#[derive(Args)]
pub(super) struct Terms {
    /// How long the sources are held back, a week at most
    #[arg(long = "for", value_name = "DURATION", value_parser = length, default_value = "1h")]
    length: String,
    /// Hold them back until `resume`; for admins
    #[arg(long, conflicts_with = "length")]
    no_end: bool,
    /// Show what would change, master by master; changes nothing
    #[arg(long)]
    dry_run: bool,
    /// The revision that you take for the one in force: with another one nothing is done. Without
    /// it that of this moment
    #[arg(long, value_name = "REVISION")]
    in_force: Option<u64>,
    /// Take the place of a rollback that holds the sources back already
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    canary: Canary,
}

impl HoldVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::Rollback { order, .. } | Self::Resume { order, .. } => &mut order.connection,
            Self::Reject { connection, .. } | Self::Unreject { connection, .. } => connection,
        }
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        match self {
            Self::Rollback { revision, terms, order } => {
                roll_back(revision, terms, order, format).await
            }
            Self::Resume { trial, order } => {
                let path = ["v1", "hold"];
                order.send_or_try(trial, Method::DELETE, &path, &[], NOTHING, format).await
            }
            Self::Reject { id: None, connection, .. } => {
                super::approve::show(connection, format).await
            }
            Self::Reject { id: Some(id), dry_run, reason, connection } => {
                reject(connection, &id, dry_run, reason, format).await
            }
            Self::Unreject { id, dry_run, reason, connection } => {
                unreject(connection, &id, dry_run, reason, format).await
            }
        }
    }
}

async fn roll_back(
    revision: u64,
    terms: Terms,
    order: Order,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let Order { wait, reason, connection } = order;
    let in_force = match terms.in_force {
        Some(revision) => revision,
        None => {
            let status: StatusReport = connection.get(&["v1", "status"]).await?;
            status.revision.unwrap_or(0)
        }
    };
    let duration = Some((!terms.no_end).then_some(terms.length));
    let canary = terms.canary.request();
    let request = RollbackRequest { reason, duration, replace: terms.replace, canary };
    let waits = (!wait.is_zero()).then(|| query_of(wait));
    let waits = waits.as_deref().map(|wait| ("wait", wait));
    let query = waits.into_iter().chain(terms.dry_run.then_some(("dry_run", "true")));
    let path = ["v1", "revisions", &revision.to_string(), "rollback"];
    let if_match = Some(format!("\"{in_force:x}\""));
    let asked = connection.ask_if(Method::POST, &path, query, Some(&request), wait, if_match);
    let answer: Answer<RollbackReport> = asked.await?;
    let report = match answer.failure() {
        Ok(report) => {
            print(format, &report, |report| paint(Colour::Red, &report.message))?;
            return Ok(exit_code(report.outcome));
        }
        Err(answer) => answer.good()?,
    };
    print(format, &report, text)?;
    Ok(report.report.map_or(SUCCESS, |report| exit_code(report.outcome)))
}

async fn reject(
    connection: Connection,
    id: &str,
    dry_run: bool,
    reason: Option<String>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let (path, body) = (["v1", "held", id, "reject"], VerdictRequest { reason });
    let query = dry_run.then_some(("dry_run", "true"));
    let asked = connection.ask(Method::POST, &path, query, Some(&body), Duration::ZERO);
    let report: RejectReport = asked.await?.good()?;
    print(format, &report, |RejectReport { held, dry_run }| match dry_run {
        true => format!(
            "would be rejected: {} (it is held because {}); nothing is changed",
            held.counts, held.reason
        ),
        false => format!(
            "rejected: {} (it was held because {}); it is not shown again while the sources say \
                the same",
            held.counts, held.reason
        ),
    })?;
    Ok(SUCCESS)
}

async fn unreject(
    connection: Connection,
    id: &str,
    dry_run: bool,
    reason: Option<String>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let query = dry_run.then_some(("dry_run", "true"));
    let query = query.into_iter().chain(reason.as_deref().map(|reason| ("reason", reason)));
    let path = ["v1", "held", id, "reject"];
    let asked = connection.ask(Method::DELETE, &path, query, NOTHING, Duration::ZERO);
    let report: UnrejectReport = asked.await?.good()?;
    print(format, &report, |UnrejectReport { rejected, held, dry_run }| {
        let what = rejected.change.as_ref();
        let what = what.map_or_else(|| rejected.answer.clone(), |it| it.counts.to_string());
        match (dry_run, held) {
            (true, _) => format!("would be rejected no more: {what}; nothing is changed"),
            (false, Some(held)) => {
                format!("rejected no more: {what}\n{}", held_text(held)).trim_end().to_owned()
            }
            (false, None) => format!("rejected no more: {what}; nothing is held"),
        }
    })?;
    Ok(SUCCESS)
}

fn text(report: &RollbackReport) -> String {
    let mut text = String::new();
    if let Some(outcome) = &report.report {
        let colour = match outcome.outcome {
            ReloadOutcome::InSync => Colour::Green,
            _ => Colour::Yellow,
        };
        let _ = writeln!(text, "{}", paint(colour, &outcome.message));
    } else {
        let _ = writeln!(
            text,
            "revision {} -> what the sources had said at {}: {}; nothing is changed",
            report.from, report.of, report.counts
        );
    }
    text.push_str(&change_text(&report.shift, &report.masters));
    if let Some(rollout) = &report.rollout {
        text.push_str(&open_text(rollout));
    }
    if let Some(hold) = &report.hold {
        let _ = writeln!(text, "{} (`mapsmith resume`)", hold.text);
    }
    text
}

/// Which nodes change their master, and what that makes of each master's part.
pub(super) fn change_text(shift: &[Shift], masters: &[MasterShare]) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "no route".to_owned());
    let moved = |Shift { from, to, nodes }: &Shift| {
        vec![pluralize(*nodes, "node"), format!("{} -> {}", name(from), name(to))]
    };
    let moved: Vec<_> = shift.iter().map(moved).collect();
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let changed = |it: &&MasterShare| it.before != it.after;
    let masters: Vec<_> = masters
        .iter()
        .filter(changed)
        .map(|it| {
            let nodes = format!("{} -> {}", it.before, it.after);
            let share = format!("{} -> {}", percent(it.share_before), percent(it.share_after));
            vec![it.master.clone(), nodes, share]
        })
        .collect();
    table("  ", &moved) + &table("  ", &masters)
}
