//! `[[instance]]`: the HAProxy processes that are driven.

use std::time::Duration;

use haproxy_runtime::{
    CertClient, MapClient, MapName, RuntimeAddress, RuntimeClient, ServersClient, StatsClient,
    TableClient, TableName,
};
use serde::Deserialize;

use super::check_names;
use super::keys::section;
use super::units::{duration, size};

section! {
    /// An HAProxy process. At least one is required; each is listed once.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Instance {
        /// Its name in status, logs and metrics: 1 to 255 bytes without whitespace.
        #[unset(required)]
        pub name: String,
        /// Its stats socket, with level `admin`: `unix@/path` or `tcp@host:port`.
        #[unset(required)]
        pub runtime: RuntimeAddress,
        /// How long it may stay silent before it counts as unreachable.
        #[unset("5s")]
        #[serde(default = "timeout", deserialize_with = "duration")]
        pub timeout: Duration,
        /// The largest payload of one command in bytes, 1024 to 1048576. Keep it 1 KiB below
        /// HAProxy's `tune.bufsize`, which is 16384 unless configured.
        #[unset("15KiB")]
        #[serde(default = "max_payload", deserialize_with = "size")]
        pub max_payload: usize,
    }
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

/// 1 KiB below the default buffer: at exactly its size 2.6 hangs and aborts.
fn max_payload() -> usize {
    15 * 1024
}

impl Instance {
    /// With what holds where nothing is given.
    pub(super) fn new(name: &str, runtime: RuntimeAddress) -> Self {
        Self { name: name.to_owned(), runtime, timeout: timeout(), max_payload: max_payload() }
    }

    fn client(&self) -> RuntimeClient {
        RuntimeClient::new(self.runtime.clone(), self.timeout)
    }

    /// A client of one of its maps.
    pub fn map_client(&self, map: &MapName) -> MapClient {
        MapClient::new(self.client(), map.clone(), self.max_payload)
    }

    /// A client of its servers.
    pub fn servers_client(&self) -> ServersClient {
        ServersClient::new(self.client(), self.max_payload)
    }

    /// A client of what it measures.
    pub fn stats_client(&self) -> StatsClient {
        StatsClient::new(self.client())
    }

    /// A client of its certificates and revocations.
    pub fn cert_client(&self) -> CertClient {
        CertClient::new(self.client(), self.max_payload)
    }

    /// A client of one of its stick tables.
    pub fn table_client(&self, table: TableName) -> TableClient {
        TableClient::new(self.client(), table, self.max_payload)
    }

    fn problems(&self, place: &str, others: &[Self], problems: &mut Vec<String>) {
        if let Some(other) = others.iter().find(|other| other.runtime == self.runtime) {
            problems.push(format!(
                "{place}: has the socket of {:?}; each HAProxy is driven once",
                other.name
            ));
        }
        if !(1024..=1024 * 1024).contains(&self.max_payload) {
            problems.push(format!("{place}: max_payload must be 1024 to 1048576 bytes"));
        }
        if self.timeout.is_zero() {
            problems.push(format!("{place}: timeout must not be 0"));
        }
    }
}

pub(super) fn problems(instances: &[Instance], problems: &mut Vec<String>) {
    if instances.is_empty() {
        problems.push(
            "instance: there is none; add an [[instance]] with its runtime socket".to_owned(),
        );
    }
    check_names("instance", instances.iter().map(|instance| &instance.name), problems);
    for (index, instance) in instances.iter().enumerate() {
        let place = format!("instance[{index}] {:?}", instance.name);
        instance.problems(&place, &instances[..index], problems);
    }
}
