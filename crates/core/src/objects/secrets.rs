//! What people see of an object, and how what they send back means what was there.

use serde_json::Value;

use super::{ObjectKind, Spec};
use crate::render::before_secret;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// An object as people see it: without the keys of cookies and the passwords in native lines.
pub fn hidden(kind: ObjectKind, spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    if let Some(key) = cookie_key(kind, &mut spec) {
        *key = Value::String(HIDDEN.to_owned());
    }
    for native in natives(&mut spec) {
        if let Some(line) = native.as_str().and_then(hidden_line) {
            *native = Value::String(line);
        }
    }
    spec
}

/// What is sent, with the secrets that `before` had where it has only what people see of them.
///
/// # Errors
/// The place of a secret that is not known.
pub fn restored(kind: ObjectKind, sent: &Spec, before: Option<&Spec>) -> Result<Spec, String> {
    let (mut spec, mut before) = (sent.clone(), before.cloned().unwrap_or_default());
    if let Some(key) = cookie_key(kind, &mut spec).filter(|key| *key == HIDDEN) {
        let known = cookie_key(kind, &mut before);
        *key = known.cloned().ok_or_else(|| unknown("cookie.key"))?;
    }
    let known: Vec<_> = natives(&mut before).map(|native| native.clone()).collect();
    for (index, native) in natives(&mut spec).enumerate() {
        let Some(line) = native.as_str().filter(|line| line.trim_end().ends_with(HIDDEN)) else {
            continue;
        };
        if hidden_line(line).is_none_or(|shown| shown.trim() != line.trim()) {
            continue;
        }
        let is_it = |known: &&Value| {
            let shown = known.as_str().and_then(hidden_line);
            shown.is_some_and(|shown| shown.trim() == line.trim())
        };
        // Where two lines look the same the one at the same place is meant.
        let at_its_place = known.get(index).filter(is_it);
        let found = at_its_place.or_else(|| known.iter().find(is_it));
        *native = found.cloned().ok_or_else(|| unknown(&format!("natives[{index}]")))?;
    }
    Ok(spec)
}

fn unknown(place: &str) -> String {
    format!("{place}: {HIDDEN} stands for a secret that is stored, and none is; send the secret")
}

fn hidden_line(line: &str) -> Option<String> {
    Some(format!("{} {HIDDEN}", before_secret(line)?))
}

fn cookie_key(kind: ObjectKind, spec: &mut Spec) -> Option<&mut Value> {
    if kind != ObjectKind::Backend {
        return None;
    }
    spec.get_mut("cookie")?.as_object_mut()?.get_mut("key")
}

fn natives(spec: &mut Spec) -> impl Iterator<Item = &mut Value> {
    spec.get_mut("natives").and_then(Value::as_array_mut).into_iter().flatten()
}
