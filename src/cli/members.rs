//! `mapsmith member` and `mapsmith switch`: servers that are registered with Mapsmith itself by
//! name and version, and backends that get another version of them.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapsmith_core::members::{Meta, SwitchPhase};
use mapsmith_core::quoting::shell_word;
use reqwest::Method;
use serde_json::Value;

use super::output::{Colour, ago, paint, pluralize, table};
use super::overrides::{Order, flag};
use super::registrations::no_longer;
use super::reload::exit_code;
use super::remote::{Answer, Connection, NOTHING};
use super::{OutputFormat, SUCCESS, count, length, print};
use crate::api::requests::LARGEST_PAGE;
use crate::api::types::{
    MemberChangeReport, MemberReport, MembersReport, RegisterMemberRequest, ReloadOutcome,
    SwitchReport, SwitchRequest, VersionReport, VersionsReport,
};

/// The most characters that a row of a table has of what a member says of itself.
const LONGEST_META: usize = 40;

#[derive(Subcommand)]
pub(super) enum MemberVerb {
    /// Show the members that are registered; all that they say of themselves with `--output json`
    List {
        /// Those of this name
        name: Option<String>,
        /// Those of this version
        version: Option<String>,
        /// Those that were silent for too long, within the last 24 hours
        #[arg(long)]
        expired: bool,
        /// The most members to show
        #[arg(long, value_name = "NUMBER", value_parser = count, default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        connection: Connection,
    },
    /// Register a member, or say that it is still there
    Register {
        #[command(flatten)]
        member: Named,
        /// Take it for gone once nobody has said so for this long, 1s to 24h; without it
        /// `unregister` ends it
        #[arg(long, value_name = "DURATION", value_parser = length)]
        ttl: Option<String>,
        /// What it says of itself: a JSON object
        #[arg(long, value_name = "JSON", value_parser = meta)]
        meta: Option<Meta>,
        /// Only tell what would be
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        order: Order,
    },
    /// End a member's registration
    Unregister {
        #[command(flatten)]
        member: Named,
        /// Succeed where it is not registered
        #[arg(long)]
        missing_ok: bool,
        /// Only tell what would be
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        order: Order,
    },
    /// Show which versions there are of what a backend takes, and how many of each are ready
    Versions {
        /// The backend
        backend: String,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Which member it is.
#[derive(Args)]
pub(super) struct Named {
    /// What it serves, like myapp
    name: String,
    /// Its version, like 1.0.0
    version: String,
    /// Its address or host name
    host: String,
    /// Its port
    port: String,
}

#[derive(Args)]
pub(super) struct Switch {
    /// The backend
    backend: String,
    /// The version that it gets
    version: String,
    /// How many members of it must be ready, where not all become so within 10 s; without it all
    /// must be
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    min_ready: Option<u32>,
    /// Only tell what would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    order: Order,
}

fn meta(text: &str) -> Result<Meta, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(meta)) => Ok(meta),
        Ok(_) => Err("write a JSON object, like {\"rack\": \"b2\"}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl MemberVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::List { connection, .. } | Self::Versions { connection, .. } => connection,
            Self::Register { order, .. } | Self::Unregister { order, .. } => order.connection(),
        }
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        match self {
            Self::List { name, version, expired, limit, connection } => {
                list(&connection, (name, version), expired, limit, format).await
            }
            Self::Register { member, ttl, meta, dry_run, order } => {
                let request =
                    RegisterMemberRequest { meta: meta.unwrap_or_default(), ttl, reason: None };
                let parameters = flag("dry_run", dry_run);
                let path = member.path();
                let answer = order.ask(Method::PUT, &path, &parameters, Some(&request)).await?;
                tell(answer.good()?, format)
            }
            Self::Unregister { member, missing_ok, dry_run, order } => {
                let missing = missing_ok.then_some(("missing", "ok"));
                let parameters: Vec<_> =
                    flag("dry_run", dry_run).into_iter().chain(missing).collect();
                let path = member.path();
                match order.ask(Method::DELETE, &path, &parameters, NOTHING).await? {
                    Answer::Good(None) => {
                        let (name, is) = (path[2..].join("/"), no_longer(missing_ok));
                        let done = format!("member {name} is {is} registered");
                        print(format, &Value::Null, |_| paint(Colour::Green, &done))?;
                        Ok(SUCCESS)
                    }
                    Answer::Good(Some(report)) => tell(report, format),
                    Answer::Problem(problem) => tell(Answer::Problem(problem).good()?, format),
                }
            }
            Self::Versions { backend, connection } => {
                let path = ["v1", "backends", &backend, "versions"];
                let report: VersionsReport = connection.get(&path).await?;
                print(format, &report, versions)?;
                Ok(SUCCESS)
            }
        }
    }
}

impl Named {
    fn path(&self) -> [&str; 6] {
        ["v1", "registrations", &self.name, &self.version, &self.host, &self.port]
    }
}

impl Switch {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.order.connection()
    }

    pub(super) async fn carry_out(self, format: OutputFormat) -> anyhow::Result<u8> {
        let Self { backend, version, min_ready, dry_run, order } = self;
        let request = SwitchRequest { version, min_ready, reason: None };
        let path = ["v1", "backends", &backend, "switch"];
        let parameters = flag("dry_run", dry_run);
        let answer = order.ask(Method::POST, &path, &parameters, Some(&request)).await?;
        let report: SwitchReport = answer.good()?;
        print(format, &report, |report| {
            let back = report.previous.as_ref().filter(|_| report.stored).map(|previous| {
                let (backend, previous) = (shell_word(&report.backend), shell_word(previous));
                format!("\nthe way back: mapsmith switch {backend} {previous}")
            });
            paint(colour(report.outcome), &report.message) + &back.unwrap_or_default()
        })?;
        Ok(report.outcome.map_or(SUCCESS, exit_code))
    }
}

fn colour(outcome: Option<ReloadOutcome>) -> Colour {
    match outcome {
        Some(ReloadOutcome::InSync) => Colour::Green,
        Some(ReloadOutcome::Requested) | None => Colour::Yellow,
        Some(_) => Colour::Red,
    }
}

fn tell(report: MemberChangeReport, format: OutputFormat) -> anyhow::Result<u8> {
    print(format, &report, |report| paint(colour(report.outcome), &report.message))?;
    Ok(report.outcome.map_or(SUCCESS, exit_code))
}

/// Asks for page after page until there are as many as are wanted.
async fn list(
    connection: &Connection,
    (name, version): (Option<String>, Option<String>),
    expired: bool,
    limit: usize,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let mut path = vec!["v1", "registrations"];
    path.extend(name.as_deref());
    path.extend(version.as_deref());
    let mut all = MembersReport::default();
    loop {
        let rest = limit.saturating_sub(all.items.len()).clamp(1, LARGEST_PAGE).to_string();
        let filters = [
            ("expired", expired.then_some("true")),
            ("after", all.next.as_deref()),
            ("limit", Some(rest.as_str())),
        ];
        let query = filters.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let asked = connection.ask(Method::GET, &path, query, NOTHING, Duration::ZERO);
        let page: MembersReport = asked.await?.good()?;
        (all.total, all.next) = (page.total, page.next);
        all.items.extend(page.items);
        if all.next.is_none() || all.items.len() >= limit {
            break;
        }
    }
    print(format, &all, members)?;
    Ok(SUCCESS)
}

fn members(report: &MembersReport) -> String {
    let rows: Vec<_> = report.items.iter().map(row).collect();
    let total = pluralize(report.total, "member");
    let shown = match report.next {
        Some(_) => format!("the first {} of {total}", report.items.len()),
        None => total,
    };
    format!("{}{shown}\n", table("", &rows))
}

fn row(member: &MemberReport) -> Vec<String> {
    let stands = match (member.expired_at, member.expires_at) {
        (Some(at), _) => {
            let kept = match member.kept_by.is_empty() {
                true => String::new(),
                false => format!(", kept by {}", member.kept_by.join(", ")),
            };
            paint(Colour::Yellow, &format!("expired {}{kept}", ago(at)))
        }
        (None, Some(at)) => format!("until {at:.0} unless it is heard of"),
        (None, None) => "until it is unregistered".to_owned(),
    };
    let meta = match member.meta.is_empty() {
        true => String::new(),
        false => cut(&Value::Object(member.meta.clone()).to_string()),
    };
    vec![member.name.clone(), member.version.clone(), member.server.clone(), stands, meta]
}

/// The beginning of what a member says of itself: all of it is in JSON.
fn cut(meta: &str) -> String {
    let plain = |it: char| if it.is_control() { '\u{fffd}' } else { it };
    let mut shown: String = meta.chars().take(LONGEST_META).map(plain).collect();
    if meta.chars().nth(LONGEST_META).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

fn versions(report: &VersionsReport) -> String {
    let rows: Vec<_> = report
        .items
        .iter()
        .map(|item| {
            let is_in_force = item.version == report.current.version.version;
            let ready = item.ready.map_or("unknown".to_owned(), |ready| ready.to_string());
            vec![
                item.version.clone(),
                pluralize(item.members, "member"),
                format!("{ready} ready"),
                if is_in_force { "in force".to_owned() } else { String::new() },
            ]
        })
        .collect();
    format!("{}{}", in_words(&report.current), table("  ", &rows))
}

/// Which version a backend has, and how it comes to that, in a line.
pub(super) fn in_words(report: &VersionReport) -> String {
    let version = &report.version;
    let mut text = format!("{}: {} version {}", version.backend, version.name, version.version);
    if version.is_switched() {
        let by = version.note.by.as_deref().unwrap_or("an operator");
        let before = version.previous.as_ref().unwrap_or(&version.declared);
        let _ = write!(text, ", switched from {before} by {by} ");
        text.push_str(&ago(version.since));
        if let Some(reason) = &version.note.reason {
            let _ = write!(text, " ({reason})");
        }
    }
    let waits = report.waits_for.as_deref().unwrap_or("it is on its way");
    let more = match version.phase {
        SwitchPhase::Settled => return text + "\n",
        SwitchPhase::Joining => {
            format!("; {} stays until it is ready: {waits}", version.serving.join(", "))
        }
        SwitchPhase::Leaving => format!("; the old members leave: {waits}"),
    };
    format!("{text}{}\n", paint(Colour::Yellow, &more))
}

#[cfg(test)]
mod tests {
    use mapsmith_core::members::BackendVersion;

    use super::*;

    #[test]
    fn a_switch_names_the_version_that_was_in_force_before_it() {
        let now = jiff::Timestamp::now();
        let by = |name: &str| mapsmith_core::Note { reason: None, by: Some(name.to_owned()) };
        let version = BackendVersion::declared("dyn", "myapp", "1.0.0", now);
        let version = version.switched("1.1.0", None, now, by("anna")).unwrap();
        let version = version.next().next().switched("3", None, now, by("ben")).unwrap();
        let told = in_words(&VersionReport { version, waits_for: None });
        assert!(told.contains("version 3, switched from 1.1.0 by ben"), "{told}");
    }

    #[test]
    fn a_row_has_the_beginning_of_what_a_member_says_of_itself() {
        let exact = "x".repeat(LONGEST_META);
        assert_eq!(cut(&exact), exact);
        let long = cut(&"ü".repeat(LONGEST_META + 1));
        assert_eq!((long.chars().count(), long.chars().last()), (LONGEST_META, Some('…')));
        assert_eq!(cut("{\"a\":\"\u{9b}31m\"}"), "{\"a\":\"\u{fffd}31m\"}");
    }
}
