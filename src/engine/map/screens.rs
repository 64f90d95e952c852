//! Rows that a HAProxy's map refuses stay out of the map file: HAProxy would not start from it. See
//! [`crate::engine::rows`].
//!
//! A refused row is rejected as one that the registry garbled: the others go on, and the entry in
//! force stays where there is one. It comes back once the registry names another master, or another
//! HAProxy process takes it. While no HAProxy with such a map answers, new rows wait: nothing needs
//! them in memory then, and a restart loads the file.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use mapsmith_core::desired::guard::{self, Limits, Proposal, Recent};
use mapsmith_core::plan::Diff;
use mapsmith_core::rejection::NAMED_ROWS;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::{EntryMap, EntryMapBuilder, RejectedRow, RejectedRows};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::engine::rows::{RefusedRow, RowQuestion, RowScreen};

/// How long the instances may take to answer a question, and beyond that so long for each row.
const ANSWER_BOUND: Duration = Duration::from_secs(5);
/// See [`ANSWER_BOUND`].
const A_ROW: Duration = Duration::from_micros(20);

/// Which row is rejected: by which instance, and why.
#[derive(Debug)]
struct Rejection {
    master: Box<str>,
    instance: usize,
    reason: Box<str>,
}

/// What is known of one instance.
#[derive(Debug)]
struct Screened {
    screen: RowScreen,
    /// The process whose refusals count.
    process: u64,
    /// The refusals that were taken in.
    refused: Arc<[RefusedRow]>,
}

/// What is left of a desired map.
#[derive(Debug)]
pub(super) struct Sifted {
    /// The map, and what it changes; none where fewer entries are left than a map must have.
    pub(super) map: Option<(Arc<EntryMap>, Diff)>,
    /// What is left out.
    pub(super) rejected: RejectedRows,
}

/// The instances, and the rows that they refuse.
#[derive(Debug, Default)]
pub(super) struct Screens {
    instances: Vec<Screened>,
    /// By node.
    rejected: FxHashMap<Box<str>, Vec<Rejection>>,
    /// Rows that nobody could be asked about at the last decision.
    waiting: bool,
}

impl Screens {
    pub(super) fn new(screens: Vec<RowScreen>) -> Self {
        let instances = screens.into_iter().map(|screen| Screened {
            screen,
            process: 0,
            refused: Arc::new([]),
        });
        Self { instances: instances.collect(), ..Self::default() }
    }

    /// Whether the first try to observe each instance is over. An instance's task that ended tells
    /// nothing more.
    pub(super) fn all_tried(&self) -> bool {
        self.instances.iter().all(|instance| {
            let facts = &instance.screen.facts;
            facts.borrow().tried || facts.has_changed().is_err()
        })
    }

    /// Whether each instance could not be reached so far.
    pub(super) fn unreached(&self) -> impl Iterator<Item = bool> {
        self.instances.iter().map(|instance| !instance.screen.facts.borrow().answers)
    }

    /// Resolves when an instance tells something else than before.
    pub(super) async fn changed(&mut self) {
        let alive = self
            .instances
            .iter_mut()
            .filter(|instance| instance.screen.facts.has_changed().is_ok());
        let changes: Vec<_> =
            alive.map(|instance| Box::pin(instance.screen.facts.changed())).collect();
        if changes.is_empty() || select_all(changes).await.0.is_err() {
            std::future::pending().await
        }
    }

    /// Whether rows wait for an instance that can be asked.
    pub(super) fn waiting(&self) -> bool {
        self.waiting
    }

    /// Takes in what the instances tell. Whether the map may have to be another one for that.
    pub(super) fn take_in(&mut self) -> bool {
        let mut news = self.waiting;
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let facts = instance.screen.facts.borrow_and_update().clone();
            if facts.process != instance.process {
                instance.process = facts.process;
                let before = self.rejected.len();
                self.rejected.retain(|_, rejections| {
                    rejections.retain(|rejection| rejection.instance != number);
                    !rejections.is_empty()
                });
                news |= self.rejected.len() != before;
            }
            if !Arc::ptr_eq(&facts.refused, &instance.refused) {
                news |= !facts.refused.is_empty();
                for row in facts.refused.iter() {
                    reject(&mut self.rejected, &row.node, &row.master, number, &row.reason);
                }
                instance.refused = facts.refused;
            }
        }
        news
    }

    /// The desired map without the rows that a HAProxy refuses, and the way there from the one in
    /// force. An entry in force that is refused goes too, within what the guard lets go.
    pub(super) async fn sift(
        &mut self,
        desired: Arc<EntryMap>,
        before: &EntryMap,
        diff: Diff,
        limits: &Limits,
    ) -> Sifted {
        self.waiting = false;
        let restricts = |instance: &Screened| instance.screen.facts.borrow().restricted.is_some();
        if self.rejected.is_empty() && !self.instances.iter().any(restricts) {
            return Sifted { map: Some((desired, diff)), rejected: RejectedRows::default() };
        }
        self.rejected.retain(|node, rejections| {
            rejections
                .retain(|row| [desired.get(node), before.get(node)].contains(&Some(&*row.master)));
            !rejections.is_empty()
        });
        let changed = diff.added.iter().copied().chain(diff.moved.iter().map(|(_, at)| *at));
        let entry = |at: u32| (desired.key(at as usize), desired.value(at as usize));
        let asked: Arc<[(String, String)]> = changed
            .map(entry)
            .filter(|(node, master)| self.refused(node, master).is_none())
            .map(|(node, master)| (node.to_owned(), master.to_owned()))
            .collect();
        if !asked.is_empty() && !self.ask(&asked).await {
            self.waiting = true;
        }
        let waiting: &[(String, String)] = if self.waiting { &asked } else { &[] };
        if self.rejected.is_empty() && waiting.is_empty() {
            return Sifted { map: Some((desired, diff)), rejected: RejectedRows::default() };
        }
        let rejected = self.report(&desired, waiting);
        let mut kept = self.without(&desired, before, waiting, true);
        // What the sources or an operator take away was judged before: here it is about what the
        // refusals take away.
        let in_force = desired.iter().filter(|(node, master)| {
            before.get(node) == Some(*master) && self.refused(node, master).is_some()
        });
        let lost = ChangeCounts { removed: in_force.count(), ..ChangeCounts::default() };
        let recent = Recent { most: before.len(), ..Recent::default() };
        let proposal =
            Proposal { in_force: Some(before.len()), entries: kept.len(), counts: lost, recent };
        if lost.removed > 0 && guard::check(guard::Subject::Map, limits, &proposal).is_err() {
            // One gateway's map of the wrong kind must not empty all others.
            kept = self.without(&desired, before, waiting, false);
        }
        if kept.len() < limits.min_entries.min(desired.len()) {
            return Sifted { map: None, rejected };
        }
        let diff = Diff::between(before, &kept);
        Sifted { map: Some((Arc::new(kept), diff)), rejected }
    }

    /// Why a row is rejected, if it is.
    fn refused(&self, node: &str, master: &str) -> Option<&Rejection> {
        self.rejected.get(node)?.iter().find(|row| &*row.master == master)
    }

    /// A map without the rows that are known to be refused; none where it has none.
    pub(super) fn leave_out(&self, map: &EntryMap) -> Option<EntryMap> {
        let is_refused = |node: &str, master: &str| self.refused(node, master).is_some();
        let has = |node: &str| map.get(node).is_some_and(|master| is_refused(node, master));
        if !self.rejected.keys().any(|node| has(node)) {
            return None;
        }
        let mut kept = EntryMapBuilder::new();
        let rows = map.iter().filter(|(node, master)| !is_refused(node, master));
        rows.for_each(|(node, master)| kept.push_checked(node, master));
        Some(kept.finish())
    }

    /// Asks every instance whose map takes some rows only; false where none answers.
    async fn ask(&mut self, rows: &Arc<[(String, String)]>) -> bool {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let deadline = Instant::now() + ANSWER_BOUND + A_ROW * count;
        let mut restricted = false;
        let mut questions = Vec::new();
        for (number, instance) in self.instances.iter().enumerate() {
            let facts = instance.screen.facts.borrow();
            if facts.restricted.is_none() {
                continue;
            }
            restricted = true;
            if facts.answers {
                questions.push((number, instance.screen.questions.clone()));
            }
        }
        let asking = questions.into_iter().map(|(number, questions)| async move {
            let (answer, result) = oneshot::channel();
            let ask = async {
                questions.send(RowQuestion { rows: Arc::clone(rows), answer }).await.ok()?;
                result.await.ok()
            };
            Some((number, timeout_at(deadline, ask).await.ok()??))
        });
        let answers: Vec<_> = join_all(asking).await.into_iter().flatten().collect();
        let answered = !answers.is_empty() || !restricted;
        for (number, refused) in answers {
            for (at, reason) in refused {
                let (node, master) = &rows[at];
                reject(&mut self.rejected, node, master, number, &reason);
            }
        }
        answered
    }

    /// The map without what is refused or waits: the entry in force stays in its place. With
    /// `in_force` an entry that is in force and refused goes, else it stays.
    fn without(
        &self,
        desired: &EntryMap,
        before: &EntryMap,
        waiting: &[(String, String)],
        in_force: bool,
    ) -> EntryMap {
        let waits: FxHashMap<&str, &str> =
            waiting.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect();
        let mut kept = EntryMapBuilder::new();
        for (node, master) in desired.iter() {
            let old = before.get(node);
            let refused = self.refused(node, master).is_some() && (in_force || old != Some(master));
            let master = if refused || waits.get(node) == Some(&master) {
                match old.filter(|old| !in_force || self.refused(node, old).is_none()) {
                    Some(old) => old,
                    None => continue,
                }
            } else {
                master
            };
            kept.push_checked(node, master);
        }
        kept.finish()
    }

    /// The rejected rows for people.
    fn report(&self, desired: &EntryMap, waiting: &[(String, String)]) -> RejectedRows {
        let mut report = RejectedRows::default();
        for (node, rejections) in &self.rejected {
            let Some(rejection) =
                rejections.iter().find(|row| desired.get(node) == Some(&*row.master))
            else {
                continue;
            };
            report.count += 1;
            report.named.push(RejectedRow {
                node: node.to_string(),
                master: rejection.master.to_string(),
                instance: Some(self.instances[rejection.instance].screen.name.clone()),
                reason: rejection.reason.to_string(),
            });
        }
        for (node, master) in waiting {
            report.count += 1;
            report.named.push(RejectedRow {
                node: node.clone(),
                master: master.clone(),
                instance: None,
                reason: "no HAProxy answers that could say whether its map takes the entry; it is \
                    asked again"
                    .to_owned(),
            });
        }
        report.named.sort_by(|a, b| a.node.cmp(&b.node));
        report.named.truncate(NAMED_ROWS);
        report
    }
}

fn reject(
    rejected: &mut FxHashMap<Box<str>, Vec<Rejection>>,
    node: &str,
    master: &str,
    instance: usize,
    reason: &str,
) {
    let rows = rejected.entry(node.into()).or_default();
    if !rows.iter().any(|row| &*row.master == master) {
        rows.push(Rejection { master: master.into(), instance, reason: reason.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rows::{InstanceRows, channel};

    fn map(rows: &[(&str, &str)]) -> Arc<EntryMap> {
        Arc::new(rows.iter().copied().collect())
    }

    fn numbered(count: usize) -> Arc<EntryMap> {
        let names: Vec<_> = (0..count).map(|number| format!("n{number:03}")).collect();
        Arc::new(names.iter().map(|name| (name.as_str(), "m1")).collect())
    }

    /// Screens of one instance, and its end.
    fn screens(restricted: Option<&str>) -> (Screens, InstanceRows) {
        let (screen, mut rows) = channel("edge1");
        rows.learned(restricted.map(str::to_owned));
        let mut screens = Screens::new(vec![screen]);
        screens.take_in();
        (screens, rows)
    }

    async fn sift(screens: &mut Screens, desired: &Arc<EntryMap>, before: &EntryMap) -> Sifted {
        let diff = Diff::between(before, desired);
        screens.sift(Arc::clone(desired), before, diff, &Limits::default()).await
    }

    fn refused(node: &str, master: &str) -> RefusedRow {
        RefusedRow { node: node.to_owned(), master: master.to_owned(), reason: "no".to_owned() }
    }

    #[tokio::test]
    async fn a_map_that_takes_any_row_costs_no_copy_and_no_question() {
        let (mut screens, mut rows) = screens(None);
        let desired = map(&[("a", "m1"), ("b", "m1")]);
        let (kept, diff) = sift(&mut screens, &desired, &EntryMap::default()).await.map.unwrap();
        assert!(Arc::ptr_eq(&kept, &desired) && diff.added.len() == 2);
        assert!(
            tokio::time::timeout(Duration::ZERO, rows.question()).await.is_err(),
            "nobody was asked"
        );
    }

    #[tokio::test]
    async fn only_new_and_changed_rows_are_asked_about_and_each_once() {
        let (mut screens, mut rows) = screens(Some("type=ip"));
        let (before, desired) = (
            map(&[("a", "m1"), ("b", "m1")]),
            map(&[("a", "m1"), ("b", "m2"), ("c", "m1"), ("d", "m1")]),
        );
        let answer = async {
            let question = rows.question().await.unwrap();
            let asked: Vec<_> = question.rows.iter().map(|(node, _)| node.clone()).collect();
            question
                .answer
                .send(vec![(asked.iter().position(|node| node == "c").unwrap(), "no".to_owned())])
                .unwrap();
            asked
        };
        let (sifted, mut asked) = tokio::join!(sift(&mut screens, &desired, &before), answer);
        asked.sort();
        assert_eq!(asked, ["b", "c", "d"]);
        let (kept, _) = sifted.map.unwrap();
        assert_eq!(*kept, *map(&[("a", "m1"), ("b", "m2"), ("d", "m1")]));
        assert_eq!(
            (sifted.rejected.count, sifted.rejected.of_node("c").unwrap().reason.as_str()),
            (1, "no")
        );
        // The same again: what is refused is known.
        let again = sift(&mut screens, &desired, &kept).await;
        assert_eq!((again.map.unwrap().0, again.rejected.count), (kept, 1));
        assert!(tokio::time::timeout(Duration::ZERO, rows.question()).await.is_err());
        // Another process may take it.
        rows.learned(None);
        assert!(screens.take_in());
        let (all, _) = sift(&mut screens, &desired, &before).await.map.unwrap();
        assert_eq!(all, desired);
    }

    #[tokio::test]
    async fn a_refused_row_in_force_goes_but_one_gateway_does_not_empty_the_others() {
        for (refuses, left) in [(2, 98), (90, 100)] {
            let (mut screens, rows) = screens(None);
            let desired = numbered(100);
            rows.refuses(
                &desired
                    .iter()
                    .take(refuses)
                    .map(|(node, master)| refused(node, master))
                    .collect::<Vec<_>>(),
            );
            assert!(screens.take_in(), "this is a reason to decide again");
            let sifted = sift(&mut screens, &desired, &desired).await;
            assert_eq!(sifted.map.unwrap().0.len(), left);
            assert_eq!(sifted.rejected.count, refuses);
            assert!(!screens.take_in(), "told once");
        }
    }

    #[tokio::test]
    async fn where_every_row_is_refused_nothing_comes_into_force() {
        let (mut screens, rows) = screens(None);
        rows.refuses(&[refused("a", "m1")]);
        screens.take_in();
        let sifted = sift(&mut screens, &map(&[("a", "m1")]), &EntryMap::default()).await;
        assert!(sifted.map.is_none());
        assert_eq!(sifted.rejected.named[0].to_string(), "a -> m1: HAProxy (edge1) refuses it: no");
    }

    #[tokio::test]
    async fn rows_wait_while_nobody_can_be_asked_and_the_entries_in_force_stay() {
        let (mut screens, rows) = screens(Some("type=ip"));
        rows.failed(true);
        screens.take_in();
        let (before, desired) =
            (map(&[("a", "m1"), ("b", "m1")]), map(&[("a", "m2"), ("c", "m1")]));
        let sifted = sift(&mut screens, &desired, &before).await;
        assert_eq!(*sifted.map.unwrap().0, *map(&[("a", "m1")]), "what goes goes");
        assert_eq!(sifted.rejected.count, 2);
        assert!(screens.waiting() && screens.take_in());
    }
}
