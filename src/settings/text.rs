//! The texts that settings come in: TOML, YAML and JSON files, and the environment's variables over them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;

use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::tree::{Node, Place, Problem, Step, Value, written};

/// The most values that a file can have once its aliases are written out. A hundred backends of a hundred servers are half of it.
const MOST_VALUES: usize = 100_000;
/// How deep lists and tables may stand within each other. The settings need five.
const DEEPEST: usize = 32;

/// The prefix of the variables that overlay the file: `MAPSMITH__API__LISTEN`, `MAPSMITH__SOURCE__0__URL`.
pub const VARIABLE_PREFIX: &str = "MAPSMITH__";

/// How a settings file is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    Toml,
    Yaml,
    Json,
}

/// What a text says.
///
/// # Errors
/// A mistake in its grammar, in the parser's words, with line and column.
pub(super) fn parse(format: Format, text: &str) -> Result<Node, String> {
    // Some editors put a byte order mark there.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Toml => {
            let table = DeTable::parse(text).map_err(|error| {
                // Who has a second source writes [source] once more.
                let twice = error.message().contains("duplicate key");
                let hint = if twice {
                    " (of a section that may stand several times each is written in double brackets: [[source]])"
                } else {
                    ""
                };
                format!("{}{hint}", error.to_string().trim_end())
            })?;
            let lines = Lines::of(text);
            let entries = toml_entries(table.get_ref(), &lines);
            Ok(Node::new(None, Value::Table(entries)))
        }
        Format::Yaml => yaml(text),
        Format::Json => {
            // The whole grammar, and how deep it may go, before the text is taken apart.
            serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
            let raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let root = json(raw, text, &Lines::of(text)).map_err(|error| error.to_string())?;
            Ok(Node::new(None, root.value))
        }
    }
}

/// Where the lines of a text begin, in bytes.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1).collect())
    }

    /// The line of a byte.
    fn at(&self, byte: usize) -> Option<Place> {
        Some(Place::Line(1 + self.0.partition_point(|begin| *begin <= byte)))
    }
}

fn scalar(text: impl Into<String>, quoted: bool) -> Value {
    Value::Scalar { text: text.into(), quoted }
}

fn toml_entries(table: &DeTable<'_>, lines: &Lines) -> BTreeMap<String, Node> {
    let node = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        let node = Node::new(lines.at(key.span().start), toml_value(value.get_ref(), lines));
        (key.get_ref().clone().into_owned(), node)
    };
    table.iter().map(node).collect()
}

fn toml_value(value: &DeValue<'_>, lines: &Lines) -> Value {
    match value {
        DeValue::String(text) => scalar(&**text, true),
        // Hexadecimal and others are written out; what is too large for any key stays as it is.
        DeValue::Integer(number) => scalar(
            i128::from_str_radix(number.as_str(), number.radix()).map_or(number.as_str().to_owned(), |number| number.to_string()),
            false,
        ),
        DeValue::Float(number) => scalar(number.as_str(), false),
        DeValue::Boolean(truth) => scalar(truth.to_string(), false),
        DeValue::Datetime(time) => scalar(time.to_string(), false),
        DeValue::Array(values) => Value::List(
            values.iter().map(|value| Node::new(lines.at(value.span().start), toml_value(value.get_ref(), lines))).collect(),
        ),
        DeValue::Table(table) => Value::Table(toml_entries(table, lines)),
    }
}

/// A part of the text, at the place where it is borrowed from.
fn json(raw: &RawValue, text: &str, lines: &Lines) -> serde_json::Result<Node> {
    let part = raw.get();
    let value = match part.as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, &RawValue> = serde_json::from_str(part)?;
            let node = |(key, raw)| Ok((key, json(raw, text, lines)?));
            Value::Table(entries.into_iter().map(node).collect::<serde_json::Result<_>>()?)
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(part)?;
            Value::List(values.into_iter().map(|raw| json(raw, text, lines)).collect::<serde_json::Result<_>>()?)
        }
        Some(b'"') => scalar(serde_json::from_str::<String>(part)?, true),
        Some(b'n') => Value::Nothing,
        _ => scalar(part, false),
    };
    let byte = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    Ok(Node::new(lines.at(byte), value))
}

/// A list or table of YAML that has not ended yet.
struct Open {
    anchor: usize,
    place: Option<Place>,
    /// The key whose value comes next, with its place.
    key: Option<(String, Option<Place>)>,
    value: Value,
}

/// Builds the tree from the parser's events: its own loader calls itself for each level and writes every alias out.
struct Yaml {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    /// How many values there may still be.
    room: usize,
    root: Option<Node>,
}

fn yaml(text: &str) -> Result<Node, String> {
    let mut parser = Parser::new_from_str(text);
    let mut yaml = Yaml { open: Vec::new(), anchors: HashMap::new(), room: MOST_VALUES, root: None };
    loop {
        let (event, at) = parser.next_token().map_err(|error| error.to_string())?;
        if event == Event::StreamEnd {
            break;
        }
        yaml.take(event, at).map_err(|error| format!("line {}, column {}: {error}", at.line(), at.col() + 1))?;
    }
    Ok(Node::new(None, yaml.root.map_or_else(|| Value::Table(BTreeMap::new()), |root| root.value)))
}

impl Yaml {
    fn take(&mut self, event: Event, at: Marker) -> Result<(), String> {
        let place = Some(Place::Line(at.line()));
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == TScalarStyle::Plain;
                // A key is text, whatever it looks like.
                if let Some(Open { value: Value::Table(_), key: key @ None, .. }) = self.open.last_mut() {
                    *key = Some((text, place));
                    return Ok(());
                }
                let nothing = plain && ["", "~", "null", "Null", "NULL"].contains(&text.as_str());
                let value = if nothing { Value::Nothing } else { scalar(text, !plain) };
                self.add(Node::new(place, value), anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::List(Vec::new()), anchor, place),
            Event::MappingStart(anchor, _) => self.begin(Value::Table(BTreeMap::new()), anchor, place),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, place, value, .. }) => self.add(Node::new(place, value), anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias of what is no whole value")?;
                self.add(node, 0)
            }
            Event::DocumentStart if self.root.is_some() => Err("a second document begins; settings are one".to_owned()),
            Event::DocumentStart | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => Ok(()),
        }
    }

    fn begin(&mut self, value: Value, anchor: usize, place: Option<Place>) -> Result<(), String> {
        if let Some(Open { value: Value::Table(_), key: None, .. }) = self.open.last() {
            return Err("a list or table can be no key".to_owned());
        }
        if self.open.len() == DEEPEST {
            return Err(format!("lists and tables stand more than {DEEPEST} deep in each other"));
        }
        self.open.push(Open { anchor, place, key: None, value });
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        let more = format!("these are more than {MOST_VALUES} values, with each alias counted as what it stands for");
        self.room = self.room.checked_sub(node.count()).ok_or(more)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { value: Value::List(nodes), .. }) => nodes.push(node),
            Some(Open { value: Value::Table(nodes), key, .. }) => {
                let (key, place) = key.take().ok_or("an alias can be no key")?;
                if nodes.contains_key(&key) {
                    return Err(format!("the key {key:?} stands twice in one table"));
                }
                nodes.insert(key, Node::new(place, node.value));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// Lays the variables over the file. One that can't be laid over it is left out and told.
pub(super) fn overlay(tree: &mut Node, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut given: BTreeMap<Vec<Step>, (String, OsString)> = BTreeMap::new();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        given.insert(variable_path(key), (name.to_string(), value));
    }
    // In the order of their paths, so that the elements of a list come one after another.
    for (path, (name, value)) in given {
        let place = Some(Place::Variable(name));
        let laid = match value.into_string() {
            Ok(text) => lay(tree, &path, &Node::new(place.clone(), scalar(text, false))),
            Err(_) => Err("the value is no UTF-8 text".to_owned()),
        };
        if let Err(error) = laid {
            problems.push(Problem { place, text: format!("{}: {error}", written(&path)) });
        }
    }
    problems
}

/// `SOURCE__0__URL` -> source, 0, url.
fn variable_path(key: &str) -> Vec<Step> {
    let step = |(position, part): (usize, &str)| match position > 0
        && !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_digit())
    {
        // One that is too large for a number is beyond any list.
        true => Step::Index(part.parse().unwrap_or(usize::MAX)),
        false => Step::Key(part.to_ascii_lowercase()),
    };
    key.split("__").enumerate().map(step).collect()
}

fn lay(node: &mut Node, path: &[Step], value: &Node) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *node = value.clone();
        return Ok(());
    };
    let place = || value.place.clone();
    match step {
        Step::Key(key) => {
            if matches!(node.value, Value::Nothing) {
                node.value = Value::Table(BTreeMap::new());
            }
            let Value::Table(nodes) = &mut node.value else {
                return Err(format!("{key:?} can't be a key of it: it is no table"));
            };
            lay(nodes.entry(key.clone()).or_insert_with(|| Node::new(place(), Value::Nothing)), rest, value)
        }
        Step::Index(index) => {
            // One value stands for a list of it.
            let mut nodes = match std::mem::replace(&mut node.value, Value::Nothing) {
                Value::List(nodes) => nodes,
                Value::Nothing => Vec::new(),
                one => vec![Node::new(node.place.clone(), one)],
            };
            let count = nodes.len();
            if *index == count {
                nodes.push(Node::new(place(), Value::Nothing));
            }
            let laid = match nodes.get_mut(*index) {
                Some(node) => lay(node, rest, value),
                None => Err(format!("there are {count} of them, so the next one has the number {count}, not {index}")),
            };
            node.value = Value::List(nodes);
            laid
        }
    }
}

#[cfg(test)]
mod tests;
