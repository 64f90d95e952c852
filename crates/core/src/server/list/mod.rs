//! Server lists as a person writes them or a registry says them. Each row is checked by itself:
//! what no server can be made of is left out with its place and reason, and the rest goes on.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shown::shown_words;
use super::{MAX_WEIGHT, ServerAddress, ServerOptions, is_valid_name};
use crate::names::Invalid;
use crate::snapshot::{Content, NAMED_REJECTIONS, Rejections, sanitize};

/// The longest host name, in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// A row as it stands; nothing of it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawServer {
    /// The name; without one it is derived from address and port.
    pub name: Option<String>,
    /// An address or a host name, with or without a port.
    pub address: String,
    /// The port, unless the address has it.
    pub port: Option<i64>,
    pub weight: Option<i64>,
    /// Whether it serves only while no other server does.
    pub backup: bool,
    /// Options of its own.
    pub options: Option<Vec<String>>,
}

impl RawServer {
    /// What its server is called, whatever else is wrong with it: its name, or the one derived from
    /// address and port. None where that is no valid name.
    pub fn known_name(&self) -> Option<String> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let (host, port) = parse_address(&self.address, self.port).ok()?;
                derived_name(&host, port)
            }
        };
        is_valid_name(&name).then_some(name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    Address(IpAddr),
    /// At what this name resolves to; in lower case.
    Name(String),
}

/// A checked row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedServer {
    /// Its name, valid by [`is_valid_name`].
    pub name: String,
    pub host: Host,
    /// Its port, 1 to 65535.
    pub port: u16,
    /// Its weight, 0 to [`MAX_WEIGHT`].
    pub weight: Option<u16>,
    /// Whether it serves only while no other server does.
    pub backup: bool,
    /// Options of its own; none where the backend's count.
    pub options: Option<ServerOptions>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedServer {
    pub place: String,
    /// The server that it names, where that name is valid: what is known of it stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

/// A checked list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerList {
    /// The servers, by name; each name once.
    pub servers: Vec<ListedServer>,
    /// The rows that were left out, the first [`NAMED_REJECTIONS`] of them.
    pub rejected: Vec<RejectedServer>,
    /// How many rows were left out.
    pub rejected_count: u64,
    /// The servers that rows which were left out name, all of them: what is known of these stays in
    /// force.
    pub unknown: BTreeSet<String>,
    /// How many rows are left out that do not say which server they are.
    pub unnamed: u64,
    /// Names that rows of the list give different servers, and nothing tells which counts: what is
    /// in force stays.
    pub disputed: BTreeSet<String>,
}

impl ServerList {
    /// Whether it is known of each row that was left out which server it is: one that `is_known`.
    /// Where it is not, a row may be any server that is not listed.
    pub fn explains(&self, is_known: impl Fn(&str) -> bool) -> bool {
        self.unnamed == 0 && self.unknown.iter().all(|name| is_known(name))
    }
}

impl Content for ServerList {
    fn count(&self) -> usize {
        self.servers.len()
    }
}

/// Which of two servers of one name counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// The first: a person wrote the list, and the order with it.
    First,
    /// None where they differ: a registry's order must not make a server wander. The one of the
    /// lowest address stands for both.
    LowestAddress,
}

/// Takes the rows of a list.
#[derive(Debug, Default)]
pub struct ServerListBuilder {
    rows: Vec<(String, ListedServer)>,
    rejected: Vec<RejectedServer>,
    rejected_count: u64,
    unknown: BTreeSet<String>,
    unnamed: u64,
    rejections: Rejections,
}

impl ServerListBuilder {
    /// Takes one row, or leaves it out. `place` says where it stands.
    pub fn push(&mut self, place: &str, raw: RawServer) {
        let name = raw.known_name();
        if let Err((reason, detail)) = self.try_push(place, raw) {
            self.leave_out(place, name, reason, detail);
        }
    }

    /// Takes one row; the name of its server.
    ///
    /// # Errors
    /// If no server can be made of it: why, and what is wrong with it in words. It is not noted.
    pub fn try_push(&mut self, place: &str, raw: RawServer) -> Result<String, (Invalid, String)> {
        let server = check(raw)?;
        let name = server.name.clone();
        self.rows.push((place.to_owned(), server));
        Ok(name)
    }

    /// Leaves a row out. `detail` says to a person what is wrong with it.
    pub fn reject(&mut self, place: &str, reason: Invalid, detail: String) {
        self.leave_out(place, None, reason, detail);
    }

    /// Leaves out what stands where a server of this name stood before, and what is known of that
    /// server stays in force.
    pub fn reject_known(&mut self, place: &str, name: &str, reason: Invalid, detail: String) {
        self.leave_out(place, Some(name.to_owned()), reason, detail);
    }

    /// Counts what is not for this list, and nothing is wrong with.
    pub fn skip(&mut self, place: &str, reason: Invalid) {
        self.rejections.push(place, reason);
    }

    fn leave_out(&mut self, place: &str, name: Option<String>, reason: Invalid, detail: String) {
        self.rejections.push(place, reason);
        self.rejected_count += 1;
        match &name {
            Some(name) => _ = self.unknown.insert(name.clone()),
            None => self.unnamed += 1,
        }
        if self.rejected.len() < NAMED_REJECTIONS {
            self.rejected.push(RejectedServer { place: sanitize(place), name, reason: detail });
        }
    }

    /// The list, and what was left out of it.
    pub fn finish(mut self, repeats: Repeats) -> (ServerList, Rejections) {
        let mut rows = core::mem::take(&mut self.rows);
        if repeats == Repeats::LowestAddress {
            rows.sort_by_cached_key(|(_, server)| {
                (
                    server.host.clone(),
                    server.port,
                    server.weight,
                    server.backup,
                    format!("{:?}", server.options),
                )
            });
        }
        let mut servers: BTreeMap<String, ListedServer> = BTreeMap::new();
        let mut disputed = BTreeSet::new();
        for (place, server) in rows {
            match servers.get(&server.name) {
                None => {
                    servers.insert(server.name.clone(), server);
                }
                Some(first) => {
                    let name = Some(server.name.clone());
                    let detail = if repeats == Repeats::LowestAddress && *first != server {
                        disputed.insert(server.name);
                        format!(
                            "another row gives this name to the server at {}: what is in force \
                                stays; remove one of them",
                            location(first)
                        )
                    } else {
                        format!(
                            "another server of the list has this name and is used, the one at {}",
                            location(first)
                        )
                    };
                    self.leave_out(&place, name, Invalid::ServerTwice, detail);
                }
            }
        }
        let list = ServerList {
            servers: servers.into_values().collect(),
            rejected: self.rejected,
            rejected_count: self.rejected_count,
            unknown: self.unknown,
            unnamed: self.unnamed,
            disputed,
        };
        (list, self.rejections)
    }
}

/// `10.0.0.1:8140`, `[fe80::1]:8140`, `puppet00.example:8140`.
fn location(server: &ListedServer) -> String {
    match &server.host {
        Host::Address(ip) => ServerAddress { ip: *ip, port: server.port }.to_string(),
        Host::Name(name) => format!("{name}:{}", server.port),
    }
}

/// What a server without a name is called.
fn derived_name(host: &Host, port: u16) -> String {
    match host {
        // Without brackets, which no name may hold: the port is what follows the last colon.
        Host::Address(address) => format!("{address}:{port}"),
        Host::Name(name) => format!("{name}:{port}"),
    }
}

fn check(raw: RawServer) -> Result<ListedServer, (Invalid, String)> {
    let (host, port) =
        parse_address(&raw.address, raw.port).map_err(|detail| (Invalid::ServerAddress, detail))?;
    let name = raw.name.unwrap_or_else(|| derived_name(&host, port));
    if !is_valid_name(&name) {
        let detail = format!(
            "{:?} is not a valid server name: 1 to 255 letters, digits and . _ : -",
            sanitize(&name)
        );
        return Err((Invalid::ServerName, detail));
    }
    let within = |weight| match u16::try_from(weight) {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err((
            Invalid::ServerWeight,
            format!("the weight {weight} is not within 0 to {MAX_WEIGHT}"),
        )),
    };
    let weight = raw.weight.map(within).transpose()?;
    let options = raw.options.as_deref().map(ServerOptions::parse).transpose();
    let options =
        options.map_err(|error| (Invalid::ServerOption, shown_words(error.to_string())))?;
    Ok(ListedServer { name, host, port, weight, backup: raw.backup, options })
}

/// Takes `10.0.0.1`, `10.0.0.1:8140`, `fe80::1`, `[fe80::1]:8140`, `puppet00.example`,
/// `puppet00.example:8140`; the port stands in one of the two places, or is the same in both.
pub fn parse_address(address: &str, port: Option<i64>) -> Result<(Host, u16), String> {
    let none = || {
        format!(
            "{:?} is not an address: write it like 10.0.0.1:8140, [fe80::1]:8140 or \
                puppet00.example:8140",
            sanitize(address)
        )
    };
    let (host, own_port) = if let Some(rest) = address.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or_else(none)?;
        let host = Host::Address(IpAddr::V6(inner.parse::<Ipv6Addr>().map_err(|_| none())?));
        match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':').ok_or_else(none)?)),
        }
    } else if let Ok(address) = address.parse::<IpAddr>() {
        (Host::Address(address), None)
    } else {
        let (host, own_port) = match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        let host = match host.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) if is_host_name(host) => Host::Name(host.to_ascii_lowercase()),
            Err(_) => return Err(none()),
        };
        (host, own_port)
    };
    if let Host::Address(address) = &host
        && (address.is_unspecified() || address.is_multicast())
    {
        return Err(format!("a server cannot have the address {address}"));
    }
    let own_port = match own_port {
        None => None,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(text.parse::<i64>().map_err(|_| none())?)
        }
        Some(_) => return Err(none()),
    };
    let port = match (own_port, port) {
        (Some(own), Some(port)) if own != port => {
            return Err(format!("the address has the port {own}, but port is {port}"));
        }
        (Some(port), _) | (None, Some(port)) => port,
        (None, None) => return Err(format!("{:?} has no port", sanitize(address))),
    };
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err(format!("the port {port} is not within 1 to 65535")),
    }
}

/// Letters, digits, `-` and `_` between dots (RFC 1123, section 2.1). A name whose last part is a
/// number is an address gone wrong.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let part_is_good = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last_is_a_number =
        name.rsplit('.').next().is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= MAX_HOST && name.split('.').all(part_is_good) && !last_is_a_number
}

#[cfg(test)]
mod tests;
