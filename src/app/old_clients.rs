//! The listeners for clients of other APIs: where they listen, over a beginning anew too.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::daemon::Daemon;
use super::ground::{Ground, bind};
use crate::api::Api;
use crate::http::{self, compat};
use crate::settings::Settings;

/// Of all connections these listeners may have this part each.
const PART: usize = 4;

/// Those that are open, by their names, each with where the settings had it.
#[derive(Debug, Clone, Default)]
pub(super) struct OldListeners(BTreeMap<&'static str, (SocketAddr, Arc<TcpListener>)>);

impl OldListeners {
    /// Those of these settings. One stays open that listens there already.
    pub async fn changed(&self, settings: &Settings) -> anyhow::Result<Self> {
        let mut open = BTreeMap::new();
        for clients in settings.compat.listeners() {
            let listen = clients.listen;
            let known = self.0.get(clients.name).filter(|(known, _)| *known == listen);
            let listener = match known {
                Some((_, listener)) => Arc::clone(listener),
                None => {
                    let section = format!("compat.{}", clients.name);
                    Arc::new(bind(&section, listen).await?.into_std()?)
                }
            };
            open.insert(clients.name, (listen, listener));
        }
        Ok(Self(open))
    }
}

impl Daemon {
    /// Answers old clients, from now on.
    pub(super) fn serve_old_clients(
        &mut self,
        ground: &Ground,
        api: &Arc<Api>,
        most: usize,
    ) -> anyhow::Result<()> {
        for clients in self.settings().compat.listeners() {
            let Some((_, listener)) = ground.old.0.get(clients.name) else { continue };
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            let (address, name) = (listener.local_addr()?, format!("compat.{}", clients.name));
            tracing::info!(%address, "{name} listening");
            let router = compat::router(Arc::clone(api), clients);
            let (spare, most) = (compat::spare_router(), most.div_ceil(PART));
            let serve = http::serve(listener, None, router, spare, most, self.stop());
            self.tasks.start(&name, serve);
        }
        Ok(())
    }
}
