//! What HAProxy says of the configuration that the settings declare.

use mapsmith_core::DesiredServers;
use mapsmith_core::render::rendered;

use super::{Finding, finding};
use crate::cli::render::ask;
use crate::settings::Settings;
use crate::settings::supervision::Managed;
use crate::supervise::process::Launch;

/// Nothing where that is somebody else's.
pub(super) async fn check_configuration(
    settings: &Settings,
    servers: &DesiredServers,
) -> Option<Finding> {
    let haproxy = settings.haproxy.as_ref()?;
    let config = settings.haproxy_config(servers)?;
    let said = match rendered(&config) {
        Err(error) => Err(error.to_string()),
        Ok(rendered) => match ask(settings, haproxy, &rendered).await {
            Err(error) => Err(error.to_string()),
            Ok(verdict) if verdict.valid => Ok(format!("{} accepts it", haproxy.program())),
            Ok(verdict) => Err(verdict.alerts()),
        },
    };
    Some(finding("haproxy configuration", said))
}

/// The place of the instance that Mapsmith starts, where it does not run and was not stopped.
pub(super) async fn unstarted(settings: &Settings) -> Option<usize> {
    let haproxy = settings.haproxy.as_ref().filter(|haproxy| haproxy.managed == Managed::Yes)?;
    let launch = Launch::new(haproxy);
    let is_there = launch.is_stopped() || !matches!(launch.find().await, Ok(None));
    settings.own_instance().filter(|_| !is_there)
}
