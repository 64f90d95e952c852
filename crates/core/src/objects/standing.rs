//! Which of the declared objects count.

use std::collections::{BTreeMap, BTreeSet};

use super::{ObjectKey, ObjectKind, Objects, targets};

/// The names that the settings file gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileNames {
    pub frontends: BTreeSet<String>,
    pub backends: BTreeSet<String>,
}

impl FileNames {
    /// What has this name there. HAProxy 3.4 takes no frontend and backend of the same name.
    pub fn has(&self, name: &str) -> Option<ObjectKind> {
        if self.frontends.contains(name) {
            return Some(ObjectKind::Frontend);
        }
        self.backends.contains(name).then_some(ObjectKind::Backend)
    }
}

/// Whether an object counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is part of the configuration.
    Declared,
    /// It is a frontend that sends requests to backends that there are not. It counts once there
    /// are.
    Pending { waits_for: Vec<String> },
    /// It can't be part of the configuration as the settings file is now.
    SetAside { reason: String },
}

impl Standing {
    pub fn counts(&self) -> bool {
        *self == Self::Declared
    }
}

/// How each object stands beside a settings file with these names. `refused` are those that
/// contradict it, or each other, with the reason.
///
/// The file wins: whoever writes it can see what it says.
pub fn standings(
    file: &FileNames,
    objects: &Objects,
    refused: &BTreeMap<ObjectKey, String>,
) -> BTreeMap<ObjectKey, Standing> {
    let mut found = BTreeMap::new();
    let mut backends: BTreeSet<&str> = file.backends.iter().map(String::as_str).collect();
    for key in objects.items.keys() {
        let taken = file.has(&key.name).map(|kind| {
            format!("the settings file has a [[{}]] of the name {}", kind.section(), key.name)
        });
        let standing = match taken.or_else(|| refused.get(key).cloned()) {
            Some(reason) => Standing::SetAside { reason },
            None => Standing::Declared,
        };
        if key.kind == ObjectKind::Backend && standing.counts() {
            backends.insert(&key.name);
        }
        found.insert(key.clone(), standing);
    }
    for (key, standing) in &mut found {
        if key.kind != ObjectKind::Frontend || !standing.counts() {
            continue;
        }
        let Some(object) = objects.get(key) else { continue };
        let missing = targets(&object.spec).into_iter().filter(|name| !backends.contains(name));
        let waits_for: Vec<_> = missing.map(str::to_owned).collect();
        if !waits_for.is_empty() {
            *standing = Standing::Pending { waits_for };
        }
    }
    found
}
