//! What a source said, and when.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::{self, Invalid};
use crate::node_map::EntryMap;
use crate::registrations::RegistrationAuthors;
use crate::status::SourceStatus;

/// What a source can say: the entries of the node map, or a list of servers.
pub trait Content: fmt::Debug + Clone + PartialEq + Send + Sync + 'static {
    fn count(&self) -> usize;
}

impl Content for EntryMap {
    fn count(&self) -> usize {
        self.len()
    }
}

/// A source's whole answer in HAProxy's words: nodes lower-cased if the settings say so, masters
/// renamed by `[source.masters]`.
#[derive(Debug, Clone)]
pub struct Snapshot<C = EntryMap> {
    pub entries: Arc<C>,
    pub rejections: Arc<Rejections>,
    /// When the source last answered, be it only that nothing changed.
    pub answered_at: Timestamp,
}

/// What a source's poller knows: its last good answer, how it stands, and which poll requests it
/// has covered.
#[derive(Debug, Clone)]
pub struct SourceState<C = EntryMap> {
    /// The last good answer; none before the first.
    pub snapshot: Option<Snapshot<C>>,
    pub status: SourceStatus,
    /// The number of the last poll request that a finished poll, good or failed, covers.
    pub answered: u64,
    /// The number of the latest change, where it is what is registered with Mapsmith itself: nobody
    /// is asked then, and it answers at every moment.
    pub registered: Option<u64>,
    /// Who made the latest of those changes.
    pub authors: RegistrationAuthors,
}

impl<C> SourceState<C> {
    pub fn before_first_poll(name: String, kind: String, required: bool) -> Self {
        let status = SourceStatus {
            name,
            kind,
            required,
            entries: None,
            rejections: Rejections::default(),
            answered_at: None,
            error: None,
            warning: None,
            watch: None,
            last_poll: None,
        };
        let authors = RegistrationAuthors::default();
        Self { snapshot: None, status, answered: 0, registered: None, authors }
    }

    /// As it stands at a time: what is registered here is known at each.
    pub fn at(mut self, now: Timestamp) -> Self {
        if self.registered.is_some() {
            self.status.answered_at = Some(now);
            self.snapshot.iter_mut().for_each(|snapshot| snapshot.answered_at = now);
        }
        self
    }
}

/// The most entries that are kept by name among the rejected ones; the rest is only counted.
pub const NAMED_REJECTIONS: usize = 1000;

/// The entries of an answer that are no valid keys or values: each is left out, counted and shown;
/// the rest goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejections {
    /// How many entries were left out, by reason.
    pub counts: BTreeMap<Invalid, u64>,
    /// The first [`NAMED_REJECTIONS`] of them: node (cut to a readable length) and reason.
    pub named: BTreeMap<String, Invalid>,
}

impl Rejections {
    /// Notes one left-out entry. `node` may be any text the registry sent.
    pub fn push(&mut self, node: &str, reason: Invalid) {
        *self.counts.entry(reason).or_default() += 1;
        if self.named.len() < NAMED_REJECTIONS {
            self.named.entry(sanitize(node)).or_insert(reason);
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Why `node` was left out, if it is among the named ones.
    pub fn reason(&self, node: &str) -> Option<Invalid> {
        self.named.get(&sanitize(node)).copied()
    }
}

/// A name that may hold anything, made safe for a log line: control and invisible characters
/// escaped, at most 100 characters.
pub(super) fn sanitize(name: &str) -> String {
    name.chars()
        .take(100)
        .flat_map(|character| {
            if names::is_invisible(character) {
                character.escape_default().collect()
            } else {
                vec![character]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_counted_beyond_the_ones_that_are_named() {
        let mut rejections = Rejections::default();
        for number in 0..NAMED_REJECTIONS + 5 {
            rejections.push(&format!("node {number}"), Invalid::KeyWhitespace);
        }
        rejections.push("n", Invalid::NoMaster);
        assert_eq!(rejections.total(), 1006);
        assert_eq!(rejections.counts[&Invalid::KeyWhitespace], 1005);
        assert_eq!(rejections.named.len(), NAMED_REJECTIONS);
        assert_eq!(rejections.reason("node 3"), Some(Invalid::KeyWhitespace));
    }

    #[test]
    fn a_rejected_name_cannot_break_a_log_line() {
        let mut rejections = Rejections::default();
        rejections.push("a\n\u{1b}[31mb", Invalid::KeyWhitespace);
        assert_eq!(rejections.named.keys().collect::<Vec<_>>(), ["a\\n\\u{1b}[31mb"]);
        assert_eq!(rejections.reason("a\n\u{1b}[31mb"), Some(Invalid::KeyWhitespace));
    }
}
