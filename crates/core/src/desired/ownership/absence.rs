//! When a node's owner could not serve it: drained, pinned away from, or ready in no instance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::Overrides;
use crate::desired::references::Targets;
use crate::overrides::ENDED_KEPT;

/// The most outages of a master that are remembered after their end, and for how long.
const REMEMBERED_OUTAGES: usize = 16;
const KEPT: SignedDuration = SignedDuration::from_secs(ENDED_KEPT.as_secs() as i64);

/// A time in which a node's owner did not serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absence {
    pub from: Timestamp,
    /// None while it lasts.
    pub until: Option<Timestamp>,
    /// Whether an operator ordered it.
    pub ordered: bool,
    /// Whether the nodes were to stay where they were at its end.
    pub stay: bool,
}

/// Every absence of a node's owner that is known.
pub(super) fn absences<'a>(
    node: &'a str,
    owner: &'a str,
    overrides: &'a Overrides,
    outages: &'a Outages,
) -> impl Iterator<Item = Absence> + 'a {
    let lasting = |from| Absence { from, until: None, ordered: true, stay: false };
    let drained = overrides.drain(owner).map(|drained| lasting(drained.since));
    let pinned = overrides.pin(node).filter(|pin| pin.master != owner);
    let pinned = pinned.map(|pin| lasting(pin.since));
    let ended = overrides.ended().filter(move |ended| ended.concerned(node, owner));
    let ended = ended.map(|ended| Absence {
        from: ended.since,
        until: Some(ended.until),
        ordered: true,
        stay: ended.stay,
    });
    drained.into_iter().chain(pinned).chain(ended).chain(outages.of(owner))
}

/// A time in which a master was ready in no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    pub master: String,
    pub from: Timestamp,
    /// None while it lasts; in the future where the master is ready again, and not for long enough
    /// yet.
    pub until: Option<Timestamp>,
}

/// When masters were ready in no instance.
#[derive(Debug, Clone)]
pub(super) struct Outages {
    return_after: Duration,
    masters: BTreeMap<String, Master>,
    /// Whether one has begun or ended since they were stored.
    unsaved: bool,
    /// When an instance was last observed, if ever.
    observed_at: Option<Timestamp>,
    /// Whether one can be observed now.
    observed: bool,
    /// Whether a master's state is another than when that was last taken in.
    new: bool,
}

#[derive(Debug, Clone, Default)]
struct Master {
    state: State,
    /// The latest outages that are over.
    ended: VecDeque<(Timestamp, Timestamp)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before it was first observed.
    #[default]
    Unknown,
    Up,
    Down {
        from: Timestamp,
    },
    /// Ready again, and not for long enough yet.
    Recovering {
        from: Timestamp,
        until: Timestamp,
    },
}

impl Outages {
    /// Goes on from what is stored. An outage ends once the master has been ready for so long.
    pub(super) fn resume(return_after: Duration, known: Vec<Outage>, now: Timestamp) -> Self {
        let mut masters: BTreeMap<String, Master> = BTreeMap::new();
        for Outage { master, from, until } in known {
            let master = masters.entry(master).or_default();
            match until {
                Some(until) if until > now => master.state = State::Recovering { from, until },
                Some(until) => master.end(from, until),
                None => master.state = State::Down { from },
            }
        }
        Self {
            return_after,
            masters,
            unsaved: false,
            observed_at: None,
            observed: false,
            new: true,
        }
    }

    /// Whether any HAProxy can be seen now.
    pub(super) fn observed(&self) -> bool {
        self.observed
    }

    /// Whether a HAProxy has, or had, such a server or backend; without any HAProxy nobody knows.
    pub(super) fn exists(&self, master: &str) -> bool {
        let state = self.masters.get(master).map(|master| master.state);
        self.observed_at.is_none() || state.is_some_and(|state| state != State::Unknown)
    }

    /// Every outage that is remembered, as it is to be stored.
    pub(super) fn all(&self) -> Vec<Outage> {
        let outages = self.masters.iter().flat_map(|(name, master)| {
            let ended = master.ended.iter().map(|(from, until)| (*from, Some(*until)));
            let all = ended.chain(master.to_store());
            all.map(|(from, until)| Outage { master: name.clone(), from, until })
        });
        outages.collect()
    }

    pub(super) fn are_new(&self) -> bool {
        self.new
    }

    pub(super) fn taken_in(&mut self) {
        self.new = false;
    }

    pub(super) fn unsaved(&self) -> bool {
        self.unsaved
    }

    pub(super) fn saved(&mut self) {
        self.unsaved = false;
    }

    /// Takes in what every instance that can be reached has ready, for these masters: all that are
    /// of any interest. Without any such instance nothing is known of them. Outages that ended
    /// before `needed` and a week ago are forgotten.
    pub(super) fn observe<'a>(
        &mut self,
        targets: &[Arc<Targets>],
        masters: impl Iterator<Item = &'a str>,
        needed: Timestamp,
        now: Timestamp,
    ) {
        let targets: Vec<_> = targets.iter().filter(|targets| !targets.is_stale()).collect();
        self.new |= self.observed == targets.is_empty();
        self.observed = !targets.is_empty();
        if targets.is_empty() {
            return;
        }
        // Whoever is down after a time in which nothing was seen may have been so all along.
        let up_until = self.observed_at.replace(now).unwrap_or(now);
        let named: BTreeSet<&str> = masters.collect();
        for name in &named {
            if !self.masters.contains_key(*name) {
                self.masters.insert((*name).to_owned(), Master::default());
            }
        }
        self.masters.retain(|name, master| {
            let ready = targets.iter().filter_map(|targets| targets.ready(name)).max();
            let (stored, ended, state) = (master.to_store(), master.ended.len(), master.state);
            master.observe(ready, up_until, now, self.return_after);
            let kept = |until: Timestamp| until >= needed || now.duration_since(until) < KEPT;
            master.ended.retain(|(_, until)| kept(*until));
            let kept = named.contains(name.as_str()) || !master.ended.is_empty();
            self.unsaved |= master.to_store() != stored || master.ended.len() != ended;
            self.unsaved |= !kept && stored.is_some();
            self.new |= master.state != state;
            kept
        });
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let due = self.masters.values().filter_map(|master| match master.state {
            State::Recovering { until, .. } => Some(until),
            _ => None,
        });
        due.min()
    }

    fn of(&self, owner: &str) -> impl Iterator<Item = Absence> {
        self.masters.get(owner).into_iter().flat_map(|master| {
            let ended = master.ended.iter().map(|(from, until)| (*from, Some(*until)));
            let absences = ended.chain(master.lasting().map(|from| (from, None)));
            absences.map(|(from, until)| Absence { from, until, ordered: false, stay: false })
        })
    }
}

impl Master {
    fn lasting(&self) -> Option<Timestamp> {
        match self.state {
            State::Down { from } | State::Recovering { from, .. } => Some(from),
            State::Unknown | State::Up => None,
        }
    }

    /// The outage that is not over for good, as it is to be stored.
    fn to_store(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        match self.state {
            State::Down { from } => Some((from, None)),
            State::Recovering { from, until } => Some((from, Some(until))),
            State::Unknown | State::Up => None,
        }
    }

    /// `ready` is none where no instance has such a target; `up_until` is when one was last seen.
    fn observe(
        &mut self,
        ready: Option<bool>,
        up_until: Timestamp,
        now: Timestamp,
        return_after: Duration,
    ) {
        self.state = match (self.state, ready.unwrap_or(false)) {
            (State::Unknown, false) if ready.is_none() => State::Unknown,
            (State::Unknown | State::Up, true) => State::Up,
            // It may have been down for long when it is first observed.
            (State::Unknown, false) => State::Down { from: Timestamp::MIN },
            (State::Up, false) => State::Down { from: up_until },
            (State::Down { from } | State::Recovering { from, .. }, false) => State::Down { from },
            (State::Down { from }, true) => {
                State::Recovering { from, until: now.saturating_add(return_after).unwrap_or(now) }
            }
            (recovering @ State::Recovering { .. }, true) => recovering,
        };
        if let State::Recovering { from, until } = self.state
            && until <= now
        {
            self.end(from, until);
            self.state = State::Up;
        }
    }

    fn end(&mut self, from: Timestamp, until: Timestamp) {
        // The oldest two become one: a master that flaps was hardly there in between.
        if self.ended.len() == REMEMBERED_OUTAGES
            && let Some((oldest, _)) = self.ended.pop_front()
            && let Some((from, _)) = self.ended.front_mut()
        {
            *from = oldest;
        }
        self.ended.push_back((from, until));
    }
}
