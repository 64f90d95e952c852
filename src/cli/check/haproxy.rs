//! What HAProxy says of the configuration that the settings declare, and whether its folder and
//! ports are there for it.

use std::collections::BTreeSet;
use std::fs;

use haproxy_runtime::MapName;
use mapsmith_core::DesiredServers;
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::render::rendered;
use mapsmith_core::render::verdict::Remark;

use super::{Finding, finding, named, warning};
use crate::settings::Settings;
use crate::settings::supervision::Managed;
use crate::supervise::check::CHECK_BOUND;
use crate::supervise::files::probe_folder;
use crate::supervise::listeners::{Shared, shared};
use crate::supervise::ports::{of_text, taken, unfit};
use crate::supervise::process::Launch;
use crate::supervise::sockets;
use crate::supervise::trial::trial;

/// Nothing where that is somebody else's.
pub(super) async fn check_configuration(
    settings: &Settings,
    servers: &DesiredServers,
) -> Option<Finding> {
    let haproxy = settings.haproxy.as_ref()?;
    let config = settings.haproxy_config(servers)?;
    let said = match rendered(&config) {
        Err(error) => Err(error.to_string()),
        Ok(rendered) => match trial(settings, haproxy, &rendered, CHECK_BOUND).await {
            Err(error) => Err(error.to_string()),
            Ok(verdict) if verdict.valid => Ok(format!("{} accepts it", haproxy.program())),
            Ok(verdict) => Err(verdict.alerts()),
        },
    };
    Some(finding("haproxy configuration", said))
}

/// Whether the configuration that the settings declare uses the map.
pub(super) fn renders_map(settings: &Settings, servers: &DesiredServers, map: &MapName) -> bool {
    let config = settings.haproxy_config(servers);
    let rendered = config.and_then(|config| rendered(&config).ok());
    rendered.is_some_and(|rendered| rendered.text().contains(map.as_str()))
}

/// Whether HAProxy's files can be written; nothing where Mapsmith writes none.
pub(super) fn check_folder(settings: &Settings) -> Option<Finding> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised())?;
    let folder = haproxy.files();
    let path = folder.path();
    let detail = match path.exists() {
        true => format!("{}: can be written to", path.display()),
        false => format!("{} does not exist yet and will be created", path.display()),
    };
    let result = probe_folder(path).map(|()| detail).map_err(|error| error.to_string());
    Some(finding("haproxy.folder", result))
}

/// The addresses that another program has, or nobody on this host can have: HAProxy's own check
/// opens no port. What the file in place listens on is HAProxy's own, unless it does not run, and so
/// is what is held for it.
pub(super) fn check_ports(
    settings: &Settings,
    servers: &DesiredServers,
    runs: bool,
) -> Option<Finding> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised())?;
    let config = settings.haproxy_config(servers)?;
    let what = "haproxy ports";
    let held = match sockets::held(&haproxy.files().sockets()) {
        Ok(held) => held,
        Err(error) => return Some(finding(what, Err(error.to_string()))),
    };
    let in_place = fs::read(haproxy.configuration()).unwrap_or_default();
    let in_place = String::from_utf8_lossy(&in_place);
    let own = if runs { of_text(&in_place) } else { BTreeSet::new() };
    let is_own = |address: &BindAddress| {
        let at = address.listens_at();
        held.contains(&at) || own.contains(&at)
    };
    let told = |Remark { setting, text, .. }| match setting {
        Some(setting) => format!("{setting}: {text}"),
        None => text,
    };
    let mut taken = taken(&config, is_own);
    if haproxy.managed == Managed::Yes {
        taken.extend(unfit(&config, is_own));
    }
    let taken: Vec<_> = taken.into_iter().map(told).collect();
    (!taken.is_empty()).then(|| finding(what, Err(named(&taken))))
}

/// The frontends whose address another program listens at, too: HAProxy shares a port with whoever
/// lets it. That one may end, so it is no failure.
pub(super) fn check_shared_ports(settings: &Settings, servers: &DesiredServers) -> Option<Finding> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised())?;
    let config = settings.haproxy_config(servers)?;
    let told =
        |Shared { frontend, setting, text }| format!("frontend {frontend} {setting}: {text}");
    let shared: Vec<_> = shared(&config, &haproxy.configuration()).into_iter().map(told).collect();
    (!shared.is_empty()).then(|| warning("haproxy ports", named(&shared)))
}

/// The place of the instance that Mapsmith starts, where it does not run and was not stopped.
pub(super) async fn unstarted(settings: &Settings) -> Option<usize> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.managed == Managed::Yes)?;
    let launch = Launch::new(haproxy);
    let is_there = launch.is_stopped() || !matches!(launch.find().await, Ok(None));
    settings.own_instance().filter(|_| !is_there)
}
