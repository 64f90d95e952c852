//! A configuration that is only tried: checked by HAProxy in a folder of its own, and gone then.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mapsmith_core::render::Rendered;

use super::check::{self, Verdict};
use super::server_states;
use super::sockets::Sockets;
use crate::settings::{Haproxy, Settings};

/// What HAProxy says of a text, within this time. Maps whose files `mapsmith run` will create are
/// taken for empty.
///
/// # Errors
/// HAProxy can't be asked, or does not answer in time.
pub async fn trial(
    settings: &Settings,
    haproxy: &Haproxy,
    rendered: &Rendered,
    bound: Duration,
) -> anyhow::Result<Verdict> {
    let folder = tempfile::tempdir().context("no folder for a candidate can be made")?;
    let (file, empty) = (folder.path().join("haproxy.cfg"), folder.path().join("empty.map"));
    let mut text = rendered.text().to_owned();
    let health = haproxy.health_map().map(String::from);
    let maps = [Some(settings.map.path.display().to_string()), health];
    for map in maps.into_iter().flatten().filter(|map| !map.is_empty()) {
        if !Path::new(&map).exists() {
            text = text.replace(&map, &empty.display().to_string());
        }
    }
    // What Mapsmith puts in its place before it starts HAProxy.
    if let Some(map) = settings.challenges().map(|challenges| challenges.map)
        && !Path::new(map.as_str()).exists()
    {
        text = text.replace(map.as_str(), &empty.display().to_string());
    }
    let stand_ins = crate::tls::stand_ins(settings, folder.path()).map_err(anyhow::Error::msg)?;
    for (missing, stand_in) in stand_ins {
        let [missing, stand_in] = [missing, stand_in].map(|path| path.display().to_string());
        text = text.replace(&missing, &stand_in);
    }
    let states = folder.path().join("servers.state");
    if let Some(file) = haproxy.server_states().filter(|file| !Path::new(file.as_str()).exists()) {
        text = text.replace(file.as_str(), &states.display().to_string());
    }
    for (path, text) in [(&file, text.as_str()), (&empty, ""), (&states, server_states::NONE)] {
        std::fs::write(path, text)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    let includes = haproxy.includes.iter().map(|file| Path::new(file.as_str()));
    let files: Vec<&Path> = [file.as_path()].into_iter().chain(includes).collect();
    let (program, sockets) = (haproxy.program(), Sockets::default());
    Ok(check::check(program, &files, rendered, &sockets, bound).await?)
}
