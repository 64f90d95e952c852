//! What the settings say, value by value and each with its place, before it is known whether that makes sense; and how it becomes
//! a type. Every scalar is kept as the text that was written: what it means is for the key that it is given to, so that `007` is
//! a name where a name is expected and a number where a number is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
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

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// None for the whole file.
    pub(super) place: Option<Place>,
    pub(super) value: Value,
    /// It was told as a problem, and counts as not given.
    wrong: bool,
}

/// What was given.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `null`, or a key without a value in YAML.
    Nothing,
    /// Any scalar as it was written. Where it stood in quotes it is nothing but text.
    Scalar { text: String, quoted: bool },
    /// Values in their order.
    List(Vec<Node>),
    /// Values by their keys.
    Table(BTreeMap<String, Node>),
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
                let bare =
                    !key.is_empty() && key.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character));
                text.push_str(&if bare { format!("{dot}{key}") } else { format!("{dot}{key:?}") });
            }
        }
    }
    text
}

impl Node {
    pub(super) fn new(place: Option<Place>, value: Value) -> Self {
        Self { place, value, wrong: false }
    }

    /// How many values there are, this one among them.
    pub(super) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Nothing | Value::Scalar { .. } => 0,
            Value::List(nodes) => nodes.iter().map(Self::count).sum(),
            Value::Table(nodes) => nodes.values().map(Self::count).sum(),
        }
    }

    /// The value one step on. What is no list is a list of itself alone.
    fn child(&self, step: &Step) -> Option<&Self> {
        match (step, &self.value) {
            (Step::Key(key), Value::Table(nodes)) => nodes.get(key),
            (Step::Index(index), Value::List(nodes)) => nodes.get(*index),
            (Step::Index(_), _) => Some(self),
            (Step::Key(_), _) => None,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        if matches!((step, &self.value), (Step::Index(_), Value::Nothing | Value::Scalar { .. } | Value::Table(_))) {
            return Some(self);
        }
        match (step, &mut self.value) {
            (Step::Key(key), Value::Table(nodes)) => nodes.get_mut(key),
            (Step::Index(index), Value::List(nodes)) => nodes.get_mut(*index),
            _ => None,
        }
    }

    /// Where the value at the end of the path stands, or what of the path there is.
    fn place_at(&self, path: &[Step]) -> Option<&Place> {
        let mut node = self;
        for step in path {
            let Some(child) = node.child(step) else { break };
            node = child;
        }
        node.place.as_ref()
    }

    /// Where the key stands that the problem begins with: of `source[0] "a": url: ...` the url, if it was given.
    pub(super) fn place_of(&self, problem: &str) -> Option<&Place> {
        let mut node = self;
        for word in problem.split([':', ' ', '.', '[', ']', ',']) {
            let child = match word.parse() {
                Ok(index) => node.child(&Step::Index(index)),
                Err(_) => node.child(&Step::Key(word.to_owned())),
            };
            match child {
                Some(child) => node = child,
                // The name of what the index stands for, and what stands between two keys.
                None if word.is_empty() || word.starts_with('"') => {}
                None => break,
            }
        }
        node.place.as_ref()
    }

    fn leave_out(&mut self, path: &[Step]) {
        let mut node = self;
        for step in path {
            let Some(child) = node.child_mut(step) else { return };
            node = child;
        }
        node.wrong = true;
    }
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

/// Makes a `T` of the tree. Of what is wrong the first is told, left out, and it is tried again, until all of it is told.
pub(super) fn read<T: for<'de> Deserialize<'de>>(tree: &Node) -> Reading<T> {
    let mut tree = tree.clone();
    let mut reading = Reading { value: None, problems: Vec::new(), doubtful: BTreeSet::new(), whole: true };
    while reading.problems.len() < MOST_PROBLEMS {
        let Wrong { mut path, what } = match T::deserialize(&tree) {
            Ok(value) => {
                reading.value = Some(value);
                break;
            }
            Err(wrong) => wrong,
        };
        path.reverse();
        let mut tell = |path: &[Step], text: &str| {
            let place = tree.place_at(path).cloned();
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
                let meant = meant.map(|meant| [&parent[..], &[Step::Key(meant.to_owned())]].concat());
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
        tree.leave_out(&path);
    }
    reading.problems.sort();
    reading
}

/// The key that was meant by one that there is not.
fn meant(key: &str, keys: &'static [&'static str]) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let near = keys.iter().map(|known| (strsim::damerau_levenshtein(&key, known), *known));
    near.filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).min().map(|(_, known)| known)
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

impl Node {
    /// The text of a scalar.
    fn scalar(&self) -> Result<&str, Wrong> {
        match &self.value {
            Value::Scalar { text, .. } => Ok(text),
            Value::Nothing => Err(Wrong::text("has no value")),
            Value::List(_) => Err(Wrong::text("one value must stand here, not a list")),
            Value::Table(_) => Err(Wrong::text("one value must stand here, not a table of keys")),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let text = self.scalar()?;
            let number: $number = text.trim().parse().map_err(|_| Wrong::text(format!("{text:?} is no {}", $what)))?;
            visitor.$visit(number)
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Wrong;

    /// Where the key takes values of several kinds, what is not quoted is of the kind that it looks like.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.value {
            Value::Nothing => visitor.visit_unit(),
            Value::Scalar { text, quoted: true } => visitor.visit_str(text),
            Value::Scalar { text, quoted: false } => {
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
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
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
        match self.value {
            Value::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    /// One value stands for a list of it: who writes `[source]` for the only source means `[[source]]`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.value {
            Value::List(nodes) => visitor.visit_seq(Elements(nodes.iter().enumerate())),
            _ => visitor.visit_seq(Elements(std::slice::from_ref(self).iter().enumerate())),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.value {
            Value::Table(nodes) => visitor.visit_map(Entries { nodes: nodes.iter(), value: None, fields: false }),
            _ => Err(Wrong::text("a table of keys must stand here")),
        }
    }

    /// A key without a value is one that is not there.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.value {
            Value::Table(nodes) => visitor.visit_map(Entries { nodes: nodes.iter(), value: None, fields: true }),
            _ => Err(Wrong::text("a table of keys must stand here")),
        }
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
struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, node)) = self.0.find(|(_, node)| !node.wrong) else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|wrong| wrong.within(Step::Index(index)))
    }
}

/// A table's entries, but for those that were told as wrong.
struct Entries<'de> {
    nodes: std::collections::btree_map::Iter<'de, String, Node>,
    value: Option<(&'de str, &'de Node)>,
    /// Whether keys without a value are left out.
    fields: bool,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        let fields = self.fields;
        let left_out = |node: &Node| node.wrong || (fields && matches!(node.value, Value::Nothing));
        let Some((key, node)) = self.nodes.find(|(_, node)| !left_out(node)) else { return Ok(None) };
        self.value = Some((key, node));
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((key, node)) = self.value.take() else { return Err(Wrong::text("a value without its key")) };
        seed.deserialize(node).map_err(|wrong| wrong.within(Step::Key(key.to_owned())))
    }
}
