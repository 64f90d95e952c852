//! `[api.tls]`: the API's certificate, and whether clients show one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::keys::section;
use super::super::units::duration;

/// A handshake takes milliseconds on a machine that is not far away; nobody types meanwhile.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(60);
const SHORTEST_HANDSHAKE: Duration = Duration::from_millis(100);

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may show one.
    Request,
    /// Without one there is no connection.
    Require,
}

section! {
    /// TLS for the API: HTTP/2 and HTTP/1.1. The files are read again when they change; while they
    /// can't be used, those of before stay in force, and `GET /v1/status` says why.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct ApiTls {
        /// The API's certificate with its chain, PEM.
        #[unset(required)]
        pub cert: PathBuf,
        /// Its private key, PEM, not encrypted.
        #[unset(required)]
        pub key: PathBuf,
        /// The CA whose certificates clients may show, PEM.
        pub client_ca: Option<PathBuf>,
        /// What that CA has revoked, PEM: for Puppet `ca_crl.pem`, which has the lists of the whole
        /// chain.
        #[unset(says "nothing is revoked")]
        pub client_crl: Option<PathBuf>,
        /// Whether clients show a certificate: `off`, `request` (they may), or `require` (without
        /// one there is no connection).
        #[unset("off")]
        #[serde(default)]
        pub client_auth: ClientAuth,
        /// How long a client may take for the handshake, 100ms to 60s.
        #[unset("10s")]
        #[serde(default = "handshake_timeout", deserialize_with = "duration")]
        pub handshake_timeout: Duration,
    }
}

fn handshake_timeout() -> Duration {
    Duration::from_secs(10)
}

impl ApiTls {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if self.client_auth != ClientAuth::Off && self.client_ca.is_none() {
            problems.push(
                "api.tls.client_auth: set api.tls.client_ca to the CA of these certificates"
                    .to_owned(),
            );
        }
        if self.client_crl.is_some() && self.client_auth == ClientAuth::Off {
            problems.push(
                "api.tls.client_crl: no certificates are asked for; set api.tls.client_auth"
                    .to_owned(),
            );
        }
        if !(SHORTEST_HANDSHAKE..=LONGEST_HANDSHAKE).contains(&self.handshake_timeout) {
            problems.push("api.tls.handshake_timeout: must be from 100ms to 60s".to_owned());
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        let optional = self.client_ca.iter_mut().chain(&mut self.client_crl);
        for path in [&mut self.cert, &mut self.key].into_iter().chain(optional) {
            *path = folder.join(&*path);
        }
    }
}
