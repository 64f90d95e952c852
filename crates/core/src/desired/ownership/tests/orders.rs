//! The rule in all orders of what can happen.

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
    /// From here on the guard holds what the registry says, or does not.
    Held(bool),
    /// From here on decisions come into force, or don't.
    Routed(bool),
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
        1 => (0usize..3, 0usize..3).prop_map(|(node, master)| Event::Own(node, master)),
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
                Event::Held(held) => world.held = held,
                Event::Routed(routed) => world.routed = routed,
                Event::Own(node, master) => {
                    let now = world.now;
                    world.ownership.own(NODES[node], MASTERS[master], now);
                    world.evaluate();
                    owners.insert(NODES[node], MASTERS[master]);
                }
                // On purpose is what happens while the owner is there and serves the node, and is
                // not close to an absence.
                Event::Move(node, master) => {
                    let (node, master) = (NODES[node], MASTERS[master]);
                    let everyone = world.down.is_empty() && world.overrides.is_empty();
                    let everyone = everyone && !world.held && world.routed;
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
