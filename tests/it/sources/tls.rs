//! Handshakes that fail say whose certificate is at fault. The server is OpenSSL's, which gives a
//! file to whom it trusts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Registry, assert_says, entries};
use crate::support::process::{Ending, Process};
use crate::support::{eventually, run};

/// Two CAs, each with a server's and a client's certificate; `ours` is the one that the server
/// trusts.
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
            certificates.write(&format!("{ca}-ca.key"), &key.serialize_pem());
            let issuer = Issuer::new(params, key);
            for (name, subject) in
                [("server", "127.0.0.1"), ("elsewhere", "elsewhere.test"), ("client", "gateway")]
            {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new([subject.to_owned()]).unwrap();
                params.distinguished_name.push(rcgen::DnType::CommonName, subject);
                certificates.write(
                    &format!("{ca}-{name}.pem"),
                    &params.signed_by(&key, &issuer).unwrap().pem(),
                );
                certificates.write(&format!("{ca}-{name}.key"), &key.serialize_pem());
            }
        }
        let key = KeyPair::generate().unwrap();
        let own =
            CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        certificates.write("own-ca.pem", &own.pem());
        certificates.write("own-ca.key", &key.serialize_pem());
        certificates.write("named.extensions", "subjectAltName = IP:127.0.0.1\n");
        certificates.write("nameless.extensions", "keyUsage = digitalSignature\n");
        certificates.write(
            "map",
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":\"m1\"}",
        );
        certificates
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Has `openssl` issue a server's certificate as our CA does, with these arguments.
    fn issue(&self, name: &str, arguments: &str) {
        let command = format!(
            "cd {folder} && openssl req -newkey rsa:2048 -nodes -keyout {name}.key -subj \
                /CN=127.0.0.1 -out {name}.csr \
             && openssl x509 -req -in {name}.csr -CA ours-ca.pem -CAkey ours-ca.key -set_serial 7 \
             -out {name}.pem {arguments}",
            folder = self.0.path().display()
        );
        run("sh", &["-c", &command]);
    }

    /// Demands a certificate of our CA and shows one of its own. The process and its URL.
    fn serve(&self, certificate: &str) -> (Process, String) {
        let command = format!(
            "cd {} && exec openssl s_server -accept 127.0.0.1:0 -HTTP -Verify 1 \
                -verify_return_error -CAfile ours-ca.pem -cert {certificate}.pem -key \
                {certificate}.key -cipher DEFAULT@SECLEVEL=0",
            self.0.path().display()
        );
        let server = Process::start(
            &["sh", "-c", &command],
            &self.path(&format!("{certificate}.log")),
            Ending::default(),
        );
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
    assert_says(
        &message,
        &["the server refused this client's certificate", "foreign-client.pem (cert)", "Puppet CA"],
    );

    let message = certificates.registry(&url, "ours", None).failure().await;
    assert_says(&message, &["demands a client certificate; set cert and key"]);

    let message = certificates.registry(&url, "foreign", Some("ours")).failure().await;
    assert_says(&message, &["the server's certificate is not trusted", "foreign-ca.pem (ca)"]);

    let plain: Value = json!({"timeout": "60s"});
    let message = Registry::http_json(&url, plain).failure().await;
    assert_says(
        &message,
        &["the server's certificate is not trusted", "set ca to the CA's certificate"],
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told_from_an_untrusted_one() {
    let certificates = Certificates::new();
    let (_server, url) = certificates.serve("ours-elsewhere");
    let message = certificates.registry(&url, "ours", Some("ours")).failure().await;
    assert_says(&message, &["another name than the url's host", "elsewhere.test"]);
}

#[tokio::test]
async fn a_certificate_that_is_out_of_use_is_told_in_plain_words() {
    let certificates = Certificates::new();
    certificates.issue("nameless", "-sha256 -extfile nameless.extensions");
    certificates.issue("old-digest", "-sha1 -extfile named.extensions");
    certificates.issue("old-version", "-sha256 -extfile /dev/null");
    certificates.issue("named", "-sha256 -extfile named.extensions");
    for (certificate, parts) in [
        ("nameless", &["common name (CN) only", "subjectAltName"][..]),
        (
            "old-digest",
            &["not safe any more, by SHA-1 mostly", "SHA-256", "(UnsupportedSignatureAlgorithm"],
        ),
        ("old-version", &["X.509 version 1", "issued as version 3"]),
        ("ours-ca", &["a CA's own, self-signed mostly", "puppetdb ssl-setup", "set ca"]),
    ] {
        let (_server, url) = certificates.serve(certificate);
        let message = certificates.registry(&url, "ours", Some("ours")).failure().await;
        assert_says(&message, parts);
        assert!(message.len() < 400, "{message}");
    }
    let (_server, url) = certificates.serve("named");
    assert_eq!(
        entries(&certificates.registry(&url, "ours", Some("ours")).poll().await),
        [("a", "m1")]
    );
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_once_it_is_named() {
    let certificates = Certificates::new();
    let (_server, url) = certificates.serve("own-ca");
    let message = certificates.registry(&url, "ours", Some("ours")).failure().await;
    assert_says(&message, &["is not trusted", "or the certificate itself if it is self-signed"]);
    assert_eq!(
        entries(&certificates.registry(&url, "own", Some("ours")).poll().await),
        [("a", "m1")]
    );
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_refuses() {
    let certificates = Certificates::new();
    let server = wiremock::MockServer::start().await;
    let url = server.uri().replace("http://", "https://");
    let message = certificates.registry(&url, "ours", None).failure().await;
    assert_says(&message, &["TLS failed", "speak TLS"]);
}

#[tokio::test]
async fn a_renewed_certificate_is_in_use_at_the_next_poll_and_a_bad_one_leaves_the_old_one() {
    let certificates = Certificates::new();
    let copy = |pair: &str| {
        for ending in ["pem", "key"] {
            let from = certificates.path(&format!("{pair}-client.{ending}"));
            fs::copy(from, certificates.path(&format!("renewed-client.{ending}"))).unwrap();
        }
    };
    copy("foreign");
    let (_server, url) = certificates.serve("ours-server");
    let mut registry = certificates.registry(&url, "ours", Some("renewed"));
    assert_says(&registry.failure().await, &["refused this client's certificate"]);

    copy("ours");
    assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
    assert_eq!(registry.source.notes().warning, None);

    // The certificate is there already, its key is not.
    fs::copy(certificates.path("foreign-client.pem"), certificates.path("renewed-client.pem"))
        .unwrap();
    assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
    let warning = registry.source.notes().warning.unwrap();
    assert_says(&warning, &["renewed-client.pem", "can't be used", "from before are in use"]);

    fs::remove_file(certificates.path("renewed-client.key")).unwrap();
    assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
    let warning = registry.source.notes().warning.unwrap();
    assert_says(&warning, &["key ", "renewed-client.key: can't be read"]);

    copy("foreign");
    assert_says(&registry.failure().await, &["refused this client's certificate"]);
    assert_eq!(registry.source.notes().warning, None);
}
