//! What Muppet, ProxyMgr and Aqueduct had HAProxy do, declared in settings: a request in, the
//! expected server or answer out. Their texts are not held: what they achieve is.

mod aqueduct;
mod muppet;
mod proxymgr;
mod to_servers;
mod verdicts;

use std::fs;
use std::net::SocketAddr;

use super::running::{Reply, Running, ask};
use crate::support::free_port;
use crate::support::haproxy::Binary;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::scene::{complaints, printed};

/// A HAProxy that runs what `mapsmith render` prints of settings.
struct Declared {
    address: SocketAddr,
    haproxy: Running,
    _config: Config,
}

impl Declared {
    /// `settings` says them for the address that clients come to.
    fn start(binary: &Binary, settings: impl Fn(SocketAddr) -> String) -> Self {
        let mut attempts = (0..10).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
        attempts
            .find_map(|address| {
                let config = managed(&settings(address));
                let output = config.cli(&["render"]);
                let (code, text) = printed(&output);
                assert_eq!(code, 0, "{}", complaints(&output));
                let haproxy = Running::start(binary, config.directory(), &text, address)?;
                Some(Self { address, haproxy, _config: config })
            })
            .expect("a free port")
    }

    fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        ask(self.address, &format!("GET {path}"), headers)
    }
}

/// Settings of a managed HAProxy with its files beside them.
fn managed(settings: &str) -> Config {
    let config = Mapsmith::config("");
    let folder = config.directory().display();
    let text = format!("[haproxy]\nmanaged = true\nfolder = \"{folder}\"\n{settings}");
    fs::write(config.path(), text).expect("the settings can be written");
    config
}

/// What `mapsmith render` says where it refuses the settings.
fn refused(settings: &str) -> String {
    let config = managed(settings);
    let output = config.cli(&["render"]);
    assert_eq!(printed(&output), (2, String::new()), "{settings}");
    complaints(&output)
}

/// A server in settings.
fn server(name: &str, address: SocketAddr) -> String {
    format!("{{ name = {name:?}, address = \"{address}\" }}")
}
