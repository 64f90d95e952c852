//! Rows -> entries: names put into HAProxy's words, invalid rows left out with their reason,
//! repeats settled.
//!
//! Built for a million rows: what a row costs is its key's bytes, an entry and, where rows carry
//! one, a timestamp.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::node_map::Repeated;
use mapsmith_core::{EntryMap, EntryMapBuilder, Invalid, Rejections, names};
use rustc_hash::FxHashMap;

use super::Rows;

/// How a registry's names become HAProxy's.
#[derive(Debug)]
pub(crate) struct Names {
    lowercase: bool,
    masters: FxHashMap<String, String>,
    keep_times: bool,
}

impl Names {
    /// Nodes in lower case (ASCII) if `lowercase`; masters renamed by `masters`, others as they
    /// are.
    pub(crate) fn new(lowercase: bool, masters: &BTreeMap<String, String>) -> Self {
        Self {
            lowercase,
            masters: masters
                .iter()
                .map(|(registry, haproxy)| (registry.clone(), haproxy.clone()))
                .collect(),
            keep_times: false,
        }
    }

    /// Keeps the rows' timestamps beside the entries.
    pub(crate) fn with_times(self, keep_times: bool) -> Self {
        Self { keep_times, ..self }
    }

    /// Whether every name stays as it is.
    pub(crate) fn keep_all(&self) -> bool {
        !self.lowercase && self.masters.is_empty()
    }

    fn master<'a>(&'a self, registry: &'a str) -> &'a str {
        if self.masters.is_empty() {
            registry
        } else {
            self.masters.get(registry).map_or(registry, String::as_str)
        }
    }
}

/// A field of a row, as far as a map cares.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// The row has no such field.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A text.
    Text(Cow<'a, str>),
    /// A number, truth value, list or object.
    Other,
}

/// A node, its master, and when that was said.
#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub node: Field<'a>,
    pub master: Field<'a>,
    pub producer_timestamp: Field<'a>,
}

/// Makes an entry of a row; none of what stands for no node.
pub(crate) type EntryOf = fn(&Row<'_>) -> Option<Row<'static>>;

/// A moment before all others: rows that say none.
const NEVER: i64 = i64::MIN;

/// Takes rows in any order.
#[derive(Debug)]
pub(crate) struct Collector {
    names: Arc<Names>,
    builder: EntryMapBuilder,
    rejections: Rejections,
    /// Milliseconds of each taken row's timestamp, in the order taken; shorter while rows carry
    /// none. Only repeats need them, but which rows repeat shows at the end only, and 8 bytes a row
    /// for that while cost less than an index of keys.
    moments: Vec<i64>,
    /// The newest timestamp of a taken row.
    newest: Option<Timestamp>,
    lowered: String,
    /// Nodes whose row names no valid master, where a delta asks for them.
    withdrawn: Option<Vec<String>>,
    /// What makes an entry of a row; none where a row is one.
    entry_of: Option<EntryOf>,
}

/// What the rows came to.
#[derive(Debug)]
pub(crate) struct Collected {
    pub entries: EntryMap,
    pub rejections: Rejections,
    /// Nodes whose row names no valid master; empty unless asked for.
    pub withdrawn: Vec<String>,
}

impl Collector {
    /// For a whole answer.
    pub(crate) fn new(names: Arc<Names>) -> Self {
        Self {
            names,
            builder: EntryMapBuilder::new(),
            rejections: Rejections::default(),
            moments: Vec::new(),
            newest: None,
            lowered: String::new(),
            withdrawn: None,
            entry_of: None,
        }
    }

    /// Has rows read so.
    pub(crate) fn with_entries_of(self, entry_of: Option<EntryOf>) -> Self {
        Self { entry_of, ..self }
    }

    /// For the rows that changed: a node that lost its master is noted beyond the bounded
    /// [`Rejections`].
    pub(crate) fn for_delta(names: Arc<Names>) -> Self {
        Self { withdrawn: Some(Vec::new()), ..Self::new(names) }
    }

    /// Takes one row, or leaves it out with its reason.
    pub(crate) fn take(&mut self, row: &Row<'_>) {
        match self.entry_of {
            None => self.take_entry(row),
            Some(entry_of) => entry_of(row).iter().for_each(|entry| self.take_entry(entry)),
        }
    }

    fn take_entry(&mut self, row: &Row<'_>) {
        let node = match &row.node {
            Field::Text(node) => &**node,
            Field::Absent | Field::Null => {
                return self.rejections.push("(a row without a node)", Invalid::NoNode);
            }
            Field::Other => {
                return self
                    .rejections
                    .push("(a row whose node is not a string)", Invalid::NotString);
            }
        };
        let node = if self.names.lowercase && node.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.lowered.clear();
            self.lowered.push_str(node);
            self.lowered.make_ascii_lowercase();
            &self.lowered
        } else {
            node
        };
        let pushed = match &row.master {
            Field::Text(master) => self.builder.push(node, self.names.master(master)),
            Field::Absent | Field::Null => Err(Invalid::NoMaster),
            Field::Other => Err(Invalid::NotString),
        };
        match pushed {
            Ok(()) => self.note_moment(&row.producer_timestamp),
            Err(reason) => {
                self.rejections.push(node, reason);
                if let Some(withdrawn) = &mut self.withdrawn
                    && names::check_key(node).is_ok()
                {
                    withdrawn.push(node.to_owned());
                }
            }
        }
    }

    /// Notes something that stands where a row should, and is none.
    pub(crate) fn take_no_row(&mut self) {
        self.rejections.push("(a row that is not an object)", Invalid::NotString);
    }

    /// Notes an entry that was found invalid before it came here.
    pub(crate) fn reject(&mut self, node: &str, reason: Invalid) {
        self.rejections.push(node, reason);
    }

    /// How many valid rows were taken, repeats included.
    pub(crate) fn taken(&self) -> usize {
        self.builder.len()
    }

    /// The newest timestamp of a taken row; none where rows carry none.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Why a row was left out, if one was.
    pub(crate) fn a_rejection(&self) -> Option<Invalid> {
        self.rejections.named.values().next().copied()
    }

    fn note_moment(&mut self, stamp: &Field<'_>) {
        let Field::Text(stamp) = stamp else { return };
        if let Ok(stamp) = stamp.parse::<Timestamp>() {
            // Rows before this one may have carried none.
            self.moments.resize(self.builder.len() - 1, NEVER);
            self.moments.push(stamp.as_millisecond());
            self.newest = self.newest.max(Some(stamp));
        }
    }

    /// Sorts, and settles repeats: equal masters are one entry; of different ones the row with the
    /// newest timestamp stays. Where none is newest the entry is disputed: the master in force
    /// stays, and for a node without one it is the alphabetically first, so that the order of an
    /// answer never makes a route flap. Takes CPU time in proportion to the rows: not for an async
    /// task.
    pub(crate) fn finish(self) -> Collected {
        let Self { names, mut builder, mut rejections, moments, withdrawn, .. } = self;
        if names.keep_times {
            // NEVER is before every time there is.
            let times = moments.iter().map(|moment| Timestamp::from_millisecond(*moment).ok());
            builder = builder.with_times(times);
        }
        let entries = builder.finish_with(|repeated| {
            if repeated.candidates.iter().any(|(_, master)| *master != repeated.candidates[0].1) {
                rejections.push(repeated.key, Invalid::Conflict);
            }
            let chosen = newest_then_first(&repeated, &moments);
            let moment = |at: usize| moments.get(at).copied().unwrap_or(NEVER);
            let (at, master) = repeated.candidates[chosen];
            (
                chosen,
                repeated
                    .candidates
                    .iter()
                    .any(|(other, named)| *named != master && moment(*other) == moment(at)),
            )
        });
        Collected { entries, rejections, withdrawn: withdrawn.unwrap_or_default() }
    }
}

fn newest_then_first(repeated: &Repeated<'_>, moments: &[i64]) -> usize {
    let moment = |position: usize| moments.get(position).copied().unwrap_or(NEVER);
    let ranked = repeated.candidates.iter().enumerate();
    ranked
        .max_by(|(_, (a_at, a)), (_, (b_at, b))| moment(*a_at).cmp(&moment(*b_at)).then(b.cmp(a)))
        .map_or(0, |(index, _)| index)
}

impl Rows for Collector {
    type Content = EntryMap;

    fn settle(self) -> (EntryMap, Rejections) {
        let Collected { entries, rejections, .. } = self.finish();
        (entries, rejections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Field<'_> {
        Field::Text(text.into())
    }

    fn collect(names: Names, rows: &[(&str, &str, Option<&str>)]) -> Collected {
        let mut collector = Collector::new(Arc::new(names));
        for (node, master, stamp) in rows {
            let producer_timestamp = stamp.map_or(Field::Absent, text);
            collector.take(&Row { node: text(node), master: text(master), producer_timestamp });
        }
        collector.finish()
    }

    fn plain() -> Names {
        Names::new(true, &BTreeMap::new())
    }

    #[test]
    fn nodes_are_lower_cased_and_masters_renamed() {
        let masters = BTreeMap::from([("Puppet00".to_owned(), "master1".to_owned())]);
        let rows = [("Node.É", "Puppet00", None), ("b", "Other", None)];
        let collected = collect(Names::new(true, &masters), &rows);
        assert_eq!(
            collected.entries.iter().collect::<Vec<_>>(),
            [("b", "Other"), ("node.É", "master1")]
        );
        let collected = collect(Names::new(false, &masters), &rows);
        assert_eq!(collected.entries.get("Node.É"), Some("master1"));
    }

    #[test]
    fn a_node_named_twice_with_one_master_is_one_entry() {
        let masters = BTreeMap::from([("old".to_owned(), "m1".to_owned())]);
        let collected =
            collect(Names::new(true, &masters), &[("a", "m1", None), ("A", "old", None)]);
        assert_eq!(collected.entries.iter().collect::<Vec<_>>(), [("a", "m1")]);
        assert_eq!(collected.rejections, Rejections::default());
    }

    #[test]
    fn of_two_masters_the_newest_row_counts_whatever_the_order() {
        let (old, new) = ("2026-11-20T10:25:04.290Z", "2026-11-20T11:25:04.291+01:00");
        for rows in [
            [("z", "m0", None), ("a", "m1", Some(old)), ("a", "m2", Some(new))],
            [("a", "m2", Some(new)), ("z", "m0", None), ("a", "m1", Some(old))],
            [("a", "m2", Some(new)), ("a", "m1", None), ("z", "m0", None)],
            [("a", "m1", Some("no time")), ("z", "m0", Some(old)), ("a", "m2", Some(new))],
        ] {
            let collected = collect(plain(), &rows);
            assert_eq!(
                (collected.entries.get("a"), collected.entries.disputed()),
                (Some("m2"), 0),
                "{rows:?}"
            );
            assert_eq!(collected.rejections.counts[&Invalid::Conflict], 1);
            assert_eq!(collected.rejections.named["a"], Invalid::Conflict);
        }
    }

    #[test]
    fn of_two_masters_without_a_newer_one_the_first_by_name_is_disputed_whatever_the_order() {
        let at = Some("2026-11-20T10:25:04.290Z");
        for rows in [
            [("a", "m2", None), ("a", "m1", None), ("a", "m3", None)],
            [("a", "m3", at), ("a", "m2", at), ("a", "m1", at)],
        ] {
            let entries = collect(plain(), &rows).entries;
            assert_eq!((entries.get("a"), entries.disputed()), (Some("m1"), 1), "{rows:?}");
        }
    }

    #[test]
    fn a_delta_remembers_each_node_that_lost_its_master() {
        let mut collector = Collector::for_delta(Arc::new(plain()));
        for (node, master) in
            [("A", Field::Null), ("b", text("")), ("c d", Field::Null), ("e", text("m1"))]
        {
            collector.take(&Row { node: text(node), master, ..Row::default() });
        }
        assert_eq!(collector.finish().withdrawn, ["a", "b"]);
    }
}
