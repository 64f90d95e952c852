//! Services that a registry declares: what it says of them, and how they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

use crate::desired::gate::{ApprovalError, Gate, Hold, Verdict};
use crate::desired::guard::{self, Accepted, Limits, Proposal, Recent, Subject, Window};
use crate::revision::{ChangeCounts, HeldChange};
use crate::snapshot::Content;
use crate::status::SourceStatus;

/// The text of each service, by its name.
pub type ServiceForms = BTreeMap<String, String>;

/// What a registry says of its services, before any of it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTexts {
    /// Each service's text, or why it has none, by its name.
    pub texts: BTreeMap<String, Result<String, String>>,
}

impl Content for ServiceTexts {
    fn count(&self) -> usize {
        self.texts.len()
    }
}

impl From<ServiceForms> for ServiceTexts {
    fn from(forms: ServiceForms) -> Self {
        Self { texts: forms.into_iter().map(|(name, text)| (name, Ok(text))).collect() }
    }
}

/// Keeps services that are gone from their registry where all of them are, or too many.
#[derive(Debug, Clone)]
pub struct ServicesGuard {
    /// The names that were let through last (they may not be in force yet), and what is held.
    gate: Gate<BTreeSet<String>>,
    window: Window,
}

impl Default for ServicesGuard {
    fn default() -> Self {
        Self { gate: Gate::default(), window: Window::new(Limits::default().window) }
    }
}

impl ServicesGuard {
    /// Why services that the registry does not have any more stay.
    pub fn held(&self) -> Option<&HeldChange> {
        self.gate.held()
    }

    /// Lets the held change of this id through when the registry's answer is taken again.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        self.gate.approve(id)
    }

    /// Has those that are gone stay in `texts` where too many of the services in force are, or all
    /// of them and `may_be_empty` is not set, and says how they are held. `now` is of one steady
    /// clock, and `at` is the same moment for people.
    pub fn hold(
        &mut self,
        texts: &mut ServiceTexts,
        in_force: &ServiceForms,
        (limits, may_be_empty): (&Limits, bool),
        (now, at): (Duration, Timestamp),
    ) -> Option<Hold> {
        self.window.set_length(limits.window);
        let said: BTreeSet<_> = texts.texts.keys().cloned().collect();
        let before = match self.gate.accepted() {
            Some(before) => before.clone(),
            None => in_force.keys().cloned().collect(),
        };
        if self.gate.accepted() == Some(&said) {
            self.gate.settle();
            return None;
        }
        // What was let go before is no part of this change, though it may be in force still.
        let there = in_force.iter().filter(|(name, _)| before.contains(*name));
        let gone: Vec<_> = there.clone().filter(|(name, _)| !said.contains(*name)).collect();
        let there = there.count();
        let counts = |after: &BTreeSet<String>, removed| ChangeCounts {
            added: after.difference(&before).count(),
            moved: 0,
            removed,
        };
        let mut passing = Accepted {
            mark: self.mark(&before, &said),
            before: there,
            entries: said.len(),
            counts: counts(&said, gone.len()),
            approved: false,
        };
        let before_part = self.gate.before_part().map(BTreeSet::len);
        let proposal = Proposal {
            in_force: (there > 0).then_some(there),
            entries: said.len(),
            counts: passing.counts,
            recent: Recent { before_part, ..self.window.recent(passing.mark, now) },
        };
        let within = match may_be_empty {
            true if said.is_empty() => Ok(()),
            true => guard::check(Subject::Services, limits, &proposal),
            false => {
                let whole = self.gate.before_part().unwrap_or(&before);
                let of_it = in_force.keys().filter(|name| whole.contains(*name)).collect();
                some_stay(&of_it, &said, proposal.recent.is_return)
                    .and_then(|()| guard::check(Subject::Services, limits, &proposal))
            }
        };
        let verdict = self.gate.submit(
            within,
            || id_of(gone.iter().map(|(name, _)| *name)),
            |id, reason| HeldChange {
                id,
                of: HeldChange::SERVICES.to_owned(),
                reason,
                since: at,
                entries_in_force: there,
                entries_held: said.len(),
                counts: ChangeCounts { removed: gone.len(), ..ChangeCounts::default() },
                applied: ChangeCounts::default(),
            },
        );
        let Verdict::Held(hold) = verdict else {
            passing.approved = verdict == Verdict::Approved;
            self.window.accept(&passing, now);
            self.gate.release();
            self.gate.accept(said);
            return None;
        };
        let staying = gone.into_iter().map(|(name, text)| (name.clone(), Ok(text.clone())));
        texts.texts.extend(staying);
        let part: BTreeSet<_> = texts.texts.keys().cloned().collect();
        if !part.is_empty() && part != before {
            let counts = counts(&part, 0);
            self.accept_part(before, part, Accepted { counts, ..passing }, now);
        }
        Some(hold)
    }

    /// Services that come, and those that nobody had in force, do so beside what is held.
    fn accept_part(
        &mut self,
        before: BTreeSet<String>,
        part: BTreeSet<String>,
        passing: Accepted,
        now: Duration,
    ) {
        let (mark, entries) = (self.mark(&before, &part), part.len());
        self.window.accept(&Accepted { mark, entries, ..passing }, now);
        self.gate.resume(Some(before));
        self.gate.accept_part(part, passing.counts);
    }

    fn mark(&self, before: &BTreeSet<String>, after: &BTreeSet<String>) -> u64 {
        let gone = before.difference(after).map(|name| (name.as_str(), Some(""), None));
        let come = after.difference(before).map(|name| (name.as_str(), None, Some("")));
        self.window.after(gone.chain(come))
    }
}

/// Whether an answer leaves anything of what was in force before a part of it came. It is held
/// else, whatever the size: a registry that lost its services has few while it is filled again.
fn some_stay(
    in_force: &BTreeSet<&String>,
    said: &BTreeSet<String>,
    is_return: bool,
) -> Result<(), String> {
    let there = in_force.len();
    match (there, said.len()) {
        (0, 0) => Err("the registry has no service yet; services.empty = \"accept\" takes that \
            for an answer"
            .to_owned()),
        (_, 0) => Err(format!(
            "the registry has no service any more, so all {there} in force would go; \
                services.empty = \"accept\" lets them"
        )),
        (1.., _) if !is_return && !in_force.iter().any(|name| said.contains(*name)) => {
            Err(format!(
                "the change would replace every one of the {there} services in force, which is \
                    held at any size; services.empty = \"accept\" lets it"
            ))
        }
        _ => Ok(()),
    }
}

/// Names exactly these services that go, on every machine: XXH3 over their names as JSON.
fn id_of<'a>(gone: impl Iterator<Item = &'a String>) -> String {
    // Text and lists of it always have a JSON.
    let text = serde_json::to_vec(&(HeldChange::SERVICES, gone.collect::<Vec<_>>()));
    format!("{:016x}", xxh3_64(&text.unwrap_or_default()))
}

/// How the services of a registry stand. The API and the CLI show it as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServicesStatus {
    /// Where they come from.
    pub source: SourceStatus,
    /// Those in force, by name; none before any are known.
    pub in_force: Option<Vec<ServiceStatus>>,
    /// What listens beside them because a key says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// Since when these are in force, if none came from the registry since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_since: Option<Timestamp>,
    /// What is not used as the registry has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedService>,
    /// Whether nothing listens by order: `loadbalancer` is false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Why the metadata of a portmap is not followed, and what is in force stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// How services that the registry does not have any more stay, and what lets them go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldChange>,
}

/// A service in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name, which is its backend's too; of a portmap, its port.
    pub name: String,
    /// What it is, of a portmap: `https-http`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it listens.
    pub bind: String,
    /// Where its servers come from.
    pub servers: String,
}

/// What listens beside services because a key says so, of metadata or of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListenerStatus {
    /// `metrics_port` or `redirect_http`.
    pub key: String,
    /// Where it listens.
    pub bind: String,
    /// What for, for people.
    pub purpose: String,
}

/// A service that is not used as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedService {
    pub name: String,
    /// What is wrong, with the key.
    pub reason: String,
    /// Whether HAProxy says so.
    pub by_haproxy: bool,
    /// Whether it is in force as it was before.
    pub keeps_last_good: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(names: impl IntoIterator<Item = usize>) -> ServiceForms {
        names.into_iter().map(|name| (format!("s{name:03}"), "{}".to_owned())).collect()
    }

    /// A guard, and what is in force.
    struct Scene {
        guard: ServicesGuard,
        in_force: ServiceForms,
        may_be_empty: bool,
    }

    impl Scene {
        fn of(count: usize) -> Self {
            let guard = ServicesGuard::default();
            Self { guard, in_force: forms(0..count), may_be_empty: false }
        }

        /// Takes an answer at a minute. Why services are held, and how many are in force then.
        fn take(
            &mut self,
            names: impl IntoIterator<Item = usize>,
            minute: u64,
        ) -> (Option<String>, usize) {
            let mut texts = ServiceTexts::from(forms(names));
            let limits = (&Limits::default(), self.may_be_empty);
            let now = (Duration::from_secs(60 * minute), Timestamp::UNIX_EPOCH);
            self.guard.hold(&mut texts, &self.in_force, limits, now);
            let forms = texts.texts.into_iter().filter_map(|(name, text)| Some((name, text.ok()?)));
            self.in_force = forms.collect();
            (self.guard.held().map(|held| held.reason.clone()), self.in_force.len())
        }

        fn held(&self) -> HeldChange {
            self.guard.held().cloned().expect("a change is held")
        }
    }

    #[test]
    fn services_that_vanish_all_or_too_many_at_once_stay() {
        let (why, left) = Scene::of(3).take([], 0);
        assert!(why.is_some_and(|why| why.contains("all 3 in force would go; services.empty")));
        assert_eq!(left, 3);
        let (why, left) = Scene::of(30).take(0..20, 0);
        assert!(why.is_some_and(|why| why.contains("remove 10 of the 30 services in force")));
        assert_eq!(left, 30);
    }

    #[test]
    fn all_that_are_gone_stay_while_a_registry_is_filled_again() {
        let mut scene = Scene::of(3);
        assert!(scene.take([], 0).0.is_some());
        let (why, in_force) = scene.take([7], 1);
        assert!(why.is_some_and(|why| why.contains("every one of the 3 services")));
        assert_eq!(in_force, 4, "the new one is in force beside them");
        let (why, in_force) = scene.take([7, 8], 2);
        assert!(why.is_some() && in_force == 5, "{in_force}");
        assert_eq!(scene.take([0, 1, 2, 7, 8], 3), (None, 5));

        let mut accepting = Scene { may_be_empty: true, ..Scene::of(3) };
        assert_eq!(accepting.take([7], 0), (None, 1));
    }

    #[test]
    fn a_few_may_go_and_all_where_the_settings_say_so() {
        assert_eq!(Scene::of(30).take(0..25, 0), (None, 25));
        assert_eq!(Scene::of(3).take(0..2, 0), (None, 2));
        assert_eq!(Scene { may_be_empty: true, ..Scene::of(3) }.take([], 0), (None, 0));
    }

    #[test]
    fn an_answer_without_any_is_no_first_answer() {
        assert!(Scene::of(0).take([], 0).0.is_some());
        assert_eq!(Scene { may_be_empty: true, ..Scene::of(0) }.take([], 0), (None, 0));
    }

    #[test]
    fn what_is_held_keeps_no_other_service_from_changing() {
        let mut texts = ServiceTexts::default();
        texts.texts.insert("s000".to_owned(), Ok("changed".to_owned()));
        let (limits, now) = (Limits::default(), (Duration::ZERO, Timestamp::UNIX_EPOCH));
        let mut guard = ServicesGuard::default();
        let hold = guard.hold(&mut texts, &forms(0..30), (&limits, false), now);
        assert_eq!((hold, texts.texts.len()), (Some(Hold::New), 30));
        assert_eq!(texts.texts["s000"], Ok("changed".to_owned()));
    }

    #[test]
    fn what_an_operator_approves_goes_and_nothing_else() {
        let mut scene = Scene::of(30);
        scene.take(0..20, 0);
        let id = scene.held().id;
        let other = scene.guard.approve("0123456789abcdef");
        assert!(matches!(other, Err(ApprovalError::Another { .. })), "{other:?}");
        scene.guard.approve(&id).expect("it is held");
        let (why, left) = scene.take(0..10, 1);
        assert!(why.is_some() && left == 30, "other services are gone than the approved: {why:?}");
        assert_eq!(scene.take(0..20, 2).1, 30, "that approval is over");
        assert_eq!(scene.held().id, id, "the same services that go are the same change");
        scene.guard.approve(&id).expect("it is held");
        assert_eq!(scene.take(0..20, 3), (None, 20));
        assert_eq!(scene.take(0..20, 4), (None, 20));
        assert_eq!(scene.guard.approve(&id), Err(ApprovalError::NothingHeld));
        assert!(scene.take([], 5).0.is_some(), "the next loss is judged again");
    }

    #[test]
    fn all_that_an_operator_lets_go_are_gone_for_good() {
        let mut scene = Scene::of(3);
        scene.take([], 0);
        let id = scene.held().id;
        scene.guard.approve(&id).expect("it is held");
        assert_eq!(scene.take([], 1), (None, 0));
        assert_eq!(scene.take([], 2), (None, 0));
    }

    #[test]
    fn services_that_go_a_few_at_a_time_are_held_once_they_are_too_many() {
        let mut scene = Scene::of(100);
        for step in 1..=4 {
            assert_eq!(scene.take(0..100 - 5 * step, step as u64).0, None, "step {step}");
        }
        let (why, left) = scene.take(0..75, 5);
        assert!(why.as_ref().is_some_and(|why| why.contains("25 of 100 within 1h")), "{why:?}");
        assert_eq!(left, 80);
        assert_eq!(scene.take(0..75, 70), (None, 75), "after an hour they may go");
    }

    #[test]
    fn what_was_let_go_counts_once_also_where_it_is_not_out_of_force_yet() {
        let mut scene = Scene::of(30);
        for minute in 0..5 {
            scene.in_force = forms(0..30);
            assert_eq!(scene.take((0..25).chain([100]), minute), (None, 26));
        }
    }

    #[test]
    fn services_that_come_beside_a_held_loss_do_not_let_it_pass() {
        let mut scene = Scene::of(30);
        assert!(scene.take(0..20, 0).0.is_some());
        let (why, left) = scene.take((0..20).chain(100..150), 1);
        assert!(why.is_some(), "10 of 80 would pass, 10 of 30 do not");
        assert_eq!((left, scene.held().applied.added), (80, 50));
        assert_eq!(scene.take(0..30, 2).0, None, "the lost ones are back");
        assert_eq!(scene.guard.held(), None);
    }
}
