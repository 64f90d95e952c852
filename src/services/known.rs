//! What is known of services, also over a beginning anew and a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::config::status::Quarantined;
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::guard::Limits;
use mapsmith_core::portmap::texts::{Wanted, is_service};
use mapsmith_core::services::{ListenerStatus, ServicesGuard, ServicesStatus};
use mapsmith_core::status::SourceStatus;
use mapsmith_core::{HeldChange, ServiceForms, ServiceTexts};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::engine::record_hold;
use crate::few::few;
use crate::settings::portmap;
use crate::settings::services::{Listener, Overlay, Refusals, overlay};
use crate::settings::{self, Settings, WhenEmpty};
use crate::store::{SqliteStore, StoreError, StoredServices};
use crate::supervise::services::{object, service_of};
use crate::supervise::unknown::FirstLists;

/// Between two tries of a service that HAProxy refuses, for what it lacked may be there by then.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(1800));
/// The same of what listens beside services. Whether it may is seen without a try.
const RETRIES_OF_LISTENERS: Backoff = Backoff::new(PROBES, Duration::from_secs(300));
/// How often that is looked at.
const PROBES: Duration = Duration::from_secs(3);
/// Of a service that goes to and fro between forms which HAProxy refuses, the most that are known:
/// what is known is not tried at once.
const MOST_REFUSED: usize = 4;

/// What the store has before the origin of a portmap: its forms are of another grammar.
const PORTMAP: &str = "[portmap] ";

/// A form of a service that HAProxy refuses.
#[derive(Debug, Clone)]
struct Refusal {
    said: Quarantined,
    backoff: Backoff,
    /// When HAProxy last refused it.
    at: Instant,
    /// When it is tried again.
    until: Instant,
    /// Whether it counts although HAProxy has loaded that form before: nothing would be served with
    /// it, or nothing is served by it.
    is_of_good: bool,
}

/// What is known of services.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Their forms as HAProxy has loaded them.
    pub(super) good: ServiceForms,
    stored_since: Option<Timestamp>,
    /// What the registry said last, with those that the guard keeps.
    texts: Option<ServiceTexts>,
    guard: ServicesGuard,
    /// When the first answer was taken, from which the guard's window counts.
    took_first: Option<Instant>,
    /// Why metadata is not followed.
    kept: Option<String>,
    /// Whether every listener is closed by order.
    closed: bool,
    /// By the service's name and its text.
    refused: BTreeMap<(String, String), Refusal>,
    /// What is gone by; none while nothing is known.
    overlay: Option<Overlay>,
    /// Those that HAProxy has not loaded yet.
    first_lists: FirstLists,
    /// No other change comes into force before then.
    pub(super) not_before: Option<Instant>,
}

impl Known {
    /// What the store has for these settings, also where the services came from another place then;
    /// nothing without one.
    ///
    /// # Errors
    /// A store that can't be read.
    pub async fn from_store(file: &Settings) -> Result<Self, StoreError> {
        let mut known = Self::default();
        let (Some((_, from)), Some(store)) = (file.services_source(), &file.store) else {
            return Ok(known);
        };
        let stored = SqliteStore::peek_services(&store.path).await?;
        let is_portmap = |origin: &str| origin.starts_with(PORTMAP);
        let is_of_its_kind =
            |stored: &StoredServices| is_portmap(&stored.origin) == file.portmap.is_some();
        if let Some(StoredServices { forms, origin, since }) = stored.filter(is_of_its_kind) {
            tracing::info!(
                services = forms.len(),
                "the stored services of {origin} are in force until source {from} answers"
            );
            (known.good, known.stored_since) = (forms, since);
            known.go_by(known.made(file));
        }
        Ok(known)
    }

    /// Where the services of these settings come from, as the store has it.
    pub(super) fn origin(file: &Settings) -> Option<String> {
        let (_, from) = file.services_source()?;
        let kind = if file.portmap.is_some() { PORTMAP } else { "" };
        Some(format!("{kind}{from}"))
    }

    /// What is gone by: the settings of the file with the services over them.
    pub fn settings(&self, file: &Settings) -> Settings {
        self.overlay.as_ref().map_or_else(|| file.clone(), |overlay| overlay.settings.clone())
    }

    /// The same, and no change comes into force for so long.
    #[must_use]
    pub fn waiting_for(&self, pause: Duration) -> Self {
        Self { not_before: Some(Instant::now() + pause), ..self.clone() }
    }

    /// The same under other settings of the file; nothing where they have no services. What is in
    /// force stays so also where the services come from another place now: what that says is a
    /// change of it.
    #[must_use]
    pub fn under(&self, before: &Settings, file: &Settings) -> Self {
        if file.services_source().is_none() {
            return Self::default();
        }
        let origin = |settings: &Settings| {
            let (source, from) = settings.services_source()?;
            let keys = (&source.of_kind.servers.servers, &source.of_kind.zookeeper.chroot);
            let (file, url) = (&source.of_kind.file.path, &source.of_kind.http.url);
            let metadata = &source.of_kind.metadata;
            Some(format!("{from} {:?} {keys:?} {file:?} {url:?} {metadata:?}", source.kind))
        };
        if before.portmap.is_some() != file.portmap.is_some() {
            // Another grammar.
            return Self::default();
        }
        let mut known = self.clone();
        if origin(before) != origin(file) {
            known.texts = None;
        }
        // Other settings may be what it lacked.
        known.refused.clear();
        if known.overlay.is_some() {
            known.go_by(known.made(file));
        }
        known
    }

    /// Takes in what the registry says.
    pub fn take(&mut self, file: &Settings, answer: &ServiceTexts) {
        if let Some(portmap) = &file.portmap {
            return self.take_metadata(file, portmap, answer);
        }
        let Some(services) = &file.services else { return };
        let mut texts = answer.clone();
        let in_force = self.forms().cloned().unwrap_or_default();
        self.judge(&mut texts, &in_force, (&file.guard, services.empty == WhenEmpty::Accept));
        // An answer that says nothing of services is none where nothing was known.
        if !(texts.texts.is_empty() && self.guard.held().is_some()) {
            self.texts = Some(texts);
        }
        self.stored_since = None;
        self.forget_refused();
    }

    fn take_metadata(
        &mut self,
        file: &Settings,
        portmap: &settings::Portmap,
        answer: &ServiceTexts,
    ) {
        let mut in_force = self.forms().cloned().unwrap_or_default();
        let wanted = Wanted::new(answer, &in_force, portmap.is_ordered());
        (self.kept, self.closed) = (wanted.kept, wanted.closed);
        let Some(mut texts) = wanted.services else { return };
        in_force.retain(|name, _| is_service(name));
        // Whoever writes a portmap writes all of it: one with other ports is an order.
        self.judge(&mut texts, &in_force, (&file.guard, true));
        texts.texts.extend(wanted.values);
        self.texts = Some(texts);
        self.stored_since = None;
        self.forget_refused();
    }

    /// Has services stay that the guard does not let go.
    fn judge(
        &mut self,
        texts: &mut ServiceTexts,
        in_force: &ServiceForms,
        limits: (&Limits, bool),
    ) {
        let now = self.took_first.get_or_insert_with(Instant::now).elapsed();
        let hold = self.guard.hold(texts, in_force, limits, (now, Timestamp::now()));
        if let (Some(hold), Some(held)) = (hold, self.guard.held()) {
            record_hold(hold, held, "set of services", None);
        }
    }

    /// Lets the held change of this id through when the registry's answer is taken again.
    ///
    /// # Errors
    /// When no such change is held.
    pub(super) fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        self.guard.approve(id)
    }

    /// What would come of all that is known; none where nothing is.
    pub fn next(&self, file: &Settings) -> Option<Overlay> {
        (self.texts.is_some() || self.overlay.is_some()).then(|| self.made(file))
    }

    fn made(&self, file: &Settings) -> Overlay {
        let texts = match (&self.texts, self.forms()) {
            (Some(texts), _) => texts.clone(),
            (None, Some(forms)) => forms.clone().into(),
            (None, None) => self.good.clone().into(),
        };
        let now = Instant::now();
        let mut refused = Refusals::new();
        for ((name, text), refusal) in &self.refused {
            if now < refusal.until {
                let said: Vec<_> =
                    refusal.said.remarks.iter().map(|remark| remark.text.as_str()).collect();
                let said = format!("HAProxy refuses it: {}", said.join("; "));
                refused.entry(name.clone()).or_default().insert(text.clone(), said);
            }
        }
        match &file.portmap {
            Some(portmap) => portmap::overlay(file, portmap, &texts, &self.good, &refused),
            None => overlay(file, &texts, &self.good, &refused),
        }
    }

    /// Whether this is what is gone by.
    pub(super) fn goes_by(&self, next: &Overlay) -> bool {
        let quarantined = |overlay: &Overlay| -> Vec<_> {
            let rejected = overlay.rejected.iter().filter(|rejected| rejected.by_haproxy);
            rejected.map(|rejected| (rejected.name.clone(), rejected.reason.clone())).collect()
        };
        self.overlay.as_ref().is_some_and(|overlay| {
            overlay.forms == next.forms && quarantined(overlay) == quarantined(next)
        })
    }

    /// Goes by this from now on.
    pub fn go_by(&mut self, next: Overlay) {
        let is_new = |name: &&String| {
            let known = self.overlay.as_ref();
            known.is_none_or(|overlay| !overlay.backends.contains_key(*name))
        };
        let new: Vec<_> = next.backends.keys().filter(is_new).cloned().collect();
        self.first_lists.add(new, Instant::now());
        self.first_lists.retain(|name| next.backends.contains_key(name));
        self.overlay = Some(next);
    }

    /// HAProxy refuses services as they are now; `at_start` where it does not start with them.
    pub(super) fn refuse(&mut self, refused: &[Quarantined], at_start: bool) {
        for said in refused {
            let section = service_of(said).unwrap_or_default();
            let form = |overlay: &Overlay| {
                if let Some(listener) = overlay.listeners.get(section) {
                    return Some((listener.key.to_owned(), listener.address.to_string()));
                }
                let name = overlay.backends.get(section).or(overlay.values.get(section))?;
                Some((name.clone(), overlay.forms.get(name)?.clone()))
            };
            let Some((name, text)) = self.overlay.as_ref().and_then(form) else { continue };
            let known = self.refused.remove(&(name.clone(), text.clone()));
            let is_listener = listener(self.overlay.as_ref(), &name, &text).is_some();
            let first = if is_listener { RETRIES_OF_LISTENERS } else { RETRIES };
            let mut backoff = known.map_or(first, |known| known.backoff);
            let at = Instant::now();
            let is_value =
                self.overlay.as_ref().is_some_and(|overlay| overlay.values.contains_key(section));
            let (until, is_of_good) = (at + backoff.pause(), at_start || is_value);
            let refusal = Refusal { said: said.clone(), until, backoff, at, is_of_good };
            self.refused.insert((name, text), refusal);
        }
        self.forget_refused();
    }

    /// What HAProxy has loaded, or the registry does not have any more, is not refused any more;
    /// but the last few forms of a service are known.
    fn forget_refused(&mut self) {
        let (good, texts, overlay) = (&self.good, &self.texts, &self.overlay);
        let is_listener = |name: &str, text: &str| listener(overlay.as_ref(), name, text).is_some();
        self.refused.retain(|(name, text), refusal| {
            let is_there = texts.as_ref().is_none_or(|texts| texts.texts.contains_key(name))
                || is_listener(name, text);
            is_there && (refusal.is_of_good || good.get(name) != Some(text))
        });
        let mut latest: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
        for ((name, _), refusal) in &self.refused {
            latest.entry(name.clone()).or_default().push(refusal.at);
        }
        self.refused.retain(|(name, text), refusal| {
            let later = latest.get(name).into_iter().flatten();
            let later = later.filter(|at| **at > refusal.at).count();
            later < MOST_REFUSED || is_said(texts.as_ref(), name, text) || is_listener(name, text)
        });
    }

    /// HAProxy has loaded what is gone by; whether that is news.
    pub(super) fn note_loaded(&mut self) -> bool {
        self.first_lists = FirstLists::default();
        let Some(forms) = self.forms().cloned() else { return false };
        self.refused.retain(|(name, text), _| forms.get(name) != Some(text));
        if forms == self.good {
            return false;
        }
        self.good = forms;
        self.forget_refused();
        true
    }

    /// When something that HAProxy refused, and that the registry has, is tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        let now = Instant::now();
        let said = self.refused.iter().filter(|((name, text), refusal)| {
            let is_wanted = is_said(self.texts.as_ref(), name, text)
                || listener(self.overlay.as_ref(), name, text).is_some();
            refusal.until > now && is_wanted
        });
        said.map(|(_, refusal)| refusal.until).min()
    }

    /// Has listeners wait on that are due and that nobody can have yet, as `obstacle` says: to try
    /// them is to begin everything anew.
    pub(super) fn put_off(&mut self, obstacle: impl Fn(&BindAddress) -> Option<String>) {
        let now = Instant::now();
        for ((name, text), refusal) in &mut self.refused {
            let known = listener(self.overlay.as_ref(), name, text);
            let is_due = refusal.until <= now;
            if known.is_some_and(|one| !one.is_in && is_due && obstacle(&one.address).is_some()) {
                refusal.until = now + PROBES;
            }
        }
    }

    fn forms(&self) -> Option<&ServiceForms> {
        self.overlay.as_ref().map(|overlay| &overlay.forms)
    }

    /// The services whose servers HAProxy's file waits for.
    pub fn first_lists(&self) -> &FirstLists {
        &self.first_lists
    }

    /// The services that are not in force as their registry has them, because HAProxy refuses that.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let rejected = self.overlay.iter().flat_map(|overlay| &overlay.rejected);
        let by_haproxy = rejected.filter(|rejected| rejected.by_haproxy);
        let said = by_haproxy.filter_map(|rejected| {
            let name = &rejected.name;
            let mut listeners = self.overlay.iter().flat_map(|overlay| overlay.listeners.values());
            let listener = listeners.find(|one| one.key == name && !one.is_in);
            let text = match listener {
                Some(listener) => listener.address.as_str(),
                None => self.texts.as_ref()?.texts.get(name)?.as_ref().ok()?,
            };
            let refusal = self.refused.get(&(name.clone(), text.to_owned()))?;
            let remarks = refusal.said.remarks.clone();
            Some(Quarantined { object: object(&rejected.name), remarks })
        });
        said.collect()
    }

    /// What is gone by that was not before, for people.
    pub fn news(&self, before: &Self) -> String {
        let none = ServiceForms::new();
        let (before, after) = (before.forms().unwrap_or(&none), self.forms().unwrap_or(&none));
        let changed = after.iter().filter(|(name, text)| before.get(*name) != Some(text));
        let changed: Vec<_> = changed.map(|(name, _)| name.as_str()).collect();
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        let gone: Vec<_> = gone.map(String::as_str).collect();
        let parts = [("new or changed", changed), ("gone", gone)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<_> = parts
            .map(|(kind, names)| {
                let (named, more) = few(names.iter().copied());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{kind}: {}{more}", named.join(", "))
            })
            .collect();
        match parts.is_empty() {
            true => "none is another one, but what HAProxy refuses".to_owned(),
            false => parts.join("; "),
        }
    }

    /// For people.
    pub fn status(&self, source: SourceStatus) -> ServicesStatus {
        let overlay = self.overlay.as_ref();
        ServicesStatus {
            source,
            in_force: overlay.map(|overlay| overlay.shown.clone()),
            listeners: overlay.map(listeners_in).unwrap_or_default(),
            stored_since: self.stored_since,
            rejected: overlay.map(|overlay| overlay.rejected.clone()).unwrap_or_default(),
            closed: self.closed,
            kept: self.kept.clone(),
            held: self.guard.held().cloned(),
        }
    }
}

/// What listens beside services, for people.
fn listeners_in(overlay: &Overlay) -> Vec<ListenerStatus> {
    let all = overlay.listeners.values().filter(|listener| listener.is_in);
    let shown = |Listener { key, purpose, address, .. }: &Listener| ListenerStatus {
        key: (*key).to_owned(),
        bind: address.to_string(),
        purpose: (*purpose).to_owned(),
    };
    all.map(shown).collect()
}

/// What listens beside services at this address because of this key.
fn listener<'a>(overlay: Option<&'a Overlay>, key: &str, address: &str) -> Option<&'a Listener> {
    let mut all = overlay?.listeners.values();
    all.find(|listener| listener.key == key && listener.address.as_str() == address)
}

/// Whether this is what the registry last said of a service.
fn is_said(texts: Option<&ServiceTexts>, name: &str, text: &str) -> bool {
    let said = texts.and_then(|texts| texts.texts.get(name)?.as_ref().ok());
    said.is_some_and(|said| said == text)
}

#[cfg(test)]
mod tests;
