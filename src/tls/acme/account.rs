//! The account at an authority: its key is made once, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use mapsmith_core::render::stamp::hash;

use super::Failure;
use super::client::Http;
use crate::settings::Acme;
use crate::settings::acme::Eab;
use crate::store::replace::replace;
use crate::tls::issued::{MODE, create};

/// The account's file; each directory has its own.
pub(super) fn file(folder: &Path, directory: &str) -> PathBuf {
    folder.join(format!("account-{:016x}.json", hash(directory.as_bytes())))
}

/// The account that is kept, or a new one.
///
/// # Errors
/// The authority can't be reached or gives none, or the file can't be read or written.
pub(super) async fn open(acme: &Acme, folder: &Path, http: &Http) -> Result<Account, Failure> {
    let file = file(folder, &acme.directory);
    let builder = Account::builder_with_http(Box::new(http.clone()));
    if file.exists() {
        let unreadable =
            |error: String| Failure::local(format!("{}: can't be read: {error}", file.display()));
        let text = fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
        // The library's words could show a part of the key.
        let known: AccountCredentials = serde_json::from_slice(&text)
            .map_err(|_| unreadable("it is not what Mapsmith wrote".to_owned()))?;
        return builder.from_credentials(known).await.map_err(Failure::from);
    }
    // Before there is an account that could be lost.
    create(folder).map_err(Failure::local)?;
    let contact: Vec<_> = acme.contact.iter().map(|it| mailto(it.as_str())).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: acme.terms_agreed,
        only_return_existing: false,
    };
    let binding = acme.eab.as_ref().map(external_key).transpose().map_err(Failure::local)?;
    let created = builder.create(&new, acme.directory.clone(), binding.as_ref()).await;
    let (account, credentials) = created.map_err(Failure::from)?;
    let text = serde_json::to_vec(&credentials)
        .map_err(|_| Failure::local("the account's key can't be written as JSON".to_owned()))?;
    replace(&file, &text, MODE).map_err(|error| Failure::local(error.to_string()))?;
    tracing::info!(directory = acme.directory, account = account.id(), "new ACME account");
    Ok(account)
}

/// The account is no more: the next attempt makes another one.
///
/// # Errors
/// The file can't be removed.
pub(super) fn forget(acme: &Acme, folder: &Path) -> Result<(), Failure> {
    let file = file(folder, &acme.directory);
    fs::remove_file(&file)
        .map_err(|error| Failure::local(format!("{}: can't be removed: {error}", file.display())))
}

fn mailto(contact: &str) -> String {
    if contact.starts_with("mailto:") { contact.to_owned() } else { format!("mailto:{contact}") }
}

/// From its file; what is in it is not shown.
fn external_key(eab: &Eab) -> Result<ExternalAccountKey, String> {
    let place = || format!("acme.eab.key_file {}", eab.key_file.display());
    let text = fs::read_to_string(&eab.key_file)
        .map_err(|error| format!("{}: can't be read: {error}", place()))?;
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| format!("{}: is not base64url", place()))?;
    Ok(ExternalAccountKey::new(eab.kid.to_string(), &key))
}
