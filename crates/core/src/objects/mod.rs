//! Frontends and backends that are declared through the API, beside those of the settings file.
//!
//! An object is what its section of the settings file would say, as JSON. What it means is for the
//! settings to say; here is decided which objects count ([`standings`]), what a change makes of
//! them ([`Edits`]), what they may say in HAProxy's own words ([`allowed`]), and what of them people
//! see ([`secrets`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::overrides::Note;
use crate::server::is_valid_name;

pub mod allowed;
mod edits;
pub mod secrets;
mod standing;
#[cfg(test)]
mod tests;

pub use edits::{Action, Change, Document, EditError, Edits, FieldChange, Item};
pub use standing::{FileNames, Standing, standings};

/// The most objects that there may be.
pub const MOST_OBJECTS: usize = 2000;
/// The most bytes that they may be together, as JSON.
pub const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The longest name of an owner.
pub const LONGEST_OWNER: usize = 100;

/// What an object says beside its name: the keys of its section of the settings file.
pub type Spec = Map<String, Value>;

/// What an object is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    Backend,
    Frontend,
}

impl ObjectKind {
    pub const ALL: [Self; 2] = [Self::Backend, Self::Frontend];

    /// The name of its section in the settings file.
    pub fn section(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Frontend => "frontend",
        }
    }

    /// What the API calls all of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Backend => "backends",
            Self::Frontend => "frontends",
        }
    }

    /// The one whose section has this name.
    pub fn of_section(section: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.section() == section)
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: ObjectKind,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `frontends/web`, as in a path of the API.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.kind.plural(), self.name)
    }
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub spec: Spec,
    /// Whose it is: who made it, unless that said another name.
    pub owner: String,
    /// The number of the change that made it what it is.
    pub number: u64,
    /// Of those that want one address the lowest has it: from the change that gave it the
    /// addresses that it has, whatever else of it has changed since.
    pub place: u64,
    /// When it became what it is.
    pub changed_at: Timestamp,
    /// Who made it, and why.
    pub note: Note,
    /// As an old client said it in the words of its own API (`compat`), if it was one.
    pub said: Option<Spec>,
}

/// All that is declared through the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Of the last change.
    pub number: u64,
    pub items: BTreeMap<ObjectKey, Object>,
}

impl Objects {
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.items.get(key)
    }

    /// How many bytes they are, as JSON.
    pub fn bytes(&self) -> usize {
        let bytes = |spec: &Spec| serde_json::to_vec(spec).map_or(0, |text| text.len());
        let of_object =
            |object: &Object| bytes(&object.spec) + object.said.as_ref().map_or(0, bytes);
        self.items.iter().map(|(key, object)| key.name.len() + of_object(object)).sum()
    }
}

/// The backends that a frontend sends requests to by name.
pub fn targets(spec: &Spec) -> BTreeSet<&str> {
    let rules = spec.get("rules").and_then(Value::as_array).into_iter().flatten();
    let of_rules = rules.filter_map(|rule| rule.get("backend"));
    let of_route = spec.get("route").and_then(|route| route.get("backend"));
    let named = spec.get("default_backend").into_iter().chain(of_route).chain(of_rules);
    let natives = spec.get("natives").and_then(Value::as_array).into_iter().flatten();
    let of_natives = natives.filter_map(|native| {
        let mut words = native.as_str()?.split_ascii_whitespace();
        let is_target = |name: &&str| is_valid_name(name);
        words.next().filter(|word| *word == "use_backend").and(words.next()).filter(is_target)
    });
    named.filter_map(Value::as_str).chain(of_natives).collect()
}
