//! Who is asked together, and how much of it.
//!
//! Requests are numbered across all rounds, so that "a feed's `answered` has reached the number" is
//! the one test of whether a request was covered, whoever was asked.

use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// What a round was asked for so far.
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

/// "Poll again": a number that only grows. Ticks, reloads and signals raise it for every round.
#[derive(Debug, Clone, Default)]
pub struct PollRequests {
    rounds: Arc<Mutex<Rounds>>,
}

#[derive(Debug, Default)]
struct Rounds {
    /// The number of the latest request to any of them.
    latest: u64,
    requested: Vec<watch::Sender<Requested>>,
}

impl PollRequests {
    /// No request yet: number 0, which every feed's first poll covers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new round. Its feeds' first polls cover what was asked for before.
    pub fn round(&self) -> Round {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = rounds.latest;
        let requested = watch::Sender::new(Requested { latest, ..Requested::default() });
        rounds.requested.push(requested.clone());
        Round { requests: self.clone(), requested, feeds: Arc::default() }
    }

    /// Asks every feed again, as cheaply as it can. The number of this request: once a feed's
    /// `answered` has reached it, that feed has been polled since.
    pub fn request(&self) -> u64 {
        self.raise(None, |_| {})
    }

    /// Asks every feed for everything, for somebody who waits: what they get must not depend on
    /// what a cheaper poll can't see, like deletions. The number is one as of
    /// [`PollRequests::request`].
    pub fn request_everything(&self) -> u64 {
        self.raise(None, |requested| {
            (requested.everything, requested.urgent) = (requested.latest, requested.latest)
        })
    }

    /// The same, where nobody waits: a registry that asked for rest has it.
    pub fn request_everything_at_leisure(&self) -> u64 {
        self.raise(None, |requested| requested.everything = requested.latest)
    }

    /// Asks `only` that round, or all. The numbers that a round sees grow: all of it happens under
    /// one lock.
    fn raise(&self, only: Option<&Round>, mark: fn(&mut Requested)) -> u64 {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.latest += 1;
        let number = rounds.latest;
        let asked = only.map_or(&rounds.requested[..], |round| slice::from_ref(&round.requested));
        for requested in asked {
            requested.send_modify(|requested| {
                requested.latest = number;
                mark(requested);
            });
        }
        number
    }
}

/// Feeds that count together: what one of them says may only be used beside what the others say. A
/// node that left one source of the node map may have gone to another, so these are one round; each
/// server list is its own.
#[derive(Debug, Clone)]
pub struct Round {
    requests: PollRequests,
    requested: watch::Sender<Requested>,
    feeds: Arc<AtomicUsize>,
}

impl Round {
    /// Asks this round's feeds alone, as cheaply as they can. The number is one as of
    /// [`PollRequests::request`].
    pub fn request(&self) -> u64 {
        self.requests.raise(Some(self), |_| {})
    }

    /// Follows what this round is asked for, as one of its feeds.
    pub(super) fn join(&self) -> watch::Receiver<Requested> {
        self.feeds.fetch_add(1, Ordering::Relaxed);
        self.subscribe()
    }

    /// Whether it is the round of more than one feed.
    pub(super) fn is_shared(&self) -> bool {
        self.feeds.load(Ordering::Relaxed) > 1
    }

    /// Follows what this round is asked for.
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
        let (one, two) = (requests.round().subscribe(), requests.clone().round().subscribe());
        assert_eq!(
            (requests.request(), requests.request_everything(), requests.request()),
            (1, 2, 3)
        );
        assert_eq!(requests.request_everything_at_leisure(), 4);
        let requested = Requested { latest: 4, everything: 4, urgent: 2 };
        assert_eq!((*one.borrow(), *two.borrow()), (requested, requested));
    }

    #[test]
    fn a_round_is_shared_by_feeds_and_not_by_who_looks_on() {
        let requests = PollRequests::new();
        let (alone, shared) = (requests.round(), requests.round());
        let _feeds = [alone.join(), shared.join(), shared.clone().join()];
        let _others = [alone.subscribe(), alone.subscribe()];
        assert_eq!((alone.is_shared(), shared.is_shared()), (false, true));
    }

    #[test]
    fn a_request_to_one_round_has_a_number_that_no_other_round_sees() {
        let requests = PollRequests::new();
        let (one, two) = (requests.round(), requests.round());
        assert_eq!((one.request(), two.request(), one.clone().request()), (1, 2, 3));
        let latest = |round: &Round| round.subscribe().borrow().latest;
        assert_eq!((latest(&one), latest(&two)), (3, 2));
        assert_eq!(latest(&requests.round()), 3, "a new round owes nothing");
        assert_eq!(requests.request(), 4);
        assert_eq!((latest(&one), latest(&two)), (4, 4));
    }
}
