//! `mapsmith nodes`.

use std::time::Duration;

use clap::Args;
use reqwest::Method;

use super::output::{pluralize, table};
use super::remote::{Connection, NOTHING};
use super::{OutputFormat, SUCCESS, count, print};
use crate::api::requests::LARGEST_PAGE;
use crate::api::types::NodesReport;

/// Which nodes to show.
#[derive(Args)]
pub(super) struct Search {
    /// Those whose names begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Those whose names have this somewhere
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Those that go to this master, by HAProxy's name
    #[arg(long, value_name = "MASTER")]
    master: Option<String>,
    /// The most nodes to show
    #[arg(long, value_name = "NUMBER", value_parser = count, default_value_t = 100)]
    limit: usize,
}

/// Asks for page after page until there are as many as are wanted.
pub(super) async fn nodes(
    connection: Connection,
    search: Search,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let mut all = NodesReport::default();
    loop {
        let rest = search.limit.saturating_sub(all.items.len()).clamp(1, LARGEST_PAGE).to_string();
        let filters = [
            ("prefix", search.prefix.as_deref()),
            ("contains", search.contains.as_deref()),
            ("master", search.master.as_deref()),
            ("after", all.next.as_deref()),
            ("limit", Some(rest.as_str())),
        ];
        let query = filters.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let asked = connection.ask(Method::GET, &["v1", "nodes"], query, NOTHING, Duration::ZERO);
        let page: NodesReport = asked.await?.good()?;
        (all.revision, all.total, all.next) = (page.revision, page.total, page.next);
        all.items.extend(page.items);
        if all.next.is_none() || all.items.len() >= search.limit {
            break;
        }
    }
    print(format, &all, text)?;
    Ok(SUCCESS)
}

fn text(report: &NodesReport) -> String {
    let Some(revision) = report.revision else { return "there is no map yet\n".to_owned() };
    let rows: Vec<_> =
        report.items.iter().map(|item| vec![item.node.clone(), item.master.clone()]).collect();
    let total = pluralize(report.total, "node");
    let shown = match report.next {
        Some(_) => format!("the first {} of {total}", report.items.len()),
        None => total,
    };
    format!("{}{shown} (revision {revision})\n", table("", &rows))
}
