//! What an operator orders: `mapsmith pin`, `unpin`, `block`, `unblock`, `drain`, `undrain` and
//! `own`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{Colour, paint};
use super::reload::{exit_code, query_of, report_of};
use super::remote::{Answer, Connection, NOTHING};
use super::rollback::change_text;
use super::{OutputFormat, SUCCESS, print};
use crate::api::types::{
    DrainRequest, DryRunReport, OverrideRequest, OwnRequest, ReloadOutcome, ReloadReport,
};

#[derive(Subcommand)]
pub(super) enum OrderVerb {
    /// Send a node to a master whatever the sources say, known to them or not
    Pin {
        /// The node's name, as in X-Node-Name
        node: String,
        /// The master, by HAProxy's name
        master: String,
        /// End the pin by itself after this time; without it, `unpin` does
        #[arg(long = "for", value_name = "DURATION", value_parser = length)]
        length: Option<String>,
        /// Take a master that no HAProxy and no node is known to have
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// End a node's pin: it goes where the sources say
    Unpin {
        /// The node's name, as in X-Node-Name
        node: String,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Keep a node out of the map whatever the sources say: HAProxy does with it what it does with
    /// nodes that it does not know
    Block {
        /// The node's name, as in X-Node-Name
        node: String,
        /// End it by itself after this time; without it, `unblock` does
        #[arg(long = "for", value_name = "DURATION", value_parser = length)]
        length: Option<String>,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Take a blocked node into the map again: it goes where the sources say
    Unblock {
        /// The node's name, as in X-Node-Name
        node: String,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Send a master's nodes to the other masters; those that are pinned to it stay
    Drain {
        /// The master, by HAProxy's name
        master: String,
        /// Send all of them to this master
        #[arg(long, value_name = "MASTER", conflicts_with = "spread")]
        to: Option<String>,
        /// Spread them evenly over the others, each always to the same one; the default
        #[arg(long)]
        spread: bool,
        /// Take a master that no HAProxy and no node is known to have
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Give a drained master its nodes back
    Undrain {
        /// The master, by HAProxy's name
        master: String,
        /// Leave nodes where they went during the drain, also where owners are remembered
        #[arg(long)]
        stay: bool,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        order: Order,
    },
    /// Say whose a node is from now on, where owners are remembered ([ownership]): it goes there
    /// until the registry names that master, and home to it after an outage
    Own {
        /// The node's name, as in X-Node-Name
        node: String,
        /// The master, by HAProxy's name
        master: String,
        /// Take a node that no source names, and a master that no HAProxy and no node has
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        order: Order,
    },
}

/// How long an override lasts; the API sets the bound.
pub(super) fn length(text: &str) -> Result<String, String> {
    match humantime::parse_duration(text) {
        Ok(length) if !length.is_zero() => Ok(text.to_owned()),
        _ => Err("write a duration like 30m or 2h".to_owned()),
    }
}

impl OrderVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::Pin { order, .. }
            | Self::Unpin { order, .. }
            | Self::Block { order, .. }
            | Self::Unblock { order, .. }
            | Self::Drain { order, .. }
            | Self::Undrain { order, .. }
            | Self::Own { order, .. } => &mut order.connection,
        }
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        match self {
            Self::Pin { node, master, length, force, trial, order } => {
                let master = Some(master);
                let pin = OverrideRequest { master, absent: false, duration: length, reason: None };
                let path = ["v1", "overrides", &node];
                let flags = flag("force", force);
                order.send_or_try(trial, Method::PUT, &path, &flags, Some(&pin), format).await
            }
            Self::Unpin { node, trial, order } => {
                let (path, kind) = (["v1", "overrides", &node], [("kind", "pin")]);
                order.send_or_try(trial, Method::DELETE, &path, &kind, NOTHING, format).await
            }
            Self::Block { node, length, trial, order } => {
                let path = ["v1", "overrides", &node];
                let (absent, duration) = (true, length);
                let block = OverrideRequest { master: None, absent, duration, reason: None };
                order.send_or_try(trial, Method::PUT, &path, &[], Some(&block), format).await
            }
            Self::Unblock { node, trial, order } => {
                let (path, kind) = (["v1", "overrides", &node], [("kind", "absent")]);
                order.send_or_try(trial, Method::DELETE, &path, &kind, NOTHING, format).await
            }
            Self::Drain { master, to, spread: _, force, trial, order } => {
                let path = ["v1", "masters", &master, "drain"];
                let drain = DrainRequest { to, reason: None };
                let flags = flag("force", force);
                order.send_or_try(trial, Method::POST, &path, &flags, Some(&drain), format).await
            }
            Self::Undrain { master, stay, trial, order } => {
                let (path, flags) = (["v1", "masters", &master, "drain"], flag("stay", stay));
                order.send_or_try(trial, Method::DELETE, &path, &flags, NOTHING, format).await
            }
            Self::Own { node, master, force, order } => {
                let path = ["v1", "nodes", &node, "owner"];
                let own = OwnRequest { master };
                order.send(Method::PUT, &path, &flag("force", force), Some(&own), format).await
            }
        }
    }
}

/// The parameter, where it is set.
pub(super) fn flag(name: &'static str, is_set: bool) -> Vec<(&'static str, &'static str)> {
    is_set.then_some((name, "true")).into_iter().collect()
}

/// Whether an order is only tried.
#[derive(Args)]
pub(super) struct Trial {
    /// Show what would change, master by master; changes nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args)]
pub(super) struct Order {
    /// Wait until every HAProxy is in sync, at most this long; 0s does not wait
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "30s")]
    pub(super) wait: Duration,
    /// Why: the audit has it, and so have `events`, and of a change of the map `explain` and
    /// `history`
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl Order {
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Gives the order.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        parameters: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<Answer<T>> {
        self.ask_if(method, path, parameters, body, None).await
    }

    /// The same, for the state of things that has this entity tag.
    pub(super) async fn ask_if<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        parameters: &[(&str, &str)],
        body: Option<&impl Serialize>,
        if_match: Option<String>,
    ) -> anyhow::Result<Answer<T>> {
        let wait = (!self.wait.is_zero()).then_some(self.wait).map(query_of);
        let wait = wait.as_deref().map(|wait| ("wait", wait));
        let reason = self.reason.as_deref().map(|reason| ("reason", reason));
        let query = wait.into_iter().chain(reason).chain(parameters.iter().copied());
        self.connection.ask_if(method, path, query, body, self.wait, if_match).await
    }

    /// Gives the order, or asks what it would come to.
    pub(super) async fn send_or_try(
        self,
        trial: Trial,
        method: Method,
        path: &[&str],
        parameters: &[(&str, &str)],
        body: Option<&impl Serialize>,
        format: OutputFormat,
    ) -> anyhow::Result<u8> {
        if !trial.dry_run {
            return self.send(method, path, parameters, body, format).await;
        }
        let parameters: Vec<_> = parameters.iter().copied().chain([("dry_run", "true")]).collect();
        let answer: Answer<DryRunReport> = self.ask(method, path, &parameters, body).await?;
        print(format, &answer.good()?, |report| {
            let mut text = paint(Colour::Yellow, &report.message);
            text.push('\n');
            text + &change_text(&report.shift, &report.masters)
        })?;
        Ok(SUCCESS)
    }

    pub(super) async fn send(
        self,
        method: Method,
        path: &[&str],
        parameters: &[(&str, &str)],
        body: Option<&impl Serialize>,
        format: OutputFormat,
    ) -> anyhow::Result<u8> {
        let report = report_of(self.ask(method, path, parameters, body).await?)?;
        print(format, &report, text)?;
        Ok(exit_code(report.outcome))
    }
}

pub(super) fn text(report: &ReloadReport) -> String {
    let colour = match report.outcome {
        ReloadOutcome::InSync => Colour::Green,
        ReloadOutcome::Requested => Colour::Yellow,
        _ => Colour::Red,
    };
    let mut text = paint(colour, &report.message);
    text.push('\n');
    if report.outcome == ReloadOutcome::Behind {
        for instance in report.instances.iter().filter(|instance| !instance.verified) {
            let _ = writeln!(text, "  instance {}: {}", instance.name, instance.state);
        }
    }
    text
}
