//! What a change makes of the declared objects.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::secrets::{hidden, restored};
use super::{MOST_BYTES, MOST_OBJECTS, Object, ObjectKey, Objects, Spec};
use crate::overrides::Note;

/// Where a frontend's addresses stand.
const BIND: &str = "bind";

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ObjectAction)]
pub enum Action {
    Add,
    Change,
    Delete,
}

impl Action {
    /// As it has happened.
    pub fn done(self) -> &'static str {
        match self {
            Self::Add => "added",
            Self::Change => "changed",
            Self::Delete => "deleted",
        }
    }
}

/// A key that an object has otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    pub field: String,
    /// Not there where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Not there where it has none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectChange)]
pub struct Change {
    /// Like `frontends/web`.
    pub object: String,
    pub action: Action,
    /// By name; without secrets.
    pub fields: Vec<FieldChange>,
}

/// Objects that are declared together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Whose those are that name no owner, and whose other objects may go.
    pub owner: String,
    pub objects: BTreeMap<ObjectKey, Item>,
}

/// An object of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    pub spec: Spec,
    pub owner: Option<String>,
}

/// Why a change can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("{key}: {text}")]
    Secret { key: ObjectKey, text: String },
    #[error("there would be {0} frontends and backends, and {MOST_OBJECTS} is the most")]
    TooMany(usize),
    #[error("all frontends and backends would be {0} bytes, and {MOST_BYTES} is the most")]
    TooLarge(usize),
}

/// What an object becomes, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Put {
    spec: Spec,
    owner: String,
    said: Option<Spec>,
}

/// What is to be changed: nothing that is so already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    puts: BTreeMap<ObjectKey, Put>,
    deletes: BTreeSet<ObjectKey>,
    idle: BTreeSet<ObjectKey>,
}

impl Edits {
    /// One object is to be this. It stays its owner's unless another is named.
    ///
    /// # Errors
    /// It has the place of a secret that is not known.
    pub fn put(
        before: &Objects,
        key: ObjectKey,
        spec: &Spec,
        owner: Option<String>,
        author: &str,
    ) -> Result<Self, EditError> {
        let owner = owner.unwrap_or_else(|| owner_of(before, &key, author));
        let mut edits = Self::default();
        edits.add(before, key, spec, owner, None)?;
        Ok(edits)
    }

    /// One object is to be what an old client has `said`, which comes to `spec`.
    ///
    /// # Errors
    /// It has the place of a secret that is not known.
    pub fn put_said(
        before: &Objects,
        key: ObjectKey,
        spec: &Spec,
        said: Spec,
        author: &str,
    ) -> Result<Self, EditError> {
        let owner = owner_of(before, &key, author);
        let mut edits = Self::default();
        edits.add(before, key, spec, owner, Some(said))?;
        Ok(edits)
    }

    /// A known object is to have these keys beside those that it has, and `null` ends one
    /// (RFC 7396).
    ///
    /// # Errors
    /// It has the place of a secret that is not known.
    pub fn merge(
        before: &Objects,
        key: ObjectKey,
        patch: Spec,
        owner: Option<String>,
        author: &str,
    ) -> Result<Self, EditError> {
        let mut merged =
            Value::Object(before.get(&key).map_or_else(Spec::new, |known| known.spec.clone()));
        merge(&mut merged, Value::Object(patch));
        let spec = merged.as_object().cloned().unwrap_or_default();
        Self::put(before, key, &spec, owner, author)
    }

    /// One object is to go; nothing where there is none.
    pub fn delete(before: &Objects, key: ObjectKey) -> Self {
        let deletes = before.get(&key).map(|_| key).into_iter().collect();
        Self { deletes, ..Self::default() }
    }

    /// A document's objects are to be as it says, each the owner's whom it names, or the document's.
    /// With `prune` the document's owner's other objects go.
    ///
    /// # Errors
    /// An object has the place of a secret that is not known.
    pub fn of_document(
        before: &Objects,
        document: &Document,
        prune: bool,
    ) -> Result<Self, EditError> {
        let mut edits = Self::default();
        for (key, Item { spec, owner }) in &document.objects {
            let owner = owner.as_ref().unwrap_or(&document.owner).clone();
            edits.add(before, key.clone(), spec, owner, None)?;
        }
        let others = before.items.iter().filter(|(key, object)| {
            object.owner == document.owner && !document.objects.contains_key(key)
        });
        edits.deletes.extend(others.filter(|_| prune).map(|(key, _)| key.clone()));
        Ok(edits)
    }

    fn add(
        &mut self,
        before: &Objects,
        key: ObjectKey,
        spec: &Spec,
        owner: String,
        said: Option<Spec>,
    ) -> Result<(), EditError> {
        let known = before.get(&key);
        let spec = restored(spec, known.map(|known| &known.spec))
            .map_err(|text| EditError::Secret { key: key.clone(), text })?;
        // What was said still says it where nothing of it has changed but whose list it is.
        let as_said = known.filter(|known| said_alike(&known.spec, &spec));
        let said = said.or_else(|| as_said.and_then(|known| known.said.clone()));
        let put = Put { spec, owner, said };
        let is_so = |known: &Object| {
            known.spec == put.spec && known.owner == put.owner && known.said == put.said
        };
        if !known.is_some_and(is_so) {
            self.puts.insert(key, put);
        }
        Ok(())
    }

    /// The same where these are set aside: what it gives an address comes before them from then on,
    /// for it may be in service when they could listen again.
    pub fn before_idle(self, idle: BTreeSet<ObjectKey>) -> Self {
        Self { idle, ..self }
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// The objects that it makes or changes.
    pub fn puts(&self) -> impl Iterator<Item = &ObjectKey> {
        self.puts.keys()
    }

    /// The objects that it takes from their owners, with these.
    pub fn takeovers<'a>(
        &'a self,
        before: &'a Objects,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a str)> {
        self.puts.iter().filter_map(|(key, put)| {
            let owner = before.get(key).map(|known| known.owner.as_str());
            owner.filter(|owner| *owner != put.owner).map(|owner| (key, owner))
        })
    }

    /// The objects after it.
    ///
    /// # Errors
    /// They would be too many.
    pub fn after(
        &self,
        before: &Objects,
        at: Timestamp,
        note: &Note,
    ) -> Result<Objects, EditError> {
        let mut after = before.clone();
        if self.is_empty() {
            return Ok(after);
        }
        after.number += 1;
        after.items.retain(|key, _| !self.deletes.contains(key));
        let mut is_placed = false;
        for (key, Put { spec, owner, said }) in &self.puts {
            let known = before.get(key).filter(|known| known.spec.get(BIND) == spec.get(BIND));
            is_placed |= known.is_none();
            let object = Object {
                place: known.map_or(2 * after.number, |known| known.place),
                spec: spec.clone(),
                owner: owner.clone(),
                said: said.clone(),
                number: after.number,
                changed_at: at,
                note: note.clone(),
            };
            after.items.insert(key.clone(), object);
        }
        for key in self.idle.iter().filter(|key| is_placed && !self.puts.contains_key(*key)) {
            if let Some(object) = after.items.get_mut(key) {
                object.place = 2 * after.number + 1;
            }
        }
        let (count, bytes) = (after.items.len(), after.bytes());
        if count > MOST_OBJECTS && count > before.items.len() {
            return Err(EditError::TooMany(count));
        }
        if bytes > MOST_BYTES && bytes > before.bytes() {
            return Err(EditError::TooLarge(bytes));
        }
        Ok(after)
    }

    /// What it changes, object by object.
    pub fn changes(&self, before: &Objects) -> Vec<Change> {
        let empty = Spec::new();
        let of_key = |key: &ObjectKey, after: Option<&Put>| {
            let known = before.get(key);
            let action = match (known, after) {
                (None, _) => Action::Add,
                (Some(_), Some(_)) => Action::Change,
                (Some(_), None) => Action::Delete,
            };
            let old = known.map_or(&empty, |known| &known.spec);
            let new = after.map_or(&empty, |put| &put.spec);
            let owners = (known.map(|known| &known.owner), after.map(|put| &put.owner));
            let mut fields = fields(old, new);
            if owners.0 != owners.1 {
                let text = |owner: Option<&String>| owner.cloned().map(Value::String);
                let (before, after) = (text(owners.0), text(owners.1));
                fields.push(FieldChange { field: "owner".to_owned(), before, after });
            }
            Change { object: key.to_string(), action, fields }
        };
        let puts = self.puts.iter().map(|(key, put)| of_key(key, Some(put)));
        puts.chain(self.deletes.iter().map(|key| of_key(key, None))).collect()
    }
}

/// Whose an object stays, or becomes.
fn owner_of(before: &Objects, key: &ObjectKey, author: &str) -> String {
    before.get(key).map_or_else(|| author.to_owned(), |known| known.owner.clone())
}

/// Whether two are the same but for the list that their servers come from.
fn said_alike(old: &Spec, new: &Spec) -> bool {
    let rest = |spec: &Spec| {
        let mut spec = spec.clone();
        spec.remove("from").is_some().then_some(spec)
    };
    old == new || rest(old).is_some_and(|old| rest(new) == Some(old))
}

/// The keys that differ, as people see them.
fn fields(old: &Spec, new: &Spec) -> Vec<FieldChange> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let (shown_old, shown_new) = (hidden(old), hidden(new));
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let change = |name: &String| FieldChange {
        field: name.clone(),
        before: shown_old.get(name).cloned(),
        after: shown_new.get(name).cloned(),
    };
    differs.map(change).collect()
}

/// What is no object takes the place of what is there; of an object each key by itself.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Spec::new());
    }
    let Some(known) = into.as_object_mut() else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(known.remove(&key)),
            value => merge(known.entry(key).or_insert(Value::Null), value),
        }
    }
}
