//! Nodes that are registered with Mapsmith itself, by an operator or by the master that they belong
//! to: a source of the node map whose rows are kept in the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::overrides::LONGEST_REASON;
use crate::{EntryMap, Note};

/// The most nodes that are registered together, all of them or none.
pub const MOST_AT_ONCE: usize = 10_000;

/// How many changes are remembered with who made them.
const REMEMBERED: usize = 1000;
/// How many of those who made changes are named, and how many reasons.
const NAMED: usize = 3;

/// A node that is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registration {
    /// The node, as the map has it.
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
    /// Since when it is registered with this master.
    pub since: Timestamp,
    /// When that ends by itself; none where only somebody ends it.
    pub until: Option<Timestamp>,
    #[serde(flatten)]
    pub note: Note,
}

/// One change of what is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Registers these nodes, each named once; what they were registered with before is replaced.
    Register(Vec<Registration>),
    /// Ends the registrations of these nodes, all of them or none.
    Unregister {
        /// As the map has them, each named once.
        nodes: Vec<String>,
        /// Nothing ends where one is registered with another master than these; none where any may
        /// be.
        only_of: Option<Vec<String>>,
        /// That one is not registered is no failure.
        missing_ok: bool,
    },
    /// Ends what is over.
    Expire { now: Timestamp },
}

/// What a change does, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistrationCounts {
    /// Nodes that were not registered before.
    pub registered: usize,
    /// Nodes that were registered with another master.
    pub moved: usize,
    /// Nodes that stay with their master.
    pub unchanged: usize,
    /// Nodes that are registered no more.
    pub unregistered: usize,
}

/// What becomes of single nodes, and of the map that says who owns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrationEffect {
    pub counts: RegistrationCounts,
    /// The nodes that have another master then: the master, and since when; none where the node is
    /// registered no more.
    pub masters: BTreeMap<String, Option<(String, Timestamp)>>,
}

impl RegistrationEffect {
    /// Registers a node that had this master.
    pub fn register(&mut self, before: Option<&str>, new: &Registration) {
        match before {
            Some(before) if before == new.master => return self.counts.unchanged += 1,
            Some(_) => self.counts.moved += 1,
            None => self.counts.registered += 1,
        }
        self.masters.insert(new.node.clone(), Some((new.master.clone(), new.since)));
    }

    /// Ends a node's registration.
    pub fn unregister(&mut self, node: String) {
        self.counts.unregistered += 1;
        self.masters.insert(node, None);
    }

    /// What it would do to nodes that are registered so.
    pub fn preview(change: &RegistrationChange, registered: &EntryMap) -> Self {
        let mut effect = Self::default();
        match change {
            RegistrationChange::Register(nodes) => {
                nodes.iter().for_each(|new| effect.register(registered.get(&new.node), new));
            }
            RegistrationChange::Unregister { nodes, .. } => {
                let known = nodes.iter().filter(|node| registered.get(node).is_some());
                known.for_each(|node| effect.unregister(node.clone()));
            }
            RegistrationChange::Expire { .. } => {}
        }
        effect
    }

    /// The map after it, with the times of its entries where they are kept.
    pub fn apply(&self, registered: &EntryMap, keep_times: bool) -> EntryMap {
        let changes = self.masters.iter().map(|(node, new)| {
            let new =
                new.as_ref().map(|(master, since)| (master.as_str(), keep_times.then_some(*since)));
            (node.as_str(), new)
        });
        registered.patched(changes)
    }
}

/// Who has changed what is registered lately, and why. Changes have numbers, and those that come
/// one after another from the same hand are remembered as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrationAuthors(Arc<VecDeque<(u64, Note)>>);

impl RegistrationAuthors {
    /// With who made the change of this number, which is at least that of the last one.
    pub fn push(&mut self, number: u64, note: Note) {
        let latest = Arc::make_mut(&mut self.0);
        match latest.back_mut().filter(|(_, last)| *last == note) {
            Some((last, _)) => *last = number,
            None => latest.push_back((number, note)),
        }
        if latest.len() > REMEMBERED {
            latest.pop_front();
        }
    }

    /// Who made the changes after this number, and why: the first few, and how many more.
    pub fn since(&self, number: u64) -> Note {
        let new = || self.0.iter().filter(|(made, _)| *made > number).map(|(_, note)| note);
        let by = few(new().filter_map(|note| note.by.as_deref()), ", ");
        let reason = few(new().filter_map(|note| note.reason.as_deref()), "; ");
        Note { by, reason: reason.map(|reason| reason.chars().take(LONGEST_REASON).collect()) }
    }
}

/// The first few of these, each once, and how many more there are.
fn few<'t>(texts: impl Iterator<Item = &'t str>, between: &str) -> Option<String> {
    let mut distinct = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    let named = distinct.iter().take(NAMED).copied().collect::<Vec<_>>().join(between);
    match distinct.len() {
        0 => None,
        1..=NAMED => Some(named),
        count => Some(format!("{named} and {} more", count - NAMED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(node: &str, master: &str) -> Registration {
        let (node, master) = (node.to_owned(), master.to_owned());
        let since = Timestamp::UNIX_EPOCH;
        Registration { node, master, since, until: None, note: Note::default() }
    }

    #[test]
    fn who_made_changes_since_another_is_told_in_brief_however_many_there_were() {
        let note = |by: &str, reason: Option<&str>| Note {
            by: Some(by.to_owned()),
            reason: reason.map(str::to_owned),
        };
        let mut authors = RegistrationAuthors::default();
        assert_eq!(authors.since(0), Note::default());
        authors.push(1, note("m1", None));
        for number in 2..9 {
            authors.push(number, note("anna", Some("rack 7")));
        }
        assert_eq!(authors.0.len(), 2, "one hand is remembered once");
        assert_eq!(authors.since(0), note("m1, anna", Some("rack 7")));
        assert_eq!(authors.since(1), note("anna", Some("rack 7")));
        assert_eq!(authors.since(8), Note::default());
        for number in 9..9 + 2 * REMEMBERED as u64 {
            authors.push(number, note(&format!("m{}", number % 7), Some(&"x".repeat(400))));
        }
        assert_eq!(authors.0.len(), REMEMBERED);
        let told = authors.since(8);
        let by = told.by.unwrap();
        assert!(by.ends_with(" and 4 more") && by.matches(',').count() == 2, "{by}");
        assert!(told.reason.unwrap().len() <= LONGEST_REASON);
    }

    #[test]
    fn nodes_are_registered_moved_or_stay_and_the_map_says_so() {
        let before: EntryMap = [("a", "m1"), ("b", "m1"), ("d", "m2")].into_iter().collect();
        let register = RegistrationChange::Register(vec![
            registration("b", "m3"),
            registration("d", "m2"),
            registration("c", "m2"),
        ]);
        let effect = RegistrationEffect::preview(&register, &before);
        let expected =
            RegistrationCounts { registered: 1, moved: 1, unchanged: 1, unregistered: 0 };
        assert_eq!(effect.counts, expected);
        let after = effect.apply(&before, false);
        let entries: Vec<_> = after.iter().collect();
        assert_eq!(entries, [("a", "m1"), ("b", "m3"), ("c", "m2"), ("d", "m2")]);

        let unregister = |node: &str| RegistrationChange::Unregister {
            nodes: vec![node.to_owned()],
            only_of: None,
            missing_ok: true,
        };
        let effect = RegistrationEffect::preview(&unregister("a"), &after);
        assert_eq!((effect.counts.unregistered, effect.apply(&after, false).get("a")), (1, None));
        let nothing = RegistrationEffect::preview(&unregister("x"), &after);
        assert_eq!(nothing, RegistrationEffect::default());
    }
}
