//! What the settings say, value by value and each with its place, before it is known whether that
//! makes sense; and how it becomes a type. The values are those of `config`, whose origin is the
//! place. Every scalar is kept as the text that was written: what it means is for the key that it
//! is given to, so that `007` is a name where a name is expected and a number where a number is.

use std::collections::BTreeSet;
use std::fmt;

use config::{Value, ValueKind};
use serde::{Deserialize, de};

pub(super) mod doubt;
mod given;

use given::Given;

/// The most problems that are reported in one run.
const MOST_PROBLEMS: usize = 100;

/// What the standard library says of a text that is no IP address.
const NO_IP: &str = "invalid IP address syntax";
/// What serde says of a variant's name alone, where the variant has a value.
const NO_VALUE: &str = "invalid type: unit variant, expected newtype variant";

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// This line of the settings file, from 1.
    Line(usize),
    /// This environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}"),
            Self::Variable(name) => out.write_str(name),
        }
    }
}

/// Something that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where; none where something is missing from the file as a whole.
    pub place: Option<Place>,
    /// What, with the key first: `source[0].url: ...`.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(out, "{place}: {}", self.text),
            None => out.write_str(&self.text),
        }
    }
}

/// What the origin of a scalar that stood in quotes begins with: it is nothing but text.
const QUOTED: &str = "quoted on ";

/// A value that was given there.
pub(super) fn given(place: &Place, kind: impl Into<ValueKind>) -> Value {
    Value::new(Some(&place.to_string()), kind)
}

/// A text that stood there in quotes.
pub(super) fn quoted(place: &Place, text: String) -> Value {
    Value::new(Some(&format!("{QUOTED}{place}")), text)
}

/// The same value, which counts as given there.
pub(super) fn moved(place: &Place, value: Value) -> Value {
    let mark = if is_quoted(&value) { QUOTED } else { "" };
    Value::new(Some(&format!("{mark}{place}")), value.kind)
}

pub(super) fn is_quoted(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(QUOTED))
}

/// Where a value was given.
fn place(value: &Value) -> Option<Place> {
    let Some(origin) = value.origin() else {
        // `config` made it for what stands in it.
        return children(value).filter_map(place).min();
    };
    let origin = origin.strip_prefix(QUOTED).unwrap_or(origin);
    let line = origin.strip_prefix("line ").and_then(|line| line.parse().ok());
    Some(line.map_or_else(|| Place::Variable(origin.to_owned()), Place::Line))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match &value.kind {
        ValueKind::Array(values) => Box::new(values.iter()),
        ValueKind::Table(values) => Box::new(values.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// How many values there are, this one among them.
pub(super) fn count(value: &Value) -> usize {
    1 + children(value).map(count).sum::<usize>()
}

/// A step from a value to one within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The key of a table.
    Key(String),
    /// The position in a list.
    Index(usize),
}

/// A path as messages write it: `source[0].masters."a.b"`.
pub(super) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                let dot = if text.is_empty() { "" } else { "." };
                let bare = !key.is_empty()
                    && key.chars().all(|character| {
                        character.is_ascii_alphanumeric() || "_-".contains(character)
                    });
                text.push_str(&if bare { format!("{dot}{key}") } else { format!("{dot}{key:?}") });
            }
        }
    }
    text
}

/// The value one step on. What is no list is a list of itself alone.
fn child<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match (step, &value.kind) {
        (Step::Key(key), ValueKind::Table(values)) => values.get(key),
        (Step::Index(index), ValueKind::Array(values)) => values.get(*index),
        (Step::Index(_), _) => Some(value),
        (Step::Key(_), _) => None,
    }
}

/// Where the value at the end of the path stands, or what of the path there is.
fn place_at(root: &Value, path: &[Step]) -> Option<Place> {
    let steps = path.iter().scan(root, |value, step| {
        *value = child(value, step)?;
        Some(*value)
    });
    steps.last().and_then(place)
}

/// Where the key stands that the problem begins with: of `source[0] "a": url: ...` the url, if it
/// was given.
pub(super) fn place_of(root: &Value, problem: &str) -> Option<Place> {
    let mut value = None;
    for word in problem.split([':', ' ', '.', '[', ']', ',']) {
        let step = word.parse().map_or_else(|_| Step::Key(word.to_owned()), Step::Index);
        match child(value.unwrap_or(root), &step) {
            Some(child) => value = Some(child),
            // The name of what the index stands for, and what stands between two keys.
            None if word.is_empty() || word.starts_with('"') => {}
            None => break,
        }
    }
    value.and_then(place)
}

/// Whether it was reported as a problem, and counts as not given. Only such a value has neither an
/// origin nor a content.
fn is_rejected(value: &Value) -> bool {
    *value == Value::default()
}

fn leave_out(root: &mut Value, path: &[Step]) {
    let mut value = root;
    for step in path {
        if matches!(step, Step::Index(_)) && !matches!(value.kind, ValueKind::Array(_)) {
            continue;
        }
        let child = match (step, &mut value.kind) {
            (Step::Key(key), ValueKind::Table(values)) => values.get_mut(key),
            (Step::Index(index), ValueKind::Array(values)) => values.get_mut(*index),
            _ => None,
        };
        let Some(child) = child else { return };
        value = child;
    }
    *value = Value::default();
}

/// What was made of a tree.
pub(super) struct Reading<T> {
    /// The value, with what is wrong left out; none where too much is.
    pub(super) value: Option<T>,
    /// Everything that has no sense where it stands.
    pub(super) problems: Vec<Problem>,
    /// The keys that are wrong or meant by a misspelt one, as they are written in messages.
    pub(super) doubtful: BTreeSet<String>,
    /// Whether no element of the file's lists had to be left out as a whole.
    pub(super) whole: bool,
}

/// Makes a `T` of the tree. Of what is wrong the first is reported and left out, and it is tried
/// again, until all of it is reported.
pub(super) fn read<T: for<'de> Deserialize<'de>>(given: &Value) -> Reading<T> {
    let mut tree = given.clone();
    let mut reading =
        Reading { value: None, problems: Vec::new(), doubtful: BTreeSet::new(), whole: true };
    while reading.problems.len() < MOST_PROBLEMS {
        let Wrong { mut path, what } = match T::deserialize(Given(&tree)) {
            Ok(value) => {
                reading.value = Some(value);
                break;
            }
            Err(wrong) => wrong,
        };
        path.reverse();
        let mut tell = |path: &[Step], text: &str| {
            let place = place_at(given, path);
            let key = if path.is_empty() { String::new() } else { format!("{}: ", written(path)) };
            reading.problems.push(Problem { place, text: format!("{key}{text}") });
        };
        match what {
            What::Text(text) => {
                tell(&path, &text);
                reading.doubtful.insert(written(&path));
            }
            What::Unknown { key, keys } => {
                let meant = meant(&key, keys);
                let parent = path.clone();
                path.push(Step::Key(key));
                tell(
                    &path,
                    &match meant {
                        Some(meant) => format!("there is no such key; did you mean {meant}?"),
                        None if keys.is_empty() => "there is no such key".to_owned(),
                        None => format!("there is no such key; there are {}", keys.join(", ")),
                    },
                );
                let meant =
                    meant.map(|meant| [&parent[..], &[Step::Key(meant.to_owned())]].concat());
                reading.doubtful.insert(written(&meant.unwrap_or_else(|| path.clone())));
            }
            What::Missing(key) => {
                let missing = [&path[..], &[Step::Key(key.to_owned())]].concat();
                if reading.doubtful.insert(written(&missing)) {
                    tell(&missing, "is missing");
                }
                reading.doubtful.insert(written(&path));
            }
        }
        if path.is_empty() {
            break;
        }
        reading.whole &= !matches!(path[..], [Step::Key(_), Step::Index(_)]);
        leave_out(&mut tree, &path);
    }
    reading.problems.sort();
    reading
}

/// The key that was meant by one that there is not.
fn meant(key: &str, keys: &'static [&'static str]) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let near = keys.iter().map(|known| (strsim::damerau_levenshtein(&key, known), *known));
    near.filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}

/// Why a tree makes no `T`.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The steps to the value, the last one first.
    path: Vec<Step>,
    what: What,
}

#[derive(Debug)]
enum What {
    Text(String),
    Unknown { key: String, keys: &'static [&'static str] },
    Missing(&'static str),
}

impl Wrong {
    fn text(text: impl Into<String>) -> Self {
        Self { path: Vec::new(), what: What::Text(text.into()) }
    }

    /// With the value where the standard library's own words do not have it.
    fn naming(self, value: &str) -> Self {
        match &self.what {
            What::Text(text) if text == NO_IP => Self {
                what: What::Text(format!("{value:?} is not an IP address like 127.0.0.1")),
                ..self
            },
            What::Text(text) if text == NO_VALUE => Self {
                what: What::Text(format!("{value:?} needs a value: {{ {value} = \"...\" }}")),
                ..self
            },
            _ => self,
        }
    }

    fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.what)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::text(text.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let choices = match expected {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            all => all.join(", "),
        };
        Self::text(format!("{variant:?} is none of {choices}"))
    }

    fn unknown_field(key: &str, keys: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), what: What::Unknown { key: key.to_owned(), keys } }
    }

    fn missing_field(key: &'static str) -> Self {
        Self { path: Vec::new(), what: What::Missing(key) }
    }
}
