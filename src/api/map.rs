//! The map in force as a whole, and waiting for another one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use mapsmith_core::access::Identity;
use mapsmith_core::{EntryMap, Revision};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::places::{Full, Places};
use super::types::{MapReport, MasterLoad};
use super::{Api, Error};
use crate::engine::Decision;
use crate::telemetry::API_WAITS;

/// What part of its time a wait may last longer: those that began together shall not end so.
const JITTER: f64 = 1.0 / 16.0;
/// How much of the map's text is made at once.
const CHUNK: usize = 64 * 1024;

/// What the API keeps of the map and of those who wait for it.
pub(crate) struct MapAnswers {
    /// What is told of the last map that somebody asked for: its SHA-256 is made once for all.
    report: Mutex<Option<Arc<MapReport>>>,
    waits: Arc<Places>,
}

impl MapAnswers {
    /// Of so many connections half are for those who don't wait.
    pub fn new(connections: usize) -> Self {
        let waits = Arc::new(Places::new(API_WAITS, connections / 2));
        Self { report: Mutex::default(), waits }
    }
}

impl Api {
    /// The map in force.
    ///
    /// # Errors
    /// [`Error::NoMap`] or [`Error::NotReady`].
    pub fn map_in_force(&self) -> Result<Arc<Revision>, Error> {
        if !self.settings.keeps_map() {
            return Err(Error::NoMap);
        }
        self.decision.borrow().map.in_force.clone().ok_or(Error::NotReady)
    }

    /// The map in force as soon as it is another one than `known`, at once where it is so already;
    /// none where it is the same when the time is over, or Mapsmith ends. 0 is no map that anybody
    /// knows, and a number that is not reached yet is of a Mapsmith that was restored.
    ///
    /// # Errors
    /// [`Error::NoMap`], or too many wait.
    pub async fn map_other_than(
        &self,
        known: u64,
        wait: Option<Duration>,
        (who, over_http_1): (&Identity, bool),
    ) -> Result<Option<Arc<Revision>>, Error> {
        if !self.settings.keeps_map() {
            return Err(Error::NoMap);
        }
        let other = |decision: &Decision| {
            let in_force = decision.map.in_force.as_ref();
            in_force.filter(|revision| known == 0 || revision.number != known).cloned()
        };
        let now = other(&self.decision.borrow());
        let (None, Some(wait)) = (&now, wait) else { return Ok(now) };
        let place = self.map_answers.waits.enter(who, over_http_1);
        let _place = place.map_err(|full| match full {
            Full::All(most) => Error::TooManyWaits(most),
            Full::One(most) => Error::TooManyOfOne { most, what: "requests waiting" },
        })?;
        let mut decision = self.decision.clone();
        let change = decision.wait_for(|decision| other(decision).is_some());
        let wait = wait.mul_f64(1.0 + fastrand::f64() * JITTER);
        let found = self.shutdown.run_until_cancelled(timeout(wait, change)).await;
        Ok(found.and_then(|found| other(&*found.ok()?.ok()?)))
    }

    /// The map in figures.
    pub async fn map_report(&self, revision: &Arc<Revision>) -> Arc<MapReport> {
        let mut last = self.map_answers.report.lock().await;
        if let Some(report) = last.as_ref().filter(|report| report.revision == revision.number) {
            return Arc::clone(report);
        }
        let entries = Arc::clone(&revision.entries);
        let sum = tokio::task::spawn_blocking(move || sha256_of(&entries));
        let masters = revision.entries.load().into_iter();
        let report = Arc::new(MapReport {
            revision: revision.number,
            entries: revision.entries.len(),
            at: revision.at,
            masters: masters
                .map(|(master, nodes)| MasterLoad { master: master.to_owned(), nodes })
                .collect(),
            // It ends early only with the program.
            sha256: sum.await.unwrap_or_default(),
        });
        *last = Some(Arc::clone(&report));
        report
    }
}

fn sha256_of(entries: &Arc<EntryMap>) -> String {
    let mut context = Context::new(&SHA256);
    MapText::new(Arc::clone(entries)).for_each(|chunk| context.update(&chunk));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a map as HAProxy reads it, without comments, piece by piece.
pub struct MapText {
    entries: Arc<EntryMap>,
    next: usize,
}

impl MapText {
    pub fn new(entries: Arc<EntryMap>) -> Self {
        Self { entries, next: 0 }
    }
}

impl Iterator for MapText {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while self.next < self.entries.len() && chunk.len() < CHUNK {
            for part in [self.entries.key(self.next), " ", self.entries.value(self.next), "\n"] {
                chunk.extend_from_slice(part.as_bytes());
            }
            self.next += 1;
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_large_map_comes_in_pieces_that_are_the_whole() {
        let nodes: Vec<_> = (0..20_000).map(|node| format!("n{node:05}.example.test")).collect();
        let entries: EntryMap = nodes.iter().map(|node| (node.as_str(), "m1")).collect();
        let pieces: Vec<_> = MapText::new(Arc::new(entries)).collect();
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < CHUNK + 300));
        let lines: String = nodes.iter().map(|node| format!("{node} m1\n")).collect();
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), lines);
        assert_eq!(MapText::new(Arc::default()).next(), None);
    }
}
