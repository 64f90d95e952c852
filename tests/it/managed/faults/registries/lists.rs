//! What the registry said when, and what HAProxy may have of it at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::managed::faults::laws::Laws;
use crate::support::pool;

/// Servers by name, with their addresses.
pub type Servers = BTreeMap<String, SocketAddr>;

/// The lists of a run.
#[derive(Default)]
pub struct Lists(Mutex<State>);

#[derive(Default)]
struct State {
    /// How often there was a rest: who looked before knows nothing of it.
    rests: usize,
    /// In force at the last rest, and listed ever since.
    steady: Servers,
    /// Listed no more, and not to go before then.
    held: BTreeMap<String, (SocketAddr, Instant)>,
    /// All that was ever listed.
    known: BTreeSet<(String, String)>,
}

impl Lists {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry is about to list these; servers that go stay for so long.
    pub fn changes(&self, listed: &Servers, hold: Duration) {
        let mut state = self.state();
        state.known.extend(listed.iter().map(|(name, at)| (name.clone(), at.to_string())));
        let until = Instant::now() + hold;
        let stays = |name: &String, at: &SocketAddr| listed.get(name) == Some(at);
        let steady = std::mem::take(&mut state.steady);
        for (name, at) in steady {
            if stays(&name, &at) {
                state.steady.insert(name, at);
            } else if !hold.is_zero() && !listed.contains_key(&name) {
                state.held.insert(name, (at, until));
            }
        }
        // One that has another address now is held at none.
        state.held.retain(|name, (at, _)| listed.get(name).is_none_or(|listed| listed == at));
    }

    /// These are in force, and listed.
    pub fn rests(&self, listed: &Servers) {
        let mut state = self.state();
        state.rests += 1;
        state.steady.clone_from(listed);
        state.held.clear();
    }

    /// Judges what HAProxy has. False where it says nothing.
    pub fn look(
        &self,
        laws: &Laws,
        ask: impl FnOnce() -> Option<BTreeMap<String, (String, u32)>>,
    ) -> bool {
        let rests = self.state().rests;
        let Some(servers) = ask() else { return false };
        let now = Instant::now();
        let state = self.state();
        if state.rests != rests {
            return true;
        }
        let is_ready = |name: &String, at: &SocketAddr| {
            let found = servers.get(name);
            found.is_some_and(|(found, admin)| pool::is_ready(*admin) && *found == at.to_string())
        };
        let missing = state.steady.iter().find(|(name, at)| !is_ready(name, at));
        let held = state.held.iter().filter(|(_, (_, until))| now < *until);
        let missing = missing
            .or(held.map(|(name, (at, _))| (name, at)).find(|(name, at)| !is_ready(name, at)));
        if let Some((name, at)) = missing {
            laws.broken(format!(
                "{name} at {at} is listed and was in force, and HAProxy has {servers:?}"
            ));
        }
        let is_known =
            |name: &String, at: &String| state.known.contains(&(name.clone(), at.clone()));
        if let Some((name, (at, _))) = servers.iter().find(|(name, (at, _))| !is_known(name, at)) {
            laws.broken(format!("HAProxy has {name} at {at}, which was never listed"));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(listed: &[(&str, &str)]) -> Servers {
        listed.iter().map(|(name, at)| ((*name).to_owned(), at.parse().unwrap())).collect()
    }

    /// What is told of a HAProxy that has these, all ready but those with another state.
    fn told(lists: &Lists, has: &[(&str, &str, u32)]) -> usize {
        let laws = Laws::default();
        let has =
            has.iter().map(|(name, at, admin)| ((*name).to_owned(), ((*at).to_owned(), *admin)));
        assert!(lists.look(&laws, || Some(has.collect())));
        laws.all_broken().len()
    }

    #[test]
    fn a_server_that_is_listed_must_stay_and_one_that_never_was_must_not_come() {
        let lists = Lists::default();
        let (a, b) = (("a", "10.0.0.1:80"), ("b", "10.0.0.2:80"));
        let is = |(name, at): (&'static str, &'static str), admin| (name, at, admin);
        lists.changes(&servers(&[a, b]), Duration::ZERO);
        assert_eq!(told(&lists, &[]), 0, "nothing was in force yet");
        lists.rests(&servers(&[a, b]));
        assert_eq!(told(&lists, &[is(a, 0), is(b, 0)]), 0);
        assert_eq!(told(&lists, &[is(a, 0)]), 1);
        assert_eq!(told(&lists, &[is(a, 0), is(b, 1)]), 1, "in maintenance");
        assert_eq!(told(&lists, &[is(a, 0), ("b", "10.0.0.3:80", 0)]), 2, "elsewhere");
        lists.changes(&servers(&[a]), Duration::ZERO);
        assert_eq!(told(&lists, &[is(a, 0)]), 0);
        lists.changes(&servers(&[a, b]), Duration::ZERO);
        assert_eq!(told(&lists, &[is(a, 0)]), 0, "what was read before may come still");
    }

    #[test]
    fn with_damping_a_server_stays_for_its_time() {
        let lists = Lists::default();
        let (a, b) = (("a", "10.0.0.1:80"), ("b", "10.0.0.2:80"));
        lists.changes(&servers(&[a, b]), Duration::ZERO);
        lists.rests(&servers(&[a, b]));
        lists.changes(&servers(&[a]), Duration::from_secs(3600));
        assert_eq!(told(&lists, &[("a", a.1, 0)]), 1);
        assert_eq!(told(&lists, &[("a", a.1, 0), ("b", b.1, 0)]), 0);
        lists.changes(&servers(&[a, ("b", "10.0.0.3:80")]), Duration::from_secs(3600));
        assert_eq!(told(&lists, &[("a", a.1, 0), ("b", "10.0.0.3:80", 0)]), 0, "it has moved");
    }
}
