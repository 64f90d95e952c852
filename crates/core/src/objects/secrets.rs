//! What people see of an object, and how what they send back means what was there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Spec;
use crate::render::secrets::{
    is_name_of_secret, masked, masked_text, secrets as secrets_of_line, secrets_of_text,
};

pub use crate::render::secrets::HIDDEN;

/// The keys whose texts are lines of HAProxy's, or words of them.
const LINES: [&str; 2] = ["natives", "options"];
/// The keys with the value of the header that the same table names.
const OF_HEADER: [&str; 5] = ["value", "hdr", "hdr_beg", "hdr_dom", "hdr_reg"];

/// An object as people see it: without the keys of cookies, and without the credentials in native
/// lines, in headers, and wherever else one is known by its looks.
pub fn hidden(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    visit(&mut spec, &mut |place, text| {
        if let Some(shown) = place.how.shown(text) {
            *text = shown;
        }
    });
    spec
}

/// Whether a secret of an object is hidden in what is given.
pub fn has_hidden(spec: &Spec) -> bool {
    let mut found = false;
    visit(&mut spec.clone(), &mut |place, text| found |= place.how.has_hidden(text));
    found
}

/// What is sent, with the secrets that `before` had where it has only what people see of them.
///
/// # Errors
/// The place of a secret that is not known.
pub fn restored(sent: &Spec, before: Option<&Spec>) -> Result<Spec, String> {
    let known = before.map(seen).unwrap_or_default();
    let sent_seen = seen(sent);
    if let Some(place) = lost(sent, before) {
        return Err(unknown(&place));
    }
    let mut found = BTreeMap::new();
    for one in sent_seen.iter().filter(|one| one.has_hidden) {
        let secret = stands_for(one, &sent_seen, &known).ok_or_else(|| unknown(&one.place))?;
        found.insert(one.place.clone(), secret);
    }
    let mut spec = sent.clone();
    visit(&mut spec, &mut |place, text| {
        if let Some(secret) = found.remove(&place.name) {
            *text = secret;
        }
    });
    Ok(spec)
}

/// Where something stands for a secret and, for what was changed around it, is none any more: it
/// would be stored as it is. Not of a text that was so before.
fn lost(sent: &Spec, before: Option<&Spec>) -> Option<String> {
    let mut as_before = BTreeSet::new();
    let mut before = before.cloned().unwrap_or_default();
    visit(&mut before, &mut |_, text| {
        _ = text.contains(HIDDEN).then(|| as_before.insert(text.clone()))
    });
    let mut lost = None;
    visit(&mut sent.clone(), &mut |place, text| {
        let stands_for_one = match place.how {
            How::Line => text.contains(HIDDEN) && !text.trim_start().starts_with('#'),
            How::Whole | How::Text => text == HIDDEN,
        };
        if stands_for_one && !place.how.has_hidden(text) && !as_before.contains(text) {
            lost.get_or_insert_with(|| place.name.clone());
        }
    });
    lost
}

fn unknown(place: &str) -> String {
    format!(
        "{place}: {HIDDEN} stands for a secret that is stored at this place, and none is there \
            that looks so; send the secret"
    )
}

/// The text that was hidden: that of the same line or table, wherever it stands now. Where several
/// look alike and differ they must be as many as they were, in their order. What was changed
/// otherwise has the secret of its place.
fn stands_for(one: &Seen, sent: &[Seen], known: &[Seen]) -> Option<String> {
    if one.shown != one.text.trim() {
        // A part is new, and a part is hidden.
        return None;
    }
    let is_alike = |other: &&Seen| other.is_alike(one) && other.element == one.element;
    let alike: Vec<&Seen> = known.iter().filter(is_alike).collect();
    if let [first, rest @ ..] = &alike[..] {
        if rest.iter().all(|other| other.text == first.text) {
            return Some(first.text.clone());
        }
        let now: Vec<&Seen> = sent.iter().filter(is_alike).collect();
        let at = now.iter().position(|other| other.place == one.place)?;
        return alike.get(at).filter(|_| now.len() == alike.len()).map(|it| it.text.clone());
    }
    let there = known.iter().find(|other| other.place == one.place && other.is_alike(one))?;
    // What was there may stand elsewhere now, or be gone, and this be another one: of all that
    // looks so and does not stand where it did, there is one secret alone.
    let is_left =
        |one: &&Seen| !sent.iter().any(|other| other.is_alike(one) && other.element == one.element);
    let mut left = known.iter().filter(|other| other.is_alike(one)).filter(is_left);
    let is_it = is_left(&there) && left.all(|other| other.text == there.text);
    is_it.then(|| there.text.clone())
}

/// A text with a secret, as it is and as people see it.
struct Seen {
    /// Like `rules[2].set_header.value`.
    place: String,
    /// The same without numbers, and the header that it is of.
    shape: String,
    text: String,
    shown: String,
    has_hidden: bool,
    /// What it is a part of, as people see it: a rule, a native line.
    element: Value,
}

impl Seen {
    fn is_alike(&self, other: &Self) -> bool {
        self.shape == other.shape && self.shown == other.shown
    }
}

fn seen(spec: &Spec) -> Vec<Seen> {
    let shown = hidden(spec);
    let mut found = Vec::new();
    visit(&mut spec.clone(), &mut |place, text| {
        let Some(mask) = place.how.shown(text) else { return };
        let element = shown.get(place.key).map(|value| match place.index {
            Some(index) => value.get(index).cloned().unwrap_or_default(),
            None => value.clone(),
        });
        found.push(Seen {
            place: place.name.clone(),
            shape: place.shape.clone(),
            shown: mask.trim().to_owned(),
            has_hidden: place.how.has_hidden(text),
            text: text.clone(),
            element: trimmed(element.unwrap_or_default()),
        });
    });
    found
}

/// A line is the same whatever blanks are around it.
fn trimmed(element: Value) -> Value {
    match element {
        Value::String(line) => line.trim().into(),
        other => other,
    }
}

/// How a text may be a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// All of it is.
    Whole,
    /// As a line of HAProxy's.
    Line,
    /// As any text.
    Text,
}

impl How {
    fn shown(self, text: &str) -> Option<String> {
        match self {
            Self::Whole => Some(HIDDEN.to_owned()),
            Self::Line => masked(text),
            Self::Text => masked_text(text),
        }
    }

    /// Whether the text has what stands in the place of a secret.
    fn has_hidden(self, text: &str) -> bool {
        let ranges = match self {
            Self::Whole => return text == HIDDEN,
            Self::Line => secrets_of_line(text),
            Self::Text => secrets_of_text(text),
        };
        ranges.into_iter().any(|range| text[range].contains(HIDDEN))
    }
}

/// Where a text stands.
#[derive(Clone)]
struct Place<'a> {
    key: &'a str,
    /// Within the list that the key has.
    index: Option<usize>,
    name: String,
    shape: String,
    how: How,
}

impl Place<'_> {
    fn within(&self, step: &str, shape: &str, how: How) -> Self {
        let (name, shape) = (format!("{}{step}", self.name), format!("{}{shape}", self.shape));
        Self { name, shape, how, ..self.clone() }
    }
}

/// Each text of an object, with its place.
fn visit(spec: &mut Spec, see: &mut impl FnMut(&Place<'_>, &mut String)) {
    for (key, value) in spec.iter_mut() {
        let how = if LINES.contains(&key.as_str()) { How::Line } else { How::Text };
        let (name, shape) = (key.clone(), key.clone());
        let place = Place { key, index: None, name, shape, how };
        match value {
            Value::Array(elements) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    let within = place.within(&format!("[{index}]"), "[]", how);
                    visit_value(element, &Place { index: Some(index), ..within }, see);
                }
            }
            value => visit_value(value, &place, see),
        }
    }
}

fn visit_value(
    value: &mut Value,
    place: &Place<'_>,
    see: &mut impl FnMut(&Place<'_>, &mut String),
) {
    match value {
        Value::String(text) => see(place, text),
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                visit_value(element, &place.within(&format!("[{index}]"), "[]", place.how), see);
            }
        }
        Value::Object(fields) => {
            let named = fields.get("name").or_else(|| fields.get("header")).and_then(Value::as_str);
            let header = named.filter(|name| is_name_of_secret(name)).map(str::to_lowercase);
            for (key, field) in fields.iter_mut() {
                let of_header = header.as_ref().filter(|_| OF_HEADER.contains(&key.as_str()));
                let is_cookies = place.name == "cookie" && key == "key";
                let how = match key.as_str() {
                    _ if of_header.is_some() || is_cookies => How::Whole,
                    key if LINES.contains(&key) => How::Line,
                    _ => place.how,
                };
                let of_header = of_header.map(|name| format!("({name})")).unwrap_or_default();
                let (step, shape) = (format!(".{key}"), format!(".{key}{of_header}"));
                visit_value(field, &place.within(&step, &shape, how), see);
            }
        }
        _ => {}
    }
}
