//! Rules, as native lines: an ACL each and the backend that it leads to, in their order. Whatever
//! operation a rule names is HAProxy's to know.

use serde_json::Value;

use super::Refusal;
use crate::render::stamp;
use crate::server::is_valid_name;

/// The lines of rules of a known type; others were always passed over.
pub(super) fn lines(rules: &[Value]) -> Result<Vec<String>, Refusal> {
    let mut lines = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let kind = rule.get("type").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "path" | "url" | "header") {
            continue;
        }
        let field = |key: &str| {
            let value = match rule.get(key) {
                Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
                Some(Value::Number(number)) => Some(number.to_string()),
                _ => None,
            };
            let place = format!("rules.{at}.{key}");
            value.ok_or_else(|| Refusal::payload(&place, format!("{key} is required")))
        };
        let word = |key: &str| {
            let text = field(key)?;
            let place = format!("rules.{at}.{key}");
            match text.contains(char::is_whitespace) {
                false => Ok(text),
                true => Err(Refusal::payload(&place, format!("{key} must be one word"))),
            }
        };
        let fetch = match kind {
            "header" => format!("{}({})", word("operation")?, word("header")?),
            _ => field("operation")?,
        };
        let (value, backend) = (field("value")?, field("backend")?);
        check_backend(&format!("rules.{at}.backend"), &backend)?;
        let condition = format!("{fetch} {value}");
        let name = acl_name(kind, &condition);
        lines.push(format!("acl {name} {condition}"));
        lines.push(format!("use_backend {backend} if {name}"));
    }
    Ok(lines)
}

/// The same for the same condition, so that the configuration changes only with the rules.
fn acl_name(kind: &str, condition: &str) -> String {
    format!("{kind}_{:08x}", stamp::hash(condition.as_bytes()) >> 32)
}

/// A backend's key can be one.
pub(super) fn check_backend(place: &str, key: &str) -> Result<(), Refusal> {
    match is_valid_name(key) {
        true => Ok(()),
        false => {
            let text = "backend must be 1 to 255 letters, digits and . _ : -";
            Err(Refusal::payload(place, text))
        }
    }
}
