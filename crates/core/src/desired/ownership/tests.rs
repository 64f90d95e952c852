//! The rule in examples, and in all orders of what can happen.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::desired::references::Targets;
use crate::{DrainedMaster, EndedKind, EndedOverride, Pin};

const NODE: &str = "n1";
const MINUTE: i64 = 60;

/// A gateway with the masters `m1`, `m2` and `m3`, a registry that names the last producer, and a
/// clock.
struct World {
    ownership: Ownership,
    stored: StoredOwners,
    overrides: Overrides,
    /// Each node's producer, and when it was.
    registry: BTreeMap<String, (String, Timestamp)>,
    said: Arc<EntryMap>,
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
            ownership: Ownership::resume(policy(), StoredOwners::default(), Arc::clone(&said)),
            stored: StoredOwners::default(),
            overrides: Overrides::default(),
            registry: registry.collect(),
            said,
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
        if said != *self.said {
            self.said = Arc::new(said);
        }
        self.polled_at = self.now;
        self.evaluate()
    }

    fn evaluate(&mut self) -> &mut Self {
        let masters = ["m1", "m2", "m3"];
        let ready = masters.map(|master| (master, !self.down.contains(master)));
        let targets: Targets = ready.into_iter().collect();
        self.ownership.outages().observe(&[Arc::new(targets)], masters.into_iter(), self.now);
        let seen = Observation {
            said: &self.said,
            answered_at: self.polled_at,
            overrides: &self.overrides,
            now: self.now,
        };
        let (registry, timed) = (&self.registry, self.timed);
        self.ownership.evaluate(&seen, |node, master| {
            let (named, at) = registry.get(node)?;
            (timed && named == master).then_some(*at)
        });
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
        let stored = self.stored.clone();
        self.ownership = Ownership::resume(policy(), stored, Arc::clone(&self.said));
        self.evaluate()
    }

    /// Where the map sends the node, its overrides included.
    fn route(&self, node: &str) -> Option<String> {
        let owned = self.ownership.apply(&self.said);
        let over = crate::desired::overrides::apply(&owned, &self.overrides);
        over.entries.get(node).map(str::to_owned)
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
        self.overrides.add_drain(DrainedMaster { master, to: None, since }).unwrap();
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
        let (node, master) = (node.to_owned(), master.to_owned());
        self.renumber();
        self.overrides.add_pin(Pin { node, master, since: self.now, until: None }).unwrap();
        self.evaluate()
    }

    fn unpin(&mut self, node: &str) -> &mut Self {
        let Some(pin) = self.overrides.pin(node).cloned() else { return self };
        let ended = pin.ended(self.now);
        self.rebuild(|pin| pin.node != node, |_| true, ended).evaluate()
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

    fn recover(&mut self, master: &str) -> &mut Self {
        self.down.remove(master);
        self.evaluate()
    }

    fn phase(&self, node: &str) -> Option<&'static str> {
        self.ownership.nodes().get(node).map(|owned| owned.phase.label())
    }
}

fn worlds() -> [World; 2] {
    [true, false].map(|timed| World::new(&[(NODE, "m1"), ("n2", "m2"), ("n3", "m3")], timed))
}

#[test]
fn a_node_goes_home_after_a_drain_and_stays_until_the_registry_names_its_owner() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1");
        let stand_in = world.route(NODE).unwrap();
        assert_ne!(stand_in, "m1");
        world.pass(10 * MINUTE).run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), Some("away")));
        world.pass(10 * MINUTE).undrain("m1", false);
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
        world.pass(10 * MINUTE).poll();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"), "nothing new was said");
        world.run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
    }
}

#[test]
fn a_run_before_the_undrain_that_is_polled_after_it_moves_nobody() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE).run(NODE).undrain("m1", false);
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
        world.pass(20).poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
    }
}

#[test]
fn a_node_goes_home_after_an_unpin_and_after_an_outage() {
    for mut world in worlds() {
        world.pass(MINUTE).pin(NODE, "m2").run(NODE).pass(MINUTE).poll().unpin(NODE);
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
        world.pass(MINUTE).run(NODE).pass(MINUTE).poll();
        assert_eq!(world.phase(NODE), None);

        world.fail("m1").pass(MINUTE).run(NODE).pass(5).poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m2"), Some("away")),
            "while its owner is down it goes where it is served"
        );
        world.pass(MINUTE).recover("m1");
        assert_eq!(world.route(NODE).as_deref(), Some("m2"), "the owner may fail again at once");
        assert!(world.ownership.next_due().is_some_and(|due| due > world.now));
        world.pass(MINUTE).evaluate();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
    }
}

#[test]
fn a_failover_that_the_registry_knows_before_a_health_check_failed_is_no_move() {
    for mut world in worlds() {
        world.pass(MINUTE).produce(NODE, "m2").pass(1).poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m2"), Some("leaving"))
        );
        world.pass(4).fail("m1").pass(5 * MINUTE).evaluate();
        assert_eq!(world.phase(NODE), Some("away"));
        world.recover("m1").pass(MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn a_move_while_the_owner_is_there_is_one_on_purpose() {
    for mut world in worlds() {
        world.pass(MINUTE).produce(NODE, "m2").pass(1).poll().pass(2 * MINUTE).evaluate();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m2"), None));
        world.fail("m1").pass(5 * MINUTE).recover("m1").pass(MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m2"));
    }
}

#[test]
fn a_move_on_purpose_counts_once_the_owner_is_back() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE).run(NODE).pass(5).poll();
        let stand_in = world.registry[NODE].0.clone();
        let other = if stand_in == "m2" { "m3" } else { "m2" };
        world.pass(MINUTE).undrain("m1", false).pass(5 * MINUTE).poll();
        world.pass(5 * MINUTE).produce(NODE, other).pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some(other), None));
    }
}

#[test]
fn who_is_waited_for_in_vain_is_the_registrys_after_the_bound() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll().undrain("m1", false);
        let stand_in = world.registry[NODE].0.clone();
        world.pass(119 * MINUTE).poll();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
        world.pass(2 * MINUTE).poll();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), None));
    }
}

#[test]
fn an_undrain_with_stay_leaves_nodes_where_they_ran_and_gives_back_the_others() {
    for mut world in worlds() {
        world.registry.insert("n4".to_owned(), ("m1".to_owned(), world.now));
        world.poll().pass(MINUTE).drain("m1").pass(MINUTE).run(NODE).pass(5).poll();
        let stand_in = world.registry[NODE].0.clone();
        world.pass(MINUTE).undrain("m1", true).pass(5 * MINUTE).poll();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), None));
        assert_eq!(world.route("n4").as_deref(), Some("m1"));
    }
}

#[test]
fn an_operator_says_whose_a_node_is() {
    for mut world in worlds() {
        let now = world.pass(MINUTE).now;
        world.ownership.own(NODE, "m3", now);
        world.evaluate();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m3"), Some("returning"))
        );
        world.pass(MINUTE).run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m3"), None));

        world.pass(MINUTE).drain("m3").pass(MINUTE).run(NODE).pass(5).poll();
        let now = world.now;
        world.ownership.own(NODE, "m1", now);
        world.evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"), "not m3, though that is drained");
        world.pass(MINUTE).undrain("m3", false);
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn what_the_registry_lost_during_a_drain_goes_home_too() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE);
        world.registry.remove(NODE);
        world.poll().pass(MINUTE).produce(NODE, "m2").pass(5).poll();
        world.pass(MINUTE).undrain("m1", false);
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn a_restart_goes_on_from_what_is_stored() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE).run(NODE).pass(5).poll();
        assert_eq!(world.stored.records.len(), 1);
        world.restart();
        assert_eq!(world.phase(NODE), Some("away"));
        world.pass(MINUTE).undrain("m1", false).restart();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
        world.pass(MINUTE).run(NODE).pass(5).poll();
        assert!(world.stored.records.is_empty());

        world.pass(MINUTE).fail("m1").pass(MINUTE).run(NODE).recover("m1").pass(MINUTE).restart();
        world.pass(MINUTE).evaluate().pass(MINUTE).poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
    }
}

#[derive(Debug, Clone)]
enum Event {
    Wait(i64),
    Run(usize),
    Poll,
    Drain(usize),
    Undrain(usize),
    Fail(usize),
    Recover(usize),
    Restart,
    /// A node's agent is given to another master, for good.
    Move(usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        // All of them together are less than the bound of a return.
        3 => (1i64..2 * MINUTE).prop_map(Event::Wait),
        4 => (0usize..3).prop_map(Event::Run),
        4 => Just(Event::Poll),
        2 => (0usize..3).prop_map(Event::Drain),
        2 => (0usize..3).prop_map(Event::Undrain),
        1 => (0usize..3).prop_map(Event::Fail),
        2 => (0usize..3).prop_map(Event::Recover),
        1 => Just(Event::Restart),
        2 => (0usize..3, 0usize..3).prop_map(|(node, master)| Event::Move(node, master)),
    ]
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const MASTERS: [&str; 3] = ["m1", "m2", "m3"];

/// Everybody is back, and every agent has run often enough.
fn settle(world: &mut World) {
    for master in MASTERS {
        world.recover(master).undrain(master, false);
    }
    for _ in 0..3 {
        world.pass(2 * MINUTE).poll();
        for node in NODES {
            world.run(node);
        }
        world.pass(5).poll();
    }
}

proptest! {
    #[test]
    fn no_order_of_drains_failovers_and_polls_loses_a_move_or_keeps_a_node_from_home(
        events in proptest::collection::vec(event(), 0..40),
        timed: bool,
    ) {
        let mut world = World::new(&[("n1", "m1"), ("n2", "m2"), ("n3", "m3")], timed);
        let mut owners: BTreeMap<&str, &str> = NODES.into_iter().zip(MASTERS).collect();
        for event in events {
            match event {
                Event::Wait(seconds) => { world.pass(seconds).evaluate(); }
                Event::Run(node) => { world.run(NODES[node]); }
                Event::Poll => { world.poll(); }
                Event::Drain(master) => { world.drain(MASTERS[master]); }
                Event::Undrain(master) => { world.undrain(MASTERS[master], false); }
                Event::Fail(master) if world.down.len() < 2 => { world.fail(MASTERS[master]); }
                Event::Fail(_) => {}
                Event::Recover(master) => { world.recover(MASTERS[master]); }
                Event::Restart => { world.restart(); }
                // On purpose is what happens while the owner is there and serves the node, and is
                // not close to an absence.
                Event::Move(node, master) => {
                    let (node, master) = (NODES[node], MASTERS[master]);
                    let everyone = world.down.is_empty() && world.overrides.is_empty();
                    if everyone && world.ownership.nodes().is_empty() {
                        world.poll().pass(3 * MINUTE).poll();
                        if world.ownership.nodes().is_empty() {
                            world.produce(node, master).pass(5).poll().pass(3 * MINUTE).evaluate();
                            owners.insert(node, master);
                        }
                    }
                }
            }
            for (node, owned) in world.ownership.nodes() {
                prop_assert_eq!(Some(owned.record.owner.as_str()), owners.get(&**node).copied());
            }
        }
        settle(&mut world);
        for (node, owner) in owners {
            let route = world.route(node);
            prop_assert_eq!(route.as_deref(), Some(owner), "{} is not home", node);
            prop_assert_eq!(world.phase(node), None);
            prop_assert_eq!(&world.registry[node].0, owner);
        }
    }
}
