//! TLS to a ZooKeeper: the files of `ca`, `cert` and `key`, and why a handshake failed, which the
//! client does not say.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use zookeeper_client::TlsOptions;

use crate::source::error::SourceErrorKind;
use crate::source::feed::off_thread;
use crate::source::transport::http::keys::HttpKeys;
use crate::source::transport::tls::{classify, root_cause};

/// How long each step of a handshake may take that is made to see why one failed.
const PROBE: Duration = Duration::from_secs(2);

/// What the files hold: never printed, for a key is among them.
struct Texts {
    ca: String,
    /// The certificate and its key.
    identity: Option<(String, String)>,
}

/// The options of the client, if TLS is to be spoken. Blocks.
///
/// # Errors
/// A file that can't be used.
pub(super) fn read(keys: &HttpKeys) -> Result<Option<TlsOptions>, SourceErrorKind> {
    let Some(texts) = read_files(keys)? else { return Ok(None) };
    config(keys, &texts)?;
    let unfit = |error: zookeeper_client::Error| SourceErrorKind::Setup(error.to_string());
    let options = TlsOptions::new().with_pem_ca(&texts.ca).map_err(unfit)?;
    Ok(Some(match &texts.identity {
        Some((cert, key)) => options.with_pem_identity(cert, key).map_err(unfit)?,
        None => options,
    }))
}

/// [`read`] off the async threads.
pub(super) async fn read_off_thread(
    keys: &HttpKeys,
) -> Result<Option<TlsOptions>, SourceErrorKind> {
    let keys = keys.clone();
    off_thread(move || read(&keys)).await
}

/// Why none of the servers takes part in a handshake, where that is TLS's fault: the first reason.
pub(super) async fn why_not(keys: &HttpKeys, servers: &[String]) -> Option<SourceErrorKind> {
    let (keys, servers) = (keys.clone(), servers.to_vec());
    off_thread(move || {
        let config = Arc::new(config(&keys, &read_files(&keys).ok()??).ok()?);
        let mut reasons = servers.iter().map(|server| handshake(&config, server));
        reasons.find_map(|tried| classify(&keys, &root_cause(&tried.err()?)))
    })
    .await
}

fn read_files(keys: &HttpKeys) -> Result<Option<Texts>, SourceErrorKind> {
    let Some(ca) = &keys.ca else { return Ok(None) };
    let identity = match (&keys.cert, &keys.key) {
        (Some(cert), Some(key)) => Some((text("cert", cert)?, text("key", key)?)),
        _ => None,
    };
    Ok(Some(Texts { ca: text("ca", ca)?, identity }))
}

fn text(setting: &str, path: &Path) -> Result<String, SourceErrorKind> {
    std::fs::read_to_string(path).map_err(|error| {
        SourceErrorKind::Setup(format!("{setting} {}: can't be read: {error}", path.display()))
    })
}

/// What the files are good for in TLS, checked as the client does not.
fn config(keys: &HttpKeys, texts: &Texts) -> Result<ClientConfig, SourceErrorKind> {
    let name = |path: &Option<PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => "none".to_owned(),
    };
    let unfit = |setting: &str, path: &Option<PathBuf>, cause: &dyn std::fmt::Display| {
        SourceErrorKind::Setup(format!("{setting} {}: {cause}", name(path)))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(texts.ca.as_bytes()) {
        let added = certificate.map_err(|error| unfit("ca", &keys.ca, &error))?;
        roots.add(added).map_err(|error| unfit("ca", &keys.ca, &error))?;
    }
    if roots.is_empty() {
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
