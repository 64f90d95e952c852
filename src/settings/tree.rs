//! What the settings say, value by value and each with its place, before it is known whether that
//! makes sense; and how it becomes a type. The values are those of `config`, whose origin is the
//! place. Every scalar is kept as the text that was written: what it means is for the key that it
//! is given to, so that `007` is a name where a name is expected and a number where a number is.

use std::collections::BTreeSet;
use std::fmt;

use config::{Value, ValueKind};
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

/// The most problems that are told in one run.
const MOST_PROBLEMS: usize = 100;

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

fn is_quoted(value: &Value) -> bool {
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

/// Whether it was told as a problem, and counts as not given. Only such a value has neither an
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

/// Makes a `T` of the tree. Of what is wrong the first is told, left out, and it is tried again,
/// until all of it is told.
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

/// A value that becomes a type.
#[derive(Clone, Copy)]
struct Given<'de>(&'de Value);

impl<'de> Given<'de> {
    /// The text of a scalar.
    fn scalar(self) -> Result<&'de str, Wrong> {
        match &self.0.kind {
            ValueKind::String(text) => Ok(text),
            ValueKind::Array(_) => Err(Wrong::text("one value must stand here, not a list")),
            ValueKind::Table(_) => {
                Err(Wrong::text("one value must stand here, not a table of keys"))
            }
            _ => Err(Wrong::text("has no value")),
        }
    }

    fn entries(self, fields: bool) -> Result<Entries<'de>, Wrong> {
        let ValueKind::Table(values) = &self.0.kind else {
            return Err(Wrong::text("a table of keys must stand here"));
        };
        let rejected =
            |value: &Value| is_rejected(value) || (fields && value.kind == ValueKind::Nil);
        // `config` keeps them in no order, and each run shall tell the same.
        let mut entries: Vec<_> = values.iter().filter(|(_, value)| !rejected(value)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        Ok(Entries { entries: entries.into_iter(), value: None })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let text = self.scalar()?;
            let number: $number = text.trim().parse().map_err(|_| Wrong::text(format!("{text:?} \
                is no {}", $what)))?;
            visitor.$visit(number)
        })*
    };
}

impl<'de> Deserializer<'de> for Given<'de> {
    type Error = Wrong;

    /// Where the key takes values of several kinds, what is not quoted is of the kind that it looks
    /// like.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.0.kind {
            ValueKind::String(text) if is_quoted(self.0) => visitor.visit_str(text),
            ValueKind::String(text) => {
                if let Ok(number) = text.parse() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse() {
                    visitor.visit_f64(number)
                } else if let Ok(truth) = text.parse() {
                    visitor.visit_bool(truth)
                } else {
                    visitor.visit_str(text)
                }
            }
            ValueKind::Array(_) => self.deserialize_seq(visitor),
            ValueKind::Table(_) => self.deserialize_map(visitor),
            _ => visitor.visit_unit(),
        }
    }

    numbers! {
        deserialize_u8 visit_u64 u64, "whole number from 0 on";
        deserialize_u16 visit_u64 u64, "whole number from 0 on";
        deserialize_u32 visit_u64 u64, "whole number from 0 on";
        deserialize_u64 visit_u64 u64, "whole number from 0 on";
        deserialize_i8 visit_i64 i64, "whole number";
        deserialize_i16 visit_i64 i64, "whole number";
        deserialize_i32 visit_i64 i64, "whole number";
        deserialize_i64 visit_i64 i64, "whole number";
        deserialize_f32 visit_f64 f64, "number";
        deserialize_f64 visit_f64 f64, "number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.scalar()?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
            "false" | "no" | "off" | "0" => visitor.visit_bool(false),
            _ => Err(Wrong::text(format!("{text:?} is neither true nor false"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.scalar()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    /// One value stands for a list of it: who writes `[source]` for the only source means
    /// `[[source]]`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let values = match &self.0.kind {
            ValueKind::Array(values) => values,
            _ => std::slice::from_ref(self.0),
        };
        visitor.visit_seq(Elements(values.iter().enumerate()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(self.entries(false)?)
    }

    /// A key without a value is one that is not there.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_map(self.entries(true)?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_enum(self.scalar()?.into_deserializer())
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list's values, but for those that were told as wrong.
struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, Value>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((index, value)) = self.0.find(|(_, value)| !is_rejected(value)) else {
            return Ok(None);
        };
        seed.deserialize(Given(value)).map(Some).map_err(|wrong| wrong.within(Step::Index(index)))
    }
}

/// A table's entries, but for those that were told as wrong and, of a type's fields, those without
/// a value.
struct Entries<'de> {
    entries: std::vec::IntoIter<(&'de String, &'de Value)>,
    value: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((key, value)) = self.value.take() else {
            return Err(Wrong::text("a value without its key"));
        };
        seed.deserialize(Given(value)).map_err(|wrong| wrong.within(Step::Key(key.to_owned())))
    }
}
