//! Requests whose answers come after all tasks have begun anew: what they have changed is what
//! everything begins anew for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The connections with such a request, of all that are served.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<AtomicUsize>);

impl Connections {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// How many such requests are under way on one connection.
#[derive(Debug, Clone)]
pub(in crate::http) struct Outliving {
    under_way: Arc<watch::Sender<usize>>,
    connections: Connections,
}

/// One of them.
#[derive(Debug)]
pub(in crate::http) struct Begun(Outliving);

impl Outliving {
    pub(super) fn new(connections: &Connections) -> Self {
        Self { under_way: Arc::default(), connections: connections.clone() }
    }

    /// A request is one, until what this gives is dropped.
    pub fn begin(&self) -> Begun {
        self.under_way.send_modify(|count| {
            *count += 1;
            if *count == 1 {
                self.connections.0.fetch_add(1, Ordering::SeqCst);
            }
        });
        Begun(self.clone())
    }

    /// Resolves after the end once none is under way.
    pub(super) async fn cut(&self, end: CancellationToken) {
        end.cancelled().await;
        // The sender lives as long as this.
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| {
            *count -= 1;
            if *count == 0 {
                self.0.connections.0.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
}
