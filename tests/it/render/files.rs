//! Files that a drawn configuration has HAProxy open.

use std::fs;
use std::path::Path;

use mapsmith_core::config::values::FilePath;
use tempfile::TempDir;

use super::models::value;

/// They are gone on drop.
pub struct Files {
    /// A certificate and its key.
    pub certificate: FilePath,
    /// The same without the key.
    pub ca: FilePath,
    /// Keys that are texts.
    pub map: FilePath,
    /// Keys that are addresses.
    pub address_map: FilePath,
    /// States of no servers.
    pub states: FilePath,
    folder: TempDir,
}

impl Files {
    pub fn create() -> Self {
        let folder =
            tempfile::Builder::new().prefix("mapsmith-render-").tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("made");
        let certificate = made.cert.pem() + &made.signing_key.serialize_pem();
        let file = |name: &str, text: &str| -> FilePath {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the file can be written");
            value(path.to_str().expect("a folder named in UTF-8"))
        };
        Self {
            certificate: file("site.pem", &certificate),
            ca: file("ca.pem", &made.cert.pem()),
            map: file("a.map", "/a 1\n"),
            address_map: file("b.map", "10.0.0.0/8 1\n"),
            states: file("servers.state", "1\n"),
            folder,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
