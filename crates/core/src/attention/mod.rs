//! What needs a person, worst first: one pure function over what is known of everything.
//!
//! The page, `mapsmith status`, `GET /v1/attention`, the metrics and the command of `[notify]` all
//! show the same items.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Role;
use crate::certificate::CertificateStatus;
use crate::config::status::HaproxyStatus;
use crate::desired::hold::{Hold, Rejected};
use crate::desired::references::Dangling;
use crate::desired::rollout::Rollout;
use crate::members::BackendVersion;
use crate::revision::{ChangeCounts, HeldChange};
use crate::services::ServicesStatus;
use crate::status::{BackendStatus, InstanceStatus, KeptNodes, MapFileStatus, SourceStatus};
use crate::tls_file::TlsFileStatus;

mod certificates;
mod haproxy;
mod items;
mod members;
mod settle;

pub use settle::{Key, Settling};

/// The most items that are listed.
pub const MOST_ITEMS: usize = 100;
/// The most characters of an item's text: it may have a program's words in it.
const LONGEST_TEXT: usize = 500;

/// How much an item matters.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Requests may go wrong, or a person is waited for.
    Act,
    /// Worth a look in working hours.
    Look,
    /// Nothing needs anybody.
    #[default]
    Fine,
}

impl Severity {
    /// Those that an item may have.
    pub const OF_ITEMS: [Self; 2] = [Self::Act, Self::Look];

    /// Its name in JSON and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Look => "look",
            Self::Fine => "fine",
        }
    }
}

/// What an item is about, the most urgent kinds first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = AttentionKind)]
pub enum Kind {
    HeldChange,
    /// A revision that is tried in a few instances.
    Rollout,
    ReadOnly,
    MapFile,
    InstanceUnreachable,
    InstanceRefused,
    InstanceBehind,
    UnknownMaster,
    DrainStuck,
    /// HAProxy's configuration is not what is declared.
    Config,
    /// A part of the configuration keeps its last good form, or is left out.
    Quarantined,
    NeedsReload,
    /// The servers of an instance could not be seen or changed.
    Servers,
    SourceStale,
    SourceFailed,
    Certificate,
    /// A file of certificates or revocations.
    TlsFile,
    Services,
    Store,
    NotReadyMaster,
    /// Entries that HAProxy refuses.
    Rejected,
    /// Nodes that stay where they are although the sources say something else.
    NodesKept,
    /// A rollback holds the sources back.
    Hold,
    /// What the sources say was rejected.
    RejectedChange,
    /// A backend's list is not in force as it is.
    Backend,
    /// A backend is on its way to another version of its members, and does not get there.
    Switch,
    DriftHealed,
    /// Servers that somebody put into maintenance or drain outside Mapsmith.
    ExternalServers,
    Learned,
    /// The API's own files.
    Api,
    /// The command that would have told.
    Notify,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&crate::label(self))
    }
}

/// What can be done about an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AttentionAction)]
pub struct Action {
    pub text: String,
    /// The request that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The same on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The role that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Role>,
}

impl Action {
    /// Something that nobody can do through Mapsmith.
    fn advice(text: &str) -> Self {
        Self { text: text.to_owned(), call: None, command: None, needs: None }
    }

    fn command(text: &str, command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..Self::advice(text) }
    }

    fn with_call(self, call: &str, needs: Role) -> Self {
        Self { call: Some(call.to_owned()), needs: Some(needs), ..self }
    }
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AttentionItem)]
pub struct Item {
    pub severity: Severity,
    pub kind: Kind,
    /// Which one of its kind: an instance, a source, a path; `map` for the map.
    pub subject: String,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// One sentence.
    pub text: String,
    /// What can be done.
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

/// What needs a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attention {
    /// Of the first item; [`Severity::Fine`] where there is none.
    pub worst: Severity,
    /// How many items of each severity there are, those included that are not listed.
    pub act: usize,
    pub look: usize,
    /// Worst first, at most [`MOST_ITEMS`].
    pub items: Vec<Item>,
}

impl Attention {
    fn new(mut items: Vec<Item>) -> Self {
        let order = |item: &Item| (item.severity, item.kind, item.since.is_none(), item.since);
        items.sort_by(|a, b| (order(a), &a.subject).cmp(&(order(b), &b.subject)));
        let count = |severity| items.iter().filter(|item| item.severity == severity).count();
        let (act, look) = (count(Severity::Act), count(Severity::Look));
        items.truncate(MOST_ITEMS);
        items.iter_mut().for_each(|item| item.text = cut(&item.text));
        let worst = items.first().map_or(Severity::Fine, |item| item.severity);
        Self { worst, act, look, items }
    }

    pub fn count(&self, severity: Severity) -> usize {
        match severity {
            Severity::Act => self.act,
            Severity::Look => self.look,
            Severity::Fine => 0,
        }
    }

    /// The worst item that a command can be told of: not that it fails itself.
    pub fn worst_item(&self) -> Option<&Item> {
        self.items.iter().find(|item| item.kind != Kind::Notify)
    }
}

/// At most [`LONGEST_TEXT`] characters in one line.
fn cut(text: &str) -> String {
    let line = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let short: String = line.take(LONGEST_TEXT).collect();
    if text.chars().count() > LONGEST_TEXT { format!("{short}...") } else { short }
}

/// How the command of `[notify]` stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotifyStatus {
    /// How often in a row it has failed.
    pub failures: u32,
    pub failed_since: Option<Timestamp>,
    /// Why it last failed.
    pub error: Option<String>,
}

/// The API's own files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiFiles {
    pub token_file_error: Option<String>,
    pub tls_error: Option<String>,
    pub tls_not_after: Option<Timestamp>,
    /// When the next CRL of clients should have come.
    pub crl_until: Option<Timestamp>,
}

/// What a rollback leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldStatus {
    pub hold: Hold,
    /// What the sources' answer would change.
    pub waiting: ChangeCounts,
}

/// What is known of everything, as far as somebody may be needed for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    pub started_at: Timestamp,
    /// Sources that have not answered since the start.
    pub waiting_for: Vec<String>,
    /// Whether the map was decided on with an answer of every source since the start.
    pub map_decided: bool,
    /// The Mapsmith that writes the map file instead of this one.
    pub read_only: Option<String>,
    pub held: Vec<HeldChange>,
    pub hold: Option<HoldStatus>,
    /// A held change of the map that an operator rejected, while the sources say it.
    pub rejected_change: Option<Rejected>,
    /// The latest rollout.
    pub rollout: Option<Rollout>,
    /// Drained masters that keep their nodes.
    pub stuck: Vec<String>,
    pub flapping: KeptNodes,
    pub conflicts: KeptNodes,
    pub dangling: Dangling,
    /// Of its masters those that nodes are pinned to, with these nodes.
    pub pinned: BTreeMap<String, Vec<String>>,
    /// How many entries HAProxy refuses, and the first of them.
    pub refused_rows: (usize, Option<String>),
    pub map_file: Option<MapFileStatus>,
    /// What could not be kept in the store, and why.
    pub store_errors: Vec<(&'static str, String)>,
    pub sources: Vec<SourceStatus>,
    pub backends: Vec<BackendStatus>,
    /// Backends that are not there, and servers of them that have overrides.
    pub left_over: BTreeMap<String, Vec<String>>,
    /// Backends on their way to another version of their members, and why each is not further.
    pub switches: Vec<(BackendVersion, Option<String>)>,
    pub tls_files: Vec<TlsFileStatus>,
    pub certificates: Vec<CertificateStatus>,
    pub haproxy: Option<HaproxyStatus>,
    pub services: Option<ServicesStatus>,
    /// The frontends and backends that are declared through the API and can't count, with the
    /// reason.
    pub set_aside: Vec<(String, String)>,
    /// The frontends that listen nowhere yet, for they wait for these backends.
    pub waiting_frontends: Vec<(String, Vec<String>)>,
    pub api: ApiFiles,
    pub instances: Vec<InstanceStatus>,
    /// The one of them whose configuration Mapsmith writes, and that it reloads.
    pub own_instance: Option<String>,
    pub notify: NotifyStatus,
}

/// What needs a person, worst first.
pub fn attention(status: &Status, now: Timestamp) -> Attention {
    let mut items = Vec::new();
    items::of_the_map(status, now, &mut items);
    items::of_sources(status, now, &mut items);
    haproxy::of_instances(status, now, &mut items);
    haproxy::of_configuration(status, &mut items);
    certificates::of_certificates(status, now, &mut items);
    items.extend(members::of_switches(status, now));
    items::of_mapsmith(status, now, &mut items);
    Attention::new(items)
}

#[cfg(test)]
mod tests;
