//! Slows a flapping registry down: what it lists -> the list in force. Pure.
//!
//! Changes wait until the registry has been quiet for a moment, bounded in total; a server that is
//! gone stays for a hold time; of those that are due only a share goes at once, the ones longest
//! gone first, and the last server of a list never goes unless the list may be empty. The rules and their numbers are Muppet's
//! (TritonDataCenter/muppet, `lib/watch.js`), but for its rounding: see [`DampingPolicy`].

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::desired::guard::Limit;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DampingPolicy {
    /// How long nothing may change before a change counts.
    pub debounce: Duration,
    /// The longest that a change waits for quiet.
    pub max_delay: Duration,
    /// How long a server that is no longer listed stays, counted from the moment it was last known
    /// to be listed.
    pub hold: Duration,
    /// How many of a list's servers may go within one `hold`: a share, rounded down, but at least
    /// one. (Muppet rounds up, and so lets more go than the share says, the last server among
    /// them.)
    pub max_removed: Limit,
    /// Whether the last server may go.
    pub may_be_empty: bool,
}

impl DampingPolicy {
    fn most_removed(&self, servers: usize) -> usize {
        let most = match self.max_removed {
            Limit::Percent(percent) => (servers as f64 * percent / 100.0) as usize,
            Limit::Entries(most) => most,
        };
        most.max(1)
    }

    /// How long after a removal the next one counts as another; not nothing, or a throttle would be
    /// none.
    fn spacing(&self) -> Duration {
        self.hold.max(Duration::from_secs(1))
    }
}

/// Changes that wait for quiet.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Duration,
    last: Duration,
}

/// How many servers may still go before a time.
#[derive(Debug, Clone, Copy)]
struct Window {
    until: Duration,
    left: usize,
}

/// One backend's list. Times are those of one steady clock that the caller reads.
#[derive(Debug, Clone)]
pub struct Damper<T> {
    pace: DampingPolicy,
    listed: Option<BTreeMap<String, T>>,
    in_force: Option<BTreeMap<String, T>>,
    /// When the servers in force that are not listed were last listed.
    last_seen: BTreeMap<String, Duration>,
    burst: Option<Burst>,
    window: Option<Window>,
    /// What an operator ordered, until the next step.
    ordered: Option<BTreeMap<String, T>>,
    /// Those that took themselves off the list: they need not be waited for.
    left: BTreeSet<String>,
}

impl<T: Clone + PartialEq> Damper<T> {
    pub fn new(pace: DampingPolicy) -> Self {
        Self {
            pace,
            listed: None,
            in_force: None,
            last_seen: BTreeMap::new(),
            burst: None,
            window: None,
            ordered: None,
            left: BTreeSet::new(),
        }
    }

    /// A damper that goes on from the list that was last in force: what is listed next is a change
    /// of it.
    pub fn resume(pace: DampingPolicy, in_force: BTreeMap<String, T>) -> Self {
        Self { listed: Some(in_force.clone()), in_force: Some(in_force), ..Self::new(pace) }
    }

    /// Takes what is listed from `now` on. What was listed before counts as seen until now.
    pub fn list(&mut self, listed: BTreeMap<String, T>, now: Duration) {
        if self.listed.as_ref() == Some(&listed) {
            return;
        }
        for name in
            self.listed.iter().flat_map(BTreeMap::keys).filter(|name| !listed.contains_key(*name))
        {
            self.last_seen.insert(name.clone(), now);
        }
        let in_force = self.in_force.as_ref();
        self.last_seen.retain(|name, _| {
            !listed.contains_key(name) && in_force.is_some_and(|servers| servers.contains_key(name))
        });
        // Back to what is in force: nothing waits any more.
        self.burst = (in_force != Some(&listed))
            .then(|| Burst { first: self.burst.map_or(now, |burst| burst.first), last: now });
        self.listed = Some(listed);
    }

    /// Has this list in force from the next step on, whatever the policy says: an operator ordered
    /// it. What else is in force stays as it is where it `may_stay`, and goes else.
    pub fn order(&mut self, listed: BTreeMap<String, T>, may_stay: impl Fn(&str) -> bool) {
        let mut next = listed.clone();
        for (name, server) in self.in_force.iter().flatten().filter(|(name, _)| may_stay(name)) {
            next.entry(name.clone()).or_insert_with(|| server.clone());
        }
        self.last_seen.retain(|name, _| next.contains_key(name) && !listed.contains_key(name));
        self.burst = None;
        self.listed = Some(listed);
        self.ordered = Some(next);
    }

    /// These took themselves off the list, and are gone: neither the hold nor the throttle is for
    /// them.
    pub fn leave(&mut self, left: &BTreeSet<String>, now: Duration) {
        let is_news = |name: &String| self.last_seen.contains_key(name);
        if left.difference(&self.left).any(is_news) {
            self.burst.get_or_insert(Burst { first: now, last: now });
        }
        self.left.clone_from(left);
    }

    /// Brings into force what is due. Whether the list in force is another one now.
    pub fn step(&mut self, now: Duration) -> bool {
        let ordered = self.ordered.take().is_some_and(|next| {
            let changed = self.in_force.as_ref() != Some(&next);
            self.in_force = Some(next);
            changed
        });
        if self.change_due().is_some_and(|due| now < due) {
            return ordered;
        }
        self.burst = None;
        let Some(mut next) = self.listed.clone() else { return ordered };
        let going = self.going(now);
        if let Some(window) = &mut self.window {
            let damped = going.iter().filter(|name| !self.left.contains(*name)).count();
            window.left = window.left.saturating_sub(damped);
        }
        for (name, server) in self.in_force.iter().flatten() {
            if !next.contains_key(name) && !going.contains(name) {
                next.insert(name.clone(), server.clone());
            }
        }
        self.last_seen.retain(|name, _| next.contains_key(name));
        let changed = self.in_force.as_ref() != Some(&next);
        self.in_force = Some(next);
        changed || ordered
    }

    fn going(&mut self, now: Duration) -> Vec<String> {
        let may_go = self.last_seen.len() - usize::from(self.spares_last());
        let left = self.last_seen.keys().filter(|name| self.left.contains(*name));
        let mut going: Vec<String> = left.take(may_go).cloned().collect();
        let is_due = |(name, seen): &(&String, &Duration)| {
            now >= **seen + self.pace.hold && !self.left.contains(*name)
        };
        let mut due: Vec<_> = self.last_seen.iter().filter(is_due).collect();
        if due.is_empty() {
            return going;
        }
        due.sort_by_key(|(_, seen)| **seen);
        let window = match self.window {
            Some(window) if now < window.until => window,
            _ => {
                let servers = self.in_force.as_ref().map_or(0, BTreeMap::len);
                Window { until: now + self.pace.spacing(), left: self.pace.most_removed(servers) }
            }
        };
        self.window = Some(window);
        let most = window.left.min(may_go - going.len());
        going.extend(due.into_iter().take(most).map(|(name, _)| name.clone()));
        going
    }

    /// Whether one of the servers that are not listed any more stays as the last of all.
    fn spares_last(&self) -> bool {
        !self.pace.may_be_empty
            && !self.last_seen.is_empty()
            && self.listed.as_ref().is_none_or(BTreeMap::is_empty)
    }

    pub fn pace(&self) -> DampingPolicy {
        self.pace
    }

    /// The list in force; none before the first.
    pub fn in_force(&self) -> Option<&BTreeMap<String, T>> {
        self.in_force.as_ref()
    }

    /// When the changes that wait for quiet come into force at the latest, as things stand; none
    /// where none waits.
    pub fn change_due(&self) -> Option<Duration> {
        self.burst
            .map(|burst| (burst.last + self.pace.debounce).min(burst.first + self.pace.max_delay))
    }

    /// The servers in force that are not listed any more, each with the earliest time it may go;
    /// none for one that stays because it is the last.
    pub fn leaving(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        let is_last = self.last_seen.len() == 1 && self.spares_last();
        let full = self.window.filter(|window| window.left == 0).map(|window| window.until);
        self.last_seen.iter().map(move |(name, seen)| {
            let due = (*seen + self.pace.hold).max(full.unwrap_or_default());
            (name.as_str(), (!is_last).then_some(due))
        })
    }

    /// When [`Damper::step`] has something to do again; none while nothing waits.
    pub fn next_step(&self) -> Option<Duration> {
        // A removal that falls due within a burst comes with it.
        self.change_due().or_else(|| self.leaving().filter_map(|(_, due)| due).min())
    }
}

#[cfg(test)]
mod tests;
