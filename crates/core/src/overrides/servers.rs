//! What an operator orders of one server of a backend: its state, its weight, or both.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Note;
use crate::names::Invalid;
use crate::server::{MAX_WEIGHT, is_valid_name};

/// How long it is remembered that a server's override has ended: a Mapsmith that starts meanwhile
/// still knows whom it took out, and brings it back.
pub const RELEASED_KEPT: Duration = Duration::from_secs(60 * 60);

/// The most servers that may have an override.
pub const MOST_SERVERS: usize = 10_000;

/// A state that an operator orders, in HAProxy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderedState {
    /// In rotation, whoever took it out.
    Ready,
    /// No new requests but for persistence.
    Drain,
    /// Maintenance: no requests, no health checks.
    Maint,
}

impl OrderedState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|state| state.name() == name)
    }

    /// Whether the balance algorithm passes such a server over.
    pub fn is_out(self) -> bool {
        self != Self::Ready
    }
}

impl fmt::Display for OrderedState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What is ordered of a server, as an instance has to know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerOrder {
    /// None leaves the state to whoever else sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OrderedState>,
    /// In place of the listed one, 0 to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

impl ServerOrder {
    /// Whether it keeps new requests away.
    pub fn takes_out(&self) -> bool {
        self.state.is_some_and(OrderedState::is_out) || self.weight == Some(0)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ServerOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, self.weight) {
            (Some(state), Some(weight)) => write!(out, "{state}, weight {weight}"),
            (Some(state), None) => write!(out, "{state}"),
            (None, Some(weight)) => write!(out, "weight {weight}"),
            (None, None) => write!(out, "as listed"),
        }
    }
}

/// The override of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerOverride {
    pub backend: String,
    /// By the name that the list has, or HAProxy where nobody lists it.
    pub server: String,
    #[serde(flatten)]
    pub order: ServerOrder,
    pub since: Timestamp,
    /// When it ends by itself; none where only an operator ends it.
    pub until: Option<Timestamp>,
    #[serde(flatten)]
    pub note: Note,
}

impl ServerOverride {
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether it can stand in commands.
    pub fn check(&self) -> Result<(), Invalid> {
        if !is_valid_name(&self.backend) || !is_valid_name(&self.server) {
            return Err(Invalid::ServerName);
        }
        match self.order.weight {
            Some(weight) if weight > MAX_WEIGHT => Err(Invalid::ServerWeight),
            _ => Ok(()),
        }
    }
}

/// A server whose override has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    pub at: Timestamp,
    /// The weight that was ordered.
    pub weight: Option<u16>,
}

impl Released {
    /// When it is forgotten.
    pub fn until(&self) -> Timestamp {
        self.at.saturating_add(RELEASED_KEPT).unwrap_or(Timestamp::MAX)
    }
}

/// A change of a server's override: of each part none leaves it as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerEdit {
    pub state: Option<Option<OrderedState>>,
    pub weight: Option<Option<u16>>,
    pub until: Option<Option<Timestamp>>,
}

impl ServerEdit {
    /// What is ordered after it, and until when.
    pub fn over(&self, before: Option<&ServerOverride>) -> (ServerOrder, Option<Timestamp>) {
        let order = before.map(|before| before.order).unwrap_or_default();
        let order = ServerOrder {
            state: self.state.unwrap_or(order.state),
            weight: self.weight.unwrap_or(order.weight),
        };
        let until = before.and_then(|before| before.until);
        (order, self.until.unwrap_or(until))
    }
}
