//! The tasks that say what needs a person, that tell somebody, and that keep events.

use std::sync::{Arc, PoisonError};

use mapsmith_core::attention::{Attention, Settling};
use tokio::sync::watch;

use super::daemon::Daemon;
use super::ground::Carried;
use crate::api::Api;
use crate::attention::{self, Notifier};
use crate::events::{EventLog, Recorder};
use crate::store::{SqliteStore, StoreError};

/// Those of the store, or where there is none those of before all tasks began anew.
pub(super) async fn event_log(
    store: Option<SqliteStore>,
    carried: &Carried,
) -> Result<Arc<EventLog>, StoreError> {
    if store.is_some() {
        return Ok(Arc::new(EventLog::open(store).await?));
    }
    let open = async || Ok(Arc::new(EventLog::open(None).await?));
    Ok(Arc::clone(carried.events.get_or_try_init(open).await?))
}

impl Daemon {
    /// Evaluates what needs a person, and tells somebody where the settings say whom.
    pub(super) async fn start_attention(
        &mut self,
        api: Arc<Api>,
        carried: &Carried,
    ) -> anyhow::Result<()> {
        let (settings, store) = (self.settings(), api.store.clone());
        let status = api.notify.clone();
        let recorder = Recorder::new(Arc::clone(&api), Arc::clone(&api.events)).await?;
        let stop = self.stop();
        self.start_task("events", recorder.run(stop));
        let (latest, attention) = watch::channel(Arc::new(Attention::default()));
        let stop = self.stop();
        self.start_task("attention", attention::run(api, latest, stop));
        let Some(notify) = settings.notify.clone() else { return Ok(()) };
        if let Some(store) = &store {
            let told = Settling::new(store.told().await?);
            *carried.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
        let (site, told) = (settings.site.name.clone(), Arc::clone(&carried.told));
        let notifier = Notifier::new(notify, site, told, store, attention, status);
        let stop = self.stop();
        self.start_task("notify", notifier.run(stop));
        Ok(())
    }
}
