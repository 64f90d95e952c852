//! What `haproxy.cfg` is rendered from: `[haproxy]`, `[[frontend]]` and `[[backend]]` together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mapsmith_core::DesiredServers;
use mapsmith_core::config::values::{FilePath, Name};
use mapsmith_core::config::{Config, Include, Process};
use mapsmith_core::render::stamp;

use super::frontend::Bind;
use super::haproxy::own_sockets;
use super::{Haproxy, Settings, frontend};

impl Settings {
    /// The declared configuration, with the servers that backends have; none without `[haproxy]`.
    pub fn haproxy_config(&self, servers: &DesiredServers) -> Option<Config> {
        let haproxy = self.haproxy.as_ref()?;
        let backends = self.backends.iter().filter_map(|backend| {
            let name = Name::try_from(backend.name.clone()).ok()?;
            let mut model = backend.model(name);
            if let Some(desired) = servers.backends.get(&backend.name) {
                model.take_servers(desired);
            }
            Some(model)
        });
        let frontends =
            self.frontends.iter().map(|frontend| frontend.model(&self.certificates, &self.map));
        Some(Config {
            process: Process { challenges: self.challenges(), ..haproxy.model() },
            frontends: frontends.collect(),
            backends: backends.collect(),
            commands: self.commands_model(),
            includes: haproxy.includes.clone(),
            files: haproxy.read_with.clone(),
            template: haproxy.own_template.clone(),
        })
    }
}

impl Settings {
    /// Reads the certificates, CAs and CRLs that HAProxy's configuration names, so that a change of
    /// one is a change of it. Those that Mapsmith writes come into force without a reload, and what
    /// can't be read HAProxy's check names.
    pub(super) fn read_named_files(&mut self) {
        let written: BTreeSet<_> = self.tls_files.iter().map(|file| file.path.clone()).collect();
        let of_certificates = self.certificates.iter().filter_map(|it| it.path.as_ref());
        let binds = self.frontends.iter().flat_map(|frontend| &frontend.bind);
        let of_clients = binds.flat_map(Bind::files_of_clients);
        let of_servers = self.backends.iter().filter_map(|backend| backend.tls.as_ref());
        let of_servers =
            of_servers.flat_map(|tls| [&tls.ca, &tls.crl, &tls.cert]).filter_map(Option::as_ref);
        let named: BTreeSet<_> = of_certificates.chain(of_clients).chain(of_servers).collect();
        let read = named
            .into_iter()
            .filter(|path| !written.contains(Path::new(path.as_str())))
            .filter_map(|path| Some(Include { path: path.clone(), hash: hash_of(path)? }))
            .collect();
        if let Some(haproxy) = &mut self.haproxy {
            haproxy.read_with = read;
        }
    }
}

/// Of a file, or of the files of a folder with their names.
fn hash_of(path: &FilePath) -> Option<u64> {
    let path = Path::new(path.as_str());
    if !path.is_dir() {
        return Some(stamp::hash(&fs::read(path).ok()?));
    }
    let files = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let files: BTreeSet<_> = files.filter(|path| path.is_file()).collect();
    let mut all = Vec::new();
    for file in files {
        all.extend(file.file_name().unwrap_or_default().as_encoded_bytes());
        all.extend(stamp::hash(&fs::read(file).ok()?).to_le_bytes());
    }
    Some(stamp::hash(&all))
}

pub(super) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    frontend::problems(&settings.frontends, &settings.certificates, &settings.map, problems);
    if let Some(config) = settings.haproxy_config(&DesiredServers::default()) {
        let supervised = settings.haproxy.as_ref().is_some_and(Haproxy::is_supervised);
        // With a store they may be declared through the API.
        let declares =
            settings.services.is_some() || settings.portmap.is_some() || settings.store.is_some();
        if supervised && !declares && listens_nowhere(&config) {
            problems.push(
                "haproxy: HAProxy would listen nowhere; declare a [[frontend]], or include a file \
                    that has one, or give [store] and declare frontends through the API"
                    .to_owned(),
            );
        }
        problems.extend(config.problems().iter().map(ToString::to_string));
        own_sockets::problems(settings, problems);
        return;
    }
    if !settings.frontends.is_empty() {
        problems.push(format!("frontend: {NEEDS}"));
    }
    for (index, backend) in settings.backends.iter().enumerate() {
        for key in backend.rendered_keys() {
            problems.push(format!("backend[{index}].{key}: {NEEDS}"));
        }
    }
}

/// HAProxy's own check accepts that where there is a Runtime API.
fn listens_nowhere(config: &Config) -> bool {
    let Process { stats, metrics, health, .. } = &config.process;
    let of_its_own = stats.is_some() || metrics.is_some() || health.is_some();
    let elsewhere = !config.includes.is_empty() || config.template.is_some();
    config.frontends.is_empty() && !of_its_own && !elsewhere
}

/// Why what is only rendered is not taken.
const NEEDS: &str =
    "needs [haproxy], without which Mapsmith does not write HAProxy's configuration";
