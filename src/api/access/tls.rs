//! TLS of the API: its certificate, and those of clients, as their files have them.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::api::types::ApiTlsReport;
use crate::settings::{ApiTls, ClientAuth};

/// The most that is read of a file.
const LARGEST: u64 = 4 * 1024 * 1024;
/// HTTP/2, and HTTP/1.1 for those who do not know it.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
/// What a client has chosen then.
pub const HTTP_2: &[u8] = b"h2";
/// How often it is looked whether a certificate that was shown is in date still.
const CHECKED_EVERY: Duration = Duration::from_secs(60);

/// What the files held.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// What is made of the files.
struct Made {
    config: Arc<ServerConfig>,
    /// Whose certificates are taken, where any are.
    verifier: Option<Verifier>,
    /// Until when the API's certificate is good.
    not_after: Option<Timestamp>,
    /// When the next CRL should have come.
    crl_until: Option<Timestamp>,
}

type Verifier = Arc<dyn ClientCertVerifier>;

struct State {
    files: Files,
    /// Greater than that of all before.
    generation: u64,
    made: Made,
    /// Why what the files hold now is not in force.
    error: Option<String>,
}

/// TLS as its files had it when they could be used last.
pub struct ServerTls {
    settings: ApiTls,
    state: RwLock<State>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ServerTls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// Which file can't be used, and why.
    pub fn new(settings: &ApiTls) -> Result<Self, String> {
        let files = read(settings)?;
        let made = made_of(settings, &files)?;
        let state = State { files, generation: 0, made, error: None };
        Ok(Self { settings: settings.clone(), state: RwLock::new(state) })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().made.config)
    }

    /// How long a client may take for the handshake.
    pub fn handshake_timeout(&self) -> Duration {
        self.settings.handshake_timeout
    }

    /// Reads the files again; blocks. Connections that are open keep the certificate of before, and
    /// what a client has shown by them counts as the CA and the CRL of now say.
    pub fn read_again(&self) {
        let files = read(&self.settings);
        let is_same = files.as_ref().is_ok_and(|files| *files == self.state().files);
        let made = match files {
            // What was in force is there again.
            Ok(_) if is_same => None,
            Ok(files) => Some(made_of(&self.settings, &files).map(|made| (files, made))),
            Err(error) => Some(Err(error)),
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match made {
            None => state.error = None,
            Some(Ok((files, made))) => {
                let until = made.not_after.map(tracing::field::display);
                tracing::info!(until, "the API's certificate, key, CA or CRL was replaced");
                let generation = state.generation + 1;
                *state = State { files, generation, made, error: None };
            }
            Some(Err(error)) => {
                if state.error.as_ref() != Some(&error) {
                    tracing::error!("{error}; what was in force before stays so");
                }
                state.error = Some(error);
            }
        }
    }

    pub(crate) fn report(&self) -> ApiTlsReport {
        let state = self.state();
        let Made { not_after, crl_until, .. } = state.made;
        ApiTlsReport { not_after, crl_until, error: state.error.clone() }
    }
}

fn named(key: &str, path: &Path, why: impl fmt::Display) -> String {
    format!("api.tls.{key} {}: {why}", path.display())
}

fn read(settings: &ApiTls) -> Result<Files, String> {
    let read = |key: &str, path: &Path| {
        let size = std::fs::metadata(path).map_err(|error| named(key, path, error))?.len();
        if size > LARGEST {
            return Err(named(key, path, "the file is larger than any certificate or CRL"));
        }
        std::fs::read(path).map_err(|error| named(key, path, error))
    };
    let optional = |key: &str, path: Option<&Path>| path.map(|path| read(key, path)).transpose();
    Ok(Files {
        cert: read("cert", &settings.cert)?,
        key: read("key", &settings.key)?,
        client_ca: optional("client_ca", settings.client_ca.as_deref())?,
        client_crl: optional("client_crl", settings.client_crl.as_deref())?,
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it holds no certificate in PEM form".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

/// What connections are made with.
fn made_of(settings: &ApiTls, files: &Files) -> Result<Made, String> {
    let of_cert = |why: String| named("cert", &settings.cert, why);
    let of_key = |why: String| named("key", &settings.key, why);
    let chain = certificates(&files.cert).map_err(of_cert)?;
    let not_after = chain.first().and_then(|certificate| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|error| of_key(format!("it holds no private key that can be used: {error}")))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| of_cert(error.to_string()))?;
    let ca = files.client_ca.as_ref().filter(|_| settings.client_auth != ClientAuth::Off);
    let verifier = ca.map(|ca| verifier(settings, ca, files.client_crl.as_deref())).transpose()?;
    let builder = match &verifier {
        Some((verifier, _)) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        of_cert(format!("it and key {} can't be used together: {error}", settings.key.display()))
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let (verifier, crl_until) = verifier.unzip();
    Ok(Made { config: Arc::new(config), verifier, not_after, crl_until: crl_until.flatten() })
}

/// Whose certificates are taken, and when the next CRL should have come.
fn verifier(
    settings: &ApiTls,
    ca: &[u8],
    crl: Option<&[u8]>,
) -> Result<(Verifier, Option<Timestamp>), String> {
    let path = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
    let of_ca = |why: String| named("client_ca", &path(&settings.client_ca), why);
    let of_crl = |why: String| named("client_crl", &path(&settings.client_crl), why);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(of_ca)? {
        roots.add(certificate).map_err(|error| of_ca(error.to_string()))?;
    }
    let provider = Arc::new(default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let mut until = None;
    if let Some(crl) = crl {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(crl).collect();
        let lists = lists.map_err(|error| of_crl(error.to_string()))?;
        if lists.is_empty() {
            return Err(of_crl("it holds no CRL in PEM form".to_owned()));
        }
        until = lists.iter().filter_map(|list| next_update(list)).min();
        builder = builder.with_crls(lists);
    }
    if settings.client_auth == ClientAuth::Request {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| of_crl(error.to_string()))?;
    Ok((verifier, until))
}

fn next_update(list: &[u8]) -> Option<Timestamp> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    Timestamp::from_second(list.next_update()?.timestamp()).ok()
}

/// The certificate that a client has shown by a connection. It counts for as long as the CA and the
/// CRL in force, and the clock, let it.
pub struct ShownCertificate {
    names: Vec<String>,
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<ServerTls>,
    last: Mutex<Checked>,
}

/// What was found of a certificate, and when.
#[derive(Clone, Copy)]
struct Checked {
    generation: u64,
    at: Instant,
    is_good: bool,
}

impl ShownCertificate {
    /// None where none was shown.
    pub fn of(tls: &Arc<ServerTls>, connection: &ServerConnection) -> Option<Self> {
        let chain: Vec<_> =
            connection.peer_certificates()?.iter().map(|it| it.clone().into_owned()).collect();
        let names = names(chain.first()?);
        let shown = Self {
            names,
            chain,
            tls: Arc::clone(tls),
            last: Mutex::new(Checked { generation: 0, at: Instant::now(), is_good: false }),
        };
        // The CRL may have become another one during the handshake.
        let checked = shown.check(&tls.state());
        *shown.last.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        Some(shown)
    }

    /// The names that its client is known by now; none where it does not count any more.
    pub fn names(&self) -> &[String] {
        let state = self.tls.state();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.generation != state.generation || last.at.elapsed() > CHECKED_EVERY {
            *last = self.check(&state);
        }
        if last.is_good { &self.names } else { &[] }
    }

    fn check(&self, state: &State) -> Checked {
        let verify = |verifier: &Verifier| {
            let (own, others) = self.chain.split_first()?;
            verifier.verify_client_cert(own, others, UnixTime::now()).ok()
        };
        let is_good = state.made.verifier.as_ref().and_then(verify).is_some();
        Checked { generation: state.generation, at: Instant::now(), is_good }
    }
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ShownCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Whether a certificate is a CA's own, which says who others are and which TLS libraries as strict
/// as Mapsmith's do not take for a server's.
pub fn is_of_ca(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    certificate.is_ca()
}

/// The names in a certificate that somebody can be known by.
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn settings(&self, client_auth: ClientAuth) -> ApiTls {
            let path = |name: &str| self.0.path().join(name);
            let has_clients = client_auth != ClientAuth::Off;
            ApiTls {
                cert: path("cert.pem"),
                key: path("key.pem"),
                client_ca: has_clients.then(|| path("ca.pem")),
                client_crl: None,
                client_auth,
                handshake_timeout: Duration::from_secs(10),
            }
        }
    }

    /// A certificate and its key.
    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn another_pair_comes_into_force_and_a_bad_one_does_not() {
        let folder = Folder::new();
        let (cert, key) = pair(&["one"]);
        folder.write("cert.pem", &cert);
        folder.write("key.pem", &key);
        let tls = ServerTls::new(&folder.settings(ClientAuth::Off)).unwrap();
        let first = tls.config();
        tls.read_again();
        assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");
        let (other, other_key) = pair(&["two"]);
        folder.write("cert.pem", &other);
        tls.read_again();
        let error = tls.report().error.expect("they do not belong together");
        assert!(error.contains("cert.pem") && error.contains("can't be used together"), "{error}");
        assert!(Arc::ptr_eq(&first, &tls.config()));
        folder.write("key.pem", &other_key);
        tls.read_again();
        assert_eq!(tls.report().error, None);
        assert!(!Arc::ptr_eq(&first, &tls.config()) && tls.report().not_after.is_some());
        std::fs::remove_file(folder.0.path().join("key.pem")).unwrap();
        tls.read_again();
        assert!(tls.report().error.is_some_and(|error| error.contains("api.tls.key")));
        folder.write("key.pem", &other_key);
        tls.read_again();
        assert_eq!(tls.report().error, None, "it is as it was");
    }

    #[test]
    fn a_file_that_can_not_be_used_is_named_by_its_key() {
        let (cert, key) = pair(&["one"]);
        for (name, text, part) in [
            ("cert.pem", "", "api.tls.cert"),
            ("cert.pem", &*key, "holds no certificate"),
            ("key.pem", &cert, "holds no private key"),
            ("ca.pem", "", "api.tls.client_ca"),
        ] {
            let folder = Folder::new();
            for (name, text) in [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &cert)] {
                folder.write(name, text);
            }
            folder.write(name, text);
            let error = ServerTls::new(&folder.settings(ClientAuth::Require)).unwrap_err();
            assert!(error.contains(part) && !error.contains("BEGIN"), "{error}");
        }
    }

    #[test]
    fn a_client_has_the_names_of_its_certificate() {
        let names_of = |pem: &str| names(&certificates(pem.as_bytes()).unwrap()[0]);
        let (cert, _) = pair(&["ops1.example.test", "10.0.0.1"]);
        assert_eq!(names_of(&cert), ["ops1.example.test"], "an address is no name");
        assert!(names(b"no certificate").is_empty());
    }
}
