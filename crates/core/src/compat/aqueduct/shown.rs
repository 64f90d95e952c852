//! How what is declared looks to Aqueduct's clients: as they said it, and what others declared as
//! far as Aqueduct has words for it. Secrets in native lines are hidden.

use serde_json::{Map, Value, json};

use super::{Backend, BackendType, Frontend, Health, KeepAlive, Mode, Refusal};
use crate::objects::secrets::{hidden, restored};
use crate::objects::{Object, Spec};

/// A frontend.
pub fn frontend(key: &str, object: &Object) -> Value {
    let said = object.said.clone().and_then(as_said::<Frontend>);
    let frontend = said.unwrap_or_else(|| frontend_of(&hidden(&object.spec)));
    with_identity("frontend", key, serde_json::to_value(frontend))
}

/// What a backend has whose members register.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Registered {
    pub name: String,
    pub version: String,
    /// As Thalassa lists them.
    pub members: Vec<Value>,
}

/// A backend; with what has registered, where its members do.
pub fn backend(key: &str, object: &Object, registered: Option<Registered>) -> Value {
    let said = object.said.clone().and_then(as_said::<Backend>);
    let spec = hidden(&object.spec);
    let mut backend = said.unwrap_or_else(|| backend_of(&spec));
    if backend.kind == BackendType::Dynamic {
        backend.members = Vec::new();
    }
    if let Some(Registered { name, version, members }) = registered {
        (backend.name, backend.version) = (Some(name), Some(version));
        (backend.kind, backend.members) = (BackendType::Dynamic, members);
    }
    with_identity("backend", key, serde_json::to_value(backend))
}

/// The native lines that a client sends, with the secrets that it was not shown.
///
/// # Errors
/// The place of a secret that is not known.
pub fn natives(sent: &[String], before: Option<&Object>) -> Result<Vec<String>, Refusal> {
    let lines = |lines: Value| Spec::from_iter([("natives".to_owned(), lines)]);
    let restored = restored(&lines(sent.into()), before.map(|object| &object.spec));
    let restored = restored.map_err(|text| Refusal::payload("natives", text))?;
    Ok(texts(restored.get("natives")))
}

fn as_said<T: serde::de::DeserializeOwned>(said: Spec) -> Option<T> {
    let mut said = said;
    if let Some(natives) = said.get("natives").cloned() {
        let shown = hidden(&Spec::from_iter([("natives".to_owned(), natives)]));
        said.extend(shown);
    }
    serde_json::from_value(Value::Object(said)).ok()
}

fn with_identity(kind: &str, key: &str, fields: serde_json::Result<Value>) -> Value {
    let mut shown = Map::from_iter([
        ("id".to_owned(), format!("{kind}/{key}").into()),
        ("_type".to_owned(), kind.into()),
        ("key".to_owned(), key.into()),
    ]);
    if let Ok(Value::Object(fields)) = fields {
        shown.extend(fields);
    }
    Value::Object(shown)
}

fn text(spec: &Spec, key: &str) -> Option<String> {
    spec.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let values = value.and_then(Value::as_array).into_iter().flatten();
    values.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn mode(spec: &Spec) -> Mode {
    if spec.get("mode").is_some_and(|mode| mode == "tcp") { Mode::Tcp } else { Mode::Http }
}

fn frontend_of(spec: &Spec) -> Frontend {
    let binds = spec.get("bind").and_then(Value::as_array).into_iter().flatten();
    let addresses = binds.filter_map(|bind| bind.as_str().or_else(|| bind["address"].as_str()));
    let rules = spec.get("rules").and_then(Value::as_array).into_iter().flatten();
    Frontend {
        bind: addresses.collect::<Vec<_>>().join(","),
        backend: text(spec, "default_backend").unwrap_or_default(),
        mode: mode(spec),
        keepalive: match spec.get("keep_alive").and_then(Value::as_str) {
            Some("none") => KeepAlive::Close,
            Some("client") => KeepAlive::ServerClose,
            _ => KeepAlive::Default,
        },
        rules: rules.filter_map(rule_of).collect(),
        natives: texts(spec.get("natives")),
    }
}

/// A rule with one condition of those that Aqueduct has, and a backend.
fn rule_of(rule: &Value) -> Option<Value> {
    let fields = rule.as_object()?;
    let backend = fields.get("backend")?;
    let header = fields.get("header");
    let mut conditions = fields.iter().filter(|(key, _)| !matches!(&***key, "backend" | "header"));
    let (operation, value) = conditions.next().filter(|_| conditions.next().is_none())?;
    let value = value.as_str().or_else(|| match value.as_array()?.as_slice() {
        [one] => one.as_str(),
        _ => None,
    })?;
    let kind = operation.split('_').next()?;
    let mut shown = match (kind, header) {
        ("path" | "url", None) => json!({"type": kind}),
        ("hdr", Some(header)) => json!({"type": "header", "header": header}),
        _ => return None,
    };
    shown["operation"] = operation.as_str().into();
    shown["value"] = value.into();
    shown["backend"] = backend.clone();
    Some(shown)
}

fn backend_of(spec: &Spec) -> Backend {
    let from = spec.get("from").and_then(Value::as_object);
    let named = |key: &str| from.and_then(|from| text(from, key));
    let (name, version) = (named("name"), named("version"));
    let servers = spec.get("servers").and_then(Value::as_array).into_iter().flatten();
    let members = servers.filter_map(|server| {
        let (host, port) = server["address"].as_str()?.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(json!({"host": host, "port": port.parse::<u16>().ok()?}))
    });
    Backend {
        kind: match name.is_some() && version.is_some() {
            true => BackendType::Dynamic,
            false => BackendType::Static,
        },
        name,
        version,
        balance: match spec.get("balance") {
            Some(Value::String(balance)) => balance.clone(),
            Some(Value::Object(by)) => {
                format!("hdr({})", by.get("header").and_then(Value::as_str).unwrap_or_default())
            }
            _ => super::round_robin(),
        },
        host: text(spec, "host"),
        mode: mode(spec),
        members: members.collect(),
        natives: texts(spec.get("natives")),
        health: spec.get("check").and_then(Value::as_object).and_then(health_of),
    }
}

/// None where a connection is enough.
fn health_of(check: &Map<String, Value>) -> Option<Health> {
    let version = text(check, "version");
    let usual = if check.contains_key("host") { "1.1" } else { "1.0" };
    Some(Health {
        uri: text(check, "uri")?,
        method: text(check, "method").unwrap_or_else(|| "GET".to_owned()),
        http_version: format!("HTTP/{}", version.as_deref().unwrap_or(usual)),
        interval: text(check, "interval").and_then(|text| milliseconds(&text)).unwrap_or(2000),
    })
}

fn milliseconds(text: &str) -> Option<u64> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<u64>().ok();
    number("ms")
        .or_else(|| number("s").map(|seconds| seconds.saturating_mul(1000)))
        .or_else(|| number("m").map(|minutes| minutes.saturating_mul(60_000)))
}
