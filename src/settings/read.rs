//! The texts of files that settings are read from.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::SettingsError;

pub(super) fn unreadable(path: &Path, message: String) -> SettingsError {
    SettingsError::Unreadable { path: path.display().to_string(), message }
}

/// The text of the settings file.
pub(super) fn text_of(path: &Path) -> Result<String, SettingsError> {
    text_or(path, "; -c FILE or MAPSMITH_CONFIG names another one")
}

/// The text of a file, or why there is none, with what is to be said where it is not there.
pub(super) fn text_or(path: &Path, missing: &'static str) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => missing,
            ErrorKind::PermissionDenied => "; let the user read it who runs this",
            _ => "",
        };
        unreadable(path, format!("can't be read: {error}{hint}"))
    })
}
