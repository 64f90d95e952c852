//! `[api]`: where the HTTP API listens, and who may ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::section;
use super::units::listen;

mod client;
mod external;
mod tls;

pub use client::ApiClient;
pub use external::ExternalUrl;
use external::external_url;
pub use tls::{ApiTls, ClientAuth};

section! {
    /// The HTTP API, which the command line uses too.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Api {
        /// The address and port to listen on. Port 0 lets the system choose. An address that is not
        /// loopback requires `api.token_file`, or certificates of clients (`api.tls`,
        /// `api.client`).
        #[unset("127.0.0.1:7070")]
        #[serde(deserialize_with = "listen")]
        pub listen: SocketAddr,
        /// Where the API is for those who reach it through a proxy, like
        /// `https://gateway1.example.com/mapsmith`. Pages of that host count as pages of this API,
        /// and what answers name to be asked for next (`Location`, `resume`, `snapshot`) begins
        /// with it.
        #[serde(deserialize_with = "external_url")]
        pub external_url: Option<ExternalUrl>,
        /// A file with a bearer token: who has it is an admin. Then every `/v1` request must carry
        /// this token or another one (`mapsmith token create`). The file is read again when it
        /// changes; while it can't be read, the token of before stays good.
        pub token_file: Option<PathBuf>,
        /// Whether a change of what has an `ETag` must say with `If-Match` what it changes, or with
        /// `If-None-Match: *` that it is new. Rollbacks, rollouts and `PUT /v1/config` must anyway.
        #[unset("false")]
        pub require_if_match: bool,
        /// Which native lines frontends and backends may have that are declared through the API, or
        /// by a client of `[compat]`: `listed` (those that only say what is done with requests:
        /// none of them reads a file or the environment, runs something or listens), or `any` that
        /// the settings file may have. With `listed` they also name no map file and no certificate
        /// for servers that the settings file does not name. [api.md](api.md#native-lines) has the
        /// list.
        #[unset("listed")]
        pub natives: DeclaredNatives,
        /// TLS: see [`api.tls`](#apitls).
        #[unset(says "plain HTTP/1.1")]
        pub tls: Option<ApiTls>,
        /// Clients known by their certificate: see [`api.client`](#apiclient).
        #[unset(says "none")]
        #[serde(rename = "client")]
        pub clients: Vec<ApiClient>,
    }
}

/// Which native lines the API takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredNatives {
    #[default]
    Listed,
    Any,
}

impl Default for Api {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7070));
        Self {
            listen,
            external_url: None,
            token_file: None,
            require_if_match: false,
            natives: DeclaredNatives::default(),
            tls: None,
            clients: Vec::new(),
        }
    }
}

impl Api {
    /// Whether every program of this machine may do everything, without saying who it is.
    pub fn is_open_locally(&self) -> bool {
        self.listen.ip().is_loopback() && !self.knows_clients()
    }

    /// Whether there is a way to say who one is.
    fn knows_clients(&self) -> bool {
        self.token_file.is_some() || !self.clients.is_empty()
    }

    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if !self.listen.ip().is_loopback() && !self.knows_clients() {
            problems.push(format!(
                "api.listen: {} can be reached from other machines; set api.token_file, or listen \
                    on 127.0.0.1",
                self.listen
            ));
        }
        self.tls.iter().for_each(|tls| tls.problems(problems));
        client::problems(&self.clients, self.tls.as_ref(), problems);
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.token_file.iter_mut().for_each(|path| *path = folder.join(&*path));
        self.tls.iter_mut().for_each(|tls| tls.resolve(folder));
    }
}
