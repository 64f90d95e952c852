//! The tasks that say what needs a person, and that tell somebody.

use std::sync::{Arc, PoisonError};

use mapsmith_core::attention::{Attention, NotifyStatus, Settling};
use tokio::sync::watch;

use super::daemon::Daemon;
use super::ground::Carried;
use crate::api::Api;
use crate::attention::{self, Notifier};

impl Daemon {
    /// Evaluates what needs a person, and tells somebody where the settings say whom.
    pub(super) async fn start_attention(
        &mut self,
        api: Arc<Api>,
        carried: &Carried,
        status: watch::Sender<NotifyStatus>,
    ) -> anyhow::Result<()> {
        let (settings, store) = (self.settings(), api.store.clone());
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
