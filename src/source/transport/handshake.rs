//! TLS of clients that keep to themselves why a handshake failed: the files of `ca`, `cert` and
//! `key`, checked, and a handshake of one's own to see what is wrong.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::http::keys::HttpKeys;
use super::tls::{classify, root_cause};
use crate::source::error::SourceErrorKind;
use crate::source::feed::off_thread;

/// How long each step of a handshake may take that is made to see why one failed.
const PROBE: Duration = Duration::from_secs(2);

/// What the files hold: never printed, for a key is among them.
pub(in crate::source) struct Texts {
    /// None where the system's CAs are trusted.
    pub(in crate::source) ca: Option<String>,
    /// The certificate and its key.
    pub(in crate::source) identity: Option<(String, String)>,
}

/// Reads the files, and checks that they can be used. Blocks.
///
/// # Errors
/// A file that can't be used.
pub(in crate::source) fn read(keys: &HttpKeys) -> Result<Texts, SourceErrorKind> {
    let texts = read_files(keys)?;
    config(keys, &texts)?;
    Ok(texts)
}

/// Why none of the servers takes part in a handshake, where that is TLS's fault: the first reason.
///
/// Nothing is tried where the system's CAs are trusted.
pub(in crate::source) async fn why_not(
    keys: &HttpKeys,
    servers: &[String],
) -> Option<SourceErrorKind> {
    keys.ca.as_ref()?;
    let (keys, servers) = (keys.clone(), servers.to_vec());
    off_thread(move || {
        let config = Arc::new(config(&keys, &read_files(&keys).ok()?).ok()?);
        let mut reasons = servers.iter().map(|server| handshake(&config, server));
        reasons.find_map(|tried| classify(&keys, &root_cause(&tried.err()?)))
    })
    .await
}

fn read_files(keys: &HttpKeys) -> Result<Texts, SourceErrorKind> {
    let ca = keys.ca.as_ref().map(|ca| text("ca", ca)).transpose()?;
    let identity = match (&keys.cert, &keys.key) {
        (Some(cert), Some(key)) => Some((text("cert", cert)?, text("key", key)?)),
        _ => None,
    };
    Ok(Texts { ca, identity })
}

fn text(setting: &str, path: &Path) -> Result<String, SourceErrorKind> {
    std::fs::read_to_string(path).map_err(|error| {
        SourceErrorKind::Setup(format!("{setting} {}: can't be read: {error}", path.display()))
    })
}

/// What the files are good for in TLS, checked as those clients do not.
fn config(keys: &HttpKeys, texts: &Texts) -> Result<ClientConfig, SourceErrorKind> {
    let name = |path: &Option<PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => "none".to_owned(),
    };
    let unfit = |setting: &str, path: &Option<PathBuf>, cause: &dyn std::fmt::Display| {
        SourceErrorKind::Setup(format!("{setting} {}: {cause}", name(path)))
    };
    let mut roots = RootCertStore::empty();
    let ca = texts.ca.as_deref().unwrap_or_default();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let added = certificate.map_err(|error| unfit("ca", &keys.ca, &error))?;
        roots.add(added).map_err(|error| unfit("ca", &keys.ca, &error))?;
    }
    if texts.ca.is_some() && roots.is_empty() {
        return Err(unfit("ca", &keys.ca, &"holds no certificate in PEM form"));
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let Some((cert, key)) = &texts.identity else { return Ok(builder.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = chain.map_err(|error| unfit("cert", &keys.cert, &error))?;
    if chain.is_empty() {
        return Err(unfit("cert", &keys.cert, &"holds no certificate in PEM form"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| unfit("key", &keys.key, &"holds no plain private key in PEM form"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        let cause = format!("can't be used with key {}: {error}", name(&keys.key));
        unfit("cert", &keys.cert, &cause)
    })
}

/// A handshake, and the first byte of an answer: a server refuses a client's certificate only after
/// the handshake has ended for the client.
fn handshake(config: &Arc<ClientConfig>, server: &str) -> io::Result<()> {
    let address = server.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PROBE)?;
    stream.set_read_timeout(Some(PROBE))?;
    stream.set_write_timeout(Some(PROBE))?;
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    tls.read_tls(&mut stream)?;
    tls.process_new_packets().map_err(io::Error::other)?;
    Ok(())
}
