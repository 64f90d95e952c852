//! `mapsmith history` and `mapsmith diff`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use mapsmith_core::history::{RevisionKind, RevisionRecord, Shift};
use reqwest::Method;

use super::output::{Colour, ago, paint, pluralize, table};
use super::remote::{Connection, NOTHING};
use super::{OutputFormat, SUCCESS, count, print};
use crate::api::requests::LARGEST_PAGE;
use crate::api::types::{DiffReport, RevisionReport, RevisionState, RevisionsReport};

/// Which revisions to show.
#[derive(Args)]
pub(super) struct Revisions {
    /// The most revisions to show, the latest ones
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value_t = 20)]
    limit: usize,
}

/// Which two revisions to compare.
#[derive(Args)]
pub(super) struct Pair {
    /// The revision; alone, what it changed is shown
    #[arg(value_name = "A")]
    from: u64,
    /// The revision that it is compared with: what led from A to it
    #[arg(value_name = "B")]
    to: Option<u64>,
    /// The most nodes to show
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value_t = 20)]
    limit: usize,
}

pub(super) async fn history(
    connection: Connection,
    revisions: Revisions,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let mut all = RevisionsReport::default();
    loop {
        let rest = limit(revisions.limit, all.items.len());
        let query = [("limit", Some(rest.as_str())), ("after", all.next.as_deref())];
        let query = query.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let segments = ["v1", "revisions"];
        let asked = connection.ask(Method::GET, &segments, query, NOTHING, Duration::ZERO);
        let page: RevisionsReport = asked.await?.good()?;
        (all.total, all.next, all.error) = (page.total, page.next, page.error);
        all.items.extend(page.items);
        if all.next.is_none() || all.items.len() >= revisions.limit {
            break;
        }
    }
    print(format, &all, revisions_text)?;
    Ok(SUCCESS)
}

pub(super) async fn diff(
    connection: Connection,
    pair: Pair,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let to = pair.to.unwrap_or(pair.from).to_string();
    let from = pair.to.map(|_| pair.from.to_string());
    let mut all: Option<DiffReport> = None;
    loop {
        let (next, shown) =
            all.as_ref().map_or((None, 0), |all| (all.next.as_deref(), all.items.len()));
        let rest = limit(pair.limit, shown);
        let query = [("from", from.as_deref()), ("limit", Some(rest.as_str())), ("after", next)];
        let query = query.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let segments = ["v1", "revisions", &to, "diff"];
        let asked = connection.ask(Method::GET, &segments, query, NOTHING, Duration::ZERO);
        let mut page: DiffReport = asked.await?.good()?;
        if let Some(mut before) = all.take() {
            before.items.append(&mut page.items);
            page.items = before.items;
        }
        let is_all = page.next.is_none() || page.items.len() >= pair.limit;
        let report = all.insert(page);
        if is_all {
            print(format, report, diff_text)?;
            return Ok(SUCCESS);
        }
    }
}

/// What the next page is to have.
fn limit(wanted: usize, shown: usize) -> String {
    wanted.saturating_sub(shown).clamp(1, LARGEST_PAGE).to_string()
}

fn revisions_text(report: &RevisionsReport) -> String {
    let mut text = String::new();
    if let Some(error) = &report.error {
        let gap = format!("the revision in force could not be kept: {error}");
        let _ = writeln!(text, "{}", paint(Colour::Red, &gap));
    }
    let rows: Vec<_> = report.items.iter().map(row).collect();
    text.push_str(&table("", &rows));
    let total = pluralize(report.total, "revision");
    let _ = match report.next {
        Some(_) => writeln!(text, "the latest {} of {total}", report.items.len()),
        None => writeln!(text, "{total}"),
    };
    text
}

fn row(revision: &RevisionReport) -> Vec<String> {
    let record = &revision.record;
    let state = match revision.state {
        RevisionState::InForce => paint(Colour::Green, "in force"),
        RevisionState::Kept => String::new(),
        RevisionState::Lost => paint(Colour::Yellow, "its map is lost"),
    };
    let counts = match record.kind {
        RevisionKind::Found => pluralize(record.entries, "entry"),
        _ => record.counts.to_string(),
    };
    let reason = record.note.reason.as_ref().map(|reason| format!("({reason})"));
    let why = record.note.by.iter().cloned().chain(reason);
    let why: Vec<_> = std::iter::once(cause(record)).chain(why).collect();
    vec![record.number.to_string(), ago(record.at), counts, why.join(" "), state]
}

/// What led to a revision.
fn cause(record: &RevisionRecord) -> String {
    let sources = record.sources.join(", ");
    match (record.kind, record.rollback_of) {
        (RevisionKind::Found, _) => "found in the map file".to_owned(),
        (RevisionKind::Approve, _) => format!("approved: {sources}"),
        (RevisionKind::Rollback, Some(of)) => {
            paint(Colour::Yellow, &format!("ROLLBACK to revision {of}"))
        }
        _ => sources,
    }
}

fn diff_text(report: &DiffReport) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "revision {} -> {}: {}", report.from, report.to, report.counts);
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "no route".to_owned());
    let shift: Vec<_> = report
        .shift
        .iter()
        .map(|Shift { from, to, nodes }| {
            vec![pluralize(*nodes, "node"), format!("{} -> {}", name(from), name(to))]
        })
        .collect();
    text.push_str(&table("  ", &shift));
    let rows: Vec<_> = report
        .items
        .iter()
        .map(|change| {
            vec![change.node.clone(), format!("{} -> {}", name(&change.from), name(&change.to))]
        })
        .collect();
    text.push_str(&table("", &rows));
    if report.next.is_some() {
        let _ = writeln!(text, "the first {} of {}", report.items.len(), report.total);
    }
    text
}
