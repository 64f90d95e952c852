//! Who is asked, and how much of it.

use std::sync::Arc;

use tokio::sync::watch;

/// What was asked for so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requested {
    /// The number of the latest request.
    pub latest: u64,
    /// The number of the latest request for everything.
    pub everything: u64,
    /// The number of the latest request that somebody waits for: a registry that asked for rest is
    /// asked all the same.
    pub urgent: u64,
}

/// "Look again": a number that only grows. Ticks, reloads and signals raise it; every poller
/// watches it.
#[derive(Debug, Clone)]
pub struct PollRequests {
    requested: Arc<watch::Sender<Requested>>,
}

impl Default for PollRequests {
    fn default() -> Self {
        Self::new()
    }
}

impl PollRequests {
    /// No request yet: number 0, which every source's first poll covers.
    pub fn new() -> Self {
        Self { requested: Arc::new(watch::Sender::new(Requested::default())) }
    }

    /// Asks every source to look again, as cheaply as it can. The number of this request: once a
    /// source's `answered` has reached it, that source has been polled since.
    pub fn request(&self) -> u64 {
        self.raise(|_| {})
    }

    /// Asks every source for everything, for somebody who waits: what they get must not depend on
    /// what a cheaper poll can't see, like deletions. The number is one as of
    /// [`PollRequests::request`].
    pub fn request_everything(&self) -> u64 {
        self.raise(|requested| {
            (requested.everything, requested.urgent) = (requested.latest, requested.latest)
        })
    }

    /// The same, where nobody waits: a registry that asked for rest has it.
    pub fn request_everything_at_leisure(&self) -> u64 {
        self.raise(|requested| requested.everything = requested.latest)
    }

    fn raise(&self, mark: impl FnOnce(&mut Requested)) -> u64 {
        let mut number = 0;
        self.requested.send_modify(|requested| {
            requested.latest += 1;
            number = requested.latest;
            mark(requested);
        });
        number
    }

    /// Follows the requests.
    pub fn subscribe(&self) -> watch::Receiver<Requested> {
        self.requested.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_numbered_and_seen_by_all() {
        let requests = PollRequests::new();
        let (one, two) = (requests.subscribe(), requests.clone().subscribe());
        assert_eq!(
            (requests.request(), requests.request_everything(), requests.request()),
            (1, 2, 3)
        );
        assert_eq!(requests.request_everything_at_leisure(), 4);
        let requested = Requested { latest: 4, everything: 4, urgent: 2 };
        assert_eq!((*one.borrow(), *two.borrow()), (requested, requested));
    }
}
