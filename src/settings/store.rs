//! `[store]`: where overrides outlive a restart.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Map;
use super::keys::section;

section! {
    /// Where pins, drained masters, owners, the last good server lists and services, and the API's
    /// tokens and audit are kept. Without this section there are no overrides, owners and tokens.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Store {
        /// The SQLite file. It is created if it is missing; its directory must exist, on a local
        /// disk. Only one daemon can use it.
        #[unset(required)]
        pub path: PathBuf,
    }
}

impl Store {
    pub(super) fn problems(&self, map: &Map, problems: &mut Vec<String>) {
        if self.path.file_name().is_none() {
            problems.push(format!("store.path: {:?} names no file", self.path));
        }
        if self.path == map.file() {
            problems.push("store.path: is the map file, which Mapsmith writes itself".to_owned());
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.path = folder.join(&self.path);
    }
}
