//! When lists are decided on: the loop round [`ServerDecider::decide`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::{DesiredServers, HeldChange, ServerList, SourceState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{ServerDecider, ServerDecision};
use crate::engine::Approval;
use crate::engine::map::Decision;
use crate::heartbeat;

impl ServerDecider {
    /// Decides whenever a list or the map has something new, an approval comes, or a wait is over;
    /// until shutdown.
    pub async fn run(
        mut self,
        mut sources: Vec<watch::Receiver<SourceState<ServerList>>>,
        mut map: watch::Receiver<Decision>,
        mut approvals: mpsc::Receiver<Approval>,
        outputs: (watch::Sender<ServerDecision>, watch::Sender<Option<Arc<DesiredServers>>>),
        shutdown: CancellationToken,
    ) {
        let clock = Instant::now();
        // What was in force before a restart is so from the first second on, however long a first
        // lookup takes.
        if map.borrow().read_only.is_none() {
            outputs.1.send_replace(self.desired());
        }
        outputs.0.send_replace(self.decision(Duration::ZERO));
        let mut answer: Option<(HeldChange, oneshot::Sender<Result<HeldChange, ApprovalError>>)> =
            None;
        let mut retry: Option<Duration> = None;
        loop {
            heartbeat::beat();
            let states: Vec<_> =
                sources.iter_mut().map(|source| source.borrow_and_update().clone()).collect();
            let decision = map.borrow_and_update().clone();
            let lists = self.lists(&states, &decision);
            if shutdown.run_until_cancelled(self.resolve(&lists, clock.elapsed())).await.is_none() {
                return;
            }
            let now = clock.elapsed();
            self.decide(&lists, now);
            // Whose map it is, theirs are the servers too.
            let ours = self.desired.as_ref().filter(|_| decision.read_only.is_none());
            outputs.1.send_if_modified(|desired| {
                let changed = desired.as_ref().map(|desired| desired.number)
                    != ours.map(|desired| desired.number);
                if changed {
                    *desired = ours.cloned();
                }
                changed
            });
            outputs.0.send_replace(self.decision(now));
            if let Some((held, sender)) = answer.take() {
                // Whoever asked may have gone; the change is on its way all the same.
                let _ = sender.send(self.outcome_of_approval(held));
            }
            // From the first decision on that lacks one: those between, for what HAProxy does, put
            // it off no further.
            retry =
                self.resolver.lacks_addresses().then(|| retry.unwrap_or(now + self.resolve_retry));
            let next_look = [self.next_look(), retry].into_iter().flatten().min();
            'quiet: loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    // A poller that ended leaves its last state; only the shutdown ends pollers.
                    good = any_changed(&mut sources) => if good { break 'quiet } else { return },
                    () = heartbeat::tick() => {}
                    changed = map.changed() => if changed.is_err() { return } else { break 'quiet },
                    Some(approval) = approvals.recv() => {
                        let Approval { id, answer: sender } = approval;
                        match self.approve(&id) {
                            Ok(held) => {
                                answer = Some((held, sender));
                                break 'quiet;
                            }
                            Err(error) => { let _ = sender.send(Err(error)); }
                        }
                    }
                    () = sleep_until(clock + next_look.unwrap_or_default()), if next_look.is_some() => {
                        if retry.is_some_and(|retry| clock.elapsed() >= retry) {
                            (self.resolved_in, retry) = (None, None);
                        }
                        break 'quiet;
                    }
                }
            }
        }
    }
}

/// Resolves when one of the sources has something new; false once one is gone. Without any it never
/// does.
async fn any_changed(sources: &mut [watch::Receiver<SourceState<ServerList>>]) -> bool {
    if sources.is_empty() {
        return std::future::pending().await;
    }
    select_all(sources.iter_mut().map(|source| Box::pin(source.changed()))).await.0.is_ok()
}
