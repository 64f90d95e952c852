//! `mapsmith stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::events::Messages;
use super::output::{self, Colour, paint, pluralize, table};
use super::remote::{Connection, NOTHING};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::api::types::StatsReport;
use crate::stats::StatsRow;

/// Between two tries to go on with a stream that has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// The heads of the table.
const HEADS: [&str; 12] = [
    "INSTANCE",
    "SERVER",
    "STATUS",
    "SESSIONS",
    "QUEUE",
    "SESSIONS/S",
    "REQUESTS/S",
    "TIME MS",
    "2XX",
    "4XX",
    "5XX",
    "RETRIES",
];
/// The figures of a row of it, by their names in `show stat`.
const FIGURES: [&str; 9] =
    ["scur", "qcur", "rate", "req_rate", "rtime", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "wretr"];
/// After so many rows the heads come again.
const HEADS_AFTER: usize = 40;

/// Which figures to show.
#[derive(Args)]
pub(super) struct Wanted {
    /// A backend with its servers, or one of its servers; without it every backend and server, and
    /// with --follow every backend
    #[arg(value_name = "BACKEND[/SERVER]")]
    of: Option<String>,
    /// Go on, until Ctrl-C: what comes, with counters as how much they grew
    #[arg(short, long)]
    follow: bool,
    /// How often, from 1s to 60s
    #[arg(long, value_name = "DURATION", default_value = "2s", requires = "follow")]
    every: String,
    /// Begin with what was, up to 300s, as far as it is known
    #[arg(long, value_name = "DURATION", default_value = "0s", requires = "follow")]
    backlog: String,
}

impl Wanted {
    fn series(&self) -> String {
        match self.of.as_deref().map(|of| of.split_once('/').ok_or(of)) {
            Some(Ok((backend, server))) => format!("server/{backend}/{server}"),
            Some(Err(backend)) => format!("backend/{backend},server/{backend}/*"),
            None if self.follow => "backend/*".to_owned(),
            None => String::new(),
        }
    }
}

pub(super) async fn stats(
    connection: Connection,
    wanted: Wanted,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let series = wanted.series();
    if wanted.follow {
        return follow(&connection, &wanted, &series, format).await;
    }
    let query = [("series", series.as_str())];
    let asked = connection.ask(Method::GET, &["v1", "stats"], query, NOTHING, Duration::ZERO);
    let report: StatsReport = asked.await?.good()?;
    print(format, &report, text)?;
    let is_known = report.items.iter().any(|item| !item.rows.is_empty());
    let is_whole = report.items.iter().all(|item| item.error.is_none());
    if !is_known && is_whole && wanted.of.is_some() {
        bail!("no HAProxy has {}", wanted.of.unwrap_or_default());
    }
    Ok(if is_whole { SUCCESS } else { FAILED })
}

fn text(report: &StatsReport) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    let mut problems = String::new();
    for item in &report.items {
        rows.extend(item.rows.iter().map(|row| cells(&item.instance, row)));
        if let Some(error) = &item.error {
            problems += &paint(Colour::Red, &format!("{}: {error}", item.instance));
            problems.push('\n');
        }
        if item.left_out > 0 {
            let more = pluralize(item.left_out, "more row");
            problems += &format!("{}: {more}; name a backend\n", item.instance);
        }
    }
    table("", &rows) + &problems
}

fn cells(instance: &str, row: &StatsRow) -> Vec<String> {
    let name = match &row.server {
        None => row.backend.clone(),
        Some(server) => format!("{}/{server}", row.backend),
    };
    let figures = [
        row.scur,
        row.qcur,
        row.rate,
        row.req_rate,
        row.rtime,
        row.hrsp_2xx,
        row.hrsp_4xx,
        row.hrsp_5xx,
        row.wretr,
    ];
    let figures = figures.map(|figure| figure.map_or("-".to_owned(), |it| it.to_string()));
    [vec![instance.to_owned(), name, row.status.clone()], figures.to_vec()].concat()
}

/// Shows them as they come. A stream that ends is begun anew.
async fn follow(
    connection: &Connection,
    wanted: &Wanted,
    series: &str,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let mut was_there = false;
    let mut backlog = wanted.backlog.as_str();
    loop {
        let query = [("series", series), ("every", &wanted.every), ("backlog", backlog)];
        match connection.follow(&["v1", "stats", "stream"], query, None).await {
            Ok(stream) if stream.status().is_success() => {
                (was_there, backlog) = (true, "0s");
                show(stream, format).await?;
            }
            Ok(answer) if was_there && answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
            Ok(answer) => {
                let status = answer.status();
                let problem: Option<Value> = answer.json().await.ok();
                let detail = problem.and_then(|it| it["detail"].as_str().map(str::to_owned));
                bail!("{} ({status})", detail.unwrap_or_default());
            }
            Err(error) if !was_there => return Err(error),
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

/// Shows what a stream brings until it ends.
async fn show(mut stream: Response, format: OutputFormat) -> anyhow::Result<()> {
    let (mut messages, mut table) = (Messages::default(), Table::default());
    while let Ok(Some(bytes)) = stream.chunk().await {
        for message in messages.take(&bytes)? {
            match format {
                OutputFormat::Json => output::line(&message.data)?,
                OutputFormat::Text => {
                    let frame = serde_json::from_str(&message.data).unwrap_or_default();
                    for line in table.lines(&frame) {
                        output::line(&line)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is known of a stream.
#[derive(Debug, Default)]
struct Table {
    fields: Vec<String>,
    series: BTreeMap<String, String>,
    /// Rows since the heads.
    rows: usize,
}

impl Table {
    /// The lines that a frame makes.
    fn lines(&mut self, frame: &Value) -> Vec<String> {
        let text = |name: &str| frame[name].as_str().unwrap_or_default();
        match text("type") {
            "schema" => {
                if let Some(fields) = frame["fields"].as_array() {
                    self.fields =
                        fields.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect();
                    self.series.clear();
                }
                for (id, name) in frame["series"].as_object().into_iter().flatten() {
                    let name = name.as_str().unwrap_or_default();
                    self.series.insert(id.clone(), name.to_owned());
                }
                let missing = frame["missing"].as_array().into_iter().flatten();
                let missing = missing.filter_map(|name| name.as_str());
                missing.map(|name| format!("{} does not have {name}", text("i"))).collect()
            }
            "stats" => self.stats(frame),
            "gap" => {
                let detail = frame["text"].as_str().map(|text| format!(" ({text})"));
                let line = format!(
                    "{}  {}  nothing was measured: {}{}",
                    clock(frame),
                    text("i"),
                    text("why"),
                    detail.unwrap_or_default()
                );
                vec![paint(Colour::Yellow, &line)]
            }
            "error" => vec![paint(Colour::Red, text("text"))],
            _ => Vec::new(),
        }
    }

    fn stats(&mut self, frame: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        let at = clock(frame);
        for row in frame["rows"].as_array().into_iter().flatten() {
            if self.rows.is_multiple_of(HEADS_AFTER) {
                lines.push(line("TIME", HEADS));
            }
            self.rows += 1;
            let name = self.series.get(&row[0].to_string()).map_or("", String::as_str);
            let (instance, series) = name.split_once('/').unwrap_or(("", name));
            let series = series.split_once('/').map_or(series, |(_, name)| name);
            let figure = |name: &str| {
                let position = self.fields.iter().position(|field| field == name);
                match position.map_or(&Value::Null, |position| &row[position + 1]) {
                    Value::Null => "-".to_owned(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                }
            };
            let names = [instance.to_owned(), series.to_owned(), figure("status")];
            let cells: Vec<_> = names.into_iter().chain(FIGURES.map(figure)).collect();
            lines.push(line(&at, cells.iter().map(String::as_str)));
        }
        lines
    }
}

/// A line of a table whose rows are not known yet.
fn line<'c>(at: &str, cells: impl IntoIterator<Item = &'c str>) -> String {
    let widths = [12, 24, 10, 8, 6, 10, 10, 8, 6, 6, 6];
    let mut line = format!("{at:<8}");
    for (cell, width) in cells.into_iter().zip(widths.into_iter().chain([0])) {
        line.push_str(&format!("  {cell:<width$}"));
    }
    line.trim_end().to_owned()
}

/// The time of day of a frame, in UTC.
fn clock(frame: &Value) -> String {
    let at =
        frame["t"].as_f64().and_then(|t| Timestamp::from_millisecond((t * 1000.0) as i64).ok());
    at.map_or_else(String::new, |at| at.strftime("%H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_is_told_line_by_line() {
        let mut table = Table::default();
        let schema = json!({"type": "schema", "fields": ["scur", "hrsp_2xx", "status"],
            "series": {"3": "edge1/server/web/w1"}});
        assert_eq!(table.lines(&schema), Vec::<String>::new());
        let stats = json!({"type": "stats", "t": 61.5, "i": "edge1",
            "rows": [[3, 4, null, "UP"]]});
        let lines = table.lines(&stats);
        assert_eq!(lines.len(), 2);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(words[..6], ["00:01:01", "edge1", "web/w1", "UP", "4", "-"]);
        assert_eq!(table.lines(&stats).len(), 1, "the heads come now and then");
        let gap = json!({"type": "gap", "t": 62, "i": "edge1", "why": "unreachable", "text": "x"});
        let told = "00:01:02  edge1  nothing was measured: unreachable (x)";
        assert_eq!(table.lines(&gap), [told]);
    }
}
