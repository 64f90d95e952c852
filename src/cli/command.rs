//! `mapsmith command`: commands of the settings, run on a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapsmith_core::commands::Outcome;
use reqwest::Method;

use super::output::{Colour, error_line, paint};
use super::remote::{Answer, Connection};
use super::{FAILED, OutputFormat, SUCCESS, UNKNOWN, print};
use crate::api::types::{CommandParam, CommandsReport, RunCommandReport, RunCommandRequest};

/// The longest that a command may take.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Subcommand)]
pub(super) enum CommandVerb {
    /// Show the commands that the settings name, what each takes, and whether you may run it
    List(Connection),
    /// Run a command on a node, by its master. Exit code 0: done; 1: the master refused it or
    /// failed, or was not reached; 5: nobody knows whether it was run
    Run(Run),
}

#[derive(Args)]
pub(super) struct Run {
    /// The node's name, as in the map
    node: String,
    /// The command's name, as `command list` shows it
    name: String,
    /// A value that the command takes; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// Why: one line, for the audit and for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only tell what would be sent
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl CommandVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::List(connection) => connection,
            Self::Run(run) => &mut run.connection,
        }
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        match self {
            Self::List(connection) => {
                let commands: CommandsReport = connection.get(&["v1", "commands"]).await?;
                print(format, &commands, list)?;
                Ok(SUCCESS)
            }
            Self::Run(run) => run.carry_out(format).await,
        }
    }
}

impl Run {
    async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        let Self { node, name, params: given, reason, dry_run, connection } = self;
        let mut params = BTreeMap::new();
        for (name, value) in given {
            anyhow::ensure!(
                params.insert(name.clone(), value).is_none(),
                "--param {name} is given twice"
            );
        }
        let request = RunCommandRequest { command: name, params, reason };
        let query = dry_run.then_some(("dry_run", "true"));
        let path = ["v1", "nodes", &node, "commands"];
        let body = Some(&request);
        let asked = connection.ask(Method::POST, &path, query, body, LONGEST).await;
        let answer: Answer<RunCommandReport> = match asked {
            Ok(answer) => answer,
            Err(error) if is_sent(&error) => {
                let text = "whether the command was run is not known; the audit says it";
                error_line(&format!("mapsmith: {error:#}: {text}"));
                return Ok(UNKNOWN);
            }
            Err(error) => return Err(error),
        };
        let report = answer.good()?;
        print(format, &report, text)?;
        Ok(exit_code(report.outcome))
    }
}

/// Whether the API may have got the request that this came of.
fn is_sent(error: &anyhow::Error) -> bool {
    let failed = error.chain().find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    failed.is_some_and(|failed| !failed.is_connect() && !failed.is_builder())
}

fn exit_code(outcome: Option<Outcome>) -> u8 {
    match outcome {
        None | Some(Outcome::Ok) => SUCCESS,
        Some(Outcome::Refused | Outcome::Failed | Outcome::NoMaster) => FAILED,
        Some(Outcome::Unknown) => UNKNOWN,
    }
}

fn list(commands: &CommandsReport) -> String {
    let mut text = String::new();
    if !commands.enabled {
        text.push_str("commands are off: the settings have no [commands]\n");
    }
    if commands.items.is_empty() {
        text.push_str("the settings name no command");
    }
    for command in &commands.items {
        let granted = if command.granted { "" } else { "  (no grant)" };
        let (name, method, path) = (&command.name, command.method.name(), &command.path);
        let _ = writeln!(text, "{name}  {method} {path}  {}{granted}", command.timeout);
        for CommandParam { name, pattern, default, secret } in &command.params {
            let default = match default {
                Some(default) => format!(", {default:?} unless given"),
                None => String::new(),
            };
            let secret = if *secret { ", not shown anywhere" } else { "" };
            let _ = writeln!(text, "  {name}={pattern}{default}{secret}");
        }
    }
    text.trim_end().to_owned()
}

fn text(report: &RunCommandReport) -> String {
    let colour = match report.outcome {
        Some(Outcome::Ok) => Colour::Green,
        Some(Outcome::Unknown) | None => Colour::Yellow,
        Some(Outcome::Refused | Outcome::Failed | Outcome::NoMaster) => Colour::Red,
    };
    let mut text =
        paint(colour, &format!("{} on {}: {}", report.command, report.node, report.message));
    if let Some(request) = &report.request {
        let body = serde_json::Value::Object(request.body.clone());
        let _ = write!(text, "\n{body}");
    }
    if let Some(output) = report.output.as_deref().filter(|output| !output.is_empty()) {
        // What a stranger says must not move the terminal's cursor.
        let plain =
            |it: char| if it.is_control() && !"\n\t".contains(it) { '\u{fffd}' } else { it };
        let shown: String = output.chars().map(plain).collect();
        let _ = write!(text, "\n{}", shown.trim_end());
        if report.truncated {
            text.push_str("\n(the master said more)");
        }
    }
    text
}
