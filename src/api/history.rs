//! What the map was before, and what lies between two revisions.
//!
//! All begins with the map in force. What leads back from it is read from the store, and what was
//! not kept there is no answer: an older map is the right one or none.

use std::ops::RangeInclusive;
use std::sync::Arc;

use mapsmith_core::history::{Chain, Difference, Patch, RevisionRecord, Unreached, before_in};
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::{EntryMap, Revision};
use tokio::sync::Semaphore;

use super::requests::{self, Page};
use super::types::{DiffReport, RevisionReport, RevisionState, RevisionsReport};
use super::{Api, Error};
use crate::store::{HistoryReader, SqliteStore, StoreErrorKind};

/// How many read the history at once: each may need as much memory as a map.
const READERS: usize = 2;
/// How many revisions somebody is told of who takes an older one for that in force.
const SHOWN_SINCE: usize = 10;
/// The most revisions that are told of after nobody could for a while.
const MOST_MISSED: usize = 100;
/// How much of the changes' text is made at once.
const CHUNK: usize = 64 * 1024;

/// What reads the history.
pub(crate) struct HistoryAccess {
    store: SqliteStore,
    readers: Semaphore,
}

impl HistoryAccess {
    pub fn new(store: SqliteStore) -> Self {
        Self { store, readers: Semaphore::new(READERS) }
    }
}

/// The map in force, and the newest one that is kept: the same, but where that failed.
#[derive(Clone)]
struct Newest {
    in_force: Arc<Revision>,
    kept: Option<Arc<Revision>>,
}

/// The way from the map in force to two others.
pub struct Changes {
    newest: Arc<EntryMap>,
    newer: Patch,
    older: Patch,
    /// Whether it is asked for from the newer one to the older one.
    is_reversed: bool,
}

impl Changes {
    fn difference(&self) -> Difference<'_> {
        let difference = Difference::new(&self.newest, &self.newer, &self.older);
        if self.is_reversed { difference.reversed() } else { difference }
    }

    /// A line of JSON for each changed node, piece by piece. Blocks as long as it takes to find them.
    fn into_lines(self) -> impl Iterator<Item = Vec<u8>> + Send {
        let nodes: Vec<Box<str>> =
            self.difference().behind(None).map(|change| change.node.into()).collect();
        let mut nodes = nodes.into_iter();
        std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK {
                let Some(node) = nodes.next() else { break };
                let from = self.older.master(&node, &self.newest);
                let to = self.newer.master(&node, &self.newest);
                let line = serde_json::json!({"node": &*node, "from": from, "to": to});
                chunk.extend_from_slice(line.to_string().as_bytes());
                chunk.push(b'\n');
            }
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

/// How many revisions are looked at for the last change of a node.
const LOOKED_BACK: usize = 50;
/// How many changes of nodes these may have together: a person is waiting.
const MOST_LOOKED_AT: usize = 100_000;

impl Api {
    /// A page of the revisions that are kept, the newest first.
    ///
    /// # Errors
    /// [`Error::NoStore`], or the store can't be read.
    pub async fn revisions(&self, page: &Page) -> Result<RevisionsReport, Error> {
        let behind = match page.after.as_deref().map(str::parse::<u64>) {
            None => u64::MAX,
            Some(Ok(number)) => number,
            Some(Err(_)) => 0,
        };
        let error = self.decision.borrow().map.history.error.clone();
        let all = self.all_revisions().await?;
        let (total, mut rest) = (all.len(), all.into_iter());
        let mut rest = rest.by_ref().filter(|revision| revision.record.number < behind);
        let items: Vec<_> = rest.by_ref().take(page.limit).collect();
        let more = rest.next().is_some();
        let last = items.last().filter(|_| more);
        let next = last.map(|last| requests::cursor(&last.record.number.to_string()));
        Ok(RevisionsReport { items, total, next, error })
    }

    /// A revision that is kept.
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::NoRevision`], or the store can't be read.
    pub async fn revision_report(&self, number: u64) -> Result<RevisionReport, Error> {
        let all = self.all_revisions().await?;
        let found = all.into_iter().find(|revision| revision.record.number == number);
        found.ok_or(Error::NoRevision(number))
    }

    async fn all_revisions(&self) -> Result<Vec<RevisionReport>, Error> {
        let newest = self.newest()?;
        let records = self.read(|reader| reader.records()).await?;
        let chain = newest.chain(&records);
        let in_force = newest.in_force.number;
        let state = |number: u64| match chain.reaches(number) {
            _ if number == in_force => RevisionState::InForce,
            true => RevisionState::Kept,
            false => RevisionState::Lost,
        };
        // What is beyond the map in force never was.
        let were = records.into_iter().filter(|record| record.number <= in_force);
        Ok(were.map(|record| RevisionReport { state: state(record.number), record }).collect())
    }

    /// A page of what lies between two revisions; without `from` what `to` changed.
    ///
    /// # Errors
    /// [`Error::NotKept`], [`Error::NothingBefore`], [`Error::NoRevision`], [`Error::NoStore`], or
    /// the store can't be read.
    pub async fn diff(&self, from: Option<u64>, to: u64, page: &Page) -> Result<DiffReport, Error> {
        let from = match from {
            Some(from) => from,
            None => {
                let record = self.revision_report(to).await?.record;
                record.previous.ok_or(Error::NothingBefore(to))?
            }
        };
        let changes = self.changes(from, to).await?;
        let page = page.clone();
        let report = tokio::task::spawn_blocking(move || report(from, to, &changes, &page));
        report.await.map_err(|error| Error::Store(error.to_string()))
    }

    /// What lies between two revisions.
    ///
    /// # Errors
    /// [`Error::NotKept`], [`Error::NoRevision`], or the store can't be read.
    pub async fn changes(&self, from: u64, to: u64) -> Result<Changes, Error> {
        let newest = self.newest()?;
        let (older, newer) = (from.min(to), from.max(to));
        let [newer_patch, older_patch] = self.patches(&newest, newer, older).await?;
        Ok(Changes {
            newest: Arc::clone(&newest.in_force.entries),
            newer: newer_patch,
            older: older_patch,
            is_reversed: from > to,
        })
    }

    /// What has changed since a revision, a line of JSON for each node, and the number of the map in
    /// force. A number that is not
    /// reached yet is of a Mapsmith that was restored: what it knew is not kept.
    ///
    /// # Errors
    /// [`Error::NotKept`], [`Error::NotReached`], or the store can't be read.
    pub async fn changes_since(
        &self,
        known: u64,
    ) -> Result<(u64, impl Iterator<Item = Vec<u8>> + Send + use<>), Error> {
        let in_force = self.map_in_force()?.number;
        let changes = match self.changes(known, in_force).await {
            Ok(changes) => changes,
            Err(Error::NoRevision(number)) => {
                let oldest = self.oldest_kept().await.or(Some(in_force));
                return Err(Error::NotReached { number, in_force, oldest });
            }
            Err(error) => return Err(error),
        };
        let lines = tokio::task::spawn_blocking(move || changes.into_lines());
        Ok((in_force, lines.await.map_err(|error| Error::Store(error.to_string()))?))
    }

    /// The oldest revision whose map can be had.
    async fn oldest_kept(&self) -> Option<u64> {
        let newest = self.newest().ok()?;
        newest.chain(&self.read(|reader| reader.records()).await.ok()?).oldest()
    }

    /// The map of a revision.
    ///
    /// # Errors
    /// [`Error::NotKept`], [`Error::NoRevision`], or the store can't be read.
    pub async fn map_of(&self, number: u64) -> Result<Arc<EntryMap>, Error> {
        let newest = self.newest()?;
        let entries = Arc::clone(&newest.in_force.entries);
        if number == newest.in_force.number {
            return Ok(entries);
        }
        if number > newest.in_force.number {
            return Err(Error::NoRevision(number));
        }
        let [_, patch] = self.patches(&newest, newest.in_force.number, number).await?;
        let map = tokio::task::spawn_blocking(move || patch.apply(&entries));
        Ok(Arc::new(map.await.map_err(|error| Error::Store(error.to_string()))?))
    }

    /// The number in force, and the revisions after one, the oldest first: those of this process,
    /// and before them what is kept. Without a number to begin from, those of this process.
    pub async fn revisions_after(&self, last: Option<u64>) -> (Option<u64>, Vec<RevisionSummary>) {
        let (in_force, mut revisions) = {
            let map = &self.decision.borrow().map;
            let number = map.in_force.as_ref().map(|revision| revision.number);
            (number, map.log.since(last.unwrap_or_default()))
        };
        let until = match revisions.first() {
            Some(first) => Some(first.number.saturating_sub(1)),
            None => in_force,
        };
        let (Some(last), Some(until)) = (last, until) else { return (in_force, revisions) };
        if self.history.is_some() && until > last {
            let before = self.kept_between(last.saturating_add(1)..=until).await;
            revisions.splice(0..0, before);
        }
        (in_force, revisions)
    }

    /// What is kept of these revisions, the oldest first. What can't be read is as if it were not
    /// kept.
    async fn kept_between(&self, numbers: RangeInclusive<u64>) -> Vec<RevisionSummary> {
        let (Ok(newest), Ok(records)) = (self.newest(), self.read(|it| it.records()).await) else {
            return Vec::new();
        };
        // Of a number that never came into force a row may have stayed; nothing leads to that.
        let chain = newest.chain(&records);
        let mut between: Vec<_> = records
            .into_iter()
            .filter(|it| numbers.contains(&it.number))
            .filter(|it| chain.reaches(it.number))
            .take(MOST_MISSED)
            .map(RevisionSummary::from)
            .collect();
        between.reverse();
        between
    }

    /// What the sources had said at a revision.
    ///
    /// # Errors
    /// [`Error::NotKept`], [`Error::NoRevision`], [`Error::NoStore`], or the store can't be read.
    pub async fn base_of(&self, number: u64) -> Result<Arc<EntryMap>, Error> {
        let newest = self.newest()?;
        if number > newest.in_force.number {
            return Err(Error::NoRevision(number));
        }
        let read = move |reader: HistoryReader| Ok(newest.base(&reader, number));
        let base = self.read(read).await.map_err(|error| match error {
            Error::NoStore(_) => Error::NoStore("rollbacks"),
            other => other,
        });
        base?.map(Arc::new)
    }

    /// The latest revisions after one, the newest first.
    pub(super) async fn records_since(&self, number: u64) -> Result<Vec<RevisionRecord>, Error> {
        let revisions = self.all_revisions().await?.into_iter().map(|revision| revision.record);
        Ok(revisions.take_while(|record| record.number > number).take(SHOWN_SINCE).collect())
    }

    /// The latest revision that changed a node, and its master before; none where none of the last
    /// few did, or they are not kept. The changes after `from` are known not to be of it.
    pub(super) async fn kept_change(
        &self,
        node: String,
        in_force: u64,
        from: u64,
    ) -> Option<(RevisionRecord, Option<String>)> {
        self.history.as_ref()?;
        // What can't be read is as if it were not kept: the rest of the answer is as good.
        self.read(move |reader| latest_change(&reader, &node, in_force, from)).await.ok()?
    }

    /// The ways from the map in force to a revision, and to an older one or the same.
    async fn patches(&self, newest: &Newest, newer: u64, older: u64) -> Result<[Patch; 2], Error> {
        let in_force = newest.in_force.number;
        if newer.max(older) > in_force {
            return Err(Error::NoRevision(newer.max(older)));
        }
        if older == in_force {
            return Ok([Patch::default(), Patch::default()]);
        }
        if self.history.is_none() {
            return Err(Error::NotKept { number: older, oldest: Some(in_force) });
        }
        let newest = newest.clone();
        let read = move |reader: HistoryReader| Ok(newest.patches(&reader, newer, older));
        self.read(read).await?
    }

    fn newest(&self) -> Result<Newest, Error> {
        if !self.settings.keeps_map() {
            return Err(Error::NoMap);
        }
        // Both of one decision.
        let map = &self.decision.borrow().map;
        let in_force = map.in_force.clone().ok_or(Error::NotReady)?;
        Ok(Newest { in_force, kept: map.history.kept.clone() })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(HistoryReader) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, Error> {
        let history = self.history.as_ref().ok_or(Error::NoStore("revisions"))?;
        let unusable = |error: &dyn std::fmt::Display| Error::Store(error.to_string());
        let _reader = history.readers.acquire().await.map_err(|error| unusable(&error))?;
        history.store.read_history(work).await.map_err(|error| unusable(&error))
    }
}

impl Newest {
    fn chain(&self, records: &[RevisionRecord]) -> Chain {
        let start = self.kept.as_ref().unwrap_or(&self.in_force);
        Chain::new(start.number, records)
    }

    fn patches(&self, reader: &HistoryReader, newer: u64, older: u64) -> Result<[Patch; 2], Error> {
        let records = reader.records().map_err(|error| Error::Store(error.to_string()))?;
        let chain = self.chain(&records);
        let start = self.kept.as_ref().unwrap_or(&self.in_force);
        let go_back = |patch: &mut Patch, from: u64, to: u64| {
            chain.go_back(patch, from, to, |number| reader.blocks(number)).map_err(|error| {
                match error {
                    Unreached::NotKept => Error::NotKept { number: to, oldest: chain.oldest() },
                    other => Error::Store(other.to_string()),
                }
            })
        };
        let mut patch = match Arc::ptr_eq(&start.entries, &self.in_force.entries) {
            true => Patch::default(),
            false => Patch::between(&start.entries, &self.in_force.entries),
        };
        let (newer_patch, from) = match newer == self.in_force.number {
            true => (Patch::default(), start.number),
            false => {
                go_back(&mut patch, start.number, newer)?;
                (patch.clone(), newer)
            }
        };
        go_back(&mut patch, from, older)?;
        Ok([newer_patch, patch])
    }

    /// What the sources had said at a revision.
    fn base(&self, reader: &HistoryReader, number: u64) -> Result<EntryMap, Error> {
        let unusable = |error: &dyn std::fmt::Display| Error::Store(error.to_string());
        let records = reader.records().map_err(|error| unusable(&error))?;
        let chain = self.chain(&records);
        let known = records.iter().filter(|it| it.base.is_some() && chain.reaches(it.number));
        let not_kept =
            || Error::NotKept { number, oldest: known.clone().map(|it| it.number).min() };
        let patches = self.patches(reader, self.in_force.number, number);
        let [_, mut patch] = patches.map_err(|error| match error {
            Error::NotKept { .. } => not_kept(),
            other => other,
        })?;
        let blocks = reader.base_blocks(number).map_err(|error| unusable(&error))?;
        for block in blocks.ok_or_else(not_kept)? {
            patch.take(&block).map_err(|error| unusable(&error))?;
        }
        Ok(patch.apply(&self.in_force.entries))
    }
}

/// Follows the kept revisions back from the one in force, some way.
fn latest_change(
    reader: &HistoryReader,
    node: &str,
    in_force: u64,
    from: u64,
) -> Result<Option<(RevisionRecord, Option<String>)>, StoreErrorKind> {
    let (mut next, mut rows) = (Some(in_force), 0);
    for record in reader.records()?.into_iter().take(LOOKED_BACK) {
        if Some(record.number) != next {
            continue;
        }
        next = record.previous;
        if record.number > from {
            continue;
        }
        rows += record.counts.total();
        if rows > MOST_LOOKED_AT {
            break;
        }
        for block in reader.blocks(record.number)? {
            match before_in(&block, node) {
                Ok(None) => {}
                Ok(Some(before)) => return Ok(Some((record, before))),
                Err(_) => return Ok(None),
            }
        }
    }
    Ok(None)
}

fn report(from: u64, to: u64, changes: &Changes, page: &Page) -> DiffReport {
    let difference = changes.difference();
    let mut behind = difference.behind(page.after.as_deref());
    let items: Vec<_> = behind.by_ref().take(page.limit).collect();
    let more = behind.len() > 0;
    let next = items.last().filter(|_| more).map(|last| requests::cursor(&last.node));
    DiffReport {
        from,
        to,
        counts: difference.counts(),
        shift: difference.shift(),
        total: difference.len(),
        items,
        next,
    }
}
