//! What stands between Mapsmith and its certificate authority: a HAProxy that loses or replaces
//! answers of some paths.

use std::fs;
use std::net::SocketAddr;

use crate::acme::Acme;
use crate::daemon::Daemon;
use crate::haproxy::Binary;
use crate::{free_port, http};

/// A relay of one authority, gone on drop.
pub struct AcmeRelay {
    haproxy: Daemon,
    authority: SocketAddr,
    address: SocketAddr,
    /// Answers when it is ready.
    health: SocketAddr,
    certificate: String,
}

impl AcmeRelay {
    /// Between everybody and this authority; what comes in is passed on.
    pub fn start(binary: &Binary, acme: &Acme) -> Self {
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let program = binary.path.display().to_string();
        let haproxy = Daemon::new("relay", |folder| {
            let file = folder.join("relay.cfg").display().to_string();
            [program, "-db".to_owned(), "-f".to_owned(), file].into()
        });
        let relay = Self {
            haproxy,
            authority: acme.address(),
            address: local(),
            health: local(),
            certificate: acme.folder().join("localhost.both.pem").display().to_string(),
        };
        relay.behave("");
        relay
    }

    /// Passes everything on from now on.
    pub fn pass(&self) {
        self.behave("");
    }

    /// The authority gets requests of a path that begins so, and whoever asked gets no answer.
    pub fn lose_answers(&self, path: &str) {
        self.behave(&format!(
            "    http-response silent-drop if {{ var(txn.path) -m beg {path} }}\n"
        ));
    }

    /// Answers requests of a path that begins so itself, with this problem.
    pub fn refuse(&self, path: &str, status: u16, problem: &str, retry_after: u32) {
        self.behave(&format!(
            "    http-request return status {status} content-type application/problem+json \
            hdr Retry-After {retry_after} string '{{\"type\": \
            \"urn:ietf:params:acme:error:{problem}\", \"detail\": \"by the relay\", \
            \"status\": {status}}}' if {{ var(txn.path) -m beg {path} }}\n"
        ));
    }

    /// Settings of the authority, with this in its place.
    pub fn settings(&self, acme: &Acme) -> String {
        acme.settings().replace(&self.authority.to_string(), &self.address.to_string())
    }

    fn behave(&self, rules: &str) {
        let Self { authority, address, health, certificate, .. } = self;
        // The authority makes its URLs of the name that it is asked by.
        let text = format!(
            "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    \
            timeout client 60s\n    timeout server 60s\n\
            frontend relay\n    bind {address} ssl crt {certificate} alpn http/1.1\n    \
            http-request set-var(txn.path) path\n{rules}    default_backend authority\n\
            frontend health\n    bind {health}\n    http-request return status 200\n\
            backend authority\n    server authority {authority} ssl verify none\n"
        );
        let file = self.haproxy.folder().join("relay.cfg");
        fs::write(file, text).expect("the folder can be written to");
        self.haproxy.launch(|| http::request(*health, "GET", "/", &[], "").is_ok());
    }
}
