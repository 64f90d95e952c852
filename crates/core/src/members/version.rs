//! Which version of what is registered a backend has, and how it comes to another one: members of
//! the new version are in, and ready, before those of the old one leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Note;

/// How long members that do not become ready are waited for, where enough others are.
pub const SETTLE: Duration = Duration::from_secs(10);

/// Who orders a version that the settings, or an object of the API, say.
const SETTINGS: &str = "settings";

/// The most members that are not ready that are named, of an instance.
const MOST_NAMED: usize = 3;

/// How far a switch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SwitchPhase {
    /// The backend has this version alone.
    Settled,
    /// The new members are in, or come in, and the old ones stay.
    Joining,
    /// The new ones are ready, and the old ones leave.
    Leaving,
}

impl SwitchPhase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
        }
    }

    /// The phase of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Settled, Self::Joining, Self::Leaving];
        all.into_iter().find(|phase| phase.name() == name)
    }
}

/// The version that a backend has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendVersion {
    pub backend: String,
    /// What of the registrations it takes.
    pub name: String,
    /// What its `from` says. Where that changes, it counts: it is the later order.
    pub declared: String,
    pub version: String,
    /// The one before, for the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The versions whose members serve until those of the new one are ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serving: Vec<String>,
    pub phase: SwitchPhase,
    /// How many of the new version's members suffice; none where all must be ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready: Option<u32>,
    pub since: Timestamp,
    #[serde(flatten)]
    pub note: Note,
}

impl BackendVersion {
    /// As the settings say it, from the first time on.
    pub fn declared(backend: &str, name: &str, version: &str, now: Timestamp) -> Self {
        Self {
            backend: backend.to_owned(),
            name: name.to_owned(),
            declared: version.to_owned(),
            version: version.to_owned(),
            previous: None,
            serving: Vec::new(),
            phase: SwitchPhase::Settled,
            min_ready: None,
            since: now,
            note: Note::default(),
        }
    }

    /// Whether somebody has switched it to another version than its `from` says.
    pub fn is_switched(&self) -> bool {
        self.version != self.declared
    }

    /// The same with this version ordered; none where it has, or gets, that one already.
    pub fn switched(
        &self,
        version: &str,
        min_ready: Option<u32>,
        now: Timestamp,
        note: Note,
    ) -> Option<Self> {
        if self.version == version
            && (self.phase != SwitchPhase::Joining || self.min_ready == min_ready)
        {
            return None;
        }
        if self.version == version {
            return Some(Self { min_ready, note, ..self.clone() });
        }
        let joining = self.phase == SwitchPhase::Joining;
        // What never came into force is nothing to go back to, but on the way back itself.
        let previous = match &self.previous {
            Some(previous) if joining && previous != version => previous.clone(),
            _ => self.version.clone(),
        };
        let mut serving = if joining { self.serving.clone() } else { Vec::new() };
        serving.push(self.version.clone());
        serving.retain(|serving| serving != version);
        serving.dedup();
        Some(Self {
            version: version.to_owned(),
            previous: Some(previous),
            serving,
            phase: SwitchPhase::Joining,
            min_ready,
            since: now,
            note,
            ..self.clone()
        })
    }

    /// The same where the settings say this now. What was ordered stays until they say something
    /// else than they did.
    pub fn with_declared(self, name: &str, version: &str, now: Timestamp) -> Self {
        if self.name != name {
            // Other members altogether: a change of the list like any other.
            return Self::declared(&self.backend, name, version, now);
        }
        if self.declared == version {
            return self;
        }
        let note = Note { reason: None, by: Some(SETTINGS.to_owned()) };
        let switched = self.switched(version, None, now, note);
        Self { declared: version.to_owned(), ..switched.unwrap_or(self) }
    }

    /// Whether nobody ordered it, but what declares the backend says it.
    pub fn is_of_settings(&self) -> bool {
        self.note.by.as_deref() == Some(SETTINGS)
    }

    /// The next phase.
    #[must_use]
    pub fn next(&self) -> Self {
        let phase = match self.phase {
            SwitchPhase::Joining => SwitchPhase::Leaving,
            SwitchPhase::Leaving | SwitchPhase::Settled => SwitchPhase::Settled,
        };
        Self { phase, serving: Vec::new(), ..self.clone() }
    }

    /// The versions whose members the backend has now, the ordered one first.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        let serving = self.serving.iter().filter(|_| self.phase == SwitchPhase::Joining);
        std::iter::once(&self.version).chain(serving).map(String::as_str)
    }
}

/// What an instance has of the servers of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Those that it has, and why one is not ready; none where it is.
    Servers(BTreeMap<String, Option<String>>),
    /// It can't be reached, so nothing is waited for there.
    Unreachable,
}

/// Whether the old members may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Not yet, and why.
    Waits(String),
}

/// Whether enough of the new version's members are ready in every instance that can be reached,
/// after this time of waiting.
pub fn readiness(
    version: &BackendVersion,
    members: &BTreeSet<String>,
    instances: &[(String, Seen)],
    waited: Duration,
) -> Readiness {
    let (all, of) = (members.len(), format!("{} {}", version.name, version.version));
    let least = version.min_ready.map_or(all, |least| (least as usize).max(1));
    if all == 0 {
        return Readiness::Waits(format!("no members of {of} are registered"));
    }
    if all < least {
        let text = format!("{all} members of {of} are registered, and at least {least} must be");
        return Readiness::Waits(text);
    }
    let (mut reached, mut short) = (0, Vec::new());
    let enough = if waited >= SETTLE { least } else { all };
    for (instance, seen) in instances {
        let Seen::Servers(seen) = seen else { continue };
        reached += 1;
        let ready = members.iter().filter(|name| matches!(seen.get(*name), Some(None))).count();
        if ready < enough {
            let why = not_ready(members, seen);
            short.push(format!("{ready} of {all} members of {of} are ready in {instance} ({why})"));
        }
    }
    match short.as_slice() {
        [] if reached == 0 => Readiness::Waits("no instance can be reached".to_owned()),
        [] => Readiness::Ready,
        short => Readiness::Waits(short.join(", ")),
    }
}

/// The first of those that are not ready, and why.
fn not_ready(members: &BTreeSet<String>, seen: &BTreeMap<String, Option<String>>) -> String {
    let why = |name: &String| match seen.get(name) {
        Some(None) => None,
        Some(Some(why)) => Some(format!("{name}: {why}")),
        None => Some(format!("{name}: HAProxy does not have it yet")),
    };
    let mut waits = members.iter().filter_map(why);
    let named: Vec<_> = waits.by_ref().take(MOST_NAMED).collect();
    match waits.count() {
        0 => named.join("; "),
        more => format!("{}; {more} more", named.join("; ")),
    }
}
