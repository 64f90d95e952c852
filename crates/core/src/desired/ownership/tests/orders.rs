//! The rule in all orders of what can happen.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

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
    /// An operator says whose a node is.
    Own(usize, usize),
    /// A master fails, and PuppetDB knows of the runs at stand-ins before its health check failed.
    Failover(usize),
    Pin(usize, usize),
    Unpin(usize),
    /// A restart at which the sources answer before any HAProxy is seen.
    BlindRestart,
    /// The registry loses a node whose owner is away.
    Lose(usize),
    /// From here on the guard holds what the registry says, or does not.
    Held(bool),
    /// From here on decisions come into force, or don't.
    Routed(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1i64..2 * MINUTE).prop_map(Event::Wait),
        4 => (0usize..3).prop_map(Event::Run),
        4 => Just(Event::Poll),
        2 => (0usize..3).prop_map(Event::Drain),
        2 => (0usize..3).prop_map(Event::Undrain),
        1 => (0usize..3).prop_map(Event::Fail),
        2 => (0usize..3).prop_map(Event::Recover),
        1 => Just(Event::Restart),
        2 => (0usize..3, 0usize..3).prop_map(|(node, master)| Event::Move(node, master)),
        1 => (0usize..3, 0usize..3).prop_map(|(node, master)| Event::Own(node, master)),
        2 => (0usize..3).prop_map(Event::Failover),
        1 => (0usize..3, 0usize..3).prop_map(|(node, master)| Event::Pin(node, master)),
        1 => (0usize..3).prop_map(Event::Unpin),
        1 => Just(Event::BlindRestart),
        1 => (0usize..3).prop_map(Event::Lose),
        1 => any::<bool>().prop_map(Event::Held),
        1 => any::<bool>().prop_map(Event::Routed),
    ]
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const MASTERS: [&str; 3] = ["m1", "m2", "m3"];

/// Everybody is back, and every agent has run often enough.
fn settle(world: &mut World) {
    (world.held, world.routed) = (false, true);
    for master in MASTERS {
        world.recover(master).undrain(master, false);
    }
    for node in NODES {
        world.unpin(node);
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
        // More than all events together take.
        world.policy.confirm_within = Duration::from_secs(24 * 3600);
        world.restart();
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
                // When what is held began is not stored: without times it is not known then.
                Event::Restart | Event::BlindRestart if !timed && world.said != world.candidate => {}
                Event::Restart => { world.restart(); }
                Event::Failover(master) if world.down.is_empty() && !world.held => {
                    world.fails_over(MASTERS[master]);
                }
                Event::Failover(_) => {}
                Event::Pin(node, master) => { world.pin(NODES[node], MASTERS[master]); }
                Event::Unpin(node) => { world.unpin(NODES[node]); }
                Event::BlindRestart => { world.blind_restart(); }
                Event::Lose(node) => {
                    let owner = owners[NODES[node]];
                    let absent = world.down.contains(owner) || world.overrides.drain(owner).is_some();
                    if absent && world.phase(NODES[node]) == Some("away") {
                        world.registry.remove(NODES[node]);
                        world.poll();
                    }
                }
                Event::Held(held) => world.held = held,
                Event::Routed(routed) => world.routed = routed,
                Event::Own(node, master) => {
                    let now = world.now;
                    world.ownership.own(NODES[node], MASTERS[master], now);
                    world.evaluate();
                    owners.insert(NODES[node], MASTERS[master]);
                }
                // On purpose is what happens while the owner is there and serves the node, which
                // may be on its way home, and is not close to an absence.
                Event::Move(node, master) => {
                    let (node, master) = (NODES[node], MASTERS[master]);
                    if world.held || !world.routed {
                        continue;
                    }
                    world.poll().pass(3 * MINUTE).poll().pass(3 * MINUTE).poll();
                    let is_there = |of: &str| {
                        !world.down.contains(of) && world.overrides.drain(of).is_none()
                    };
                    // Without times the same answer again is no news.
                    let named = world.registry.get(node);
                    let is_news = named.is_some_and(|(named, _)| timed || named != master);
                    let phase = world.phase(node);
                    let settled = phase.is_none() || phase == Some("returning");
                    let settled = settled && world.overrides.pin(node).is_none();
                    if settled && is_news && is_there(owners[node]) && is_there(master) {
                        world.produce(node, master).pass(5).poll().pass(3 * MINUTE).poll();
                        owners.insert(node, master);
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
