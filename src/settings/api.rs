//! `[api]`: where the HTTP API listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::section;
use super::units::listen;

section! {
    /// The HTTP API, which the command line uses too.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Api {
        /// The address and port to listen on. Port 0 lets the system choose. An address that is not
        /// loopback requires `api.token_file`.
        #[unset("127.0.0.1:7070")]
        #[serde(deserialize_with = "listen")]
        pub listen: SocketAddr,
        /// A file with the bearer token that every `/v1` request must carry.
        pub token_file: Option<PathBuf>,
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7070)), token_file: None }
    }
}

impl Api {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if !self.listen.ip().is_loopback() && self.token_file.is_none() {
            problems.push(format!(
                "api.listen: {} can be reached from other machines; set api.token_file, or listen \
                    on 127.0.0.1",
                self.listen
            ));
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.token_file.iter_mut().for_each(|path| *path = folder.join(&*path));
    }
}
