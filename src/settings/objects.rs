//! The settings of the file with the objects over them that are declared through the API: what
//! every other part of Mapsmith takes for the settings.
//!
//! An object is a `[[frontend]]` or `[[backend]]` more, read and checked as the file's are. One
//! object's fault is its own: it is set aside, and all others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use config::{Value, ValueKind};
use mapsmith_core::objects::{
    FileNames, ObjectKey, ObjectKind, Objects, Spec, Standing, allowed, standings,
};

use super::tree::{Place, Problem, given, quoted};
use super::{DeclaredNatives, Haproxy, Settings, SettingsError, SettingsFile, text_of, values_of};
use blame::{Faults, Order, said_first};
pub(crate) use blame::{is_of_address, place_in_section, setting_of};

mod blame;

/// The most rounds in which objects are set aside. Each names all that is wrong.
const MOST_ROUNDS: usize = 20;

/// What is declared beside the settings file, and how it stands.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub objects: Arc<Objects>,
    pub standings: Arc<BTreeMap<ObjectKey, Standing>>,
    /// All that is wrong with each that is set aside, with the key first: `natives[0]: ...`.
    pub faults: Arc<BTreeMap<ObjectKey, Vec<String>>>,
    /// What the file itself declares.
    pub of_file: Arc<BTreeMap<ObjectKey, Spec>>,
    /// Their names.
    names: FileNames,
}

impl SettingsFile {
    /// Reads and checks a file, overlaid by the process's environment.
    ///
    /// # Errors
    /// Those of [`Settings::load`].
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        Self::of_text(path, text_of(path)?)
    }

    fn of_text(path: &Path, text: String) -> Result<Self, SettingsError> {
        let (values, problems) = values_of(path, &text, std::env::vars_os())?;
        let settings = Settings::of_values(path, &values, problems)?;
        let of_file: BTreeMap<_, _> =
            ObjectKind::ALL.into_iter().flat_map(|kind| in_file(&values, kind)).collect();
        let named = |kind| {
            let keys = of_file.keys().filter(move |key: &&ObjectKey| key.kind == kind);
            keys.map(|key| key.name.clone()).collect()
        };
        let names = FileNames {
            frontends: named(ObjectKind::Frontend),
            backends: named(ObjectKind::Backend),
        };
        let declared = Declared { of_file: Arc::new(of_file), names, ..Declared::default() };
        let (path, values) = (path.to_owned(), Arc::new(values));
        Ok(Self { settings, path, text, values, declared })
    }

    /// Reads the file once more; none where its text is as before, and so are the files that are
    /// part of HAProxy's configuration. What is declared beside it is as before.
    ///
    /// # Errors
    /// Those of [`Settings::load`].
    pub fn read_again(&self) -> Result<Option<Self>, SettingsError> {
        let again = Self::read(&self.path)?.with_objects(Arc::clone(&self.declared.objects))?;
        let again = again.with_secret()?;
        let named = |file: &Self| {
            let haproxy = file.settings.haproxy.as_ref();
            let of_haproxy = haproxy.map(|haproxy| {
                let Haproxy { includes, read_with, own_template, stats_auth, .. } = haproxy;
                (includes.clone(), read_with.clone(), own_template.clone(), stats_auth.clone())
            });
            let commands = file.settings.commands.as_ref();
            (of_haproxy, commands.and_then(|commands| commands.secret.clone()))
        };
        let is_same = again.text == self.text && named(&again) == named(self);
        Ok((!is_same).then_some(again))
    }

    /// The same file with these objects over it.
    ///
    /// # Errors
    /// Those of [`Settings::load`], also without any object: a file that it names has changed.
    pub fn with_objects(&self, objects: Arc<Objects>) -> Result<Self, SettingsError> {
        let mut faults = self.not_allowed(&objects);
        for round in 0.. {
            let refused = faults.iter().map(|(key, why)| (key.clone(), why.join("; "))).collect();
            let found = standings(&self.declared.names, &objects, &refused);
            let (values, order) = self.over(&objects, &found, &BTreeSet::new());
            match Settings::of_values(&self.path, &values, Vec::new()) {
                Ok(settings) => {
                    let (found, of_waiting) =
                        match self.with_pending_judged(&objects, found.clone()) {
                            Ok(judged) => judged,
                            Err(claimed) if round < MOST_ROUNDS => {
                                faults.extend(claimed);
                                continue;
                            }
                            // Nothing listens twice all the same: these settings have sense.
                            Err(_) => (found, Faults::new()),
                        };
                    faults.extend(of_waiting);
                    let declared = Declared {
                        objects,
                        standings: Arc::new(found),
                        faults: Arc::new(faults),
                        of_file: Arc::clone(&self.declared.of_file),
                        names: self.declared.names.clone(),
                    };
                    let (path, text) = (self.path.clone(), self.text.clone());
                    let values = Arc::clone(&self.values);
                    return Ok(Self { settings, path, text, values, declared });
                }
                Err(SettingsError::Invalid { problems, .. }) if !order.is_empty() => {
                    let mut blamed = order.blame(&problems, &objects);
                    if blamed.is_empty() || round >= MOST_ROUNDS {
                        // Nobody knows whose it is.
                        let all: Vec<_> = problems.iter().map(|it| it.text.clone()).collect();
                        blamed.extend(order.keys().map(|key| (key.clone(), all.clone())));
                    }
                    for (key, why) in blamed {
                        faults.entry(key).or_insert(why);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(SettingsError::Unreadable {
            path: self.path.display().to_string(),
            message: "what the API declares leads to no settings".to_owned(),
        })
    }

    /// The same, with those frontends set aside that wait for backends and that could not be there
    /// even with them: else nothing would be told of one until its backend comes. With what is wrong
    /// with those.
    ///
    /// # Errors
    /// Frontends that would listen where another one waits that was said before them: whoever
    /// declares its backend must find the address free.
    fn with_pending_judged(
        &self,
        objects: &Objects,
        mut found: BTreeMap<ObjectKey, Standing>,
    ) -> Result<(BTreeMap<ObjectKey, Standing>, Faults), Faults> {
        let mut faults = Faults::new();
        for _ in 0..MOST_ROUNDS {
            let waiting = found.iter().filter_map(|(key, standing)| match standing {
                Standing::Pending { waits_for } => Some((key.clone(), waits_for.clone())),
                _ => None,
            });
            let waiting: BTreeMap<_, _> = waiting.collect();
            if waiting.is_empty() {
                break;
            }
            let (mut values, order) =
                self.over(objects, &found, &waiting.keys().cloned().collect());
            let lacked: BTreeSet<&String> = waiting.values().flatten().collect();
            lacked.iter().for_each(|name| stand_in(&mut values, name));
            let judged = Settings::of_values(&self.path, &values, Vec::new());
            let Err(SettingsError::Invalid { problems, .. }) = judged else { break };
            // Of two that wait each may be the first one to have the port. What is wrong with the
            // backends that stand in is nobody's fault.
            let waits = |text: &str| {
                let mut names = waiting.keys().map(|key| format!("frontend {} listens", key.name));
                names.any(|name| text.contains(&name))
            };
            let listens =
                |problem: &&Problem| problem.text.contains(".bind[") && !waits(&problem.text);
            let problems: Vec<_> = problems.iter().filter(listens).cloned().collect();
            let blamed = order.blame(&problems, objects);
            let (unfit, claimed): (Faults, Faults) =
                blamed.into_iter().partition(|(key, _)| waiting.contains_key(key));
            if unfit.is_empty() {
                return match claimed.is_empty() {
                    true => Ok((found, faults)),
                    false => Err(said_first(claimed, &waiting)),
                };
            }
            for (key, why) in unfit {
                found.insert(key.clone(), Standing::SetAside { reason: why.join("; ") });
                faults.insert(key, why);
            }
        }
        Ok((found, faults))
    }

    /// What each object says that the file does not let the API say.
    fn not_allowed(&self, objects: &Objects) -> Faults {
        if self.settings.api.natives == DeclaredNatives::Any {
            return Faults::new();
        }
        let mut files = BTreeSet::new();
        paths_in(&self.values, &mut files);
        let refused = objects.items.iter().filter_map(|(key, object)| {
            let why = allowed::refused(key.kind, &object.spec, &files);
            (!why.is_empty()).then(|| (key.clone(), why))
        });
        refused.collect()
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The file's values with those of the objects that count behind them, and of these `others`
    /// last.
    fn over(
        &self,
        objects: &Objects,
        standings: &BTreeMap<ObjectKey, Standing>,
        others: &BTreeSet<ObjectKey>,
    ) -> (Value, Order) {
        let mut values = self.values.as_ref().clone();
        let mut order = Order::default();
        let counting = standings.iter().filter(|(_, standing)| standing.counts());
        for key in counting.map(|(key, _)| key).chain(others) {
            let Some(object) = objects.get(key) else { continue };
            let Some(elements) = section(&mut values, key.kind) else { continue };
            let place = Place::Variable(key.to_string());
            let mut spec = object.spec.clone();
            spec.insert("name".to_owned(), key.name.clone().into());
            if key.kind == ObjectKind::Backend && spec.contains_key("servers") {
                // Whoever declares no server means none: nobody else is asked.
                spec.entry("empty").or_insert_with(|| "accept".into());
            }
            order.0.insert((key.kind, elements.len()), key.clone());
            elements.push(value_of(&serde_json::Value::Object(spec), &place));
        }
        (values, order)
    }
}

/// The elements of a section, which may have none yet.
fn section(values: &mut Value, kind: ObjectKind) -> Option<&mut Vec<Value>> {
    let ValueKind::Table(sections) = &mut values.kind else { return None };
    let section = sections
        .entry(kind.section().to_owned())
        .or_insert_with(|| Value::new(None, ValueKind::Array(Vec::new())));
    if !matches!(section.kind, ValueKind::Array(_)) {
        // One alone may stand there without being a list.
        let alone = std::mem::take(section);
        section.kind = ValueKind::Array(vec![alone]);
    }
    match &mut section.kind {
        ValueKind::Array(elements) => Some(elements),
        _ => None,
    }
}

/// A backend without a server, of this name.
fn stand_in(values: &mut Value, name: &str) {
    let Some(backends) = section(values, ObjectKind::Backend) else { return };
    let place = Place::Variable(ObjectKey::new(ObjectKind::Backend, name).to_string());
    backends.push(value_of(&serde_json::json!({"name": name, "servers": []}), &place));
}

/// What a file says that declares frontends and backends alone, as the settings file does or as the
/// API answers: as the API takes it.
///
/// # Errors
/// It can't be read, or breaks the grammar of its format.
pub(crate) fn read_document(path: &Path) -> Result<serde_json::Value, SettingsError> {
    let invalid =
        |message: String| SettingsError::Unreadable { path: path.display().to_string(), message };
    let text = super::read::text_or(path, "")?;
    let values = super::text::parse(super::format(path)?, &text).map_err(&invalid)?;
    let serde_json::Value::Object(mut sections) = json_of(&values) else {
        return Err(invalid("holds no [[frontend]] and no [[backend]]".to_owned()));
    };
    for kind in ObjectKind::ALL {
        if let Some(elements) = sections.remove(kind.section()) {
            let elements = match elements {
                serde_json::Value::Array(elements) => elements,
                alone => vec![alone],
            };
            sections.insert(kind.plural().to_owned(), elements.into());
        }
    }
    Ok(serde_json::Value::Object(sections))
}

/// The absolute paths that stand anywhere in the file, also within lines of HAProxy's.
fn paths_in(value: &Value, paths: &mut BTreeSet<String>) {
    match &value.kind {
        ValueKind::String(text) => {
            let words = text.split(|it: char| it.is_whitespace() || "(),".contains(it));
            paths.extend(words.filter(|word| word.starts_with('/')).map(str::to_owned));
        }
        ValueKind::Array(elements) => elements.iter().for_each(|it| paths_in(it, paths)),
        ValueKind::Table(keys) => keys.values().for_each(|it| paths_in(it, paths)),
        _ => {}
    }
}

/// What the file declares of a kind, but for the names.
fn in_file(values: &Value, kind: ObjectKind) -> Vec<(ObjectKey, Spec)> {
    let ValueKind::Table(sections) = &values.kind else { return Vec::new() };
    let elements = match sections.get(kind.section()) {
        Some(Value { kind: ValueKind::Array(elements), .. }) => elements.as_slice(),
        Some(alone) => std::slice::from_ref(alone),
        None => &[],
    };
    let object = |element: &Value| {
        let serde_json::Value::Object(mut spec) = json_of(element) else { return None };
        let name = match spec.remove("name")? {
            serde_json::Value::String(name) => name,
            other => other.to_string(),
        };
        Some((ObjectKey::new(kind, name), spec))
    };
    elements.iter().filter_map(object).collect()
}

/// As it would stand in the file.
fn value_of(json: &serde_json::Value, place: &Place) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => given(place, ValueKind::Nil),
        Json::Bool(truth) => given(place, truth.to_string()),
        Json::Number(number) => given(place, number.to_string()),
        Json::String(text) => quoted(place, text.clone()),
        Json::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(|it| value_of(it, place)).collect();
            given(place, elements)
        }
        Json::Object(keys) => {
            let keys: config::Map<_, _> =
                keys.iter().map(|(key, value)| (key.clone(), value_of(value, place))).collect();
            given(place, keys)
        }
    }
}

/// What stands in the file, as the API would take it.
fn json_of(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        ValueKind::String(text) if super::tree::is_quoted(value) => Json::String(text.clone()),
        ValueKind::String(text) => match serde_json::from_str(text) {
            Ok(scalar @ (Json::Bool(_) | Json::Number(_))) => scalar,
            _ => Json::String(text.clone()),
        },
        ValueKind::Array(elements) => elements.iter().map(json_of).collect(),
        ValueKind::Table(keys) => {
            // In an order of their own, so that an answer is always the same.
            let keys: BTreeMap<_, _> = keys.iter().collect();
            Json::Object(keys.into_iter().map(|(key, it)| (key.clone(), json_of(it))).collect())
        }
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests;
