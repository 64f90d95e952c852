//! What the daemon stands on, and what outlives a beginning anew.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{anyhow, bail};
use mapsmith_core::objects::{Objects, Standing};
use mapsmith_core::server::LastGoodList;
use mapsmith_core::status::InstanceStatus;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::old_clients::OldListeners;
use crate::api::access::{AccessMemory, FileToken, ServerTls, Token};
use crate::attention::notify::Told;
use crate::declared::Link;
use crate::engine::Memory;
use crate::events::EventLog;
use crate::services::Known;
use crate::services::pace::SPACING;
use crate::settings::supervision::Managed;
use crate::settings::{Settings, SettingsFile};
use crate::store::{MemberMemory, SqliteStore};
use crate::supervise::SupervisorReport;
use crate::supervise::sockets::Handover;

/// What the tasks that have ended leave to those that begin anew, whatever these stand on.
#[derive(Default)]
pub(super) struct Carried {
    /// The server lists in force.
    pub lists: BTreeMap<String, LastGoodList>,
    /// What the engine knew beside.
    pub memory: Option<Memory>,
    /// How the instances stood.
    pub instances: Vec<InstanceStatus>,
    /// How HAProxy's configuration and process stood.
    pub haproxy: Option<SupervisorReport>,
    /// Those that are held for HAProxy.
    pub sockets: Handover,
    /// Who is logged in at the API.
    pub access: Arc<AccessMemory>,
    /// The events, where they are in memory alone.
    pub events: Arc<tokio::sync::OnceCell<Arc<EventLog>>>,
    /// What somebody was told last.
    pub told: Told,
    /// The store, which whoever is still to be answered has open, too.
    pub store: Mutex<Option<SqliteStore>>,
    /// What is declared through the API.
    pub declared: Arc<Link>,
    /// Who is registered, and since when each is silent.
    pub members: MemberMemory,
}

/// What the daemon stands on: the settings, and what of them shows at once whether they can be
/// used.
pub(super) struct Ground {
    pub file: SettingsFile,
    /// What is gone by: the file's settings, with the services over them.
    pub settings: Settings,
    pub services: Known,
    pub token: Option<Arc<FileToken>>,
    /// The API's; none where it speaks plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    /// The API's. Shared, for it stays open whatever becomes of a change.
    pub listener: Arc<std::net::TcpListener>,
    /// Those for clients of other APIs.
    pub old: OldListeners,
    /// What is declared through the API comes into force no sooner.
    pub not_before: Option<Instant>,
}

impl Ground {
    /// `declared` has what is stored then.
    pub async fn of(file: SettingsFile, declared: &Link) -> anyhow::Result<Self> {
        let (token, tls) = (read_token(&file.settings)?, read_tls(&file.settings)?);
        // Before anything is touched: a second Mapsmith that was started by mistake ends here.
        let listener = Arc::new(bind("api", file.settings.api.listen).await?.into_std()?);
        let old = OldListeners::default().changed(&file.settings).await?;
        let objects = match &file.settings.store {
            Some(store) => SqliteStore::peek_objects(&store.path).await?,
            None => Objects::default(),
        };
        declared.store(Arc::new(objects));
        let file = with_objects(&file, declared.latest())?;
        let services = Known::from_store(&file.settings).await?;
        let settings = services.settings(&file.settings);
        Ok(Self { file, settings, services, token, tls, listener, old, not_before: None })
    }

    /// The same with other settings, or other objects beside them, and what is known of services by
    /// now.
    pub async fn changed(
        &self,
        file: &SettingsFile,
        objects: Arc<Objects>,
        known: Option<&watch::Receiver<Known>>,
    ) -> anyhow::Result<Self> {
        let file = with_objects(file, objects)?;
        let (token, tls) = (read_token(&file.settings)?, read_tls(&file.settings)?);
        stays_where_it_is(&self.file.settings, &file.settings)?;
        let listen = file.settings.api.listen;
        // Port 0 was any port.
        let listens_there = self.listener.local_addr().is_ok_and(|address| address == listen);
        let listener = match listens_there || listen == self.file.settings.api.listen {
            true => Arc::clone(&self.listener),
            false => Arc::new(bind("api", listen).await?.into_std()?),
        };
        let old = self.old.changed(&file.settings).await?;
        let known = known.map_or_else(|| self.services.clone(), |known| known.borrow().clone());
        let services = known.under(&self.file.settings, &file.settings);
        let settings = services.settings(&file.settings);
        let not_before = Some(Instant::now() + SPACING);
        Ok(Self { file, settings, services, token, tls, listener, old, not_before })
    }

    /// The same with other services.
    pub fn with_services(&self, services: Known) -> Self {
        Self {
            file: self.file.clone(),
            settings: services.settings(&self.file.settings),
            services,
            token: self.token.clone(),
            tls: self.tls.clone(),
            listener: Arc::clone(&self.listener),
            old: self.old.clone(),
            not_before: self.not_before,
        }
    }
}

/// The file with these objects over it. What can't count is told.
fn with_objects(file: &SettingsFile, objects: Arc<Objects>) -> anyhow::Result<SettingsFile> {
    let known = Arc::clone(&file.declared().standings);
    let file = file.with_objects(objects)?;
    for (key, standing) in file.declared().standings.iter() {
        if let Standing::SetAside { reason } = standing
            && known.get(key) != Some(standing)
        {
            tracing::error!("{key}, which was declared through the API, is set aside: {reason}");
        }
    }
    Ok(file)
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

fn read_token(settings: &Settings) -> anyhow::Result<Option<Arc<FileToken>>> {
    let Some(path) = settings.api.token_file.as_deref() else { return Ok(None) };
    let token = Token::read(path).map_err(anyhow::Error::msg)?;
    Ok(Some(Arc::new(FileToken::new(path, &token))))
}

fn read_tls(settings: &Settings) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let tls = settings.api.tls.as_ref().map(ServerTls::new);
    Ok(tls.transpose().map_err(anyhow::Error::msg)?.map(Arc::new))
}

/// Listens where an API is to be, by the section that says so.
pub(super) async fn bind(section: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (is another Mapsmith running?)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has the address)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 are for root)",
            _ => "",
        };
        anyhow!("{section}.listen: can't listen on {address}: {error}{hint}")
    })
}
