//! How many may stay with the API for long at once: those who follow, and those who wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mapsmith_core::access::{Identity, IdentityKind};
use metrics::gauge;
use thiserror::Error as ThisError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most at once.
const MOST: usize = 500;
/// The most of one and the same.
const MOST_OF_ONE: usize = 20;

/// Places for those who stay.
#[derive(Debug)]
pub(crate) struct Places {
    /// The metric that says how many are taken.
    gauge: &'static str,
    all: Arc<Semaphore>,
    /// Of those that take a connection each, which others need too.
    with_connections: Arc<Semaphore>,
    most_with_connections: usize,
    of_one: Mutex<BTreeMap<String, usize>>,
}

/// One of them.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// Whose it is, where that counts.
    who: Option<String>,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
pub(crate) enum Full {
    /// So many are taken.
    #[error("{0} places are taken")]
    All(usize),
    /// So many are taken by whoever asks.
    #[error("{0} places are taken by one")]
    One(usize),
}

impl Places {
    /// So many of them may take a connection each.
    pub fn new(gauge: &'static str, with_connections: usize) -> Self {
        gauge!(gauge).set(0.0);
        let most_with_connections = with_connections.clamp(1, MOST);
        Self {
            gauge,
            all: Arc::new(Semaphore::new(MOST)),
            with_connections: Arc::new(Semaphore::new(most_with_connections)),
            most_with_connections,
            of_one: Mutex::default(),
        }
    }

    /// Takes a place; over HTTP/1 it takes a connection besides. Programs of this machine that need
    /// not say who they are have no places of their own to count.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>, who: &Identity, over_http_1: bool) -> Result<Place, Full> {
        let full = |most| move |_| Full::All(most);
        let connection =
            over_http_1.then(|| Arc::clone(&self.with_connections).try_acquire_owned());
        let connection = connection.transpose().map_err(full(self.most_with_connections))?;
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(full(MOST))?;
        let who = (who.kind != IdentityKind::Local).then(|| who.limited_as());
        if let Some(who) = &who {
            let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
            let count = of_one.entry(who.clone()).or_default();
            if *count >= MOST_OF_ONE {
                return Err(Full::One(MOST_OF_ONE));
            }
            *count += 1;
        }
        gauge!(self.gauge).increment(1.0);
        Ok(Place { places: Arc::clone(self), who, _permits: [Some(permit), connection] })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        gauge!(self.places.gauge).decrement(1.0);
        let Some(who) = &self.who else { return };
        let mut of_one = self.places.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_one.get_mut(who) {
            *count -= 1;
            if *count == 0 {
                of_one.remove(who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_twenty_places_and_all_together_so_many_of_the_connections() {
        let places = Arc::new(Places::new("places_of_a_test", 64));
        let one = Identity::file();
        let mut open: Vec<_> = (0..20).map(|_| places.enter(&one, true).unwrap()).collect();
        assert_eq!(places.enter(&one, true).unwrap_err(), Full::One(20));
        let named = |number: usize| Identity { name: number.to_string(), ..Identity::clock() };
        open.extend((0..44).map(|number| places.enter(&named(number), true).unwrap()));
        assert_eq!(places.enter(&named(99), true).unwrap_err(), Full::All(64));
        open.extend((0..436).map(|_| places.enter(&Identity::local(), false).unwrap()));
        assert_eq!(places.enter(&named(999), false).unwrap_err(), Full::All(500));
        drop(open);
        assert!(places.enter(&one, true).is_ok() && places.of_one.lock().unwrap().is_empty());
    }
}
