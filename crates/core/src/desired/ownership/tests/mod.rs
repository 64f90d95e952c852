//! The rule in examples, and in all orders of what can happen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::*;
use crate::desired::references::Targets;
use crate::{DrainedMaster, EndedKind, EndedOverride, Note, Pin};

mod orders;
mod rules;

const NODE: &str = "n1";
const MINUTE: i64 = 60;

/// A gateway with the masters `m1`, `m2` and `m3`, a registry that names the last producer, and a
/// clock.
struct World {
    policy: Policy,
    ownership: Ownership,
    stored: StoredOwners,
    overrides: Overrides,
    /// Each node's producer, and when it was.
    registry: BTreeMap<String, (String, Timestamp)>,
    said: Arc<EntryMap>,
    candidate: Arc<EntryMap>,
    /// Whether the guard holds what the registry says.
    held: bool,
    /// Whether the map in force is what was decided last.
    routed: bool,
    /// Whether no HAProxy can be reached.
    blind: bool,
    /// Masters that the registry names and no HAProxy has.
    unknown: BTreeSet<&'static str>,
    down: BTreeSet<String>,
    now: Timestamp,
    polled_at: Timestamp,
    timed: bool,
}

fn policy() -> Policy {
    Policy::default()
}

impl World {
    fn new(nodes: &[(&str, &str)], timed: bool) -> Self {
        let said: Arc<EntryMap> = Arc::new(nodes.iter().copied().collect());
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let registry = nodes.iter().map(|(node, master)| {
            ((*node).to_owned(), ((*master).to_owned(), now - SignedDuration::from_hours(1)))
        });
        let mut world = Self {
            policy: policy(),
            ownership: Ownership::resume(policy(), StoredOwners::default(), Arc::clone(&said), now),
            stored: StoredOwners::default(),
            overrides: Overrides::default(),
            registry: registry.collect(),
            candidate: Arc::clone(&said),
            said,
            held: false,
            routed: true,
            blind: false,
            unknown: BTreeSet::new(),
            down: BTreeSet::new(),
            now,
            polled_at: now,
            timed,
        };
        world.poll();
        world
    }

    fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    /// The registry is asked, and every instance observed.
    fn poll(&mut self) -> &mut Self {
        let entries = self.registry.iter().map(|(node, (master, _))| (&**node, &**master));
        let said: EntryMap = entries.collect();
        self.candidate = Arc::new(said);
        if !self.held && self.candidate != self.said {
            self.said = Arc::clone(&self.candidate);
        }
        self.polled_at = self.now;
        self.evaluate()
    }

    fn evaluate(&mut self) -> &mut Self {
        let masters = ["m1", "m2", "m3"];
        let ready = masters.map(|master| (master, !self.down.contains(master)));
        let known = ready.into_iter().filter(|(master, _)| !self.unknown.contains(master));
        let targets: Targets = known.collect();
        let targets = if self.blind { targets.stale() } else { targets };
        self.ownership.observe(&[Arc::new(targets)], &self.said, self.now);
        let seen = Observation {
            said: &self.said,
            candidate: &self.candidate,
            answered: vec![Some(self.polled_at)],
            gone: &GoneNodes::default(),
            overrides: &self.overrides,
            now: self.now,
        };
        let (candidate, registry) = (&self.candidate, &self.registry);
        let (timed, answered) = (self.timed, self.polled_at);
        self.ownership.evaluate(&seen, |node, master| {
            let at = registry.get(node).filter(|(named, _)| timed && named == master);
            let told = Told { source: 0, at: at.map(|(_, at)| *at), answered };
            (candidate.get(node) == Some(master)).then_some(told)
        });
        if self.routed {
            let map = self.map();
            self.ownership.in_force(&map, self.now);
        }
        self.save()
    }

    fn save(&mut self) -> &mut Self {
        let Some(change) = self.ownership.unsaved() else { return self };
        self.ownership.saved();
        for (node, record) in change.records {
            match record {
                Some(record) => self.stored.records.insert(node, record),
                None => self.stored.records.remove(&node),
            };
        }
        if let Some(outages) = change.outages {
            self.stored.outages = outages;
        }
        self
    }

    fn restart(&mut self) -> &mut Self {
        let (stored, now) = (self.stored.clone(), self.now);
        let said = Arc::clone(&self.said);
        self.ownership = Ownership::resume(self.policy.clone(), stored, said, now);
        self.evaluate()
    }

    /// A restart whose first answer is there before any HAProxy was seen.
    fn blind_restart(&mut self) -> &mut Self {
        self.blind = true;
        self.restart().poll();
        self.blind = false;
        self.evaluate()
    }

    /// Where the map sends the node, its overrides included.
    fn route(&self, node: &str) -> Option<String> {
        self.map().get(node).map(str::to_owned)
    }

    fn map(&self) -> Arc<EntryMap> {
        let owned = self.ownership.apply(&self.said);
        crate::desired::overrides::apply(&owned, &self.overrides).entries
    }

    /// Whom HAProxy asks: the map's master, or where that is down a stand-in.
    fn server(&self, node: &str) -> String {
        let route = self.route(node).unwrap_or_else(|| "m1".to_owned());
        let up = |master: &&str| !self.down.contains(*master);
        let stand_in = ["m1", "m2", "m3"].into_iter().find(up).unwrap_or("m1");
        if self.down.contains(&route) { stand_in.to_owned() } else { route }
    }

    /// The node's agent runs through the gateway.
    fn run(&mut self, node: &str) -> &mut Self {
        let master = self.server(node);
        self.produce(node, &master)
    }

    fn produce(&mut self, node: &str, master: &str) -> &mut Self {
        self.registry.insert(node.to_owned(), (master.to_owned(), self.now));
        self
    }

    fn drain(&mut self, master: &str) -> &mut Self {
        self.end_drain(master, false);
        let (master, since) = (master.to_owned(), self.now);
        self.renumber();
        self.overrides
            .add_drain(DrainedMaster { master, to: None, since, note: Note::default() })
            .unwrap();
        self.evaluate()
    }

    fn undrain(&mut self, master: &str, stay: bool) -> &mut Self {
        self.end_drain(master, stay).evaluate()
    }

    fn end_drain(&mut self, master: &str, stay: bool) -> &mut Self {
        let Some(drained) = self.overrides.drain(master).cloned() else { return self };
        let of = EndedKind::Drain { master: master.to_owned() };
        let ended = EndedOverride { of, since: drained.since, until: self.now, stay };
        self.rebuild(|_| true, |drained| drained.master != master, ended)
    }

    fn pin(&mut self, node: &str, master: &str) -> &mut Self {
        self.end_pin(node);
        let (node, master) = (node.to_owned(), master.to_owned());
        self.renumber();
        self.overrides
            .add_pin(Pin { node, master, since: self.now, until: None, note: Note::default() })
            .unwrap();
        self.evaluate()
    }

    fn unpin(&mut self, node: &str) -> &mut Self {
        self.end_pin(node).evaluate()
    }

    fn end_pin(&mut self, node: &str) -> &mut Self {
        let Some(pin) = self.overrides.pin(node).cloned() else { return self };
        let ended = pin.ended(self.now);
        self.rebuild(|pin| pin.node != node, |_| true, ended)
    }

    /// Each change has a number.
    fn renumber(&mut self) {
        let mut after = Overrides::numbered(self.overrides.number() + 1);
        self.overrides.pins().for_each(|pin| after.add_pin(pin.clone()).unwrap());
        self.overrides.drained().for_each(|drain| after.add_drain(drain.clone()).unwrap());
        self.overrides.ended().cloned().for_each(|ended| after.add_ended(ended));
        self.overrides = after;
    }

    /// As the store does it.
    fn rebuild(
        &mut self,
        pins: impl Fn(&Pin) -> bool,
        drained: impl Fn(&DrainedMaster) -> bool,
        ended: EndedOverride,
    ) -> &mut Self {
        let mut after = Overrides::numbered(self.overrides.number() + 1);
        self.overrides.pins().filter(|pin| pins(pin)).for_each(|pin| {
            after.add_pin(pin.clone()).unwrap();
        });
        self.overrides.drained().filter(|drain| drained(drain)).for_each(|drain| {
            after.add_drain(drain.clone()).unwrap();
        });
        self.overrides.ended().cloned().chain([ended]).for_each(|ended| after.add_ended(ended));
        self.overrides = after;
        self
    }

    fn fail(&mut self, master: &str) -> &mut Self {
        self.down.insert(master.to_owned());
        self.evaluate()
    }

    /// A master fails: its nodes run elsewhere, which the registry tells before a health check has
    /// failed.
    fn fails_over(&mut self, master: &str) -> &mut Self {
        let nodes: Vec<String> = self.registry.keys().cloned().collect();
        let stand_in = ["m1", "m2", "m3"].into_iter().find(|other| *other != master);
        for node in nodes {
            if self.server(&node) == master {
                self.produce(&node, stand_in.unwrap_or("m1"));
            }
        }
        self.pass(2).poll().pass(4).fail(master)
    }

    fn recover(&mut self, master: &str) -> &mut Self {
        self.down.remove(master);
        self.evaluate()
    }

    fn forgotten(&mut self) -> Vec<Why> {
        self.ownership.take_forgotten().iter().map(|forgotten| forgotten.why).collect()
    }

    fn phase(&self, node: &str) -> Option<&'static str> {
        self.ownership.nodes().get(node).map(|owned| owned.phase.label())
    }
}

fn worlds() -> [World; 2] {
    [true, false].map(|timed| World::new(&[(NODE, "m1"), ("n2", "m2"), ("n3", "m3")], timed))
}
