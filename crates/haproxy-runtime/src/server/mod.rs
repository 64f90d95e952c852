//! Servers of backends: as they should be, and as HAProxy has them; the commands that lead from one
//! to the other.
//!
//! A server's name and options stand on HAProxy's command lines, so nothing but what is checked
//! here may become one.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "client")]
pub mod client;
pub mod command;
pub mod options;
pub mod reply;

/// The longest name of a backend or server, in bytes.
pub const MAX_NAME: usize = 255;
/// The greatest weight (HAProxy's manual, section 5.2 `weight`).
pub const MAX_WEIGHT: u16 = 256;

/// Whether `name` can name a backend or a server: letters, digits and `.`, `_`, `:`, `-` (HAProxy's
/// `invalid_char`).
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

/// Where a server listens. Host names are resolved before they come here: HAProxy never resolves
/// what is given at runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerAddress {
    /// The address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// The port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(out, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(out, "[{ip}]:{}", self.port),
        }
    }
}

/// A server as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Its name, valid by [`is_valid_name`].
    pub name: String,
    /// Where it listens.
    pub address: ServerAddress,
    /// 0 to [`MAX_WEIGHT`]; none leaves what HAProxy has.
    pub weight: Option<u16>,
    /// Whether it serves only while no other server does.
    pub backup: bool,
    /// What else is said of it.
    pub options: ServerOptions,
}

/// A backend as an instance has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBackend {
    /// The balance algorithm as `show stat` names it (`algo`): `roundrobin`, `hdr`; none where this
    /// socket's level hides it. A backend made at runtime is `unknown` where its `defaults` section
    /// names none.
    pub algorithm: Option<String>,
    /// By name.
    pub servers: BTreeMap<String, ObservedServer>,
}

/// Every backend of an instance, by name.
pub type ObservedServers = BTreeMap<String, ObservedBackend>;

/// Reasons for which a server is out of rotation or draining (HAProxy's `enum srv_admin`, shown by
/// `show servers state`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminState(pub u32);

impl AdminState {
    /// Maintenance by the runtime API: `disable server`, `set server state maint`, and every server
    /// right after `add server`.
    pub const MAINTENANCE: u32 = 0x01;
    /// Maintenance inherited from a tracked server.
    pub const INHERITED_MAINTENANCE: u32 = 0x02;
    /// The configuration says `disabled`. Only a note: `enable server` ends the maintenance and
    /// leaves this bit.
    pub const CONFIGURED_MAINTENANCE: u32 = 0x04;
    /// Draining by the runtime API or the agent.
    pub const DRAIN: u32 = 0x08;
    /// Draining inherited from a tracked server.
    pub const INHERITED_DRAIN: u32 = 0x10;
    /// Maintenance because the name does not resolve.
    pub const UNRESOLVED: u32 = 0x20;

    /// Whether it takes no traffic at all, for whatever reason.
    pub fn in_maintenance(self) -> bool {
        self.0 & (Self::MAINTENANCE | Self::INHERITED_MAINTENANCE | Self::UNRESOLVED) != 0
    }

    /// Whether it takes no new traffic but for persistence.
    pub fn draining(self) -> bool {
        self.0 & (Self::DRAIN | Self::INHERITED_DRAIN) != 0
    }

    /// Whether nothing keeps it out.
    pub fn ready(self) -> bool {
        !self.in_maintenance() && !self.draining()
    }
}

/// A server as an instance has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedServer {
    /// Its address; none where HAProxy has none (a unix socket, an unresolved name). A free slot of
    /// a `server-template` has the address that the template names, `0.0.0.0` or any other.
    pub address: Option<IpAddr>,
    /// Its port; 0 where it has none.
    pub port: u16,
    /// The name that HAProxy resolves it by, if any: its address is HAProxy's to keep then.
    pub fqdn: Option<String>,
    /// The weight in force as set by configuration or runtime API (`srv_uweight`).
    pub weight: u16,
    /// The weight that its configuration or `add server` gave it (`srv_iweight`).
    pub initial_weight: u16,
    /// What keeps it out, if anything.
    pub admin: AdminState,
    /// Whether HAProxy would send it traffic by its checks: `srv_op_state` running or starting.
    pub running: bool,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// The status as `show stat` words it: `UP`, `DOWN 1/2`, `MAINT (resolution)`, `no check`.
    pub status: String,
    /// What the last health check came to, in the words of `show stat` (`check_desc`): `Layer4
    /// connection problem`; empty before the first.
    pub last_check: String,
    /// Whether a health check is configured.
    pub check_configured: bool,
    /// Whether the health check is enabled: `add server` leaves it configured and not enabled.
    pub check_enabled: bool,
    /// Whether the last health check failed.
    pub check_failed: bool,
    /// Whether an agent check is enabled: the agent may set the weight, and does so again at each
    /// of its answers.
    pub agent_enabled: bool,
    /// Whether it is a backup.
    pub backup: bool,
    /// `maxconn`; none without a limit.
    pub maxconn: Option<u32>,
    /// `maxqueue`; none without a limit.
    pub maxqueue: Option<u32>,
    /// Sessions right now.
    pub sessions: u64,
    /// Requests that wait for it right now.
    pub queued: u64,
    /// Sessions since it was made.
    pub sessions_total: u64,
}

/// A server's options as HAProxy's `server` line has them, checked: only what `add server` takes,
/// each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerOptions {
    /// `check`.
    pub check: bool,
    /// `maxconn`: can be changed at runtime.
    pub maxconn: Option<u32>,
    /// `maxqueue`: can't.
    pub maxqueue: Option<u32>,
    /// The rest in the order given, as words of a command line: `inter 2s`, `ssl`.
    pub other: Vec<String>,
}
