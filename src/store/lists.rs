//! Keeps each backend's list in the store as it comes into force, so that a restart while its
//! registry is silent begins with it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::{Desired, DesiredServers};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::SqliteStore;
use crate::heartbeat;

/// How long a store that failed is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// Follows the desired servers until shutdown. `origins` says where each backend's list comes from,
/// for those whose list is kept; `stored` is what the store has. A store that fails keeps nothing
/// else from going on.
pub async fn keep_lists(
    store: SqliteStore,
    origins: BTreeMap<String, String>,
    mut stored: BTreeMap<String, LastGoodList>,
    mut desired: watch::Receiver<Desired>,
    shutdown: CancellationToken,
) {
    let mut failing = false;
    loop {
        let latest = desired.borrow_and_update().servers.clone();
        match write(&store, &origins, &mut stored, latest.as_deref()).await {
            Ok(()) if std::mem::replace(&mut failing, false) => {
                tracing::info!("server lists can be stored again")
            }
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::error!(
                    "server lists can't be stored, so a restart would begin with older ones: \
                        {error}"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            Ok(_) = heartbeat::waiting(desired.wait_for(|desired| desired.servers != latest)) => {}
            () = shutdown.cancelled() => return,
            () = sleep(RETRY), if failing => {}
        }
    }
}

async fn write(
    store: &SqliteStore,
    origins: &BTreeMap<String, String>,
    stored: &mut BTreeMap<String, LastGoodList>,
    desired: Option<&DesiredServers>,
) -> Result<(), super::StoreError> {
    // A backend that is declared no more: its list must not come back one day.
    let outdated: Vec<_> =
        stored.keys().filter(|backend| !origins.contains_key(*backend)).cloned().collect();
    for backend in outdated {
        store.keep_list(&backend, None).await?;
        stored.remove(&backend);
    }
    for (backend, origin) in origins {
        let Some(desired) = desired.and_then(|desired| desired.backends.get(backend)) else {
            continue;
        };
        let before = stored.get(backend).filter(|list| list.servers == desired.servers);
        if before.is_some_and(|list| list.origin == *origin) {
            continue;
        }
        let list = LastGoodList {
            origin: origin.clone(),
            // The same servers from elsewhere are in force for as long as they were.
            since: before.map_or_else(|| Some(Timestamp::now()), |list| list.since),
            servers: desired.servers.clone(),
        };
        store.keep_list(backend, Some(list.clone())).await?;
        stored.insert(backend.clone(), list);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
