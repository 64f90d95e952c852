//! TLS: the client's CA, certificate and key from their files, and what a failed handshake means.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity};

use super::http::keys::HttpKeys;
use crate::source::error::SourceErrorKind;
use crate::source::format::without_mark;

/// What the files of `ca`, `cert` and `key` held when a client was made of them: never printed, for
/// a key is among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TlsFiles(***)")
    }
}

impl TlsFiles {
    /// Reads the files that the keys name; blocks.
    pub(super) fn read(keys: &HttpKeys) -> Result<Self, SourceErrorKind> {
        let text = |setting: &str, path: &Option<PathBuf>| match path {
            Some(path) => read(setting, path).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            ca: text("ca", &keys.ca)?,
            cert: text("cert", &keys.cert)?,
            key: text("key", &keys.key)?,
        })
    }

    /// Has a client trust and show what the files hold. With `ca` only that CA is trusted: the
    /// system's say nothing about who may speak for a registry.
    pub(super) fn apply(
        &self,
        keys: &HttpKeys,
        mut client: ClientBuilder,
    ) -> Result<ClientBuilder, SourceErrorKind> {
        if let (Some(text), Some(ca)) = (&self.ca, &keys.ca) {
            let certificates = Certificate::from_pem_bundle(text).map_err(|error| {
                SourceErrorKind::Setup(format!("ca {}: {}", ca.display(), root_cause(&error)))
            })?;
            require(!certificates.is_empty(), || {
                format!("ca {}: holds no certificate in PEM form", ca.display())
            })?;
            client = client.tls_certs_only(certificates);
        }
        if let (Some(pem), Some(cert), Some(key_pem), Some(key)) =
            (&self.cert, &keys.cert, &self.key, &keys.key)
        {
            require(holds(pem, "CERTIFICATE-----"), || {
                format!("cert {}: holds no certificate in PEM form", cert.display())
            })?;
            require(holds(key_pem, "PRIVATE KEY-----"), || {
                format!("key {}: holds no private key in PEM form", key.display())
            })?;
            require(!holds(key_pem, "ENCRYPTED"), || {
                format!("key {}: is encrypted; a daemon needs a plain key", key.display())
            })?;
            let pair = [pem.as_slice(), b"\n", key_pem].concat();
            let identity = Identity::from_pem(&pair).map_err(|error| unfit(keys, &error))?;
            client = client.identity(identity);
        }
        Ok(client)
    }
}

/// A certificate and a key that the TLS library will not take together.
pub(super) fn unfit(keys: &HttpKeys, error: &(dyn std::error::Error + 'static)) -> SourceErrorKind {
    let describe = |path: &Option<PathBuf>| {
        path.as_ref().map_or("none".to_owned(), |path| path.display().to_string())
    };
    SourceErrorKind::Setup(format!(
        "cert {} and key {} (ca {}) can't be used: {}",
        describe(&keys.cert),
        describe(&keys.key),
        describe(&keys.ca),
        root_cause(error)
    ))
}

/// What the TLS library's words mean, if they are of TLS. They are known by their text: the HTTP
/// client does not hand out the library's own type. The tests with a real handshake would notice
/// other words.
pub(in crate::source) fn classify(keys: &HttpKeys, cause: &str) -> Option<SourceErrorKind> {
    let cause = cause.to_owned();
    if let Some(alert) = cause.strip_prefix("received fatal alert: ") {
        // Java ends a handshake without a client certificate with BadCertificate (TLS 1.3) or
        // HandshakeFailure (1.2).
        let of_the_certificate = alert.contains("Certificate")
            || ["UnknownCA", "AccessDenied", "HandshakeFailure", "DecryptError"].contains(&alert);
        return Some(if of_the_certificate {
            SourceErrorKind::ClientCertificateRefused {
                alert: alert.to_owned(),
                cert: keys.cert.clone(),
            }
        } else {
            SourceErrorKind::Tls { cause }
        });
    }
    if let Some(why) = cause.strip_prefix("invalid peer certificate: ") {
        if let Some((_, reason)) = UNFIT.iter().find(|(words, _)| why.contains(words)) {
            // Some of its words are lists of every algorithm there is.
            let cause = why.split([' ', '{']).next().unwrap_or_default().to_owned();
            return Some(SourceErrorKind::ServerUnfit { reason, cause });
        }
        let begins =
            |beginnings: [&str; 2]| beginnings.iter().any(|beginning| why.starts_with(beginning));
        return Some(if begins(["certificate not valid for name", "NotValidForName"]) {
            SourceErrorKind::ServerName { cause: why.to_owned() }
        } else if begins(["certificate expired", "certificate not valid yet"]) {
            SourceErrorKind::ServerOutdated { cause: why.to_owned() }
        } else {
            SourceErrorKind::ServerUntrusted { cause: why.to_owned(), ca: keys.ca.clone() }
        });
    }
    let of_tls = [
        "received corrupt message",
        "peer is incompatible",
        "peer misbehaved",
        "received unexpected",
    ];
    of_tls
        .iter()
        .any(|beginning| cause.starts_with(beginning))
        .then_some(SourceErrorKind::Tls { cause })
}

/// What makes a server's certificate useless whoever signed it: the TLS library's word for it, then
/// what it means and what to do.
const UNFIT: [(&str, &str); 4] = [
    (
        "not valid for any names",
        "has a common name (CN) only, which is no longer accepted; have it issued with the url's \
            host as a subjectAltName (for Puppet: dns_alt_names)",
    ),
    (
        "UnsupportedSignatureAlgorithm",
        "or its CA's is signed in a way that is not safe any more, by SHA-1 mostly; have it \
            issued with SHA-256",
    ),
    (
        "CaUsedAsEndEntity",
        "is a CA's own, self-signed mostly; have the server use one that a CA signed for it (for \
            PuppetDB: `puppetdb ssl-setup`), and set ca to that CA's",
    ),
    (
        "UnsupportedCertVersion",
        "is of X.509 version 1; have it issued as version 3, with the url's host as a \
            subjectAltName",
    ),
];

/// The innermost error's words: the outer ones only say that a request failed.
pub(in crate::source) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>, SourceErrorKind> {
    let text = std::fs::read(path).map_err(|error| {
        SourceErrorKind::Setup(format!("{setting} {}: can't be read: {error}", path.display()))
    })?;
    Ok(without_mark(&text).to_vec())
}

fn holds(pem: &[u8], mark: &str) -> bool {
    memchr::memmem::find(pem, mark.as_bytes()).is_some()
}

fn require(condition: bool, message: impl FnOnce() -> String) -> Result<(), SourceErrorKind> {
    if condition { Ok(()) } else { Err(SourceErrorKind::Setup(message())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> HttpKeys {
        let file = |name: &str| Some(folder.join(name));
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("cert.key"));
        HttpKeys { ca, cert, key, ..HttpKeys::default() }
    }

    #[test]
    fn the_tls_librarys_words_say_whose_certificate_is_at_fault() {
        let files = files(Path::new("/tls"));
        for (cause, parts) in [
            (
                "received fatal alert: CertificateUnknown",
                &["refused this client's certificate /tls/cert.pem", "Puppet CA"][..],
            ),
            ("received fatal alert: BadCertificate", &["refused this client's certificate"]),
            ("received fatal alert: UnknownCA", &["refused this client's certificate"]),
            ("received fatal alert: ProtocolVersion", &["TLS failed", "ProtocolVersion"]),
            (
                "invalid peer certificate: UnknownIssuer",
                &["not trusted", "UnknownIssuer", "/tls/ca.pem (ca)"],
            ),
            (
                "invalid peer certificate: certificate expired: x",
                &["out of date", "expired", "clock"],
            ),
            (
                "invalid peer certificate: certificate not valid yet: x",
                &["out of date", "not valid yet"],
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                &["another name", "\"a\""],
            ),
            ("received corrupt message of type InvalidContentType", &["TLS failed", "speak TLS"]),
        ] {
            let message = classify(&files, cause).unwrap().to_string();
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
        let without = HttpKeys::default();
        let message =
            classify(&without, "received fatal alert: CertificateRequired").unwrap().to_string();
        assert!(message.contains("demands a client certificate; set cert and key"), "{message}");
        assert_eq!(classify(&without, "Connection refused (os error 111)"), None);
    }

    #[test]
    fn a_certificate_or_key_that_can_not_be_used_is_named_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::generate_simple_self_signed(["other".to_owned()])
            .unwrap()
            .signing_key
            .serialize_pem();
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (ca, cert, key, part) in [
            (None, &*cert, &*key, "ca.pem: can't be read"),
            (Some("no pem"), &cert, &key, "ca.pem: holds no certificate"),
            (Some(&*cert), "", &key, "cert.pem: holds no certificate"),
            (Some(&cert), &cert, &cert, "cert.key: holds no private key"),
            (Some(&cert), &cert, &encrypted, "cert.key: is encrypted"),
            (Some(&cert), &cert, &other, "can't be used"),
        ] {
            let _ = std::fs::remove_file(folder.path().join("ca.pem"));
            for (name, text) in [("ca.pem", ca), ("cert.pem", Some(cert)), ("cert.key", Some(key))]
            {
                if let Some(text) = text {
                    std::fs::write(folder.path().join(name), text).unwrap();
                }
            }
            let files = files(folder.path());
            let build = |builder: ClientBuilder| {
                builder.tls_backend_rustls().build().map_err(|error| unfit(&files, &error))
            };
            let message = TlsFiles::read(&files)
                .and_then(|texts| texts.apply(&files, ClientBuilder::new()))
                .and_then(build)
                .map(drop)
                .unwrap_err()
                .to_string();
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}
