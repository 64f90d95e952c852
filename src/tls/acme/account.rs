//! The account at an authority: its key is made once, and kept.

use std::fs;
use std::os::unix::fs::MetadataExt;
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
    let mode = fs::metadata(&eab.key_file).map(|metadata| metadata.mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let place = place();
        return Err(format!("{place}: its mode is {mode:o}, so others can read it; chmod 600 it"));
    }
    let text = fs::read_to_string(&eab.key_file)
        .map_err(|error| format!("{}: can't be read: {error}", place()))?;
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| format!("{}: is not base64url", place()))?;
    Ok(ExternalAccountKey::new(eab.kid.to_string(), &key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mapsmith_core::config::values::Text;

    use super::*;

    #[test]
    fn an_external_key_is_nobody_elses_to_read_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("key");
        let eab = Eab { kid: Text::try_from("key-1".to_owned()).unwrap(), key_file };
        let set_mode = |mode| {
            fs::set_permissions(&eab.key_file, fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = || external_key(&eab).err().unwrap_or_default();
        assert!(refused().contains("can't be read"), "{}", refused());
        fs::write(&eab.key_file, "c2VjcmV0\n").unwrap();
        set_mode(0o640);
        assert!(refused().contains("its mode is 640"), "{}", refused());
        set_mode(0o600);
        assert_eq!(refused(), "");
        fs::write(&eab.key_file, "no base64!").unwrap();
        assert!(refused().ends_with("is not base64url"), "{}", refused());
    }
}
