//! The overrides as the running program has them: every change goes to the store first, then to
//! whoever follows.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::{BlockedNode, Note, OverrideChange, Overrides, ServerOverride};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{AuditTicket, Store, StoreError, StoreErrorKind, tidied};
use crate::heartbeat;

/// The longest sleep until a pin's end: the clock may be set meanwhile.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the overrides, and ends pins whose time is over.
#[derive(Clone)]
pub struct OverrideService {
    store: Arc<dyn Store>,
    latest: watch::Sender<Arc<Overrides>>,
    server_edits: Arc<Mutex<()>>,
    /// Whose turn it is to change them.
    turn: Arc<Mutex<()>>,
}

/// While it is there nobody else changes the overrides.
pub struct OverrideTurn {
    service: OverrideService,
    guard: OwnedMutexGuard<()>,
}

impl OverrideTurn {
    /// All overrides as they would be after a change; none where there would be nothing to end.
    ///
    /// # Errors
    /// The store can't be asked.
    pub async fn attempt(&self, change: OverrideChange) -> Result<Option<Overrides>, StoreError> {
        self.service.store.try_change(change).await
    }

    /// Makes a change: in the store, then in force. All overrides after it; none where there was
    /// nothing to end.
    /// What the store does not take is not in force.
    pub async fn change(
        self,
        change: OverrideChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Option<Arc<Overrides>>, StoreError> {
        let place = self.service.store.place();
        // On a task of its own: whoever asked may go away between the store and the rest.
        let task = tokio::spawn(async move {
            let Self { service, guard } = self;
            let after = service.store.change(change.clone(), ticket).await?;
            let Some(after) = after else { return Ok(None) };
            log(&change);
            let after = service.publish(after.with_note(change.note()));
            drop(guard);
            Ok(Some(after))
        });
        match task.await {
            Ok(result) => result,
            Err(error) => Err(StoreError {
                path: place,
                fault: StoreErrorKind::Other(format!("the change was interrupted: {error}")),
            }),
        }
    }
}

impl OverrideTurn {
    /// Takes what the store holds since something else has ended overrides in it.
    ///
    /// # Errors
    /// The store can't be asked.
    pub async fn refresh(self) -> Result<(), StoreError> {
        let stored = self.service.store.load().await?;
        self.service.publish(stored);
        Ok(())
    }
}

impl OverrideService {
    /// Takes what the store holds. The second value still has the pins whose time ran out while
    /// Mapsmith did not run: they are in the map file.
    pub async fn open(store: impl Store) -> Result<(Self, Arc<Overrides>), StoreError> {
        let now = Timestamp::now();
        let stored = Arc::new(store.load().await?);
        let is_over = stored.next_end().is_some_and(|end| end <= now);
        let begun = match is_over || stored.released().next().is_some() {
            true => tidied(store.change(OverrideChange::Begin { now }, None).await)?,
            false => None,
        };
        for pin in stored.pins() {
            let until = pin.until.map(tracing::field::display);
            tracing::info!(
                node = pin.node,
                master = pin.master,
                until,
                "a pin of the store is in force"
            );
        }
        for blocked in stored.blocked() {
            let until = blocked.until.map(tracing::field::display);
            tracing::info!(node = blocked.node, until, "a node that the store blocks is in no map");
        }
        for drained in stored.drained() {
            tracing::info!(
                master = drained.master,
                to = drained.to,
                "a drain of the store is in force"
            );
        }
        for ServerOverride { backend, server, order, until, .. } in stored.servers() {
            let until = until.map(tracing::field::display);
            let order = order.to_string();
            tracing::info!(backend, server, order, until, "the store overrides a server");
        }
        let latest = begun.as_ref().unwrap_or(&stored).at(now);
        let latest = watch::Sender::new(Arc::new(latest));
        Ok((
            Self {
                store: Arc::new(store),
                latest,
                server_edits: Arc::default(),
                turn: Arc::default(),
            },
            stored,
        ))
    }

    pub fn latest(&self) -> Arc<Overrides> {
        Arc::clone(&self.latest.borrow())
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Overrides>> {
        self.latest.subscribe()
    }

    /// For a change of a server that depends on what is in force in the instances: nobody else makes
    /// one like it meanwhile. Other changes don't wait for it.
    pub async fn edit_servers(&self) -> MutexGuard<'_, ()> {
        self.server_edits.lock().await
    }

    /// Waits until nobody else changes them: [`OverrideService::latest`] is what a change changes.
    pub async fn turn(&self) -> OverrideTurn {
        let guard = Arc::clone(&self.turn).lock_owned().await;
        OverrideTurn { service: self.clone(), guard }
    }

    /// [`OverrideTurn::change`], whatever they are by then.
    pub async fn change(
        &self,
        change: OverrideChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Option<Arc<Overrides>>, StoreError> {
        self.turn().await.change(change, ticket).await
    }

    /// Puts overrides in force, unless later ones are already. Those of the change itself.
    fn publish(&self, after: Overrides) -> Arc<Overrides> {
        let note = after.note().clone();
        let after = Arc::new(after.at(Timestamp::now()).with_note(note));
        self.latest.send_if_modified(|latest| {
            let newer = after.number() >= latest.number() && after != *latest;
            if newer {
                *latest = Arc::clone(&after);
            }
            newer
        });
        after
    }

    /// Ends pins at their time, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut latest = self.subscribe();
        loop {
            let now = Timestamp::now();
            let overrides = Arc::clone(&latest.borrow_and_update());
            let rest = match overrides.next_end() {
                Some(end) if end <= now => {
                    self.expire(&overrides, now).await;
                    continue;
                }
                Some(end) => Duration::try_from(end.duration_since(now))
                    .map_or(Duration::ZERO, |rest| rest.min(CLOCK_CHECK_INTERVAL)),
                None => CLOCK_CHECK_INTERVAL,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(rest) => {}
                () = heartbeat::tick() => {}
                // The sender is ours, so this is a change and never an end.
                _ = latest.changed() => {}
            }
        }
    }

    /// Ends the pins that are over. A store that fails keeps none of them in force: what it still
    /// holds goes with the next that ends, or at the next start.
    async fn expire(&self, overrides: &Overrides, now: Timestamp) {
        self.publish(overrides.clone());
        for pin in overrides.pins().filter(|pin| pin.is_over(now)) {
            tracing::info!(node = pin.node, master = pin.master, "the pin's time is over");
        }
        for blocked in overrides.blocked().filter(|blocked| blocked.is_over(now)) {
            tracing::info!(node = blocked.node, "the time is over for which a node was blocked");
        }
        for over in overrides.servers().filter(|server| server.is_over(now)) {
            let (backend, server) = (&over.backend, &over.server);
            tracing::info!(backend, server, "the time of a server's override is over");
        }
        if let Err(error) = self.change(OverrideChange::Expire { now }, None).await {
            tracing::error!("an override whose time is over stays in the store for now: {error}");
        }
    }
}

impl std::fmt::Debug for OverrideService {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("OverrideService").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

/// Who ordered what, for whoever asks later why a node went elsewhere.
fn log(change: &OverrideChange) {
    let Note { reason, by } = change.note();
    match change {
        OverrideChange::Pin(pin) => {
            let until = pin.until.map(tracing::field::display);
            tracing::info!(
                node = pin.node,
                master = pin.master,
                until,
                reason,
                by,
                "an operator pinned a node"
            );
        }
        OverrideChange::Unpin { node, .. } => {
            tracing::info!(node, reason, by, "an operator ended a node's pin")
        }
        OverrideChange::Block(BlockedNode { node, until, .. }) => {
            let until = until.map(tracing::field::display);
            tracing::info!(node, until, reason, by, "an operator blocked a node")
        }
        OverrideChange::Unblock { node, .. } => {
            tracing::info!(node, reason, by, "an operator blocks a node no more")
        }
        OverrideChange::Drain(drained) => {
            let to = drained.to.as_deref().unwrap_or("the other masters");
            tracing::info!(master = drained.master, to, reason, by, "an operator drained a master");
        }
        OverrideChange::Undrain { master, stay: true, .. } => {
            tracing::info!(
                master,
                reason,
                by,
                "an operator ended a drain; nodes stay where they went"
            )
        }
        OverrideChange::Undrain { master, .. } => {
            tracing::info!(master, reason, by, "an operator gave a master its nodes back")
        }
        OverrideChange::SetServer(ServerOverride { backend, server, order, until, .. }) => {
            let until = until.map(tracing::field::display);
            let order = order.to_string();
            tracing::info!(backend, server, order, until, reason, by, "an operator set a server");
        }
        OverrideChange::ResetServer { backend, server, .. } => {
            tracing::info!(backend, server, reason, by, "an operator ended a server's override")
        }
        OverrideChange::Expire { .. } | OverrideChange::Begin { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;
    use mapsmith_core::Pin;

    /// A store in memory that fails when told to.
    #[derive(Default)]
    struct Memory {
        kept: Mutex<Overrides>,
        fails: AtomicBool,
    }

    #[async_trait]
    impl Store for Arc<Memory> {
        fn place(&self) -> String {
            "memory".to_owned()
        }

        async fn load(&self) -> Result<Overrides, StoreError> {
            Ok(self.kept.lock().unwrap().clone())
        }

        async fn change(
            &self,
            change: OverrideChange,
            _: Option<Arc<AuditTicket>>,
        ) -> Result<Option<Overrides>, StoreError> {
            if self.fails.load(Ordering::SeqCst) {
                return Err(StoreError {
                    path: self.place(),
                    fault: StoreErrorKind::Full("no room".to_owned()),
                });
            }
            let mut kept = self.kept.lock().unwrap();
            let left = match &change {
                OverrideChange::Expire { now } | OverrideChange::Begin { now } => kept.at(*now),
                _ => kept.clone(),
            };
            let mut after = Overrides::numbered(kept.number() + 1);
            for pin in left.pins() {
                after.add_pin(pin.clone()).unwrap();
            }
            if let OverrideChange::Pin(pin) = change {
                after.add_pin(pin).unwrap();
            }
            *kept = after.clone();
            Ok(Some(after))
        }

        async fn try_change(&self, _: OverrideChange) -> Result<Option<Overrides>, StoreError> {
            Ok(Some(self.kept.lock().unwrap().clone()))
        }
    }

    fn pin(node: &str, until: Option<Timestamp>) -> OverrideChange {
        OverrideChange::Pin(Pin {
            node: node.to_owned(),
            master: "m1".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            until,
            note: Note::default(),
        })
    }

    #[tokio::test]
    async fn a_change_that_the_store_refuses_is_not_in_force() {
        let memory = Arc::new(Memory::default());
        let (writer, _) = OverrideService::open(Arc::clone(&memory)).await.unwrap();
        let followed = writer.subscribe();
        memory.fails.store(true, Ordering::SeqCst);
        assert!(writer.change(pin("a", None), None).await.is_err());
        assert!(writer.latest().is_empty() && !followed.has_changed().unwrap());
        memory.fails.store(false, Ordering::SeqCst);
        writer.change(pin("a", None), None).await.unwrap();
        assert!(writer.latest().pin("a").is_some() && followed.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_store_that_fails_keeps_no_pin_in_force_beyond_its_end() {
        let memory = Arc::new(Memory::default());
        let (writer, _) = OverrideService::open(Arc::clone(&memory)).await.unwrap();
        let soon = Timestamp::now().checked_add(jiff::SignedDuration::from_millis(200)).unwrap();
        writer.change(pin("short", Some(soon)), None).await.unwrap();
        writer.change(pin("long", None), None).await.unwrap();
        memory.fails.store(true, Ordering::SeqCst);
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.clone().run(stop.clone()));
        let mut followed = writer.subscribe();
        let over = followed.wait_for(|overrides| {
            overrides.pin("short").is_none() && overrides.pin("long").is_some()
        });
        timeout(Duration::from_secs(60), over).await.expect("the pin ends").unwrap();
        stop.cancel();
        task.await.unwrap();
        memory.fails.store(false, Ordering::SeqCst);
        assert_eq!(memory.kept.lock().unwrap().pins().len(), 2, "the store could not forget it");
        let (again, stored) = OverrideService::open(Arc::clone(&memory)).await.unwrap();
        assert_eq!(
            (again.latest().pins().len(), stored.pins().len()),
            (1, 2),
            "what was in the map file is told at a start"
        );
        assert_eq!(memory.kept.lock().unwrap().pins().len(), 1, "now it could");
    }
}
