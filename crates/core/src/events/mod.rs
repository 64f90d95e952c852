//! Events: what has changed, for those who follow. A revision, another state of an instance, an
//! order of an operator.
//!
//! What is in a state has an event when the state is another one than that of its last event. So
//! whoever begins again, with the last event of each, tells nothing twice and leaves nothing out.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::overrides::{BlockedNode, DrainedMaster, OverrideChange, Pin};
use crate::revision::ChangeCounts;

mod observer;

pub use observer::{Observed, Observer, end_of_hold};

/// What an event is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The map has another revision.
    Revision,
    /// The guard holds a change, or holds it no more.
    Held,
    /// A held change was let through.
    Approved,
    /// A held change is not wanted.
    Rejected,
    /// A rollback holds the sources back, or does not any more.
    Hold,
    /// A revision goes to a few instances first, or everywhere, or is taken back.
    Rollout,
    /// An instance is in another state.
    Instance,
    /// Something was found to differ and was corrected.
    Drift,
    /// A source fails, or does not any more.
    Source,
    /// An operator ordered something of a node or a master, or that ended.
    Override,
    /// A member is registered, or is no more.
    Registration,
    /// A backend gets another version of its members.
    Switch,
    /// HAProxy was reloaded, or the sources were asked because somebody said so.
    Reload,
    /// HAProxy's configuration is in another state.
    Config,
    /// A token was made, rotated or revoked.
    Token,
    /// A command was begun on a node, or has ended.
    Command,
    /// The worst of what needs a person is another item.
    Attention,
}

impl EventKind {
    pub const ALL: [Self; 17] = [
        Self::Revision,
        Self::Held,
        Self::Approved,
        Self::Rejected,
        Self::Hold,
        Self::Rollout,
        Self::Instance,
        Self::Drift,
        Self::Source,
        Self::Override,
        Self::Registration,
        Self::Switch,
        Self::Reload,
        Self::Config,
        Self::Token,
        Self::Command,
        Self::Attention,
    ];

    /// The room that its events have.
    pub fn share(self) -> EventShare {
        match self {
            Self::Registration => EventShare::Registrations,
            _ => EventShare::Usual,
        }
    }

    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revision => "revision",
            Self::Held => "held",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Hold => "hold",
            Self::Rollout => "rollout",
            Self::Instance => "instance",
            Self::Drift => "drift",
            Self::Source => "source",
            Self::Override => "override",
            Self::Registration => "registration",
            Self::Switch => "switch",
            Self::Reload => "reload",
            Self::Config => "config",
            Self::Token => "token",
            Self::Command => "command",
            Self::Attention => "attention",
        }
    }
}

/// Events that share what room there is for them. Members may come and go by the thousand, and
/// push out none but their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventShare {
    Usual,
    Registrations,
}

impl EventShare {
    pub const ALL: [Self; 2] = [Self::Usual, Self::Registrations];

    /// Its place in [`Self::ALL`], which it keeps for ever: the store has it.
    pub fn index(self) -> usize {
        match self {
            Self::Usual => 0,
            Self::Registrations => 1,
        }
    }
}

/// Of each share the number of the last event that is no longer there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoneEvents(pub [u64; EventShare::ALL.len()]);

impl GoneEvents {
    /// The last one of these kinds, or of all where none is named.
    pub fn of(&self, topics: &BTreeSet<EventKind>) -> u64 {
        let asked = |share: &EventShare| {
            topics.is_empty() || topics.iter().any(|kind| kind.share() == *share)
        };
        let shares = EventShare::ALL.into_iter().filter(asked);
        shares.map(|share| self.0[share.index()]).max().unwrap_or_default()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// There is no event of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no kind of event; there are {kinds}", name = .0, kinds = kinds())]
pub struct UnknownKind(String);

fn kinds() -> String {
    EventKind::ALL.map(EventKind::name).join(", ")
}

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Happening {
    pub at: Timestamp,
    pub kind: EventKind,
    /// Which one: an instance, a source, a node, a revision's number.
    pub subject: String,
    /// What it is now, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// One sentence.
    pub text: String,
    /// Who ordered it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What a revision changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<ChangeCounts>,
}

impl Happening {
    pub fn new(at: Timestamp, kind: EventKind, subject: &str, text: String) -> Self {
        let subject = subject.to_owned();
        let (state, by, reason, request_id, counts) = (None, None, None, None, None);
        Self { at, kind, subject, state, text, by, reason, request_id, counts }
    }

    pub fn in_state(self, state: &str) -> Self {
        Self { state: Some(state.to_owned()), ..self }
    }

    /// With who asked for it.
    pub fn asked(
        self,
        by: Option<String>,
        reason: Option<String>,
        request_id: Option<String>,
    ) -> Self {
        Self { by, reason, request_id, ..self }
    }

    /// What an order of an operator is to those who follow; none of pins that end by themselves,
    /// which are an event each.
    pub fn of_override(change: &OverrideChange) -> Option<Self> {
        let server_name;
        let (at, subject, state, text) = match change {
            OverrideChange::SetServer(order) => {
                server_name = format!("{}/{}", order.backend, order.server);
                (
                    &order.since,
                    &server_name,
                    "set",
                    format!("{server_name} is set: {}", order.order),
                )
            }
            OverrideChange::ResetServer { backend, server, now, .. } => {
                server_name = format!("{backend}/{server}");
                (now, &server_name, "reset", format!("{server_name} is as its list says again"))
            }
            OverrideChange::Pin(Pin { node, master, since, .. }) => {
                (since, node, "pinned", format!("{node} is pinned to {master}"))
            }
            OverrideChange::Unpin { node, now, .. } => {
                (now, node, "unpinned", format!("{node} is no longer pinned"))
            }
            OverrideChange::Block(BlockedNode { node, since, .. }) => {
                (since, node, "blocked", format!("{node} is blocked: it is in no map"))
            }
            OverrideChange::Unblock { node, now, .. } => {
                (now, node, "unblocked", format!("{node} is no longer blocked"))
            }
            OverrideChange::Drain(DrainedMaster { master, since, to, .. }) => {
                let to = to.as_deref().unwrap_or("the others");
                (since, master, "drained", format!("{master} is drained to {to}"))
            }
            OverrideChange::Undrain { master, now, stay, .. } => {
                let stay = if *stay { "; its nodes stay where they went" } else { "" };
                (now, master, "undrained", format!("{master} is no longer drained{stay}"))
            }
            OverrideChange::Expire { .. } | OverrideChange::Begin { .. } => return None,
        };
        let note = change.note();
        let happening = Self::new(*at, EventKind::Override, subject, text).in_state(state);
        Some(happening.asked(note.by, note.reason, None))
    }

    /// What was ordered of a server, and ends with its backend.
    pub fn of_forgotten(now: Timestamp, server: &str) -> Self {
        let text = format!("what was ordered of {server} ended with its backend");
        Self::new(now, EventKind::Override, server, text).in_state("ended")
    }

    /// An override of a node whose time is over.
    pub fn of_end(now: Timestamp, node: &str) -> Self {
        let text = format!("the time of {node}'s override is over");
        Self::new(now, EventKind::Override, node, text).in_state("ended")
    }
}

/// Something that has changed, with its number: each has a greater one than those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub id: u64,
    #[serde(flatten)]
    pub happening: Happening,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_that_of_the_kinds_that_are_asked_for() {
        let gone = GoneEvents([3, 90]);
        let of = |kinds: &[EventKind]| gone.of(&kinds.iter().copied().collect());
        assert_eq!(of(&[]), 90);
        assert_eq!(of(&[EventKind::Revision, EventKind::Switch]), 3);
        assert_eq!(of(&[EventKind::Revision, EventKind::Registration]), 90);
        for (index, share) in EventShare::ALL.into_iter().enumerate() {
            assert_eq!(share.index(), index);
        }
    }

    #[test]
    fn a_kind_is_known_by_its_name_in_json() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let unknown = "hello".parse::<EventKind>().unwrap_err().to_string();
        assert!(unknown.starts_with("\"hello\" is no kind of event; there are revision, held"));
    }
}
