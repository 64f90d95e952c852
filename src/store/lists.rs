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
/// How often it is written that lists were confirmed: registries do that all the time.
const CONFIRM: Duration = Duration::from_secs(60);

/// Follows the desired servers until shutdown. `origins` says where each backend's list comes from;
/// `confirmed`, when that last said what is desired, of those backends where it has since the
/// start; `stored` is what the store has. A store that fails keeps nothing else from going on.
pub async fn keep_lists(
    store: SqliteStore,
    origins: BTreeMap<String, String>,
    confirmed: impl Fn() -> BTreeMap<String, Timestamp>,
    mut stored: BTreeMap<String, LastGoodList>,
    mut desired: watch::Receiver<Desired>,
    shutdown: CancellationToken,
) {
    let mut failing = false;
    loop {
        let latest = desired.borrow_and_update().servers.clone();
        let news = News { desired: latest.as_deref(), confirmed: confirmed() };
        match write(&store, &origins, &mut stored, &news).await {
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
            () = sleep(if failing { RETRY } else { CONFIRM }) => {}
        }
    }
}

/// What is to be stored.
struct News<'a> {
    desired: Option<&'a DesiredServers>,
    confirmed: BTreeMap<String, Timestamp>,
}

async fn write(
    store: &SqliteStore,
    origins: &BTreeMap<String, String>,
    stored: &mut BTreeMap<String, LastGoodList>,
    news: &News<'_>,
) -> Result<(), super::StoreError> {
    // A backend that is declared no more: its list must not come back one day.
    let outdated: Vec<_> =
        stored.keys().filter(|backend| !origins.contains_key(*backend)).cloned().collect();
    for backend in outdated {
        store.keep_list(&backend, None).await?;
        stored.remove(&backend);
    }
    let mut confirmed = BTreeMap::new();
    for (backend, origin) in origins {
        let Some(desired) = news.desired.and_then(|desired| desired.backends.get(backend)) else {
            continue;
        };
        let said = news.confirmed.get(backend).copied();
        if let Some(list) = stored.get(backend).filter(|list| list.servers == desired.servers) {
            let list = said.and_then(|said| confirm(list, origin, said));
            confirmed.extend(list.map(|list| (backend.clone(), list)));
            continue;
        }
        let list = LastGoodList {
            origin: origin.clone(),
            since: Some(Timestamp::now()),
            confirmed: said,
            servers: desired.servers.clone(),
        };
        store.keep_list(backend, Some(list.clone())).await?;
        stored.insert(backend.clone(), list);
    }
    if !confirmed.is_empty() {
        store.confirm_lists(confirmed.clone()).await?;
        stored.extend(confirmed);
    }
    Ok(())
}

/// The same list, as its origin has confirmed it; none where what is stored says as much. The same
/// servers from elsewhere are in force for as long as they were.
fn confirm(list: &LastGoodList, origin: &str, said: Timestamp) -> Option<LastGoodList> {
    let due = |before: Timestamp| said.duration_since(before).unsigned_abs() >= CONFIRM;
    let is_news = list.origin != origin || list.since.is_none() || list.confirmed.is_none_or(due);
    let origin = origin.to_owned();
    let since = list.since.or(Some(said));
    is_news.then(|| LastGoodList { origin, since, confirmed: Some(said), ..list.clone() })
}

#[cfg(test)]
mod tests;
