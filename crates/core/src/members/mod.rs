//! Members: servers that are registered with Mapsmith itself by name and version, and which of them
//! a backend has. Pure.
//!
//! `registry` has all that is registered, `clock` measures how long a member was not heard of,
//! `version` says which version a backend has and how it comes to another one, `listing` what a
//! backend's list is then.

mod clock;
mod listing;
mod pacer;
mod registry;
mod version;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use clock::ListeningClock;
pub use listing::{MemberListing, MemberListings, listing};
pub use pacer::EventPacer;
pub use registry::{
    Batch, Effect, Kept, Lifetime, MOST_BY_GRANT, MOST_MEMBERS, MemberChange, Members, Touched,
    VersionCount,
};
pub use version::{BackendVersion, Readiness, SETTLE, Seen, SwitchPhase, readiness};

use crate::server::is_valid_name;
use crate::server::list::{Host, parse_address};

/// The longest name of what is registered, and of a version.
pub const LONGEST_NAME: usize = 100;
/// The most bytes of what a member says of itself, as JSON.
pub const LARGEST_META: usize = 8 * 1024;
/// The shortest and the longest time that a member may be silent.
pub const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// What a member says of itself: a JSON object that Mapsmith only keeps.
pub type Meta = serde_json::Map<String, serde_json::Value>;

/// Which member it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct MemberKey {
    /// What it serves, like `myapp`.
    pub name: String,
    pub version: String,
    /// An address or a host name, as it is compared: without brackets, in lower case.
    pub host: String,
    #[schema(minimum = 1)]
    pub port: u16,
}

/// What can be no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMember {
    #[error(
        "{what} {value:?} is not valid: 1 to {LONGEST_NAME} letters, digits and . _ - + : ~ @, not \
            only dots"
    )]
    Name { what: &'static str, value: String },
    #[error("{0}")]
    Address(String),
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("meta is larger than {LARGEST_META} bytes")]
    Meta,
    #[error("ttl must be 1s to 24h")]
    Ttl,
}

/// Whether something that is registered, or a version of it, may be called so.
///
/// # Errors
/// It may not.
pub fn check_name(what: &'static str, value: &str) -> Result<(), InvalidMember> {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:~@".contains(&byte);
    let is_valid = (1..=LONGEST_NAME).contains(&value.len())
        && value.bytes().all(may_stand)
        && value.bytes().any(|byte| byte != b'.');
    let cut = || value.chars().take(LONGEST_NAME).collect();
    if is_valid { Ok(()) } else { Err(InvalidMember::Name { what, value: cut() }) }
}

impl MemberKey {
    /// The member of this name and version at this address.
    ///
    /// # Errors
    /// There can be none.
    pub fn new(name: &str, version: &str, host: &str, port: &str) -> Result<Self, InvalidMember> {
        check_name("name", name)?;
        check_name("version", version)?;
        let number = port.parse::<u16>().ok().filter(|number| *number > 0);
        // `+80` is no port.
        let number = number.filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
        let number =
            number.ok_or_else(|| InvalidMember::Port(port.chars().take(LONGEST_NAME).collect()))?;
        let address = |detail: String| InvalidMember::Address(detail);
        if host.contains(']') && !host.ends_with(']') || host.matches(':').count() == 1 {
            return Err(address(format!(
                "{host:?} is not an address or a host name: the port is \
                the last part of the path"
            )));
        }
        let (host, _) = parse_address(host, Some(i64::from(number))).map_err(address)?;
        let host = match host {
            Host::Address(host) => host.to_string(),
            Host::Name(host) => host,
        };
        let key = Self { name: name.to_owned(), version: version.to_owned(), host, port: number };
        match is_valid_name(&key.server()) {
            true => Ok(key),
            false => Err(address(format!("{:?} can be no server's name", key.server()))),
        }
    }

    /// Its server's name in a backend.
    pub fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// As it stands in a path.
impl fmt::Display for MemberKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, host, port } = self;
        write!(out, "{name}/{version}/{host}/{port}")
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub key: MemberKey,
    pub meta: Meta,
    /// How long it may be silent; none where it stays until somebody ends it.
    pub ttl: Option<Duration>,
    /// Since when it is registered.
    pub since: Timestamp,
    /// Who registered it, where the API knows.
    pub by: Option<String>,
}

impl Member {
    /// Whether it can be kept.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn check(&self) -> Result<(), InvalidMember> {
        let size = serde_json::to_string(&self.meta).map_or(usize::MAX, |text| text.len());
        if size > LARGEST_META {
            return Err(InvalidMember::Meta);
        }
        match self.ttl {
            Some(ttl) if !TTL.contains(&ttl) => Err(InvalidMember::Ttl),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
