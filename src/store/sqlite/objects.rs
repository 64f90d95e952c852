//! Frontends and backends that are declared through the API: a row each, and the number of their
//! last change. A change of them is one transaction, with a row of the audit and an event for each.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::events::{EventKind, Happening};
use mapsmith_core::objects::{Change, Object, ObjectKey, ObjectKind, Objects, Spec};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    SqliteStore, StoreErrorKind, audit, blocking, events, members, open_to_peek, servers, time,
};
use crate::store::{AuditRequest, AuditTicket, StoreError};

/// Objects that are kept in place of those before, from which they differ by `changes`, and the
/// ticket of whoever asked for that.
#[derive(Debug, Clone)]
pub struct ObjectsWrite {
    pub before: Arc<Objects>,
    pub after: Arc<Objects>,
    /// The backends of the settings file. An object of such a name is set aside: what is ordered of
    /// that backend is not its.
    pub of_settings: BTreeSet<String>,
    pub changes: Vec<Change>,
    pub ticket: Arc<AuditTicket>,
}

impl ObjectsWrite {
    /// The backends that there are no more.
    pub fn gone_backends(&self) -> impl Iterator<Item = &str> {
        self.backends_of(&self.before, &self.after)
    }

    /// The backends that are gone and those that are new. One that is new has nothing to do with
    /// what was ordered when another had its name.
    fn other_backends(&self) -> impl Iterator<Item = &str> {
        self.gone_backends().chain(self.backends_of(&self.after, &self.before))
    }

    /// Those that `here` has, and `there` has not.
    fn backends_of<'a>(
        &'a self,
        here: &'a Objects,
        there: &'a Objects,
    ) -> impl Iterator<Item = &'a str> {
        let keys = here.items.keys().filter(|key| !there.items.contains_key(*key));
        let names = keys.filter(|key| key.kind == ObjectKind::Backend).map(|key| &*key.name);
        names.filter(|name| !self.of_settings.contains(*name))
    }
}

impl SqliteStore {
    /// What is declared.
    pub async fn objects(&self) -> Result<Objects, StoreError> {
        self.read(|connection| read(connection)).await
    }

    /// The same, for a program that may not be the daemon; nothing where there is no file.
    pub async fn peek_objects(path: &Path) -> Result<Objects, StoreError> {
        let read = |path: &Path| match open_to_peek(path)? {
            Some(connection) => read(&connection),
            None => Ok(Objects::default()),
        };
        blocking(path, read).await
    }

    /// Keeps these for good. Where they can't be kept nothing has changed.
    pub async fn keep_objects(&self, objects: ObjectsWrite) -> Result<(), StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            write(&transaction, &objects)?;
            audit::commit(transaction, Some(&objects.ticket), None)
        };
        self.with(write).await?;
        self.kept_events.send_replace(());
        Ok(())
    }
}

fn read(connection: &Connection) -> Result<Objects, StoreErrorKind> {
    const NUMBER: &str = "SELECT number FROM objects_state";
    const OBJECTS: &str =
        "SELECT kind, name, spec, owner, number, at, reason, author, said, place FROM objects";
    let number: i64 = connection.query_row(NUMBER, [], |row| row.get(0))?;
    let mut objects = Objects { number: number.unsigned_abs(), ..Objects::default() };
    let mut statement = connection.prepare(OBJECTS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        let damaged = |what: &str| StoreErrorKind::Damaged(format!("{kind} {name:?}: {what}"));
        let known = ObjectKind::of_section(&kind).ok_or_else(|| damaged("no such kind"))?;
        let parsed =
            |text: String| serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()));
        let spec = parsed(row.get(2)?)?;
        let said = row.get::<_, Option<String>>(8)?.map(parsed).transpose()?;
        let object = Object {
            spec,
            owner: row.get(3)?,
            number: row.get::<_, i64>(4)?.unsigned_abs(),
            place: row.get::<_, i64>(9)?.unsigned_abs(),
            changed_at: time(row.get(5)?)?,
            note: Note { reason: row.get(6)?, by: row.get(7)? },
            said,
        };
        objects.items.insert(ObjectKey::new(known, name), object);
    }
    Ok(objects)
}

/// All of it but the ticket's own row.
pub(super) fn write(
    transaction: &Transaction<'_>,
    objects: &ObjectsWrite,
) -> Result<(), StoreErrorKind> {
    let ObjectsWrite { before, after, of_settings: _, changes, ticket } = objects;
    const STATE: &str = "UPDATE objects_state SET number = ?2 WHERE number = ?1";
    let number = |objects: &Objects| i64::try_from(objects.number).unwrap_or(i64::MAX);
    let state = transaction.execute(STATE, [number(before), number(after)])?;
    if state != 1 {
        let error = "what is declared has been changed by another program";
        return Err(StoreErrorKind::Other(error.to_owned()));
    }
    for key in before.items.keys().filter(|key| !after.items.contains_key(*key)) {
        const DELETE: &str = "DELETE FROM objects WHERE kind = ?1 AND name = ?2";
        transaction.execute(DELETE, params![key.kind.section(), key.name])?;
    }
    for backend in objects.gone_backends() {
        members::forget_version(transaction, backend)?;
    }
    for backend in objects.other_backends() {
        for server in servers::forget(transaction, backend)? {
            let target = format!("backends/{backend}/servers/{server}");
            let request = AuditRequest { target, ..ticket.request() };
            audit::insert(transaction, &request)?;
            let by = Some(request.actor.name.clone());
            let ended = Happening::of_forgotten(request.at, &format!("{backend}/{server}"));
            events::insert(transaction, &ended.asked(by, None, Some(request.request_id)))?;
        }
    }
    for (key, object) in &after.items {
        if before.get(key) != Some(object) {
            put(transaction, key, object)?;
        }
    }
    note(transaction, after, changes, ticket)
}

fn put(
    transaction: &Transaction<'_>,
    key: &ObjectKey,
    object: &Object,
) -> Result<(), StoreErrorKind> {
    const PUT: &str = "INSERT OR REPLACE INTO objects (kind, name, spec, owner, number, at, \
        reason, author, said, place) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let Object { spec, owner, number, place, changed_at, note, said } = object;
    let text = |spec: &Spec| {
        serde_json::to_string(spec).map_err(|error| StoreErrorKind::Other(error.to_string()))
    };
    let (spec, said) = (text(spec)?, said.as_ref().map(text).transpose()?);
    transaction.prepare(PUT)?.execute(params![
        key.kind.section(),
        key.name,
        spec,
        owner,
        i64::try_from(*number).unwrap_or(i64::MAX),
        changed_at.as_millisecond(),
        note.reason,
        note.by,
        said,
        i64::try_from(*place).unwrap_or(i64::MAX)
    ])?;
    Ok(())
}

/// An event of each object, and of those that a request changes together a row each, so that the
/// audit of one has all that was done to it.
fn note(
    transaction: &Transaction<'_>,
    after: &Objects,
    changes: &[Change],
    ticket: &AuditTicket,
) -> Result<(), StoreErrorKind> {
    let request = ticket.request();
    for change in changes {
        let done = change.action.done();
        let text = format!("{} is {done}; change {}", change.object, after.number);
        let happening = Happening::new(Timestamp::now(), EventKind::Config, &change.object, text)
            .in_state(done)
            .asked(
                Some(request.actor.name.clone()),
                request.reason.clone(),
                Some(request.request_id.clone()),
            );
        events::insert(transaction, &happening)?;
        if change.object != request.target {
            let target = change.object.clone();
            audit::insert(transaction, &AuditRequest { target, ..request.clone() })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mapsmith_core::OverrideChange;
    use mapsmith_core::objects::Edits;
    use mapsmith_core::overrides::{ServerOrder, ServerOverride};
    use serde_json::json;

    use super::*;
    use crate::store::{AuditFilter, AuditRow, Store};

    fn write(before: Arc<Objects>, after: &Arc<Objects>, changes: Vec<Change>) -> ObjectsWrite {
        let request = AuditRequest::of_the_clock(Timestamp::UNIX_EPOCH, "config".to_owned());
        let (after, ticket) = (Arc::clone(after), Arc::new(AuditTicket::new(request)));
        let of_settings = BTreeSet::new();
        ObjectsWrite { before, after, of_settings, changes, ticket }
    }

    #[tokio::test]
    async fn what_is_declared_is_there_after_a_restart_with_who_declared_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let note = Note { reason: Some("new site".to_owned()), by: Some("anna".to_owned()) };
        let mut before = Arc::new(Objects::default());
        for (kind, name) in [(ObjectKind::Backend, "app"), (ObjectKind::Frontend, "app2")] {
            let store = SqliteStore::open(&path).await.unwrap();
            assert_eq!(store.objects().await.unwrap(), *before);
            let spec = json!({"servers": [], "natives": ["a 'quoted' \"word\""]});
            let spec = spec.as_object().unwrap();
            let key = ObjectKey::new(kind, name);
            let edits = match kind {
                ObjectKind::Backend => Edits::put(&before, key, spec, None, "anna"),
                ObjectKind::Frontend => Edits::put_said(&before, key, spec, spec.clone(), "anna"),
            };
            let edits = edits.unwrap();
            let at = Timestamp::from_second(7).unwrap();
            let after = Arc::new(edits.after(&before, at, &note).unwrap());
            let changes = edits.changes(&before);
            store.keep_objects(write(before, &after, changes)).await.unwrap();
            before = after;
        }
        assert_eq!(SqliteStore::peek_objects(&path).await.unwrap(), *before);
        let store = SqliteStore::open(&path).await.unwrap();
        let rows = store.audit(crate::store::AuditFilter { limit: 9, ..Default::default() }).await;
        let targets: Vec<_> = rows.unwrap().into_iter().map(|row| row.target).collect();
        assert_eq!(targets, ["config", "frontends/app2", "config", "backends/app"]);
        let last = store.last_events().await.unwrap();
        let subjects: Vec<_> = last.iter().map(|event| event.subject.as_str()).collect();
        assert_eq!(subjects, ["backends/app", "frontends/app2"]);
        let edits = Edits::delete(&before, ObjectKey::new(ObjectKind::Backend, "app"));
        let after = edits.after(&before, Timestamp::UNIX_EPOCH, &note).unwrap();
        let after = Arc::new(after);
        let old = Arc::new(Objects::default());
        let late = store.keep_objects(write(old, &after, Vec::new())).await;
        assert!(late.is_err(), "of another state");
        let changes = edits.changes(&before);
        store.keep_objects(write(before, &after, changes)).await.unwrap();
        assert_eq!(store.objects().await.unwrap(), *after);
    }

    #[tokio::test]
    async fn what_was_ordered_of_servers_goes_with_their_backend_and_is_not_the_next_ones() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("s.db")).await.unwrap();
        let order = |backend: &str| {
            OverrideChange::SetServer(ServerOverride {
                backend: backend.to_owned(),
                server: "one".to_owned(),
                order: ServerOrder { state: None, weight: Some(0) },
                since: Timestamp::UNIX_EPOCH,
                until: None,
                note: Note::default(),
            })
        };
        let key = ObjectKey::new(ObjectKind::Backend, "app");
        let spec = Spec::default();
        let edits =
            |before: &Objects| Edits::put(before, key.clone(), &spec, None, "anna").unwrap();
        let empty = Arc::new(Objects::default());
        let after = edits(&empty).after(&empty, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        let (app, other) = (Arc::new(after), order("other"));

        // Left by a backend of that name that was no object.
        store.change(order("app"), None).await.unwrap();
        store.change(other, None).await.unwrap();
        store.keep_objects(write(Arc::clone(&empty), &app, Vec::new())).await.unwrap();
        let ordered = store.load().await.unwrap();
        let names: Vec<_> = ordered.servers().map(|it| it.backend.as_str()).collect();
        assert_eq!((names, ordered.number()), (vec!["other"], 3));

        store.change(order("app"), None).await.unwrap();
        let gone = Edits::delete(&app, key.clone());
        let after = gone.after(&app, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        store.keep_objects(write(app, &Arc::new(after), Vec::new())).await.unwrap();
        let ordered = store.load().await.unwrap();
        assert_eq!((ordered.servers().len(), ordered.server("app", "one")), (1, None));
        let rows = store.audit(AuditFilter { limit: 9, ..Default::default() }).await.unwrap();
        let of_server = |row: &&AuditRow| row.target == "backends/app/servers/one";
        assert_eq!(rows.iter().filter(of_server).count(), 2, "{rows:#?}");
        let last = store.last_events().await.unwrap();
        let told = last.iter().find(|event| event.subject == "app/one");
        let state = told.and_then(|event| event.state.as_deref());
        assert_eq!(state, Some("ended"), "whoever follows is told: {told:?}");
    }

    #[tokio::test]
    async fn what_was_ordered_of_the_settings_files_backend_outlives_an_object_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("s.db")).await.unwrap();
        let key = ObjectKey::new(ObjectKind::Backend, "app");
        let empty = Arc::new(Objects::default());
        let put = Edits::put(&empty, key.clone(), &Spec::default(), None, "anna").unwrap();
        let app = put.after(&empty, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        let app = Arc::new(app);
        store.keep_objects(write(empty, &app, Vec::new())).await.unwrap();
        let ordered = ServerOverride {
            backend: "app".to_owned(),
            server: "one".to_owned(),
            order: ServerOrder { state: None, weight: Some(0) },
            since: Timestamp::UNIX_EPOCH,
            until: None,
            note: Note::default(),
        };
        store.change(OverrideChange::SetServer(ordered.clone()), None).await.unwrap();
        let gone = Edits::delete(&app, key);
        let after = gone.after(&app, Timestamp::UNIX_EPOCH, &Note::default()).unwrap();
        let of_settings = BTreeSet::from(["app".to_owned()]);
        let set_aside = ObjectsWrite { of_settings, ..write(app, &Arc::new(after), Vec::new()) };
        assert_eq!(set_aside.gone_backends().next(), None);
        store.keep_objects(set_aside).await.unwrap();
        let kept = store.load().await.unwrap();
        assert_eq!(kept.server("app", "one"), Some(&ordered));
    }
}
