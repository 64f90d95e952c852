//! Several PuppetDBs with the same data: the first that answers, unless it is behind.
//!
//! A replica that lost touch answers well and with old data, and would take moves back. Whether it
//! is behind shows by the newest time that a producer gave.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::{EntryMap, Snapshot};

use super::Nodes;
use crate::source::error::{SourceError, SourceErrorKind};
use crate::source::feed::is_due;
use crate::source::{Extent, Feed, Notes, Polled};

/// The same query to several servers, in the order of the settings.
#[derive(Debug, Clone)]
pub(super) struct Replicas {
    /// One at least.
    servers: Vec<Nodes>,
    /// The one that answered last.
    current: usize,
    /// When the servers before it were last tried.
    tried: Timestamp,
    /// The newest time that a producer gave, by any of them.
    newest: Option<Timestamp>,
    /// Why the servers before the one that answered were passed over.
    passed_over: Option<String>,
}

impl Replicas {
    pub(super) fn new(servers: Vec<Nodes>) -> Self {
        let tried = Timestamp::MIN;
        Self { servers, current: 0, tried, newest: None, passed_over: None }
    }

    /// The servers in the order in which they are asked now: from the first on, but for a while
    /// after that gave no answer from the one that did.
    fn order(&mut self, extent: Extent, now: Timestamp) -> Vec<usize> {
        let full_poll = self.servers[self.current].full_poll;
        let from_the_first = extent == Extent::Everything || is_due(full_poll, self.tried, now);
        if self.current == 0 || from_the_first {
            self.tried = now;
            return (0..self.servers.len()).collect();
        }
        let others = (0..self.servers.len()).filter(|at| *at != self.current);
        std::iter::once(self.current).chain(others).collect()
    }

    /// By how much a server's answer is behind what is known, if it is.
    fn behind(&self, at: usize) -> Option<SignedDuration> {
        let server = &self.servers[at];
        let (known, newest) = (self.newest?, server.known?.newest?);
        let behind = known.duration_since(newest);
        (at != self.current && behind > server.overlap).then_some(behind)
    }
}

#[async_trait]
impl Feed<EntryMap> for Replicas {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot>,
        now: Timestamp,
    ) -> Result<Polled, SourceError> {
        let mut failures: Vec<SourceError> = Vec::new();
        for at in self.order(extent, now) {
            if at != self.current {
                // What it last answered is not what its delta would be laid over.
                self.servers[at].known = None;
            }
            let error = match self.servers[at].poll(extent, current, now).await {
                Err(error) => error,
                Ok(polled) => match self.behind(at) {
                    Some(behind) => {
                        let by = SignedDuration::from_secs(behind.as_secs());
                        SourceError {
                            place: self.servers[at].http.place().to_owned(),
                            fault: SourceErrorKind::Behind(by),
                        }
                    }
                    None => {
                        self.current = at;
                        let newest = self.servers[at].known.and_then(|known| known.newest);
                        // A row from the future says nothing about the others.
                        self.newest = self.newest.max(newest.filter(|newest| *newest <= now));
                        let told: Vec<_> = failures.iter().map(ToString::to_string).collect();
                        let asked_all = at == 0 || !told.is_empty();
                        if asked_all {
                            self.passed_over = (!told.is_empty()).then(|| told.join("; "));
                        }
                        return Ok(polled);
                    }
                },
            };
            failures.push(error);
        }
        Err(all_failed(failures))
    }

    async fn look_up(
        &mut self,
        nodes: &[String],
        current: &Snapshot,
        now: Timestamp,
    ) -> Result<Polled, SourceError> {
        self.servers[self.current].look_up(nodes, current, now).await
    }

    fn beside(&self) -> Option<Box<dyn Feed<EntryMap>>> {
        let servers = self.servers.iter().map(Nodes::beside_it).collect();
        Some(Box::new(Self { servers, ..self.clone() }))
    }

    fn notes(&self) -> Notes {
        let server = &self.servers[self.current];
        let passed_over = self
            .passed_over
            .as_ref()
            .map(|why| format!("answered by {}, because: {why}", server.http.place()));
        let of_server = server.notes();
        let warnings = passed_over.into_iter().chain(of_server.warning).collect::<Vec<_>>();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        Notes { warning, ..of_server }
    }
}

/// The first server's error, and what the others said.
fn all_failed(failures: Vec<SourceError>) -> SourceError {
    let mut failures = failures.into_iter();
    let first = failures.next().unwrap_or_else(|| SourceError {
        place: "fallback_urls".to_owned(),
        fault: SourceErrorKind::Setup("no server was asked".to_owned()),
    });
    let others: Vec<_> = failures.map(|error| error.to_string()).collect();
    if others.is_empty() {
        return first;
    }
    let fault =
        SourceErrorKind::NoneAnswered { first: Box::new(first.fault), others: others.join("; ") };
    SourceError { place: first.place, fault }
}
