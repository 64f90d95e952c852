//! Handshakes that fail say whose certificate is at fault. The server is OpenSSL's, which gives a file to whom it trusts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Registry, assert_says, entries};
use crate::support::eventually;
use crate::support::process::{Ending, Process};

/// Two CAs, each with a server's and a client's certificate; `ours` is the one that the server trusts.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        for ca in ["ours", "foreign"] {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("{ca} CA"));
            let key = KeyPair::generate().unwrap();
            certificates.write(&format!("{ca}-ca.pem"), &params.self_signed(&key).unwrap().pem());
            let issuer = Issuer::new(params, key);
            for (name, subject) in [("server", "127.0.0.1"), ("elsewhere", "elsewhere.test"), ("client", "gateway")] {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new([subject.to_owned()]).unwrap();
                params.distinguished_name.push(rcgen::DnType::CommonName, subject);
                certificates.write(&format!("{ca}-{name}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
                certificates.write(&format!("{ca}-{name}.key"), &key.serialize_pem());
            }
        }
        certificates.write("map", "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":\"m1\"}");
        certificates
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Demands a certificate of our CA and shows one of its own. The process and its URL.
    fn serve(&self, certificate: &str) -> (Process, String) {
        let command = format!(
            "cd {} && exec openssl s_server -accept 127.0.0.1:0 -HTTP -Verify 1 -verify_return_error -CAfile ours-ca.pem -cert {certificate}.pem -key {certificate}.key",
            self.0.path().display()
        );
        let server = Process::start(&["sh", "-c", &command], &self.path("log"), Ending::default());
        let address = eventually("openssl listens", Duration::from_secs(60), || {
            server.log().lines().find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned))
        });
        (server, format!("https://{address}"))
    }

    /// What a client with these files gets.
    fn registry(&self, url: &str, ca: &str, client: Option<&str>) -> Registry {
        let mut settings = json!({"ca": self.path(&format!("{ca}-ca.pem")), "timeout": "60s"});
        if let Some(client) = client {
            settings["cert"] = json!(self.path(&format!("{client}-client.pem")));
            settings["key"] = json!(self.path(&format!("{client}-client.key")));
        }
        Registry::http_json(url, settings)
    }
}

#[tokio::test]
async fn a_handshake_says_whose_certificate_is_at_fault() {
    let certificates = Certificates::new();
    let (_server, url) = certificates.serve("ours-server");
    let polled = certificates.registry(&url, "ours", Some("ours")).poll().await;
    assert_eq!(entries(&polled), [("a", "m1")]);

    let message = certificates.registry(&url, "ours", Some("foreign")).failure().await;
    assert_says(&message, &["the server refused this client's certificate", "foreign-client.pem (cert)", "Puppet CA"]);

    let message = certificates.registry(&url, "ours", None).failure().await;
    assert_says(&message, &["demands a client certificate; set cert and key"]);

    let message = certificates.registry(&url, "foreign", Some("ours")).failure().await;
    assert_says(&message, &["the server's certificate is not trusted", "foreign-ca.pem (ca)"]);

    let plain: Value = json!({"timeout": "60s"});
    let message = Registry::http_json(&url, plain).failure().await;
    assert_says(&message, &["the server's certificate is not trusted", "set ca to the CA's certificate"]);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told_from_an_untrusted_one() {
    let certificates = Certificates::new();
    let (_server, url) = certificates.serve("ours-elsewhere");
    let message = certificates.registry(&url, "ours", Some("ours")).failure().await;
    assert_says(&message, &["another name than the url's host", "elsewhere.test"]);
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_refuses() {
    let certificates = Certificates::new();
    let server = wiremock::MockServer::start().await;
    let url = server.uri().replace("http://", "https://");
    let message = certificates.registry(&url, "ours", None).failure().await;
    assert_says(&message, &["TLS failed", "speak TLS"]);
}
