//! `[map]`: the node -> master map.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::keys::section;
use super::units::optional_duration;

section! {
    /// The map from nodes to masters that HAProxy routes by.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Map {
        /// The map's path, exactly as HAProxy's configuration names it. No whitespace or control
        /// characters. If it is relative (to HAProxy's working directory), set `map.file` too.
        #[unset(
            says "required; with `haproxy.managed`: `map.file`, or `node-master.map` in its folder"
        )]
        #[serde(default)]
        pub path: PathBuf,
        /// The file that Mapsmith writes, if its path is not HAProxy's (a chroot, a mount).
        #[unset(says "`map.path`")]
        pub file: Option<PathBuf>,
        /// Whether node names are lower-cased (ASCII), as the converter `lower` does it in
        /// HAProxy's configuration.
        #[unset("true")]
        #[serde(default = "lowercase")]
        pub lowercase: bool,
        /// How long a node stays in the map, with its last master, after the sources' answers lack
        /// it: one that is deactivated for a rebuild keeps its route. The guard judges the loss at
        /// once, and a loss that an operator approves goes at once. A year at most; for PuppetDB
        /// a day or two.
        #[unset(says "it goes at once")]
        #[serde(default, deserialize_with = "optional_duration")]
        pub remove_after: Option<Duration>,
    }
}

impl Default for Map {
    fn default() -> Self {
        Self { path: PathBuf::new(), file: None, lowercase: true, remove_after: None }
    }
}

fn lowercase() -> bool {
    true
}

impl Map {
    /// Where the map file is written.
    pub fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(&self.path)
    }

    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if self.path.as_os_str().is_empty() {
            return problems.push("map.path: is missing".to_owned());
        }
        match self.path.to_str() {
            Some(text) if !text.is_empty() && !text.starts_with('#') && !text.starts_with('@') => {
                if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    problems.push(format!(
                        "map.path: {text:?} contains whitespace or control characters"
                    ));
                }
                if text.starts_with("<<") || text.ends_with("<<") {
                    problems.push(format!(
                        "map.path: {text:?} has `<<` at an end, which HAProxy's \
                            commands read as a payload mark"
                    ));
                }
            }
            _ => problems.push(
                "map.path: must be the map's path as HAProxy's configuration names it".to_owned(),
            ),
        }
        if !self.path.is_absolute() && self.file.is_none() {
            problems.push(format!(
                "map.path: {:?} is relative to HAProxy's working folder; set map.file to where \
                    Mapsmith shall write it",
                self.path
            ));
        }
    }

    /// `path` is HAProxy's word and stays as it is.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.file.iter_mut().for_each(|path| *path = folder.join(&*path));
    }
}
