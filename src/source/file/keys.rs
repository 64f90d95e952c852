//! The keys of a file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::settings::keys::kind_keys;
use crate::source::SourceKind;

kind_keys! {
    /// Keys of a file.
    #[derive(Debug, Clone, Default)]
    pub struct FileKeys {
        /// The file. It is watched, links included (as Kubernetes mounts them), and read at each
        /// poll if it changed. A list of servers may be a folder: each file in it is a list, and
        /// all together are the list, in the order of their names. Folders and names that begin
        /// with `.` or end in `~` or `.tmp` are passed over. A folder without a file is a failure.
        #[unset(required)]
        pub path: Option<PathBuf>,
        /// What the file contains: `json` (like the document of an `http_json`); of a node map
        /// `map` with `node master` on each line; of a list of servers `lines` with `host:port` on
        /// each. Nothing is guessed from the text.
        #[unset(says "`json`; of a node map `map` unless the name ends in `.json`")]
        pub format: Option<FileFormat>,
    }
}

/// Where the links of a file, or of a folder's files, may lead: those of a service's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// The service, for its error.
    pub service: String,
    /// `services.files`.
    pub folder: PathBuf,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// JSON, like `http_json`'s.
    Json,
    /// A map file: node and master, a line each.
    Map,
    /// Servers: host and port, a line each.
    Lines,
}

impl FileKeys {
    /// The path. (Checked with the settings: there is one.)
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// What the file holds: nothing is guessed from its text.
    pub fn file_format(&self) -> FileFormat {
        let of_name = || match self.path.as_deref().and_then(Path::extension) {
            Some(ending) if ending.eq_ignore_ascii_case("json") => FileFormat::Json,
            _ => FileFormat::Map,
        };
        self.format.unwrap_or_else(of_name)
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let file = kind == SourceKind::File;
        match (&self.path, file) {
            (None, true) => problem("path is missing".to_owned()),
            (Some(_), false) if kind == SourceKind::Metadata => {}
            (Some(_), false) => problem(format!("path: a {kind} source has none")),
            (Some(_), true) | (None, false) => {}
        }
        if !file && self.format.is_some() {
            problem(format!("format: a {kind} source has none"));
        }
    }
}
