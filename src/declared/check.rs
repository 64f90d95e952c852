//! HAProxy's own word on a configuration before it is stored.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use mapsmith_core::config::Config;
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::objects::{ObjectKey, ObjectKind};
use mapsmith_core::render::rendered;
use mapsmith_core::render::secrets::masked;
use mapsmith_core::render::verdict::{Level, Remark};
use mapsmith_core::server::ServerAddress;
use mapsmith_core::server::list::{Host, ListedServer};
use mapsmith_core::{DesiredServers, Server};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Link;
use crate::settings::objects::place_in_section;
use crate::settings::supervision::Managed;
use crate::settings::{Backend, Listing, Settings};
use crate::supervise::candidate::Candidate;
use crate::supervise::listeners::{self, Shared};
use crate::supervise::ports;
use crate::supervise::trial::trial;

/// How long one may wait for its turn, and how long HAProxy may then take.
const BOUND: Duration = Duration::from_secs(10);

/// Something that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigFault)]
pub struct Fault {
    /// Whose fault it is, like `frontends/web`; none where it is of the rest of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The key that it is about, like `natives[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    /// The line of HAProxy's configuration, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What stands there, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// In HAProxy's words, where it is HAProxy that says so.
    pub detail: String,
}

/// What it would take to bring a configuration into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConfigNeeds)]
pub enum Needs {
    Nothing,
    /// Changes of servers, while HAProxy runs.
    Runtime,
    Reload,
}

/// A configuration that HAProxy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub needs: Needs,
    /// What HAProxy warns of, and ports that another program has, too.
    pub warnings: Vec<Fault>,
}

/// Why there is no such word, or it is no.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("HAProxy refuses it: {}", in_words(.0))]
    Refused(Vec<Fault>),
    /// What HAProxy's check does not look at.
    #[error("{}", in_words(.0))]
    Invalid(Vec<Fault>),
    #[error("too many configurations are being checked; try again in a moment")]
    Busy,
    #[error("HAProxy can't be asked: {0}")]
    Failed(String),
}

/// Each fault with whose it is.
fn in_words(faults: &[Fault]) -> String {
    let words = |fault: &Fault| match (&fault.resource, &fault.setting) {
        (Some(resource), Some(setting)) => format!("{resource} {setting}: {}", fault.detail),
        (Some(place), None) | (None, Some(place)) => format!("{place}: {}", fault.detail),
        (None, None) => fault.detail.clone(),
    };
    faults.iter().map(words).collect::<Vec<_>>().join("; ")
}

/// Has HAProxy check what `after` would be rendered to, in place of `before`. `changed` are the
/// objects that are looked at closely; `servers` those that are in force.
///
/// # Errors
/// It is refused, or can't be checked.
pub async fn check(
    link: &Link,
    before: &Settings,
    after: &Settings,
    changed: &BTreeSet<ObjectKey>,
    servers: Option<&DesiredServers>,
) -> Result<Checked, CheckError> {
    let Some(haproxy) = &after.haproxy else {
        return Err(CheckError::Failed("there is no [haproxy]".to_owned()));
    };
    let faults = faults_of_servers(after, changed);
    if !faults.is_empty() {
        return Err(CheckError::Invalid(faults));
    }
    let (Some(old), Some(new)) = (in_force(before, servers), in_force(after, servers)) else {
        return Err(CheckError::Failed("there is nothing to render".to_owned()));
    };
    let is_here = haproxy.managed == Managed::Yes;
    let faults = faults_of_ports(&old.config, &new.config, is_here);
    if !faults.is_empty() {
        return Err(CheckError::Invalid(faults));
    }
    let template = |error: mapsmith_core::render::TemplateError| {
        let fault = Fault { detail: error.to_string(), ..Fault::default() };
        CheckError::Invalid(vec![fault])
    };
    let text = rendered(&with_stand_ins(&new.config, after, changed)).map_err(template)?;
    let needs = match (Candidate::mark_of(&old), Candidate::mark_of(&new)) {
        (Ok(old), Ok(new)) if old != new => Needs::Reload,
        _ if old.config != new.config => Needs::Runtime,
        _ => Needs::Nothing,
    };
    let turn = timeout(BOUND, link.checks.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(CheckError::Busy) };
    let start = Instant::now();
    let verdict = trial(after, haproxy, &text, BOUND).await.map_err(|error| {
        match start.elapsed() >= BOUND {
            true => CheckError::Busy,
            false => CheckError::Failed(format!("{error:#}")),
        }
    })?;
    let lines: Vec<_> = text.text().lines().collect();
    let of_level = |level| {
        let remarks = verdict.remarks.iter().filter(move |remark| remark.level == level);
        remarks.map(|remark| fault(remark, &new.config, &lines)).collect::<Vec<_>>()
    };
    match verdict.valid {
        true => {
            let shared = shared_ports(&new.config, &haproxy.configuration(), changed).await;
            let warnings = of_level(Level::Warning).into_iter().chain(shared).collect();
            Ok(Checked { needs, warnings })
        }
        false => Err(CheckError::Refused(of_level(Level::Alert))),
    }
}

/// A line that HAProxy names, among these of the text, with the object that it was made from.
fn fault(remark: &Remark, config: &Config, lines: &[&str]) -> Fault {
    let line = remark.line.and_then(|line| {
        let line = lines.get(line.checked_sub(1)?)?;
        Some(masked(line).as_deref().unwrap_or(line).trim().to_owned())
    });
    let place = remark.setting.as_deref().and_then(|setting| {
        let (kind, index, rest) = place_in_section(setting)?;
        let name = match kind {
            ObjectKind::Frontend => config.frontends.get(index)?.name.to_string(),
            ObjectKind::Backend => config.backends.get(index)?.name.to_string(),
        };
        let rest = Some(rest).filter(|rest| !rest.is_empty()).map(str::to_owned);
        Some((ObjectKey::new(kind, name).to_string(), rest))
    });
    let (resource, setting) = match place {
        Some((resource, rest)) => (Some(resource), rest),
        None => (None, remark.setting.clone()),
    };
    Fault { resource, setting, line: remark.line, text: line, detail: remark.text.clone() }
}

/// Where no server is known of a changed backend, one stands for all of them, so that their options
/// are checked.
fn with_stand_ins(config: &Config, settings: &Settings, changed: &BTreeSet<ObjectKey>) -> Config {
    let mut config = config.clone();
    for backend in &settings.backends {
        let key = ObjectKey::new(ObjectKind::Backend, backend.name.clone());
        if !changed.contains(&key) || !matches!(backend.listing(), Listing::From(_)) {
            continue;
        }
        let mut rendered = config.backends.iter_mut();
        let rendered = rendered.find(|rendered| rendered.name.as_str() == backend.name);
        if let Some(rendered) = rendered.filter(|rendered| rendered.servers.is_empty()) {
            rendered.servers.push(Server {
                name: "any".to_owned(),
                address: ServerAddress { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 },
                weight: None,
                backup: false,
                options: backend.default_options(),
            });
        }
    }
    config
}

/// Servers that are written out and can be none. A settings file's are left out and told of; who
/// asks now is there to correct them.
fn faults_of_servers(settings: &Settings, changed: &BTreeSet<ObjectKey>) -> Vec<Fault> {
    let key = |backend: &Backend| ObjectKey::new(ObjectKind::Backend, backend.name.clone());
    let backends = settings.backends.iter().filter(|backend| changed.contains(&key(backend)));
    let of_backend = |backend: &Backend| {
        let resource = Some(key(backend).to_string());
        let fault = move |rejected: mapsmith_core::server::list::RejectedServer| Fault {
            resource: resource.clone(),
            setting: Some(rejected.place),
            detail: rejected.reason,
            ..Fault::default()
        };
        backend.declared().rejected.into_iter().map(fault).collect::<Vec<_>>()
    };
    backends.flat_map(of_backend).collect()
}

/// New addresses that another program has, or that a HAProxy which `is_here` can't have: its check
/// opens no port, and a reload would fail.
fn faults_of_ports(old: &Config, new: &Config, is_here: bool) -> Vec<Fault> {
    let binds = old.frontends.iter().flat_map(|frontend| &frontend.binds);
    let known: BTreeSet<_> = binds.map(|bind| bind.address.listens_at()).collect();
    let is_known = |address: &BindAddress| known.contains(&address.listens_at());
    let mut taken = ports::taken(new, is_known);
    if is_here {
        taken.extend(ports::unfit(new, is_known));
    }
    let of_objects = taken
        .iter()
        .filter(|it| it.setting.as_deref().is_some_and(|setting| setting.starts_with("frontend[")));
    of_objects.map(|remark| fault(remark, new, &[])).collect()
}

/// Changed frontends whose address another program listens at, too.
async fn shared_ports(config: &Config, file: &Path, changed: &BTreeSet<ObjectKey>) -> Vec<Fault> {
    let (mut config, file) = (config.clone(), file.to_owned());
    let key = |name: &str| ObjectKey::new(ObjectKind::Frontend, name);
    config.frontends.retain(|frontend| changed.contains(&key(frontend.name.as_str())));
    config.backends.clear();
    let found = spawn_blocking(move || listeners::shared(&config, &file)).await;
    let fault = |Shared { frontend, setting, text }| Fault {
        resource: Some(key(&frontend).to_string()),
        setting: Some(setting),
        detail: text,
        ..Fault::default()
    };
    found.unwrap_or_default().into_iter().map(fault).collect()
}

/// What HAProxy's configuration is with these settings, with the servers that are known of it.
pub fn in_force(settings: &Settings, servers: Option<&DesiredServers>) -> Option<DesiredConfig> {
    let mut known = servers.cloned().unwrap_or_default();
    for backend in &settings.backends {
        let desired = known.backends.entry(backend.name.clone()).or_default();
        if let Listing::Servers(_) = backend.listing() {
            let declared = backend.declared().servers;
            let declared = declared.iter().map(|server| declared_server(backend, server));
            desired.servers = declared.map(|server| (server.name.clone(), server)).collect();
        }
    }
    let declared = settings.haproxy_config(&DesiredServers::default())?;
    Some(DesiredConfig::new(&declared, Some(&known)))
}

fn declared_server(backend: &Backend, server: &ListedServer) -> Server {
    let ip = match server.host {
        Host::Address(ip) => ip,
        // Its name is resolved later.
        Host::Name(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let own = server.options.as_ref();
    let own = own.and_then(|own| own.with_usual(&backend.usual_options()).ok());
    Server {
        name: server.name.clone(),
        address: ServerAddress { ip, port: server.port },
        weight: server.weight,
        backup: server.backup,
        options: own.unwrap_or_else(|| backend.default_options()),
    }
}
