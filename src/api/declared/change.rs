//! Changes of what is declared: tried, stored, and handed to whoever begins anew with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::objects::{
    Change, EditError, Edits, Object, ObjectKey, ObjectKind, Objects, Spec,
};
use mapsmith_core::status::milliseconds;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use super::judge::{MayWait, judge, pending, reasons, set_aside, takes_nothing_over};
use super::members::ordered_versions;
use super::words::{self, Waiting, in_words};
use super::{ConfigAnswer, ConfigOrder, ConfigRequest, Secrets};
use crate::api::switch::not_switched;
use crate::api::types::{ConfigChangeReport, ReloadOutcome};
use crate::api::{Api, Error, NumberCondition};
use crate::declared::{CheckError, Checked, Fault, Progress, check};
use crate::settings::{Settings, SettingsFile};
use crate::store::member_service::SwitchOrder;
use crate::store::sqlite::ObjectsWrite;
use crate::store::{AuditTicket, SqliteStore};

/// How long one change may wait for those before it.
const TURN: Duration = Duration::from_secs(15);

/// The right to change what is declared: one at a time has it.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is let go of")] OwnedMutexGuard<()>);

impl Api {
    /// Waits for those whose changes came before. What is read under it stays as it is until the
    /// change is stored.
    ///
    /// # Errors
    /// That takes too long.
    pub async fn turn_to_change(&self) -> Result<Turn, Error> {
        let changes = Arc::clone(&self.declared.link.changes);
        let turn = timeout(TURN, changes.lock_owned()).await;
        turn.map(Turn).map_err(|_| Error::TooManyChecks)
    }

    /// Changes what is declared, and puts it in force; with `wait` answers when HAProxy has it, or
    /// when the time is over.
    ///
    /// # Errors
    /// It can't be, or HAProxy refuses it: then nothing is stored.
    pub async fn change_config(
        &self,
        request: ConfigRequest,
        order: ConfigOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<ConfigAnswer, Error> {
        self.is_managed()?;
        let turn = match order.dry_run {
            true => None,
            false => Some(self.turn_to_change().await?),
        };
        self.change_in_turn(turn, request, order, ticket).await
    }

    /// The same for whoever has the turn already; none is needed for a dry run.
    ///
    /// # Errors
    /// As [`Api::change_config`].
    pub async fn change_in_turn(
        &self,
        turn: Option<Turn>,
        request: ConfigRequest,
        order: ConfigOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<ConfigAnswer, Error> {
        let start = Instant::now();
        self.is_managed()?;
        let store = self.store.clone().ok_or(Error::NoStore("frontends and backends"))?;
        let before = self.declared.link.latest();
        self.check_condition(&request, &order.condition, &before)?;
        if let Some(switch) = &order.switch {
            self.check_switch(switch)?;
        }
        let may_wait = MayWait::of(&request, order.force);
        let asked = request.keys();
        let (edits, created) = self.edits(request, &order, &before)?;
        let edits = edits.before_idle(self.set_aside_frontends());
        if !order.force {
            takes_nothing_over(&edits, &before)?;
        }
        let changes = edits.changes(&before);
        let note = Note { reason: ticket.reason(), by: order.by.clone() };
        let after = Arc::new(edits.after(&before, Timestamp::now(), &note).map_err(refused)?);
        let checked = self.check(&edits, &before, &after, may_wait).await?;
        let mut report = ConfigChangeReport {
            needs: checked.checked.needs,
            stored: !order.dry_run,
            outcome: None,
            message: String::new(),
            etag: format!("{:x}", after.number),
            pending: checked.pending.iter().map(|(key, _)| key.to_string()).collect(),
            warnings: checked.checked.warnings,
            milliseconds: 0.0,
            changes,
        };
        let what = in_words(&report.changes);
        let waiting = words::waiting(&report.changes, &checked.pending);
        if order.dry_run {
            report.message = format!("would be: {what}; nothing is stored");
        } else if edits.is_empty() {
            if let Some(switch) = order.switch {
                self.order_switch(switch, ticket).await?;
            }
            (report.outcome, report.message) =
                self.outcome(&after, order.wait, &report.changes, &waiting).await;
        } else {
            let (stored, changes) = (Arc::clone(&after), report.changes.clone());
            let ordered = ordered_versions(&before, &after);
            let of_settings = self.backends_of_settings();
            let write = ObjectsWrite { before, after: stored, of_settings, changes, ticket };
            self.keep(store, write, order.switch, turn).await?;
            let outcome = self.outcome(&after, order.wait, &report.changes, &waiting).await;
            (report.outcome, report.message) = outcome;
            if let (Some(ReloadOutcome::InSync), Some(wait)) = (report.outcome, order.wait)
                && let Some(why) = self.wait_for_members(&ordered, start + wait).await
            {
                report.outcome = Some(ReloadOutcome::Behind);
                report.message = format!("{what}; it is stored, and {why}");
            }
        }
        // Nothing of the change may be wrong with it, and yet HAProxy does not have it.
        let idle = checked.set_aside.iter().filter(|(key, _)| asked.contains(key));
        if let Some(words) = words::set_aside(idle) {
            report.message = format!("{}; {words}", report.message);
            let is_in_sync = report.outcome == Some(ReloadOutcome::InSync);
            report.outcome = if is_in_sync { Some(ReloadOutcome::Behind) } else { report.outcome };
        }
        report.milliseconds = milliseconds(start.elapsed());
        Ok(ConfigAnswer { report, created })
    }

    pub(super) fn is_managed(&self) -> Result<(), Error> {
        let haproxy = self.settings.haproxy.as_ref();
        let is_managed = haproxy.is_some_and(|haproxy| haproxy.is_supervised());
        if is_managed { Ok(()) } else { Err(Error::NotManaged) }
    }

    /// Stores what was checked, and with it the switch that belongs to it: both or neither. On a
    /// task of its own: whoever asked may go away between the store and the rest.
    async fn keep(
        &self,
        store: SqliteStore,
        write: ObjectsWrite,
        switch: Option<SwitchOrder>,
        turn: Option<Turn>,
    ) -> Result<(), Error> {
        let (link, after) = (Arc::clone(&self.declared.link), Arc::clone(&write.after));
        let switch = switch.map(|order| Ok::<_, Error>((self.member_service()?.clone(), order)));
        let switch = switch.transpose()?;
        let deleted: Vec<String> = write.gone_backends().map(str::to_owned).collect();
        let (members, overrides) = (self.members.clone(), self.overrides.clone());
        let task = tokio::spawn(async move {
            let overrides = match &overrides {
                Some(service) => Some((service.edit_servers().await, service.turn().await)),
                None => None,
            };
            match switch {
                None => store.keep_objects(write).await?,
                Some((service, order)) => {
                    let kept = service.switch_with(order.clone(), write).await;
                    kept.map_err(|error| not_switched(&service, &order, error))?;
                }
            }
            if let Some(members) = members {
                members.forget_backends(deleted.iter().map(String::as_str));
            }
            link.store(after);
            if let Some((_edits, overrides)) = overrides {
                // Orders about servers have gone with their backend. What can't be read now is read
                // at the next change of them.
                if let Err(error) = overrides.refresh().await {
                    tracing::error!("what is ordered of servers can't be read: {error}");
                }
            }
            drop(turn);
            Ok(())
        });
        task.await.map_err(|error| Error::Store(error.to_string()))?
    }

    async fn outcome(
        &self,
        after: &Objects,
        wait: Option<Duration>,
        changes: &[Change],
        waiting: &Waiting,
    ) -> (Option<ReloadOutcome>, String) {
        let Some(wait) = wait else {
            return (Some(ReloadOutcome::Requested), words::requested(changes, waiting));
        };
        match self.declared.link.in_force(after.number, wait).await {
            Progress::InForce => (Some(ReloadOutcome::InSync), words::in_force(changes, waiting)),
            Progress::Applying => {
                (Some(ReloadOutcome::Behind), format!("{}; it is stored", in_words(changes)))
            }
            Progress::Behind(why) => {
                let what = in_words(changes);
                (Some(ReloadOutcome::Behind), format!("{what}; it is stored, and {why}"))
            }
        }
    }

    fn check_condition(
        &self,
        request: &ConfigRequest,
        condition: &NumberCondition,
        before: &Objects,
    ) -> Result<(), Error> {
        let (ConfigRequest::Put { key, .. }
        | ConfigRequest::Merge { key, .. }
        | ConfigRequest::Said { key, .. }
        | ConfigRequest::Rules { frontend: key, .. }
        | ConfigRequest::Delete { key }) = request
        else {
            let last = || before.items.values().max_by_key(|object| object.number);
            return match condition.holds(Some(before.number)) {
                true => Ok(()),
                false => Err(Error::ObjectChanged {
                    key: None,
                    current: serde_json::to_value(self.config(Secrets::Hidden)).ok(),
                    by: last().and_then(|object| object.note.by.clone()),
                    at: last().map(|object| object.changed_at),
                }),
            };
        };
        let object = before.get(key);
        if condition.holds(object.map(|object| object.number)) {
            return Ok(());
        }
        let report = |object| self.of_api(key, object, Secrets::Hidden);
        let current = object.and_then(|object| serde_json::to_value(report(object)).ok());
        Err(Error::ObjectChanged {
            key: Some(key.clone()),
            current,
            by: object.and_then(|object| object.note.by.clone()),
            at: object.map(|object| object.changed_at),
        })
    }

    /// What is to be changed, and whether that makes something.
    fn edits(
        &self,
        request: ConfigRequest,
        order: &ConfigOrder,
        before: &Objects,
    ) -> Result<(Edits, bool), Error> {
        let author = order.by.as_deref().unwrap_or("api");
        match request {
            ConfigRequest::Put { key, spec, owner } => {
                self.is_not_of_settings(&key)?;
                let created = before.get(&key).is_none();
                let edits = Edits::put(before, key, &spec, owner, author).map_err(refused)?;
                Ok((edits, created))
            }
            ConfigRequest::Merge { key, patch, owner } => {
                self.is_not_of_settings(&key)?;
                if before.get(&key).is_none() {
                    return Err(Error::NoObject(key));
                }
                let edits = Edits::merge(before, key, patch, owner, author).map_err(refused)?;
                Ok((edits, false))
            }
            ConfigRequest::Said { key, spec, said } => {
                self.is_not_of_settings(&key)?;
                let created = before.get(&key).is_none();
                let edits = Edits::put_said(before, key, &spec, said, author).map_err(refused)?;
                Ok((edits, created))
            }
            ConfigRequest::Rules { frontend, rules } => {
                self.is_not_of_settings(&frontend)?;
                let known = before.get(&frontend);
                let known = known.ok_or_else(|| Error::NoObject(frontend.clone()))?;
                let mut spec = known.spec.clone();
                match rules.is_empty() {
                    true => drop(spec.remove("rules")),
                    false => drop(spec.insert("rules".to_owned(), rules.into())),
                }
                let edits = Edits::put(before, frontend, &spec, None, author).map_err(refused)?;
                Ok((edits, false))
            }
            ConfigRequest::Delete { key } => {
                // One that is set aside, for the settings file has its name, can go.
                if before.get(&key).is_none() {
                    self.is_not_of_settings(&key)?;
                    return Err(Error::NoObject(key));
                }
                Ok((Edits::delete(before, key), false))
            }
            ConfigRequest::Document { document, prune } => {
                let edits = Edits::of_document(before, &document, prune).map_err(refused)?;
                // What is set aside, and stays as it is, is no obstacle to the others.
                edits.puts().try_for_each(|key| self.is_not_of_settings(key))?;
                Ok((edits, false))
            }
        }
    }

    fn is_not_of_settings(&self, key: &ObjectKey) -> Result<(), Error> {
        let names = &self.declared().of_file;
        let taken = ObjectKind::ALL.map(|kind| ObjectKey::new(kind, key.name.clone()));
        match taken.into_iter().find(|key| names.contains_key(key)) {
            None => Ok(()),
            Some(key) => {
                let file = self.declared.file.path().display().to_string();
                Err(Error::OwnedBySettings { key, file })
            }
        }
    }

    fn backends_of_settings(&self) -> BTreeSet<String> {
        let declared = self.declared();
        let backends = declared.of_file.keys().filter(|key| key.kind == ObjectKind::Backend);
        backends.map(|key| key.name.clone()).collect()
    }

    async fn check(
        &self,
        edits: &Edits,
        before: &Arc<Objects>,
        after: &Arc<Objects>,
        may_wait: MayWait,
    ) -> Result<CheckedObjects, Error> {
        let (old_file, old) = self.candidate(Arc::clone(before)).await?;
        let (file, new) = self.candidate(Arc::clone(after)).await?;
        let changed: BTreeSet<ObjectKey> = edits.puts().cloned().collect();
        let of_services = |key: &&ObjectKey| self.is_of_service(key);
        if let Some(key) = changed.iter().find(of_services) {
            return Err(Error::ObjectConflict(format!(
                "a service of the registry has the name {}; take another one",
                key.name
            )));
        }
        let left = judge(&old_file, &file, after, &changed, may_wait)?;
        let servers = self.desired.borrow().servers.clone();
        let mut warnings = self.check_pending(&file, after, &changed).await?;
        warnings.extend(left);
        let checked = check(&self.declared.link, &old, &new, &changed, servers.as_deref()).await;
        let pending = pending(file.declared()).map(|(key, names)| (key.clone(), names.clone()));
        let (pending, set_aside) = (pending.collect(), reasons(file.declared()).collect());
        match checked {
            Ok(mut checked) => {
                let more = warnings.into_iter().filter(|it| !checked.warnings.contains(it));
                let more: Vec<_> = more.collect();
                checked.warnings.extend(more);
                Ok(CheckedObjects { checked, pending, set_aside })
            }
            Err(error) => Err(not_accepted(error)),
        }
    }

    /// Has HAProxy check changed frontends that wait for backends, with backends in their place:
    /// what is wrong with one is told to whoever says it, and not to whoever adds the backend. What
    /// they are warned of is answered.
    async fn check_pending(
        &self,
        file: &SettingsFile,
        after: &Objects,
        changed: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<Fault>, Error> {
        let (pending, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            pending(file.declared()).partition(|(key, _)| changed.contains(key));
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let waiting: BTreeSet<_> = pending.keys().map(ToString::to_string).collect();
        let mut objects = after.clone();
        // Others that wait may have its address first, and never come.
        objects.items.retain(|key, _| !others.contains_key(key));
        for (key, waits_for) in pending {
            let Some(frontend) = objects.get(key).cloned() else { continue };
            for name in waits_for {
                let stand_in = Object { spec: stand_in_for(&frontend.spec), ..frontend.clone() };
                objects.items.insert(ObjectKey::new(ObjectKind::Backend, name), stand_in);
            }
        }
        let (file, settings) = self.candidate(Arc::new(objects)).await?;
        set_aside(&file, |key, _| changed.contains(key))?;
        // It listens nowhere yet: an address that is taken now may be free then.
        let checked = check(&self.declared.link, &settings, &settings, changed, None).await;
        let of_waiting =
            |fault: &Fault| fault.resource.as_ref().is_some_and(|it| waiting.contains(it));
        let warnings = |checked: Checked| checked.warnings.into_iter().filter(of_waiting).collect();
        checked.map(warnings).map_err(not_accepted)
    }

    /// Whether a service that is in force has an object's name.
    fn is_of_service(&self, key: &ObjectKey) -> bool {
        let file = &self.declared.file.settings;
        let has = |settings: &Settings| {
            settings.frontends.iter().any(|frontend| frontend.name.as_str() == key.name)
                || settings.backends.iter().any(|backend| backend.name == key.name)
        };
        has(&self.settings) && !has(file)
    }
}

/// What is accepted, which frontends wait, and what is set aside, with the reason.
struct CheckedObjects {
    checked: Checked,
    pending: Vec<(ObjectKey, Vec<String>)>,
    set_aside: Vec<(ObjectKey, String)>,
}

/// A backend without a server, for a frontend of this mode.
fn stand_in_for(frontend: &Spec) -> Spec {
    let mut spec = Spec::from_iter([("servers".to_owned(), serde_json::json!([]))]);
    if let Some(mode) = frontend.get("mode") {
        spec.insert("mode".to_owned(), mode.clone());
    }
    spec
}

fn refused(error: EditError) -> Error {
    match error {
        EditError::Secret { .. } => Error::UnknownSecret(error.to_string()),
        EditError::TooMany(_) | EditError::TooLarge(_) => Error::ObjectConflict(error.to_string()),
    }
}

fn not_accepted(error: CheckError) -> Error {
    let detail = error.to_string();
    match error {
        CheckError::Refused(faults) => Error::RefusedByHaproxy { detail, faults },
        CheckError::Invalid(faults) => Error::InvalidConfig { detail, faults },
        CheckError::Busy => Error::TooManyChecks,
        CheckError::Failed(_) => Error::NotChecked(detail),
    }
}
