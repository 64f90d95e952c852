//! `mapsmith config`: frontends and backends that are declared through the API.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use mapsmith_core::objects::secrets::{HIDDEN, has_hidden};
use mapsmith_core::objects::{Change, FieldChange, Spec};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::output::{self, Colour, paint, pluralize, table};
use super::overrides::{Order, flag};
use super::reload::exit_code;
use super::remote::{Answer, Connection, NOTHING};
use super::{OutputFormat, SUCCESS, print};
use crate::api::types::{
    ConfigBody, ConfigChangeReport, ConfigReport, ObjectOrigin, ObjectReport, ReloadOutcome,
};
use crate::settings::objects::read_document;
use crate::store::replace::replace;

/// Native lines can have secrets.
const MODE: u32 = 0o600;

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Show the frontends and backends of the settings file and of the API: whose each is, whether
    /// HAProxy has it, and since when. With --output json what the API declares can be applied again
    Show(Connection),
    /// Write all that is declared through the API to a file (.json), for `apply` to bring back: with
    /// each one's owner, and, where an admin asks, with its secrets, so it is its owner's alone. `-`
    /// prints it
    Export {
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Say what `apply` would change, and whether HAProxy takes it; changes nothing
    Check {
        #[command(flatten)]
        document: DocumentFile,
        /// As if what the same owner declared before and the file does not have were deleted
        #[arg(long)]
        prune: bool,
        /// As if frontends might wait whose backend goes, and what is another owner's be taken over
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Declare the frontends and backends of a file, all or none: HAProxy checks them before
    /// anything is stored
    Apply {
        #[command(flatten)]
        document: DocumentFile,
        /// Also delete what the same owner declared before and the file does not have
        #[arg(long)]
        prune: bool,
        /// Only tell what would be
        #[arg(long)]
        dry_run: bool,
        /// Let frontends wait whose backend goes, and take over what is another owner's
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        order: Order,
    },
    /// Delete a frontend or backend that was declared through the API
    Delete {
        kind: Kind,
        name: String,
        /// Only tell what would be
        #[arg(long)]
        dry_run: bool,
        /// Let frontends wait whose backend goes
        #[arg(long)]
        force: bool,
        /// That it is not declared is no failure
        #[arg(long)]
        missing_ok: bool,
        #[command(flatten)]
        order: Order,
    },
}

/// What is declared.
#[derive(Args)]
pub(super) struct DocumentFile {
    /// [[frontend]] and [[backend]] as in the settings file (.toml, .yaml or .json), or what `export`
    /// wrote
    file: PathBuf,
    /// Whose they are to be, instead of the owners that the file names, or of yourself
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

impl DocumentFile {
    fn read(self) -> anyhow::Result<ConfigBody> {
        let said = read_document(&self.file)?;
        let mut body: ConfigBody = serde_json::from_value(said).with_context(|| {
            format!(
                "{}: only [[frontend]], [[backend]] and owner may stand there",
                self.file.display()
            )
        })?;
        if let Some(owner) = self.owner {
            for object in body.frontends.iter_mut().chain(&mut body.backends) {
                object.remove("owner");
            }
            body.owner = Some(owner);
        }
        Ok(body)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    Frontend,
    Backend,
}

impl ConfigVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::Show(connection)
            | Self::Export { connection, .. }
            | Self::Check { connection, .. } => connection,
            Self::Apply { order, .. } | Self::Delete { order, .. } => order.connection(),
        }
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        match self {
            Self::Show(connection) => {
                let config: ConfigReport = connection.get(&["v1", "config"]).await?;
                print(format, &config, show)?;
                Ok(SUCCESS)
            }
            Self::Export { file, connection } => {
                let config: ConfigReport = connection.get(&["v1", "config"]).await?;
                export(&file, config, format)?;
                Ok(SUCCESS)
            }
            Self::Check { document, prune, force, connection } => {
                let (body, path) = (document.read()?, ["v1", "config", "check"]);
                let prune = prune.then_some(("prune", "owner"));
                let query = prune.into_iter().chain(flag("force", force));
                let asked = connection.ask(Method::POST, &path, query, Some(&body), CHECK);
                changed(asked.await?, format)
            }
            Self::Apply { document, prune, dry_run, force, order } => {
                let body = document.read()?;
                let config: ConfigReport = order.connection.get(&["v1", "config"]).await?;
                let prune = prune.then_some(("prune", "owner"));
                let flags = [flag("dry_run", dry_run), flag("force", force)].concat();
                let parameters: Vec<_> = prune.into_iter().chain(flags).collect();
                let tag = format!("\"{}\"", config.status.etag);
                let path = ["v1", "config"];
                let asked = order.ask_if(Method::PUT, &path, &parameters, Some(&body), Some(tag));
                changed(asked.await?, format)
            }
            Self::Delete { kind, name, dry_run, force, missing_ok, order } => {
                let kind = match kind {
                    Kind::Frontend => "frontends",
                    Kind::Backend => "backends",
                };
                let (path, object) = (["v1", kind, &name], format!("{kind}/{name}"));
                if missing_ok && !is_declared(&order.connection, &path).await? {
                    let none = serde_json::json!({"deleted": null, "missing": object});
                    print(format, &none, |_| format!("there is no {object}"))?;
                    return Ok(SUCCESS);
                }
                let missing = missing_ok.then_some(("missing", "ok"));
                let flags = [flag("dry_run", dry_run), flag("force", force)].concat();
                let parameters: Vec<_> = flags.into_iter().chain(missing).collect();
                let asked = order.ask::<Option<ConfigChangeReport>>(
                    Method::DELETE,
                    &path,
                    &parameters,
                    NOTHING,
                );
                match asked.await? {
                    Answer::Good(Some(report)) => changed(Answer::Good(report), format),
                    Answer::Good(None) => {
                        let done = serde_json::json!({"deleted": object});
                        print(format, &done, |_| format!("{object} is deleted"))?;
                        Ok(SUCCESS)
                    }
                    Answer::Problem(problem) => changed(Answer::Problem(problem), format),
                }
            }
        }
    }
}

/// Whether there is something to delete. A backend of a registry's service is there, and declared
/// nowhere.
async fn is_declared(connection: &Connection, path: &[&str]) -> anyhow::Result<bool> {
    let asked = connection.ask(Method::GET, path, None, NOTHING, Duration::ZERO);
    match asked.await? {
        Answer::Problem(problem) if problem.status == StatusCode::NOT_FOUND => Ok(false),
        answer => {
            let found: Value = answer.good()?;
            Ok(path.get(1) != Some(&"backends") || found["config"].is_object())
        }
    }
}

/// What is declared, as `apply` takes it.
fn export(file: &Path, config: ConfigReport, format: OutputFormat) -> anyhow::Result<()> {
    let body = ConfigBody {
        owner: None,
        frontends: config.frontends.into_iter().map(declared).collect(),
        backends: config.backends.into_iter().map(declared).collect(),
        status: None,
    };
    let mut all = body.frontends.iter().chain(&body.backends);
    if all.clone().any(has_hidden) {
        eprintln!(
            "secrets are hidden ({HIDDEN}) from whoever is no admin: this can be applied where they \
                are stored, and nowhere else"
        );
    }
    let text = serde_json::to_string_pretty(&body)?;
    if file.as_os_str() == "-" {
        return output::line(&text);
    }
    if file.extension().is_none_or(|extension| extension != "json") {
        bail!("{}: what is exported is JSON, so name it .json", file.display());
    }
    // One that is there keeps its mode when it is replaced.
    match fs::set_permissions(file, fs::Permissions::from_mode(MODE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{}", file.display()));
        }
        _ => {}
    }
    replace(file, (text + "\n").as_bytes(), MODE)?;
    let count = all.by_ref().count();
    let done = serde_json::json!({"file": file, "objects": count});
    let words = |_: &Value| format!("{}: {}", file.display(), pluralize(count, "object"));
    print(format, &done, words)
}

/// An object without how it stands.
fn declared(object: ObjectReport) -> Spec {
    let ObjectReport { name, owner, keys, status: _ } = object;
    let owner = owner.map(|owner| ("owner".to_owned(), Value::String(owner)));
    [("name".to_owned(), Value::String(name))].into_iter().chain(owner).chain(keys).collect()
}

/// HAProxy's check may take so long, and so may whoever is before it.
const CHECK: Duration = Duration::from_secs(30);

fn changed(answer: Answer<ConfigChangeReport>, format: OutputFormat) -> anyhow::Result<u8> {
    let report = match answer {
        Answer::Good(report) => report,
        Answer::Problem(problem) => {
            let mut text = problem.detail;
            for fault in problem.errors {
                if let (Some(line), Some(said)) = (fault.line, fault.text) {
                    let whose = fault.resource.or(fault.setting).unwrap_or_default();
                    text.push_str(&format!("\n  {whose}, line {line} of haproxy.cfg: {said}"));
                }
            }
            bail!("{text}")
        }
    };
    print(format, &report, text)?;
    Ok(report.outcome.map_or(SUCCESS, exit_code))
}

fn text(report: &ConfigChangeReport) -> String {
    let colour = match report.outcome {
        None | Some(ReloadOutcome::InSync) => Colour::Green,
        Some(ReloadOutcome::Requested) => Colour::Yellow,
        Some(_) => Colour::Red,
    };
    let mut text = paint(colour, &report.message);
    text.push('\n');
    for Change { object, action, fields } in &report.changes {
        text.push_str(&format!("  {} {object}\n", action.done()));
        for FieldChange { field, before, after } in fields {
            let words = |value: &Option<Value>| {
                value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string)
            };
            text.push_str(&format!("    {field}: {} -> {}\n", words(before), words(after)));
        }
    }
    for name in &report.pending {
        text.push_str(&format!("  {name} waits for its backend\n"));
    }
    for warning in &report.warnings {
        let places = [&warning.resource, &warning.setting].into_iter().flatten();
        let place: Vec<_> = places.map(String::as_str).collect();
        text.push_str(&format!("  warning: {}: {}\n", place.join(" "), warning.detail));
    }
    text
}

fn show(config: &ConfigReport) -> String {
    let mut rows = vec![["OBJECT", "OF", "STATE", "CHANGED", "BY"].map(str::to_owned).to_vec()];
    let of_kind = |kind: &'static str, items: &'_ [ObjectReport]| {
        items.iter().map(move |item| row(kind, item)).collect::<Vec<_>>()
    };
    rows.extend(of_kind("frontends", &config.status.settings.frontends));
    rows.extend(of_kind("backends", &config.status.settings.backends));
    rows.extend(of_kind("frontends", &config.frontends));
    rows.extend(of_kind("backends", &config.backends));
    if rows.len() == 1 {
        return "nothing is declared\n".to_owned();
    }
    let mut text = table("", &rows);
    let all = config.frontends.iter().chain(&config.backends);
    for item in all {
        if let Some(why) = item.status.as_ref().and_then(|status| status.detail.as_ref()) {
            text.push_str(&format!("{}: {why}\n", item.name));
        }
    }
    text
}

fn row(kind: &str, item: &ObjectReport) -> Vec<String> {
    let name = format!("{kind}/{}", item.name);
    let Some(status) = &item.status else {
        // HAProxy's configuration is somebody else's, and so is what of it is in force.
        return [name.as_str(), "settings", "-", "", ""].map(str::to_owned).to_vec();
    };
    let of = match status.origin {
        ObjectOrigin::Settings => "settings".to_owned(),
        ObjectOrigin::Api => item.owner.clone().unwrap_or_default(),
    };
    let at = status.changed_at.map_or(String::new(), |at| format!("{at:.0}"));
    let by = status.changed_by.clone().unwrap_or_default();
    vec![name, of, status.state.name().to_owned(), at, by]
}
