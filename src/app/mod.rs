//! Wiring: channels, tasks, signals. Decides nothing.

use metrics_exporter_prometheus::PrometheusHandle;

use crate::http;
use crate::settings::SettingsFile;
use crate::supervise::descriptor_store;

mod access;
mod anew;
mod attention;
mod certificates;
mod clocks;
mod daemon;
mod declared;
mod descriptors;
mod ground;
mod lists;
mod members;
mod old_clients;
mod services;
mod shadows;
mod signals;
mod tasks;

use anew::Starter;
use ground::{Carried, Ground};
use signals::Signals;

/// Runs the daemon until SIGTERM or SIGINT. With `take_over` it writes the map file also where
/// another Mapsmith does so.
///
/// A SIGHUP reads the settings again. Where they have changed, or the services over them, or what is
/// declared through the API, all tasks end and begin anew with them, as after a restart, which no HAProxy notices; the API's socket
/// stays open meanwhile. Where they can't be used it goes on with those of before.
///
/// # Errors
/// What keeps it from starting for the first time, or which of its tasks died.
pub async fn run(
    file: SettingsFile,
    metrics: PrometheusHandle,
    take_over: bool,
) -> anyhow::Result<()> {
    descriptor_store::open();
    let mut signals = Signals::catch()?;
    let most_connections = http::connections_within(descriptors::raise_limit());
    let mut starter = Starter::new(metrics, most_connections);
    let mut carried = Carried::default();
    let mut ground = Ground::of(file.with_secret()?, &carried.declared).await?;
    let mut daemon = starter.start(&ground, &carried, take_over).await?;
    loop {
        let end = daemon.run_until_stopped(&mut signals, &mut ground, &mut carried);
        let Some(changed) = end.await? else { return Ok(()) };
        let started = starter.begin_anew(changed, ground, &carried, &mut signals);
        match started.await {
            Some(begun) => (ground, daemon) = begun,
            None => return Ok(()),
        }
    }
}
