//! Wiring: channels, tasks, signals. Decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use anyhow::{anyhow, bail};
use mapsmith_core::server::LastGoodList;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http;
use crate::services::Known;
use crate::settings::supervision::Managed;
use crate::settings::{Settings, SettingsFile};
use crate::supervise::descriptor_store;
use crate::supervise::sockets::Handover;

mod certificates;
mod daemon;
mod descriptors;
mod lists;
mod services;
mod shadows;
mod signals;

use daemon::Daemon;
use signals::Signals;

/// Runs the daemon until SIGTERM or SIGINT. With `take_over` it writes the map file also where
/// another Mapsmith does so.
///
/// A SIGHUP reads the settings again. Where they have changed, or the services over them, all tasks
/// end and begin anew with them, as after a restart, which no HAProxy notices; the API's socket
/// stays open meanwhile.
///
/// # Errors
/// What keeps it from starting, or which of its tasks died.
pub async fn run(
    file: SettingsFile,
    metrics: PrometheusHandle,
    mut take_over: bool,
) -> anyhow::Result<()> {
    descriptor_store::open();
    let mut signals = Signals::catch()?;
    let most_connections = http::connections_within(descriptors::raise_limit());
    let mut ground = Ground::of(file).await?;
    let mut before = None;
    loop {
        let start = Daemon::start(&ground, metrics.clone(), most_connections, take_over);
        let daemon = match (start.await, before.take()) {
            (Ok(daemon), _) => daemon,
            (Err(error), None) => return Err(error),
            (Err(error), Some(good)) => {
                tracing::error!(
                    "the changed settings can't be used, those of before stay in force: {error:#}"
                );
                ground = good;
                continue;
            }
        };
        // Whoever writes the map file is known from here on.
        take_over = false;
        match daemon.run_until_stopped(&mut signals, &ground).await? {
            None => return Ok(()),
            Some(changed) => before = Some(std::mem::replace(&mut ground, changed)),
        }
    }
}

/// What the daemon stands on: the settings, and what of them shows at once whether they can be
/// used.
pub(super) struct Ground {
    pub file: SettingsFile,
    /// What is gone by: the file's settings, with the services over them.
    pub settings: Settings,
    pub services: Known,
    /// The server lists that were in force with the settings before.
    pub lists: BTreeMap<String, LastGoodList>,
    pub token: Option<http::Token>,
    /// The API's.
    pub listener: std::net::TcpListener,
    /// Those that are held for HAProxy.
    pub sockets: Handover,
}

impl Ground {
    async fn of(file: SettingsFile) -> anyhow::Result<Self> {
        let token = read_token(&file.settings)?;
        // Before anything is touched: a second Mapsmith that was started by mistake ends here.
        let listener = bind(file.settings.api.listen).await?.into_std()?;
        let services = Known::from_store(&file.settings).await?;
        let settings = services.settings(&file.settings);
        let (lists, sockets) = (BTreeMap::new(), Handover::default());
        Ok(Self { file, settings, services, lists, token, listener, sockets })
    }

    /// The same with other settings, and what is known of services by now.
    pub async fn changed(
        &self,
        file: SettingsFile,
        known: Option<&watch::Receiver<Known>>,
    ) -> anyhow::Result<Self> {
        let token = read_token(&file.settings)?;
        stays_where_it_is(&self.file.settings, &file.settings)?;
        let listen = file.settings.api.listen;
        // Port 0 was any port.
        let listens_there = self.listener.local_addr().is_ok_and(|address| address == listen);
        let listener = match listens_there || listen == self.file.settings.api.listen {
            true => self.listener.try_clone()?,
            false => bind(listen).await?.into_std()?,
        };
        let known = known.map_or_else(|| self.services.clone(), |known| known.borrow().clone());
        let services = known.under(&self.file.settings, &file.settings);
        let settings = services.settings(&file.settings);
        let (lists, sockets) = (self.lists.clone(), self.sockets.clone());
        Ok(Self { file, settings, services, lists, token, listener, sockets })
    }

    /// The same with other services.
    pub fn with_services(&self, services: Known) -> anyhow::Result<Self> {
        Ok(Self {
            file: self.file.clone(),
            settings: services.settings(&self.file.settings),
            services,
            lists: self.lists.clone(),
            token: self.token.clone(),
            listener: self.listener.try_clone()?,
            sockets: self.sockets.clone(),
        })
    }
}

/// A HAProxy that runs is not left behind.
fn stays_where_it_is(settings: &Settings, changed: &Settings) -> anyhow::Result<()> {
    let of = |settings: &Settings| {
        let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.managed == Managed::Yes);
        haproxy.map(|haproxy| haproxy.files().path().to_owned())
    };
    match (of(settings), of(changed)) {
        (Some(folder), other) if other.as_ref() != Some(&folder) => {
            bail!(
                "haproxy.folder (or managed): the HAProxy of {} is Mapsmith's and serves; end it \
                    with `mapsmith haproxy stop`, and start Mapsmith again with the changed \
                    settings",
                folder.display()
            )
        }
        _ => Ok(()),
    }
}

fn read_token(settings: &Settings) -> anyhow::Result<Option<http::Token>> {
    let token = settings.api.token_file.as_deref().map(http::Token::read);
    token.transpose().map_err(anyhow::Error::msg)
}

/// Listens where the API is to be.
async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (is another Mapsmith running?)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has the address)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 are for root)",
            _ => "",
        };
        anyhow!("api.listen: can't listen on {address}: {error}{hint}")
    })
}
