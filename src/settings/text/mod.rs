//! The texts that settings come in: TOML, YAML and JSON files, and the environment's variables over
//! them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;

use config::{ConfigError, Map, Source, Value, ValueKind};
use serde_json::value::RawValue;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::tree::{self, Place, Problem, Step, given, quoted, written};

/// The most values that a file can have once its aliases are written out. A hundred backends of a
/// hundred servers are half of it.
const MOST_VALUES: usize = 100_000;
/// How deep lists and tables may stand within each other. The settings need five.
const DEEPEST: usize = 32;
const TOO_DEEP: &str = "lists and tables stand more than 32 deep in each other";

/// The prefix of the variables that overlay the file: `MAPSMITH__API__LISTEN`,
/// `MAPSMITH__SOURCE__0__URL`.
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
pub(super) fn parse(format: Format, text: &str) -> Result<Value, String> {
    // Some editors put a byte order mark there.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Toml => {
            let table = DeTable::parse(text).map_err(|error| {
                // Who has a second source writes [source] once more.
                let twice = error.message().contains("duplicate key");
                let hint = if twice {
                    " (of a section that may stand several times each is written in double \
                        brackets: [[source]])"
                } else {
                    ""
                };
                format!("{}{hint}", error.to_string().trim_end())
            })?;
            let lines = Lines::new(text);
            Ok(toml_entries(table.get_ref(), &lines).into())
        }
        Format::Yaml => yaml(text),
        Format::Json => {
            // The whole grammar, and how deep it may go, before the text is taken apart.
            serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
            let raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
            json(raw, text, &Lines::new(text)).map_err(|error| error.to_string())
        }
    }
}

/// Where the lines of a text begin, in bytes.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1).collect())
    }

    /// The line of a byte.
    fn at(&self, byte: usize) -> Place {
        Place::Line(1 + self.0.partition_point(|begin| *begin <= byte))
    }
}

fn toml_entries(table: &DeTable<'_>, lines: &Lines) -> Map<String, Value> {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        (
            key.get_ref().clone().into_owned(),
            tree::moved(&lines.at(key.span().start), toml_value(value, lines)),
        )
    };
    table.iter().map(entry).collect()
}

fn toml_value(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Value {
    let place = lines.at(value.span().start);
    match value.get_ref() {
        DeValue::String(text) => quoted(&place, text.clone().into_owned()),
        // Hexadecimal and others are written out; what is too large for any key stays as it is.
        DeValue::Integer(number) => given(
            &place,
            i128::from_str_radix(number.as_str(), number.radix())
                .map_or(number.as_str().to_owned(), |number| number.to_string()),
        ),
        DeValue::Float(number) => given(&place, number.as_str()),
        DeValue::Boolean(truth) => given(&place, truth.to_string()),
        DeValue::Datetime(time) => given(&place, time.to_string()),
        DeValue::Array(values) => {
            given(&place, values.iter().map(|value| toml_value(value, lines)).collect::<Vec<_>>())
        }
        DeValue::Table(table) => given(&place, toml_entries(table, lines)),
    }
}

/// A part of the text, at the place where it is borrowed from.
fn json(raw: &RawValue, text: &str, lines: &Lines) -> serde_json::Result<Value> {
    let part = raw.get();
    let place = lines.at((part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
    Ok(match part.as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, &RawValue> = serde_json::from_str(part)?;
            let entry = |(key, raw)| Ok((key, json(raw, text, lines)?));
            given(
                &place,
                entries.into_iter().map(entry).collect::<serde_json::Result<Map<_, _>>>()?,
            )
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(part)?;
            given(
                &place,
                values
                    .into_iter()
                    .map(|raw| json(raw, text, lines))
                    .collect::<serde_json::Result<Vec<_>>>()?,
            )
        }
        Some(b'"') => quoted(&place, serde_json::from_str(part)?),
        Some(b'n') => given(&place, ValueKind::Nil),
        _ => given(&place, part),
    })
}

/// A list or table of YAML that has not ended yet.
struct Open {
    anchor: usize,
    place: Place,
    /// The key whose value comes next, with its place.
    key: Option<(String, Place)>,
    kind: ValueKind,
}

/// Builds the tree from the parser's events: its own loader calls itself for each level and writes
/// every alias out.
struct Yaml {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    /// How many values there may still be.
    room: usize,
    root: Option<Value>,
}

fn yaml(text: &str) -> Result<Value, String> {
    let mut parser = Parser::new_from_str(text);
    let mut yaml =
        Yaml { open: Vec::new(), anchors: HashMap::new(), room: MOST_VALUES, root: None };
    loop {
        let (event, at) = parser.next_token().map_err(|error| error.to_string())?;
        if event == Event::StreamEnd {
            break;
        }
        yaml.take(event, at)
            .map_err(|error| format!("line {}, column {}: {error}", at.line(), at.col() + 1))?;
    }
    Ok(yaml.root.unwrap_or_else(|| Map::<String, Value>::new().into()))
}

impl Yaml {
    fn take(&mut self, event: Event, at: Marker) -> Result<(), String> {
        let place = Place::Line(at.line());
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == TScalarStyle::Plain;
                // A key is text, whatever it looks like.
                if let Some(Open { kind: ValueKind::Table(_), key: key @ None, .. }) =
                    self.open.last_mut()
                {
                    *key = Some((text, place));
                    return Ok(());
                }
                let nothing = plain && ["", "~", "null", "Null", "NULL"].contains(&text.as_str());
                let value = match (nothing, plain) {
                    (true, _) => given(&place, ValueKind::Nil),
                    (false, true) => given(&place, text),
                    (false, false) => quoted(&place, text),
                };
                self.add(value, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(ValueKind::Array(Vec::new()), anchor, place)
            }
            Event::MappingStart(anchor, _) => {
                self.begin(ValueKind::Table(Map::new()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, place, kind, .. }) => self.add(given(&place, kind), anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let value = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or("an alias of what is not a whole value")?;
                self.add(value, 0)
            }
            Event::DocumentStart if self.root.is_some() => {
                Err("a second document begins; settings are one".to_owned())
            }
            Event::DocumentStart
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn begin(&mut self, kind: ValueKind, anchor: usize, place: Place) -> Result<(), String> {
        if let Some(Open { kind: ValueKind::Table(_), key: None, .. }) = self.open.last() {
            return Err("a list or table can be no key".to_owned());
        }
        if self.open.len() == DEEPEST {
            return Err(TOO_DEEP.to_owned());
        }
        self.open.push(Open { anchor, place, key: None, kind });
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn add(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        let more = format!(
            "these are more than {MOST_VALUES} values, with each alias counted as what it stands \
                for"
        );
        self.room = self.room.checked_sub(tree::count(&value)).ok_or(more)?;
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open { kind: ValueKind::Array(values), .. }) => values.push(value),
            Some(Open { kind: ValueKind::Table(values), key, .. }) => {
                let (key, place) = key.take().ok_or("an alias can be no key")?;
                if values.contains_key(&key) {
                    return Err(format!("the key {key:?} stands twice in one table"));
                }
                values.insert(key, tree::moved(&place, value));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// Lays the variables over the file. One that can't be laid over it is left out and reported.
pub(super) fn overlay(
    file: &mut Value,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut named: BTreeMap<Vec<Step>, (String, OsString)> = BTreeMap::new();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        named.insert(variable_path(key), (name.to_string(), value));
    }
    // In the order of their paths, so that the elements of a list come one after another.
    for (path, (name, value)) in named {
        let place = Place::Variable(name);
        let text = value.into_string().map_err(|_| "the value is not UTF-8 text".to_owned());
        let laid = text.and_then(|text| {
            fit(file, &path)?;
            Variable::new(&path, given(&place, text))?
                .collect_to(file)
                .map_err(|error| error.to_string())
        });
        if let Err(error) = laid {
            problems
                .push(Problem { place: Some(place), text: format!("{}: {error}", written(&path)) });
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

/// Whether the path leads to a value of the file or a new one at the end of a list. `config` would
/// put a table in the place of any value, and as many elements into a list as the number says.
fn fit(file: &mut Value, path: &[Step]) -> Result<(), String> {
    if path.len() > DEEPEST {
        return Err(TOO_DEEP.to_owned());
    }
    let mut value = Some(file);
    for step in path {
        let mut there = value.filter(|value| value.kind != ValueKind::Nil);
        value = match step {
            Step::Key(key) => match there.map(|value| &mut value.kind) {
                Some(ValueKind::Table(values)) => values.get_mut(key),
                None => None,
                Some(_) => return Err(format!("{key:?} can't be a key of it: it is not a table")),
            },
            Step::Index(index) => {
                // One value stands for a list of it.
                if let Some(value) = &mut there
                    && !matches!(value.kind, ValueKind::Array(_))
                {
                    value.kind = vec![value.clone()].into();
                }
                let values = match there.map(|value| &mut value.kind) {
                    Some(ValueKind::Array(values)) => &mut values[..],
                    _ => &mut [],
                };
                let count = values.len();
                if *index > count {
                    return Err(format!(
                        "there are {count} of them, so the next one has the number {count}, not \
                            {index}"
                    ));
                }
                values.get_mut(*index)
            }
        };
    }
    Ok(())
}

/// One variable, for `config` to lay over what it has: it merges tables, and replaces everything
/// else.
#[derive(Debug, Clone)]
struct Variable(Map<String, Value>);

impl Variable {
    /// Up to its last list the path is in `config`'s notation, which has no quotes for odd
    /// characters; none of our keys needs them. Of the keys behind it, which may be names of
    /// masters, each is one in a table.
    fn new(path: &[Step], text: Value) -> Result<Self, String> {
        let last = path.iter().rposition(|step| matches!(step, Step::Index(_)));
        let (list, keys) = path.split_at(1 + last.unwrap_or(0));
        let list = written(list);
        if list.contains('"') {
            return Err("there is no such key".to_owned());
        }
        let keys =
            keys.iter().filter_map(|step| if let Step::Key(key) = step { Some(key) } else { None });
        Ok(Self(Map::from([(
            list,
            keys.rfold(text, |value, key| Map::from([(key.clone(), value)]).into()),
        )])))
    }
}

impl Source for Variable {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
