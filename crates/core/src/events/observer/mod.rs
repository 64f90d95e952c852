//! Which events there are to tell, of what is known now and of the last event of each thing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{EventKind, Happening};
use crate::Note;
use crate::attention::{Key, Status};
use crate::config::status::ConfigState;
use crate::desired::rollout::Rollout;
use crate::revision::{HeldChange, RevisionSummary};
use crate::status::{DriftKind, InstanceState, InstanceStatus, SourceStatus};

/// How long an instance may be behind before that is an event: each change makes it so.
const BEHIND: SignedDuration = SignedDuration::from_secs(5);
/// So long after an order has ended a hold it may still be observed as it was.
const ENDING: SignedDuration = SignedDuration::from_secs(10);
/// The subject of events about the map file, and of HAProxy's reloads and configuration.
const MAP_FILE: &str = "map file";
const HAPROXY: &str = "haproxy";
const WORST: &str = "worst";
/// The state of a change that is held no more.
const NOT_HELD: &str = "none";
const FOLLOWED_AGAIN: &str = "the sources are followed again";

/// The event of the end of a hold, for the order that ends it.
pub fn end_of_hold(now: Timestamp) -> Happening {
    Happening::new(now, EventKind::Hold, HeldChange::MAP, FOLLOWED_AGAIN.to_owned())
        .in_state(NOT_HELD)
}

/// What is known now.
#[derive(Debug)]
pub struct Observed<'a> {
    pub status: &'a Status,
    /// The revision in force; none before the first.
    pub revision: Option<u64>,
    /// The revisions after the one of the last event, as far as they are known. A number between
    /// that is none of them was a canary's, or was lost with a crash: no map ever had it.
    pub revisions: &'a [RevisionSummary],
    /// The worst of what needs a person, if that is to be told now, and in which words.
    pub attention: Option<(Option<Key>, String)>,
}

/// Knows the last event of each thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observer {
    states: BTreeMap<(EventKind, String), Last>,
    /// How often what was corrected, of what began with this process.
    drift: BTreeMap<(String, DriftKind), u64>,
    /// Whose changes this process has seen held.
    held: BTreeSet<String>,
    /// The state of the hold that an order has ended, and when: until that is seen.
    ended_hold: Option<(String, Timestamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    at: Timestamp,
    state: String,
}

impl Observer {
    /// Goes on after these events, the last one of each thing.
    pub fn new(last: impl IntoIterator<Item = Happening>) -> Self {
        let mut observer = Self::default();
        last.into_iter().for_each(|happening| observer.note(&happening));
        observer
    }

    /// Takes in an event that was kept with the order that it is of: it is no news any more.
    pub fn kept(&mut self, happening: &Happening) {
        let is_end = happening.state.as_deref() == Some(NOT_HELD);
        if happening.kind != EventKind::Hold || !is_end {
            return;
        }
        let last = self.last(EventKind::Hold, HeldChange::MAP).map(|last| last.state.clone());
        // What is observed may be from before.
        let ended = last.filter(|state| state != NOT_HELD).map(|state| (state, happening.at));
        self.ended_hold = ended.or(self.ended_hold.take());
        self.note(happening);
    }

    fn note(&mut self, happening: &Happening) {
        let Happening { at, kind, subject, state: Some(state), .. } = happening else { return };
        // Of revisions the last of all counts.
        let subject = if *kind == EventKind::Revision { "" } else { subject };
        let last = Last { at: *at, state: state.clone() };
        self.states.insert((*kind, subject.to_owned()), last);
    }

    /// The revision of the last event of one.
    pub fn revision(&self) -> Option<u64> {
        self.last(EventKind::Revision, "")?.state.parse().ok()
    }

    /// The item that was told as the worst; none where all was fine.
    pub fn worst(&self) -> Option<Key> {
        serde_json::from_str(&self.last(EventKind::Attention, WORST)?.state).ok()
    }

    fn last(&self, kind: EventKind, subject: &str) -> Option<&Last> {
        self.states.get(&(kind, subject.to_owned()))
    }

    /// What is to be told; [`Self::told`] takes it once that is done.
    pub fn news(&self, observed: &Observed<'_>, now: Timestamp) -> Vec<Happening> {
        let mut news = self.of_revisions(observed, now);
        let status = observed.status;
        let instances = status.instances.iter().filter_map(|it| of_instance(it, now));
        let sources = status.sources.iter().filter_map(|it| of_source(it, now));
        let config = status.haproxy.as_ref().and_then(|it| of_config(&it.state, now));
        let states = self.of_held(status, now).into_iter();
        let states = states.chain(self.of_hold(status, now));
        let states = states.chain(status.rollout.as_ref().map(|it| of_rollout(it, now)));
        let states = states.chain(instances).chain(sources).chain(config);
        let is_other = |happening: &Happening| {
            let is_ended = |(state, at): &(String, Timestamp)| {
                Some(state) == happening.state.as_ref() && now.duration_since(*at) < ENDING
            };
            if happening.kind == EventKind::Hold && self.ended_hold.as_ref().is_some_and(is_ended) {
                return false;
            }
            let last = self.last(happening.kind, &happening.subject);
            last.map(|last| &last.state) != happening.state.as_ref()
        };
        news.extend(states.filter(is_other));
        news.extend(self.of_drift(status, now));
        news.extend(self.of_reload(status));
        if let Some((key, text)) = &observed.attention {
            let state = serde_json::to_string(key).unwrap_or_default();
            let happening = Happening::new(now, EventKind::Attention, WORST, text.clone());
            news.push(happening.in_state(&state));
        }
        news
    }

    /// These were told, and this was known then.
    pub fn told(&mut self, news: &[Happening], observed: &Observed<'_>) {
        news.iter().for_each(|happening| self.note(happening));
        if observed.status.hold.is_none() {
            self.ended_hold = None;
        }
        self.drift = drift_of(observed.status).collect();
        self.held.extend(observed.status.held.iter().map(|held| held.of.clone()));
    }

    fn of_revisions(&self, observed: &Observed<'_>, now: Timestamp) -> Vec<Happening> {
        let event = |at, number: u64, text| {
            let number = number.to_string();
            Happening::new(at, EventKind::Revision, &number, text).in_state(&number)
        };
        let mut last = self.revision();
        let mut events = Vec::new();
        for revision in observed.revisions {
            let RevisionSummary { number, at, sources, counts, .. } = revision;
            if Some(*number) <= last {
                continue;
            }
            // What an operator ordered is of no source.
            let by = match sources.join(", ") {
                sources if sources.is_empty() => String::new(),
                sources => format!(" by {sources}"),
            };
            let text = format!("revision {number}{by}: {counts}");
            events.push(Happening { counts: Some(*counts), ..event(*at, *number, text) });
            last = Some(*number);
        }
        if let Some(number) = observed.revision.filter(|number| Some(*number) != last) {
            // Nobody knows any more what it changed.
            events.push(event(now, number, format!("revision {number} came into force")));
        }
        events
    }

    fn of_held(&self, status: &Status, now: Timestamp) -> Vec<Happening> {
        let held = &status.held;
        let event =
            |of: &str, id: &str, text| Happening::new(now, EventKind::Held, of, text).in_state(id);
        let mut events: Vec<_> = held
            .iter()
            .map(|held| {
                let text = format!("a change of {} is held: {}", held.of, held.reason);
                event(&held.of, &held.id, text)
            })
            .collect();
        let before = self
            .states
            .iter()
            .filter(|((kind, _), last)| *kind == EventKind::Held && last.state != NOT_HELD);
        let over = before.filter(|((_, of), _)| held.iter().all(|held| held.of != *of));
        // What was held at the end of the process before is so again once all is known.
        let over = over.filter(|((_, of), _)| self.held.contains(of) || is_judged(status, of));
        events.extend(over.map(|((_, of), _)| {
            event(of, NOT_HELD, format!("no change of {of} is held any more"))
        }));
        events
    }

    /// A hold is known by when it began.
    fn of_hold(&self, status: &Status, now: Timestamp) -> Option<Happening> {
        let event = |state: &str, text| {
            Happening::new(now, EventKind::Hold, HeldChange::MAP, text).in_state(state)
        };
        let hold = status.hold.as_ref().map(|it| &it.hold);
        match hold.map(|hold| (hold, hold.ended)) {
            Some((hold, None)) => {
                let until = hold.until.map_or(String::new(), |until| format!(" until {until:.0}"));
                let text =
                    format!("the rollback to revision {} holds the sources back{until}", hold.of);
                let note = hold.note.clone();
                // As the store keeps it, so that a restart does not take it for another one.
                let since = Timestamp::from_millisecond(hold.since.as_millisecond());
                let since = since.unwrap_or(hold.since).to_string();
                Some(event(&since, text).asked(note.by, note.reason, None))
            }
            Some((hold, Some(_))) => {
                let text = format!(
                    "the hold of the rollback to revision {} is over: what the sources say is a \
                        held change",
                    hold.of
                );
                Some(event("over", text))
            }
            None => {
                let last = self.last(EventKind::Hold, HeldChange::MAP)?;
                (last.state != NOT_HELD).then(|| event(NOT_HELD, FOLLOWED_AGAIN.to_owned()))
            }
        }
    }

    fn of_drift(&self, status: &Status, now: Timestamp) -> Vec<Happening> {
        let more = drift_of(status).filter_map(|(of, count)| {
            let before = self.drift.get(&of).copied().unwrap_or_default();
            // What counts anew has other tasks than before.
            let more = if count < before { count } else { count - before };
            (more > 0).then_some((of, more))
        });
        more.map(|((subject, kind), more)| {
            let times = if more == 1 { String::new() } else { format!(", {more} times") };
            let text = format!("{subject}: {} was found and corrected{times}", kind.label());
            Happening::new(now, EventKind::Drift, &subject, text).in_state(&kind.label())
        })
        .collect()
    }

    fn of_reload(&self, status: &Status) -> Option<Happening> {
        let reload = status.haproxy.as_ref()?.last_reload.as_ref()?;
        let last = self.last(EventKind::Reload, HAPROXY);
        if last.is_some_and(|last| last.at == reload.at) {
            return None;
        }
        let state = reload.outcome.label();
        let text = format!("HAProxy was reloaded ({}): {state}", reload.reason);
        Some(Happening::new(reload.at, EventKind::Reload, HAPROXY, text).in_state(state))
    }
}

/// Whether what the sources say of it was judged since the start.
fn is_judged(status: &Status, of: &str) -> bool {
    let Some(name) = of.strip_prefix(HeldChange::BACKEND) else {
        return match &status.services {
            Some(services) if of == HeldChange::SERVICES => {
                services.source.answered_at.is_some() && services.stored_since.is_none()
            }
            _ => of == HeldChange::SERVICES || status.map_decided,
        };
    };
    match status.backends.iter().find(|backend| backend.name == name) {
        Some(backend) => {
            backend.servers.is_some()
                && backend.waiting_for.is_none()
                && backend.stored_since.is_none()
                && backend.change_due.is_none()
        }
        // It is declared no more, once it is known which are.
        None => status.map_decided || !status.backends.is_empty(),
    }
}

fn drift_of(status: &Status) -> impl Iterator<Item = ((String, DriftKind), u64)> {
    let file = status.map_file.iter();
    let file = file.map(|file| ((MAP_FILE.to_owned(), DriftKind::MapFile), file.corrected));
    let instances = status.instances.iter().flat_map(|instance| {
        let counts = instance.drift_corrected.iter();
        counts.map(|(kind, count)| ((instance.name.clone(), *kind), *count))
    });
    file.chain(instances)
}

/// Nothing of a state that passes by itself.
fn of_instance(instance: &InstanceStatus, now: Timestamp) -> Option<Happening> {
    let state = match &instance.state {
        InstanceState::Starting | InstanceState::Connected => return None,
        InstanceState::InSync { .. } | InstanceState::NoMap => "in_sync",
        InstanceState::Behind { .. } if now.duration_since(instance.state_since) < BEHIND => {
            return None;
        }
        InstanceState::Behind { .. } => "behind",
        InstanceState::Unreachable { .. } => "unreachable",
        InstanceState::Refused { .. } => "refused",
    };
    let text = format!("{}: {}", instance.name, instance.state);
    Some(Happening::new(now, EventKind::Instance, &instance.name, text).in_state(state))
}

fn of_source(source: &SourceStatus, now: Timestamp) -> Option<Happening> {
    let name = &source.name;
    let (state, text) = match (&source.error, source.answered_at) {
        (Some(error), _) => ("failed", format!("{name} fails: {error}")),
        (None, Some(_)) => ("ok", format!("{name} answers")),
        (None, None) => return None,
    };
    Some(Happening::new(now, EventKind::Source, name, text).in_state(state))
}

fn of_rollout(rollout: &Rollout, now: Timestamp) -> Happening {
    let text = rollout.to_string();
    let happening = Happening::new(now, EventKind::Rollout, &rollout.id, text);
    let verdict = rollout.aborted.as_ref().or(rollout.promoted.as_ref()).map(|it| &it.note);
    let Note { by, reason } = verdict.unwrap_or(&rollout.note).clone();
    happening.in_state(&rollout.state.name()).asked(by, reason, None)
}

fn of_config(state: &ConfigState, now: Timestamp) -> Option<Happening> {
    if *state == ConfigState::Starting {
        return None;
    }
    let text = format!("HAProxy's configuration: {state}");
    Some(Happening::new(now, EventKind::Config, HAPROXY, text).in_state(state.label()))
}

#[cfg(test)]
mod tests;
