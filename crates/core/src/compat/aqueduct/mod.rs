//! Aqueduct's API: what a body says ([`body`]), what that is here ([`spec`]), and how what is
//! declared looks to its clients ([`shown`]).
//!
//! An object keeps what was said beside what it came to: an answer has all of it again, also what
//! has no counterpart here.

use serde::{Deserialize, Serialize};

use crate::objects::{Object, ObjectKey, ObjectKind, Objects};
use crate::server::is_valid_name;

pub mod body;
mod rules;
pub mod shown;
pub mod spec;

/// What the name of a frontend begins with that was made through this API. There a frontend and a
/// backend may have one key, and HAProxy 3.4 takes no two sections of one name.
pub const FRONTENDS: &str = "frontend:";

/// Why a request is refused, as hapi's validation says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub message: String,
    /// Where it stands; none where it is about no part of it.
    pub validation: Option<Validation>,
}

/// The part of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// `payload` or `params`.
    pub source: String,
    pub keys: Vec<String>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), validation: None }
    }

    fn of(source: &str, key: &str, message: impl Into<String>) -> Self {
        let validation = Validation { source: source.to_owned(), keys: vec![key.to_owned()] };
        Self { message: message.into(), validation: Some(validation) }
    }

    pub(super) fn payload(key: &str, message: impl Into<String>) -> Self {
        Self::of("payload", key, message)
    }
}

/// A frontend by its key: the one that was made through this API, else another one of the name.
///
/// # Errors
/// No frontend can have this key.
pub fn frontend_key(objects: &Objects, key: &str) -> Result<ObjectKey, Refusal> {
    let own = ObjectKey::new(ObjectKind::Frontend, format!("{FRONTENDS}{key}"));
    if key.is_empty() || !is_valid_name(&own.name) {
        return Err(invalid_key(key));
    }
    let plain = ObjectKey::new(ObjectKind::Frontend, key);
    let is_plain = objects.get(&own).is_none() && objects.get(&plain).is_some();
    Ok(if is_plain { plain } else { own })
}

/// A backend by its key.
///
/// # Errors
/// No backend can have this key.
pub fn backend_key(key: &str) -> Result<ObjectKey, Refusal> {
    match is_valid_name(key) && !key.starts_with(FRONTENDS) {
        true => Ok(ObjectKey::new(ObjectKind::Backend, key)),
        false => Err(invalid_key(key)),
    }
}

fn invalid_key(key: &str) -> Refusal {
    let shown: String = key.chars().filter(|it| !it.is_control()).take(64).collect();
    let text = format!(
        "key {shown:?} can't name a section of HAProxy's configuration: at most 246 letters, \
            digits and . _ : -, and a backend's not {FRONTENDS}..."
    );
    Refusal::of("params", "key", text)
}

/// All of a kind that are declared through any API, by their keys here.
pub fn all(objects: &Objects, kind: ObjectKind) -> Vec<(&str, &Object)> {
    let of_kind = objects.items.iter().filter(|(key, _)| key.kind == kind);
    let mut found: Vec<(&str, &Object)> = of_kind
        .filter_map(|(key, object)| match (kind, key.name.strip_prefix(FRONTENDS)) {
            (ObjectKind::Backend, _) => Some((key.name.as_str(), object)),
            (ObjectKind::Frontend, Some(own)) => Some((own, object)),
            (ObjectKind::Frontend, None) => {
                let meant = frontend_key(objects, &key.name).is_ok_and(|meant| meant == *key);
                meant.then_some((key.name.as_str(), object))
            }
        })
        .collect();
    found.sort_by_key(|(key, _)| *key);
    found
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAlive {
    #[default]
    Default,
    Close,
    ServerClose,
}

/// A frontend, in Aqueduct's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frontend {
    pub bind: String,
    pub backend: String,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub keepalive: KeepAlive,
    #[serde(default)]
    pub rules: Vec<serde_json::Value>,
    #[serde(default)]
    pub natives: Vec<String>,
}

/// Where a backend's members come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendType {
    /// They register, by name and version.
    Dynamic,
    /// They are written out.
    Static,
}

/// A backend, in Aqueduct's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    #[serde(rename = "type")]
    pub kind: BackendType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default = "round_robin")]
    pub balance: String,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub members: Vec<serde_json::Value>,
    #[serde(default)]
    pub natives: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

fn round_robin() -> String {
    "roundrobin".to_owned()
}

/// A health check, in Aqueduct's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub method: String,
    pub uri: String,
    pub http_version: String,
    /// Milliseconds.
    pub interval: u64,
}

#[cfg(test)]
mod tests;
