//! The laws of the planner, over random processes, lists, hands and accidents.

mod drawn;
mod laws;
mod world;

use proptest::prelude::*;

use super::*;
use drawn::{desired, event, process};
use world::World;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn looks_bring_every_list_to_what_it_should_be_or_say_why_not(
        process in process(),
        desired in desired(),
    ) {
        World::new(process, desired).settle()?;
    }

    #[test]
    fn it_still_does_after_whatever_persons_restarts_and_cut_connections_did(
        process in process(),
        desired in desired(),
        events in proptest::collection::vec(event(), 0..12),
    ) {
        let mut world = World::new(process, desired);
        for event in events {
            let reach = world.happen(event);
            world.look(reach)?;
        }
        world.settle()?;
    }
}
