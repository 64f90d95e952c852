//! Whose fault it is that settings have no sense.

use std::collections::BTreeMap;

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::objects::{ObjectKey, ObjectKind, Objects, Spec};

use crate::settings::tree::Problem;

/// What is wrong with each object, one text for each fault.
pub(super) type Faults = BTreeMap<ObjectKey, Vec<String>>;

/// What a text says between the setting and another frontend that has its address.
const FIRST: &str = ": the frontend ";
/// What it says of one that listens nowhere yet, before the backends.
const WAITS: &str = "and waits for";

/// Which object stands where in its section.
#[derive(Debug, Default)]
pub(super) struct Order(pub(super) BTreeMap<(ObjectKind, usize), ObjectKey>);

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.values()
    }

    /// What is wrong with each object. Of two that listen at one address it is the fault of the one
    /// that has it last: the other one has listened there before.
    pub(super) fn blame(&self, problems: &[Problem], objects: &Objects) -> Faults {
        let mut blamed = Faults::new();
        for (key, text) in self.in_place(problems) {
            let (key, text) = match self.later(key, text, objects) {
                Some(later) => later,
                None => (key.clone(), text.to_owned()),
            };
            blamed.entry(key).or_default().push(text);
        }
        blamed
    }

    /// The other one of two frontends that listen at one address, where that one has it later, and
    /// the same said of it. One of the settings file is never at fault, whatever object that is
    /// set aside has its name.
    fn later(&self, key: &ObjectKey, text: &str, objects: &Objects) -> Option<(ObjectKey, String)> {
        let (_, other, address) = shared_address(text)?;
        let other = ObjectKey::new(ObjectKind::Frontend, other);
        let object = objects.get(&other).filter(|_| self.keys().any(|key| *key == other))?;
        if object.place <= objects.get(key)?.place {
            return None;
        }
        let (setting, address) = match bind_of(&object.spec, address) {
            Some((at, address)) => (format!("bind[{at}]"), address),
            None => ("bind".to_owned(), address.to_owned()),
        };
        Some((other, format!("{setting}: the frontend {} listens at {address} too", key.name)))
    }

    fn in_place<'a>(
        &'a self,
        problems: &'a [Problem],
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a str)> {
        problems.iter().filter_map(|problem| {
            let (kind, index, rest) = place_in_section(&problem.text)?;
            Some((self.0.get(&(kind, index))?, rest))
        })
    }
}

/// What is said of those that would listen where another one waits: it listens nowhere yet.
pub(super) fn said_first(
    mut claimed: Faults,
    waiting: &BTreeMap<ObjectKey, Vec<String>>,
) -> Faults {
    for text in claimed.values_mut().flatten() {
        let Some((setting, other, address)) = shared_address(text) else { continue };
        let key = ObjectKey::new(ObjectKind::Frontend, other);
        let Some(waits_for) = waiting.get(&key) else { continue };
        *text = format!(
            "{setting}{FIRST}{other} was said first for {address}, {WAITS} {}",
            waits_for.join(", ")
        );
    }
    claimed
}

/// Whether it is wrong only because another frontend has the address, or waits for it.
pub(crate) fn is_of_address(text: &str) -> bool {
    shared_address(text).is_some() || (text.contains(FIRST) && text.contains(WAITS))
}

/// The setting of `bind[0]: the frontend web listens at :80 too`, the frontend, and the address.
fn shared_address(text: &str) -> Option<(&str, &str, &str)> {
    let (setting, said) = text.split_once(FIRST)?;
    let (other, address) = said.strip_suffix(" too")?.split_once(" listens at ")?;
    Some((setting, other, address))
}

/// Which of a frontend's binds leads where this address does, and how it is written there.
fn bind_of(spec: &Spec, address: &str) -> Option<(usize, String)> {
    let place = |text: &str| {
        BindAddress::try_from(text.to_owned()).ok().map(|address| address.listens_at())
    };
    let wanted = place(address)?;
    let binds = spec.get("bind").and_then(serde_json::Value::as_array)?.iter();
    let texts = binds.map(|bind| bind.get("address").unwrap_or(bind).as_str().unwrap_or_default());
    let mut with_places = texts.enumerate().map(|(at, text)| (at, text, place(text)));
    let (at, text, _) = with_places.find(|(.., of)| of.as_ref() == Some(&wanted))?;
    Some((at, text.to_owned()))
}

/// The object that a setting like `frontend[2].rules[0]` belongs to, by its place, and the rest.
pub(crate) fn place_in_section(setting: &str) -> Option<(ObjectKind, usize, &str)> {
    let (section, rest) = setting.split_once('[')?;
    let kind = ObjectKind::of_section(section)?;
    let (index, rest) = rest.split_once(']')?;
    // Of backends the name stands behind the place.
    let rest = match rest.strip_prefix(" \"") {
        Some(named) => named.split_once('"').map_or(rest, |(_, rest)| rest),
        None => rest,
    };
    Some((kind, index.parse().ok()?, rest.trim_start_matches(['.', ':', ' '])))
}

/// A fault's key, where it names one, and what is wrong with it.
pub(crate) fn setting_of(text: &str) -> (Option<&str>, &str) {
    let is_part = |it: char| it.is_ascii_alphanumeric() || "_-.[]\"".contains(it);
    match text.split_once(": ") {
        Some((key, rest))
            if key.starts_with(|it: char| it.is_ascii_lowercase()) && key.chars().all(is_part) =>
        {
            (Some(key), rest)
        }
        _ => (None, text),
    }
}
