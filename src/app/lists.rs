//! Server lists in the store, and those that are to be there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mapsmith_core::server::LastGoodList;

use crate::engine::Decision;
use crate::settings::{self, Settings};
use crate::store::SqliteStore;

/// The store with the lists in it.
pub(super) async fn stored_with(
    store: Option<SqliteStore>,
) -> anyhow::Result<Option<(SqliteStore, BTreeMap<String, LastGoodList>)>> {
    let Some(store) = store else { return Ok(None) };
    let lists = store.last_good_lists().await?;
    Ok(Some((store, lists)))
}

/// Where each backend's list comes from. All are stored, those too that the settings write out:
/// what takes their place one day is a change of them.
pub(super) fn stored_lists(settings: &Settings) -> BTreeMap<String, String> {
    let origin = |backend: &settings::Backend| (backend.name.clone(), backend.origin());
    settings.backends.iter().map(origin).collect()
}

/// When whoever lists a backend's servers last said what is in force, of those that have since the
/// start.
pub(super) fn confirmed_lists(decision: &Decision) -> BTreeMap<String, Timestamp> {
    let confirmed = decision.backends.iter().filter(|backend| backend.waiting_for.is_none());
    confirmed.filter_map(|backend| Some((backend.name.clone(), backend.confirmed_at?))).collect()
}
