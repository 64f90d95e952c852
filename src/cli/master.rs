//! `mapsmith master MASTER`.

use std::fmt::Write as _;

use super::output::{Colour, ago, paint, pluralize, table};
use super::remote::Connection;
use super::status::to_text;
use super::{OutputFormat, SUCCESS, print};
use crate::api::types::{MasterInstance, MasterReport};

pub(super) async fn master(
    connection: Connection,
    master: &str,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let report: MasterReport = connection.get(&["v1", "masters", master]).await?;
    print(format, &report, text)?;
    Ok(SUCCESS)
}

fn text(report: &MasterReport) -> String {
    let mut text = String::new();
    let can_stop = match report.can_stop {
        true => paint(Colour::Green, "can be stopped"),
        false => paint(Colour::Yellow, "can't be stopped"),
    };
    let _ = writeln!(text, "master {} {can_stop}: {}", report.master, report.why);
    let _ = writeln!(
        text,
        "  {} of the map, {:.1}% (revision {})",
        pluralize(report.nodes, "node"),
        report.share * 100.0,
        report.revision
    );
    if let Some(drained) = &report.drained {
        let by = drained.note.by.as_deref().unwrap_or("an operator");
        let reason = drained.note.reason.as_ref().map(|reason| format!(" ({reason})"));
        let _ = writeln!(
            text,
            "  drained {} by {by} {}{}",
            to_text(drained),
            ago(drained.since),
            reason.unwrap_or_default()
        );
    }
    let rows: Vec<_> = report.instances.iter().map(row).collect();
    text.push_str(&table("  ", &rows));
    text
}

fn row(instance: &MasterInstance) -> Vec<String> {
    let mut row = vec![instance.name.clone()];
    match (&instance.error, instance.sessions) {
        (Some(error), _) => row.push(paint(Colour::Red, error)),
        (None, None) => row.push("has no backend or server of the name".to_owned()),
        (None, Some(sessions)) => {
            let last = match instance.last_session_s {
                Some(seconds) => format!("the last began {seconds} s ago"),
                None => "none so far".to_owned(),
            };
            let queue = instance.queue.unwrap_or_default();
            row.push(format!("{sessions} sessions, {queue} waiting, {last}"));
        }
    }
    if instance.learned > 0 {
        row.push(pluralize(instance.learned, "learned route"));
    }
    if !instance.in_sync {
        row.push(paint(Colour::Yellow, "does not hold the map in force"));
    }
    row
}
