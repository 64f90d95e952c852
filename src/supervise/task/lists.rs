//! What the file waits for: the servers of backends.

use std::sync::Arc;

use mapsmith_core::config::status::ConfigState;
use mapsmith_core::desired::config::DesiredConfig;
use tokio::time::Instant;

use super::{FIRST_LISTS, Failure, Supervisor};
use crate::supervise::unknown;

impl Supervisor {
    /// The backends whose servers are not known and waited for: those of the settings' file, and
    /// for a while those of services.
    pub(super) fn awaited<'a>(
        &'a self,
        config: &'a DesiredConfig,
    ) -> impl Iterator<Item = &'a String> {
        let now = Instant::now();
        let services = self.services.as_ref();
        config.unknown.iter().filter(move |backend| {
            let is_service = services.is_some_and(|services| services.contains(*backend));
            !is_service || self.first_lists.awaits(backend, now)
        })
    }

    /// Waits for them where there is something in place, or not for long.
    pub(super) async fn wait_for_lists(
        &mut self,
        config: &DesiredConfig,
        is_there: bool,
    ) -> Result<Option<ConfigState>, Failure> {
        // Services that keep changing begin everything anew, and this wait not.
        let is_over =
            self.began.elapsed() >= FIRST_LISTS || self.first_lists.is_over(Instant::now());
        if !is_there && is_over {
            return Ok(None);
        }
        let mut awaited = self.awaited(config);
        let Some(first) = awaited.next().cloned() else { return Ok(None) };
        let more = if awaited.next().is_none() { "" } else { " and others" };
        drop(awaited);
        self.wait_without_lists(&first, more, is_there).await.map(Some)
    }

    /// Without them what is in place is kept running.
    pub(super) async fn wait_without_lists(
        &mut self,
        backend: &str,
        more: &str,
        is_there: bool,
    ) -> Result<ConfigState, Failure> {
        if is_there {
            self.keep_running().await?;
        }
        let reason = format!(
            "the servers of backend {backend}{more} are not known yet; the file stays as it is \
                (with [store] a restart knows the last ones)"
        );
        Ok(ConfigState::Waiting { reason })
    }

    /// What is desired, with the servers that HAProxy has of the backends whose servers are not
    /// known; a backend of which the file does not tell.
    pub(super) async fn with_servers_in_place(
        &self,
        config: &Arc<DesiredConfig>,
    ) -> Result<Result<Arc<DesiredConfig>, String>, Failure> {
        let in_place = match (config.unknown.is_empty(), &self.last_good) {
            (false, None) => self.files(|files| files.text()).await?,
            _ => None,
        };
        let last_good = self.last_good.as_deref();
        Ok(unknown::with_servers_in_place(config, last_good, in_place.as_deref()))
    }
}
