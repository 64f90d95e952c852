//! Triton's registrar: a domain's parts, reversed, are a path; each child of a service's path is a
//! host's record, `{"type": TYPE, TYPE: {"address": .., "ports": [..]}}`. *Pure.*

use std::fmt;

use mapsmith_core::server::list::RawServer;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Unread;
use crate::source::format::whole_number;

/// The most servers that one record may be.
pub(in crate::source::zookeeper) const MOST_PORTS: usize = 100;

/// The types of records that stand for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::source) enum RecordType {
    DbHost,
    Host,
    LoadBalancer,
    MorayHost,
    OpsHost,
    RedisHost,
    RrHost,
}

impl RecordType {
    pub(in crate::source::zookeeper) const ALL: [Self; 7] = [
        Self::DbHost,
        Self::Host,
        Self::LoadBalancer,
        Self::MorayHost,
        Self::OpsHost,
        Self::RedisHost,
        Self::RrHost,
    ];

    /// Whether such a record is among the hosts that Triton's DNS names for the service.
    fn is_service_member(self) -> bool {
        !matches!(self, Self::DbHost | Self::Host)
    }

    fn name(self) -> &'static str {
        match self {
            Self::DbHost => "db_host",
            Self::Host => "host",
            Self::LoadBalancer => "load_balancer",
            Self::MorayHost => "moray_host",
            Self::OpsHost => "ops_host",
            Self::RedisHost => "redis_host",
            Self::RrHost => "rr_host",
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What of a service's records is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::zookeeper) struct Registrar {
    /// The types of records; those of a service's members where there is none.
    pub records: Vec<RecordType>,
    /// The ports, a server each; the record's own where there is none.
    pub ports: Vec<u16>,
}

impl Registrar {
    /// The path of a service. Registrar writes domains in lower case.
    pub(in crate::source::zookeeper) fn path(domain: &str, service: &str) -> String {
        let parts = domain.trim_end_matches('.').rsplit('.').chain([service]);
        parts.map(|part| format!("/{}", part.to_ascii_lowercase())).collect()
    }

    /// The servers of a child of this name.
    pub(super) fn servers(
        &self,
        child: &str,
        record: &Map<String, Value>,
    ) -> Result<Vec<RawServer>, Unread> {
        let named = record.get("type").and_then(Value::as_str);
        let named = named.ok_or_else(|| Unread::new("the record has no type"))?;
        if !RecordType::ALL.iter().any(|known| known.name() == named && self.takes(*known)) {
            return Err(Unread::OtherType);
        }
        let own = record.get(named).and_then(Value::as_object);
        let address = own.and_then(|own| own.get("address")).and_then(Value::as_str);
        let address =
            address.ok_or_else(|| Unread::new(format!("the record has no {named}.address")))?;
        let ports = match own.and_then(|own| own.get("ports")) {
            _ if !self.ports.is_empty() => self.ports.iter().copied().map(i64::from).collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(ports) => read_ports(ports).ok_or_else(|| {
                Unread::new(format!("{named}.ports is not a list of ports, 1 to 65535"))
            })?,
        };
        if ports.is_empty() {
            return Err(Unread::new(format!("the record has no {named}.ports; set ports in from")));
        }
        let server = |port: i64| RawServer {
            name: Some(format!("{child}:{port}")),
            address: address.to_owned(),
            port: Some(port),
            ..RawServer::default()
        };
        Ok(ports.into_iter().map(server).collect())
    }

    fn takes(&self, record: RecordType) -> bool {
        match &self.records[..] {
            [] => record.is_service_member(),
            records => records.contains(&record),
        }
    }
}

/// As numbers or as text, as registrars have written them.
fn read_ports(ports: &Value) -> Option<Vec<i64>> {
    let ports = ports.as_array().filter(|ports| ports.len() <= MOST_PORTS)?;
    let port = |port| whole_number(port).filter(|port| (1..=65535).contains(port));
    ports.iter().map(port).collect()
}
