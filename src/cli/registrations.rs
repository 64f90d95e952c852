//! `mapsmith register` and `unregister`: nodes that are kept in Mapsmith itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::output::{Colour, paint};
use super::overrides::{Order, flag, text as text_of_problem};
use super::reload::exit_code;
use super::remote::{Answer, Connection, NOTHING};
use super::{OutputFormat, SUCCESS, length, print};
use crate::api::types::{RegisterRequest, RegistrationReport, ReloadOutcome};

/// The most bytes of a file: the API takes no more.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

#[derive(Args)]
pub(super) struct Register {
    /// The node's name, as in X-Node-Name
    #[arg(required_unless_present = "file")]
    node: Option<String>,
    /// The master, by HAProxy's name
    #[arg(required_unless_present = "file")]
    master: Option<String>,
    /// Register the nodes of this file instead, all or none, at most 10,000: a JSON array of
    /// {"node": .., "master": ..}, or such an object on each line, with "for" and "reason" where
    /// wanted; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node", "master", "length"])]
    file: Option<PathBuf>,
    /// End it by itself after this time; without it, `unregister` does
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    length: Option<String>,
    /// Take a master that no HAProxy and no node is known to have
    #[arg(long)]
    force: bool,
    /// Only tell what would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    order: Order,
}

#[derive(Args)]
pub(super) struct Unregister {
    /// The nodes' names, as in X-Node-Name; many end together or not at all
    #[arg(required_unless_present = "file", value_name = "NODE")]
    nodes: Vec<String>,
    /// End the registrations of the nodes of this file instead, at most 10,000: as `register` takes
    /// it, so that the file that registered nodes ends that; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "nodes")]
    file: Option<PathBuf>,
    /// Succeed where a node is not registered
    #[arg(long)]
    missing_ok: bool,
    /// Only tell what would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    order: Order,
}

impl Register {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.order.connection()
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        let Self { node, master, file, length: duration, force, dry_run, order } = self;
        let parameters = [flag("force", force), flag("dry_run", dry_run)].concat();
        let answer = match (file, node, master) {
            (None, Some(node), Some(master)) => {
                let request = RegisterRequest { master, duration, reason: None };
                let path = ["v1", "nodes", &node];
                order.ask(Method::PUT, &path, &parameters, Some(&request)).await?
            }
            (Some(file), ..) => {
                let nodes = nodes_of(&file)?;
                order.ask(Method::POST, &["v1", "nodes"], &parameters, Some(&nodes)).await?
            }
            _ => bail!("name the node and its master, or a file of nodes with --file"),
        };
        tell(answer, format)
    }
}

impl Unregister {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.order.connection()
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        let Self { nodes, file, missing_ok, dry_run, order } = self;
        let missing = missing_ok.then_some(("missing", "ok"));
        let parameters: Vec<_> = flag("dry_run", dry_run).into_iter().chain(missing).collect();
        let many = match (&file, nodes.as_slice()) {
            (None, [_]) => None,
            (Some(file), _) => Some(nodes_of(file)?),
            (None, nodes) => Some(nodes.iter().map(|node| json!({"node": node})).collect()),
        };
        if let Some(many) = many {
            let path = ["v1", "nodes"];
            return tell(order.ask(Method::DELETE, &path, &parameters, Some(&many)).await?, format);
        }
        let node = nodes.concat();
        let path = ["v1", "nodes", &node];
        match order.ask(Method::DELETE, &path, &parameters, NOTHING).await? {
            Answer::Good(None) => {
                let done = format!("node {node} is {} registered", no_longer(missing_ok));
                print(format, &Value::Null, |_| paint(Colour::Green, &done))?;
                Ok(SUCCESS)
            }
            Answer::Good(Some(report)) => tell(Answer::Good(report), format),
            Answer::Problem(problem) => tell(Answer::Problem(problem), format),
        }
    }
}

/// What has become of what is registered no more; where it may never have been, that it is not.
pub(super) fn no_longer(missing_ok: bool) -> &'static str {
    if missing_ok { "not" } else { "no longer" }
}

/// The nodes of a file, as the API takes them.
fn nodes_of(file: &Path) -> anyhow::Result<Vec<Value>> {
    let place = file.display();
    let unread = || format!("{place} can't be read");
    let from: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).with_context(unread)?),
    };
    let mut text = String::new();
    from.take(LARGEST_FILE + 1).read_to_string(&mut text).with_context(unread)?;
    if text.len() as u64 > LARGEST_FILE {
        bail!("{place} is larger than 16 MiB; send its nodes in parts");
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).with_context(|| format!("{place} is not JSON"));
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let node = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{place}, line {number}: not JSON"))
    };
    lines.map(node).collect()
}

fn tell(answer: Answer<RegistrationReport>, format: OutputFormat) -> anyhow::Result<u8> {
    let report = match answer.failure() {
        Ok(report) => {
            print(format, &report, text_of_problem)?;
            return Ok(exit_code(report.outcome));
        }
        Err(answer) => answer.good()?,
    };
    print(format, &report, text)?;
    Ok(report.outcome.map_or(SUCCESS, exit_code))
}

fn text(report: &RegistrationReport) -> String {
    let colour = match report.outcome {
        _ if report.in_force == Some(false) => Colour::Yellow,
        Some(ReloadOutcome::InSync) => Colour::Green,
        Some(ReloadOutcome::Requested) | None => Colour::Yellow,
        Some(_) => Colour::Red,
    };
    paint(colour, &report.message)
}
