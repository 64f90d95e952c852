//! Servers of backends: as they should be, and as an instance was seen to have them.
//!
//! A server's name and options stand on HAProxy's command lines, so nothing but what is checked
//! here may become one.

pub mod list;
pub mod shown;

use core::time::Duration;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub use haproxy_runtime::server::{
    AdminState, MAX_NAME, MAX_WEIGHT, ObservedBackend, ObservedServer, ObservedServers, Server,
    ServerAddress, ServerOptions, is_valid_name, options,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::overrides::{OrderedState, ServerOrder};

/// The most servers of a backend: more than one is built for.
pub const MOST_SERVERS: usize = 10_000;

/// A backend's servers as they were last in force, kept for a start: they stay while whoever lists
/// servers is silent, and what is listed then is a change of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGoodList {
    /// Where the list came from, as the status names it.
    pub origin: String,
    /// Since when it is in force; none where a Mapsmith stored it that did not note it.
    pub since: Option<Timestamp>,
    /// When its origin last said that this is the list, as far as that was stored.
    pub confirmed: Option<Timestamp>,
    pub servers: BTreeMap<String, Server>,
}

/// How much of a declared backend is Mapsmith's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manage {
    /// The servers that are or were desired; others are left alone and shown.
    #[default]
    Own,
    /// Every server: one that is not desired is drained and removed.
    All,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredBackend {
    pub servers: BTreeMap<String, Server>,
    /// Names that were desired once and are not any more: Mapsmith's to remove.
    pub former: BTreeSet<String>,
    /// Whose the other servers are.
    pub manage: Manage,
    /// The prefix of a `server-template`'s names, whose free slots may be used where no server can
    /// be added.
    pub slots: Option<String>,
    /// The `defaults` section that a missing backend is made from (3.4 and later); none leaves it
    /// missing.
    pub defaults: Option<String>,
    /// How long a server that is to go may keep its sessions.
    pub drain: Duration,
    /// The servers whose master an operator has drained: weight 0, so that the balance algorithm
    /// passes them over. None where a drain of a master is no matter of this backend's.
    pub drained: Option<BTreeSet<String>>,
    /// The servers whose master's drain has ended: they have their weight back.
    #[serde(default)]
    pub undrained: BTreeSet<String>,
    /// The servers that were in force when Mapsmith started, where all others are its own to remove:
    /// so it was Mapsmith that took out whatever else was out then.
    #[serde(default)]
    pub resumed: Option<BTreeSet<String>>,
    /// What an operator has ordered of servers, by name, listed or not.
    #[serde(default)]
    pub ordered: BTreeMap<String, ServerOrder>,
    /// The servers whose order has ended lately, each with the weight that was ordered.
    #[serde(default)]
    pub released: BTreeMap<String, Option<u16>>,
    /// The weight of a server that nobody gives one, where HAProxy's file is Mapsmith's: what the
    /// process was loaded with may be an order's.
    #[serde(default)]
    pub usual_weight: Option<u16>,
    /// The weights that servers were listed with, and are not any more.
    #[serde(default)]
    pub unweighted: BTreeMap<String, u16>,
}

impl DesiredBackend {
    /// The state that an operator has ordered of this server.
    pub fn ordered_state(&self, server: &str) -> Option<OrderedState> {
        self.ordered.get(server)?.state
    }

    /// Whether an operator has ordered this server out of rotation.
    pub fn is_ordered_out(&self, server: &str) -> bool {
        self.ordered_state(server).is_some_and(OrderedState::is_out)
    }

    /// The listed servers, with the weights that an operator has ordered in place of the listed
    /// ones.
    pub fn as_ordered(&self) -> Cow<'_, BTreeMap<String, Server>> {
        let mut servers = Cow::Borrowed(&self.servers);
        for (name, order) in &self.ordered {
            if order.weight.is_some()
                && self.servers.contains_key(name)
                && let Some(server) = servers.to_mut().get_mut(name)
            {
                server.weight = order.weight;
            }
        }
        servers
    }

    /// The listed servers that begin out of rotation where HAProxy begins with its file.
    pub fn disabled(&self) -> BTreeSet<String> {
        let listed = self.servers.keys();
        listed.filter(|name| self.is_ordered_out(name)).cloned().collect()
    }

    /// Whether an operator has drained the master of this server.
    pub fn is_drained(&self, server: &str) -> bool {
        self.drained.as_ref().is_some_and(|drained| drained.contains(server))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredServers {
    /// Grows with every change.
    pub number: u64,
    pub backends: BTreeMap<String, DesiredBackend>,
}
