//! Who may ask the API: the tokens, the audit, and the files that are read again.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::daemon::Daemon;
use super::ground::{Carried, Ground};
use crate::api::{Access, Api, Audit};
use crate::heartbeat;
use crate::http;
use crate::store::{SqliteStore, TokenService};

/// How often it is looked whether the API's files have changed.
const FILES_READ: Duration = Duration::from_secs(2);

impl Daemon {
    /// Who may ask, and where it is noted what they changed.
    pub(super) async fn start_access(
        &mut self,
        ground: &Ground,
        carried: &Carried,
        store: Option<SqliteStore>,
    ) -> anyhow::Result<(Access, Audit)> {
        let settings = self.settings();
        let tokens = match &store {
            Some(store) => Some(TokenService::open(store.clone()).await?),
            None => None,
        };
        if let Some(tokens) = tokens.clone() {
            self.tasks.start("tokens", tokens.run(self.shutdown.clone()));
        }
        let (audit, writer) = Audit::new(store);
        if let Some(writer) = writer {
            // It ends with the last who may have something to note.
            let (stop, declared) = (self.shutdown.clone(), Arc::clone(&carried.declared));
            let anew = async move {
                stop.cancelled().await;
                if declared.is_ending() {
                    std::future::pending().await
                }
            };
            self.tasks.start("audit", writer.run(anew));
        }
        let (file, tls) = (ground.token.clone(), ground.tls.clone());
        if file.is_some() || tls.is_some() {
            self.start_until_shutdown("API's files", async move {
                loop {
                    heartbeat::waiting(sleep(FILES_READ)).await;
                    let (file, tls) = (file.clone(), tls.clone());
                    let read = spawn_blocking(move || {
                        file.iter().for_each(|file| file.read_again());
                        tls.iter().for_each(|tls| tls.read_again());
                    });
                    // They log what is wrong themselves.
                    let _ = heartbeat::waiting(read).await;
                }
            });
        }
        let (file, clients) = (ground.token.clone(), settings.api.clients.clone());
        let is_open_locally = settings.api.is_open_locally();
        let access = Access::new(is_open_locally, file, tokens, clients, carried.access.clone())
            .with_tls(ground.tls.clone())
            .reached_by(settings.api.external_url.clone());
        Ok((access, audit))
    }

    /// Answers, from now on.
    pub(super) fn serve_api(
        &mut self,
        ground: &Ground,
        listener: TcpListener,
        api: Arc<Api>,
        most: usize,
    ) -> anyhow::Result<()> {
        http::begin_metrics();
        self.serve_old_clients(ground, &api, most)?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "API listening");
        let (tls, stop) = (ground.tls.clone(), self.shutdown.clone());
        let spare = http::spare_router(Arc::clone(&api), most);
        let serve = http::serve(listener, tls, http::router(api), spare, most, stop);
        self.tasks.start("API", serve);
        Ok(())
    }
}
