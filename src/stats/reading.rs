//! One reading of everything, for whoever asks once.

use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::stats::{Row, Scope};
use jiff::Timestamp;
use mapsmith_core::stats::Selector;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Instance, Stats};

/// How old a reading may be that was made for somebody else.
const FRESH: Duration = Duration::from_secs(1);
/// The most rows of an instance that are told at once.
const MOST_ROWS: usize = 10_000;

/// What HAProxy says of a backend, or of a server of one, in the names of `show stat`. What does
/// not apply is null. Counters are since the process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsRow {
    pub backend: String,
    /// None for the backend itself.
    pub server: Option<String>,
    /// `UP`, `DOWN 1/2`, `MAINT`, `no check`.
    pub status: String,
    /// Sessions right now.
    pub scur: Option<u64>,
    /// Requests that wait right now.
    pub qcur: Option<u64>,
    /// Sessions in the last second.
    pub rate: Option<u64>,
    /// Requests in the last second, of a backend.
    pub req_rate: Option<u64>,
    /// The mean response time of the last 1024 requests, in milliseconds.
    pub rtime: Option<u64>,
    /// Sessions.
    pub stot: Option<u64>,
    pub hrsp_2xx: Option<u64>,
    pub hrsp_4xx: Option<u64>,
    pub hrsp_5xx: Option<u64>,
    /// Connections that failed.
    pub econ: Option<u64>,
    /// Responses that failed.
    pub eresp: Option<u64>,
    /// Retries.
    pub wretr: Option<u64>,
    /// Requests that went to another server.
    pub wredis: Option<u64>,
}

impl From<Row<'_>> for StatsRow {
    fn from(row: Row<'_>) -> Self {
        let [scur, qcur, rate, req_rate, rtime] = row.gauges;
        let [stot, hrsp_2xx, hrsp_4xx, hrsp_5xx, econ, eresp, wretr, wredis] = row.counters;
        Self {
            backend: row.backend.to_owned(),
            server: row.server.map(str::to_owned),
            status: row.status.to_owned(),
            scur,
            qcur,
            rate,
            req_rate,
            rtime,
            stot,
            hrsp_2xx,
            hrsp_4xx,
            hrsp_5xx,
            econ,
            eresp,
            wretr,
            wredis,
        }
    }
}

/// What one HAProxy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceReading {
    pub instance: String,
    pub at: Timestamp,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub rows: Vec<StatsRow>,
    /// How many more rows there would be.
    #[serde(default)]
    pub left_out: usize,
}

type Whole = (Instant, Timestamp, Arc<Result<Vec<StatsRow>, String>>);

/// The last one, which those share who ask at once.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Option<Whole>>);

impl Instance {
    async fn whole(&self) -> Whole {
        let mut last = self.readings.0.lock().await;
        if let Some(fresh) = last.as_ref().filter(|(at, ..)| at.elapsed() < FRESH) {
            return fresh.clone();
        }
        let mut rows = Vec::new();
        let read = match self.client.ask(&Scope::All).await {
            Ok(answer) => self.client.read(&Scope::All, &answer, |row| rows.push(row.into())),
            Err(error) => Err(error),
        };
        let read = read.map(|_| rows).map_err(|error| error.to_string());
        let whole = (Instant::now(), Timestamp::now(), Arc::new(read));
        *last = Some(whole.clone());
        whole
    }
}

impl Stats {
    /// What every instance says of these series; of all of them where none is named.
    ///
    /// # Errors
    /// An instance is named that there is not.
    pub async fn reading(&self, wanted: &[Selector]) -> Result<Vec<InstanceReading>, String> {
        let named = wanted.iter().filter_map(|it| it.instance.as_deref());
        if let Some(unknown) = named.clone().find(|it| !self.names().any(|name| name == *it)) {
            return Err(format!("there is no instance {unknown:?}"));
        }
        let is_asked = |instance: &&Instance| {
            wanted.is_empty() || wanted.iter().any(|it| it.is_of(&instance.name))
        };
        let read = self.instances.iter().filter(is_asked).map(async |instance| {
            let (_, at, read) = instance.whole().await;
            let of_it: Vec<_> = wanted.iter().filter(|it| it.is_of(&instance.name)).collect();
            let is_wanted = |row: &&StatsRow| {
                of_it.is_empty()
                    || of_it.iter().any(|it| it.is(&row.backend, row.server.as_deref()))
            };
            let (error, rows) = match &*read {
                Ok(rows) => (None, rows.as_slice()),
                Err(error) => (Some(error.clone()), &[][..]),
            };
            let count = rows.iter().filter(is_wanted).count();
            InstanceReading {
                instance: instance.name.clone(),
                at,
                error,
                rows: rows.iter().filter(is_wanted).take(MOST_ROWS).cloned().collect(),
                left_out: count.saturating_sub(MOST_ROWS),
            }
        });
        Ok(futures_util::future::join_all(read).await)
    }
}
