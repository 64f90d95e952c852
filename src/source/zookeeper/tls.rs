//! TLS to a ZooKeeper: spoken where `ca` is given.

use zookeeper_client::TlsOptions;

use crate::source::error::SourceErrorKind;
use crate::source::feed::off_thread;
use crate::source::transport::handshake;
use crate::source::transport::http::keys::HttpKeys;

/// The options of the client, if TLS is to be spoken. Blocks.
///
/// # Errors
/// A file that can't be used.
pub(super) fn read(keys: &HttpKeys) -> Result<Option<TlsOptions>, SourceErrorKind> {
    if keys.ca.is_none() {
        return Ok(None);
    }
    let texts = handshake::read(keys)?;
    let unfit = |error: zookeeper_client::Error| SourceErrorKind::Setup(error.to_string());
    let ca = texts.ca.unwrap_or_default();
    let options = TlsOptions::new().with_pem_ca(&ca).map_err(unfit)?;
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
