//! What bodies declare.

use std::collections::BTreeMap;

use mapsmith_core::objects::{Document, Item, LONGEST_OWNER, ObjectKey, ObjectKind, Spec};
use serde_json::Value;

use crate::api::requests;
use crate::api::types::ConfigBody;

/// The object that a body says, under the name that the path has, and its owner.
///
/// # Errors
/// It is none.
pub fn object_of(
    kind: ObjectKind,
    name: Option<&str>,
    mut body: Spec,
) -> Result<(ObjectKey, Spec, Option<String>), requests::Invalid> {
    // As in the settings file, a key without a value is not there.
    body.retain(|_, value| !value.is_null());
    patch_of(kind, name, body)
}

/// The same of some keys, of which those without a value are to end.
///
/// # Errors
/// Its name or owner can't be one.
pub fn patch_of(
    kind: ObjectKind,
    name: Option<&str>,
    mut body: Spec,
) -> Result<(ObjectKey, Spec, Option<String>), requests::Invalid> {
    let what = kind.section();
    let invalid = requests::Invalid;
    // What an answer has beside the keys.
    body.remove("status");
    let given = match body.remove("name") {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(invalid(format!("{what}: name must be a string"))),
    };
    let name = match (name, given) {
        (Some(name), Some(given)) if given != name => {
            let text = format!("the {what} is {name} by the path, and {given} by its name");
            return Err(invalid(text));
        }
        (Some(name), _) => name.to_owned(),
        (None, Some(name)) => name,
        (None, None) => return Err(invalid(format!("each {what} needs a name"))),
    };
    let name = requests::haproxy_name(what, name)?;
    let owner = match body.remove("owner") {
        None => None,
        Some(Value::String(name)) => Some(owner(name)?),
        Some(_) => return Err(invalid("owner must be a string".to_owned())),
    };
    Ok((ObjectKey::new(kind, name), body, owner))
}

/// A valid owner.
fn owner(name: String) -> Result<String, requests::Invalid> {
    let is_valid =
        (1..=LONGEST_OWNER).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let text = format!("owner must be 1 to {LONGEST_OWNER} characters, none a control character");
    is_valid.then_some(name).ok_or(requests::Invalid(text))
}

/// The document that a body says.
///
/// # Errors
/// It is none.
pub fn document_of(body: ConfigBody, by: Option<&str>) -> Result<Document, requests::Invalid> {
    let ConfigBody { owner: named, frontends, backends, status: _ } = body;
    let owner = match named {
        Some(named) => owner(named)?,
        None => by.unwrap_or("api").to_owned(),
    };
    let mut objects = BTreeMap::new();
    let frontends = frontends.into_iter().map(|spec| (ObjectKind::Frontend, spec));
    let backends = backends.into_iter().map(|spec| (ObjectKind::Backend, spec));
    for (kind, spec) in frontends.chain(backends) {
        let (key, spec, owner) = object_of(kind, None, spec)?;
        if objects.insert(key.clone(), Item { spec, owner }).is_some() {
            return Err(requests::Invalid(format!("there are two {key}")));
        }
    }
    Ok(Document { owner, objects })
}
