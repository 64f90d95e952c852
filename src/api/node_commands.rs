//! Commands of the settings, run on one node by its master, at most once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mapsmith_core::access::{Grant, Identity};
use mapsmith_core::commands::{Command, MASKED, NotSent, Outcome, Request};
use mapsmith_core::events::{EventKind, Happening};
use mapsmith_core::status::milliseconds;
use metrics::{counter, gauge};
use tokio::time::Instant;

use super::types::{
    CommandInfo, CommandParam, CommandsReport, RunCommandReport, RunCommandRequest,
};
use super::{Api, Error};
use crate::commands::{Ending, Order, carry_out};
use crate::settings::Commands;
use crate::store::{AuditTicket, SqliteStore, secret};
use crate::telemetry::{COMMANDS, COMMANDS_RUNNING};

/// Why a command is not begun: nothing is sent.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    #[error("{0:?} has no grant for it: it takes commands, or commands:NAME, which no role has")]
    NoGrant(String),
    #[error("commands are off: give `[commands]` in the settings, and send SIGHUP")]
    Off,
    #[error("there is no command {0:?}; `GET /v1/commands` has those of the settings")]
    NoCommand(String),
    #[error("the node {0} is not in the map: no master is known for it")]
    NotInMap(String),
    #[error(transparent)]
    Invalid(#[from] NotSent),
    #[error("{0}, and no more may; try again once it has ended")]
    Running(String),
}

impl NotRun {
    pub fn no_grant(identity: &Identity) -> Self {
        Self::NoGrant(identity.name.clone())
    }
}

/// How many commands run at once.
const MOST: usize = 4;

/// Who has a command running: one each.
#[derive(Debug, Clone, Default)]
pub struct RunningCommands(Arc<Mutex<BTreeSet<String>>>);

/// The place of one that runs.
struct Place {
    running: RunningCommands,
    who: String,
}

impl RunningCommands {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, identity: &Identity) -> Result<Place, NotRun> {
        let (who, mut running) = (identity.limited_as(), self.lock());
        if running.contains(&who) {
            return Err(NotRun::Running("a command of yours is running".to_owned()));
        }
        if running.len() >= MOST {
            return Err(NotRun::Running(format!("{MOST} commands are running")));
        }
        running.insert(who.clone());
        gauge!(COMMANDS_RUNNING).set(running.len() as f64);
        drop(running);
        Ok(Place { running: self.clone(), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        running.remove(&self.who);
        gauge!(COMMANDS_RUNNING).set(running.len() as f64);
    }
}

/// A command on its way: it goes on whether somebody waits for it or not.
struct Run {
    gateway: Commands,
    command: Command,
    order: Order,
    store: SqliteStore,
    ticket: Arc<AuditTicket>,
    begun: Instant,
    /// Given back at the end.
    place: Place,
}

impl Api {
    /// The commands of the settings.
    pub fn commands(&self, identity: &Identity) -> CommandsReport {
        let info = |command: Command| CommandInfo {
            granted: is_granted(identity, &command.name),
            name: command.name,
            method: command.method,
            path: command.path.to_string(),
            params: command
                .parameters
                .into_iter()
                .map(|parameter| CommandParam {
                    name: parameter.name,
                    pattern: parameter.pattern.to_string(),
                    default: match parameter.secret {
                        true => parameter.default.map(|_| MASKED.to_owned()),
                        false => parameter.default,
                    },
                    secret: parameter.secret,
                })
                .collect(),
            timeout: humantime::format_duration(command.timeout).to_string(),
            max_bytes: command.max_bytes,
        };
        CommandsReport {
            enabled: self.settings.commands.is_some(),
            items: self.settings.command_list.iter().map(|it| info(it.model())).collect(),
        }
    }

    /// Runs a command on a node, or with `dry_run` says what would be sent. The node's name is
    /// valid. Once it was begun it goes on to its end, also where whoever asked is gone.
    ///
    /// # Errors
    /// Nothing was sent.
    pub async fn run_command(
        &self,
        node: &str,
        asked: RunCommandRequest,
        identity: Identity,
        ticket: Arc<AuditTicket>,
        dry_run: bool,
    ) -> Result<RunCommandReport, Error> {
        let begun = Instant::now();
        let name = asked.command;
        if !is_granted(&identity, &name) {
            return Err(NotRun::no_grant(&identity).into());
        }
        let gateway = self.settings.commands.clone().ok_or(NotRun::Off)?;
        let store = self.store.clone().ok_or(Error::NoStore("commands"))?;
        let known = self.settings.command_list.iter().find(|known| known.name == name);
        let command = known.ok_or(NotRun::NoCommand(name))?.model();
        let node = self.as_in_map(node);
        let master = self.master_of(&node)?;
        let request = command.request(&node, &asked.params).map_err(NotRun::from)?;
        if dry_run {
            return Ok(dry_report(command, node, master, request, begun));
        }
        let place = self.access.running_commands().begin(&identity)?;
        let id = secret::new_id().map_err(|error| Error::Store(error.to_string()))?;
        let order = Order { id: format!("c-{id}"), node, master, by: identity, request };
        let lost = lost_report(&command, &order);
        let run = Run { gateway, command, order, store, ticket, begun, place };
        // From its row on it is not whoever asked who ends it.
        match tokio::spawn(run.ended()).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("the task of the command {:?} was interrupted: {error}", lost.id);
                Ok(RunCommandReport { milliseconds: milliseconds(begun.elapsed()), ..lost })
            }
        }
    }

    /// The node's master in the map in force.
    fn master_of(&self, node: &str) -> Result<String, Error> {
        if !self.settings.keeps_map() {
            return Err(Error::NoMap);
        }
        let decision = self.decision.borrow();
        let revision = decision.map.in_force.as_ref().ok_or(Error::NotReady)?;
        let master = revision.entries.get(node).map(str::to_owned);
        Ok(master.ok_or_else(|| NotRun::NotInMap(node.to_owned()))?)
    }
}

fn is_granted(identity: &Identity, command: &str) -> bool {
    identity.grants.iter().any(|grant: &Grant| grant.covers_command(command))
}

fn happening(node: &str, state: &str, text: String, ticket: &AuditTicket) -> Happening {
    let asked = ticket.request();
    let happening = Happening::new(Timestamp::now(), EventKind::Command, node, text);
    let (by, id) = (Some(asked.actor.name), Some(asked.request_id));
    happening.in_state(state).asked(by, asked.reason, id)
}

fn dry_report(
    command: Command,
    node: String,
    master: String,
    request: Request,
    begun: Instant,
) -> RunCommandReport {
    let (method, path) = (request.method.name(), request.path.clone());
    let request = command.masked(request);
    RunCommandReport {
        id: None,
        message: format!("{method} {path} would be sent to {master}; nothing is sent"),
        command: command.name,
        node,
        master,
        request: Some(request),
        outcome: None,
        status: None,
        output: None,
        truncated: false,
        milliseconds: milliseconds(begun.elapsed()),
    }
}

/// What is known of a command whose task does not get to its end. Any other status would say that
/// it was not begun.
fn lost_report(command: &Command, order: &Order) -> RunCommandReport {
    let why = "its task was interrupted: the command may have been run".to_owned();
    RunCommandReport {
        id: Some(order.id.clone()),
        command: command.name.clone(),
        node: order.node.clone(),
        master: order.master.clone(),
        request: None,
        outcome: Some(Outcome::Unknown),
        status: None,
        output: None,
        truncated: false,
        message: in_words(Outcome::Unknown, None, &order.master, Some(why)),
        milliseconds: 0.0,
    }
}

impl Run {
    /// Notes that it begins: what can't be noted is not sent.
    async fn begin(&self) -> Result<i64, Error> {
        let Self { command, order, store, ticket, .. } = self;
        let Order { id, node, master, request, .. } = order;
        let shown = command.masked(request.clone()).body;
        let value = |name: &String| Some(format!(" {name}={}", shown.get(name)?));
        let values: String = command.parameters.iter().filter_map(|it| value(&it.name)).collect();
        let detail = format!("{}{values} ({id} at {master})", command.name);
        let target = format!("nodes/{node}/commands/{}", command.name);
        let begun = happening(node, "begun", format!("{detail} begins on {node}"), ticket);
        let row = store.begin_command(Arc::clone(ticket), target, detail, begun).await;
        row.map_err(|error| Error::Store(error.to_string()))
    }

    async fn ended(self) -> Result<RunCommandReport, Error> {
        let row = self.begin().await?;
        let ending = carry_out(&self.gateway, &self.command, &self.order).await;
        let Ending { outcome, status, output, is_cut, why } = ending;
        let Self { command, order, store, ticket, begun, place, .. } = self;
        let Order { id, node, master, .. } = order;
        let name = command.name;
        counter!(COMMANDS, "command" => name.clone(), "outcome" => outcome.name()).increment(1);
        let message = in_words(outcome, status, &master, why);
        let ms = milliseconds(begun.elapsed());
        let text = format!("{name} ({id}) on {node}: {message}");
        let ended = happening(&node, outcome.name(), text, &ticket);
        if let Err(error) = store.end_command(row, outcome, ms, ended).await {
            tracing::error!(%id, %outcome, "the audit in the store lacks a command's end: {error}");
        }
        drop(place);
        let said = status.is_some();
        Ok(RunCommandReport {
            id: Some(id),
            command: name,
            node,
            master,
            request: None,
            outcome: Some(outcome),
            status,
            output: said.then(|| String::from_utf8_lossy(&output).into_owned()),
            truncated: is_cut,
            message,
            milliseconds: ms,
        })
    }
}

fn in_words(outcome: Outcome, status: Option<u16>, master: &str, why: Option<String>) -> String {
    let status = status.map_or_else(String::new, |status| format!(" {status}"));
    match (outcome, why) {
        (_, Some(why)) => format!("{outcome}: {why}"),
        (_, None) => format!("{outcome}: {master} answered{status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_command_and_all_have_four() {
        let running = RunningCommands::default();
        let who = |name: &str| Identity { name: name.to_owned(), ..Identity::file() };
        let mut places: Vec<_> =
            ["a", "b", "c", "d"].map(|name| running.begin(&who(name)).unwrap()).into();
        let why = |name: &str| running.begin(&who(name)).map(drop).unwrap_err().to_string();
        assert!(why("a").starts_with("a command of yours is running"), "{}", why("a"));
        assert!(why("e").starts_with("4 commands are running"), "{}", why("e"));
        places.pop();
        assert!(running.begin(&who("e")).is_ok(), "its place is free when it has ended");
        assert!(running.begin(&who("e")).is_ok());
    }
}
