//! The rule in examples.

use super::*;

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
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some(other), Some("leaving")),
            "its owner may have failed just now"
        );
        world.pass(MINUTE).evaluate();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some(other), None));
    }
}

#[test]
fn a_failover_of_a_node_that_is_on_its_way_home_is_no_move() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll();
        world.pass(MINUTE).undrain("m1", false).pass(5 * MINUTE).poll().pass(5 * MINUTE).poll();
        assert_eq!(world.phase(NODE), Some("returning"));
        world.fails_over("m1").pass(10 * MINUTE).evaluate();
        assert_eq!(world.phase(NODE), Some("away"));
        world.recover("m1").pass(MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn an_order_is_not_confirmed_by_what_was_said_before_it() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll();
        let stand_in = world.registry[NODE].0.clone();
        world.pass(MINUTE).undrain("m1", false).pass(10 * MINUTE).run(NODE).pass(5);
        let now = world.now;
        world.ownership.own(NODE, &stand_in, now);
        world.evaluate().pass(5).poll();
        assert_eq!(world.route(NODE).as_deref(), Some(stand_in.as_str()));
        world.run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), None));
    }
}

#[test]
fn what_was_held_when_the_owner_was_drained_is_no_move_once_it_is_approved() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE);
        world.held = true;
        world.run(NODE).pass(5).poll();
        world.pass(10 * MINUTE).poll().undrain("m1", false);
        for _ in 0..5 {
            world.pass(2 * MINUTE).poll();
        }
        world.held = false;
        world.poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
    }
}

#[test]
fn nodes_that_ran_elsewhere_while_mapsmith_was_off_go_home_though_no_haproxy_is_seen_at_first() {
    for mut world in worlds() {
        world.pass(MINUTE).down.insert("m1".to_owned());
        world.pass(10 * MINUTE).run(NODE).pass(10 * MINUTE).blind_restart();
        assert_eq!(world.phase(NODE), Some("away"));
        world.recover("m1").pass(MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
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

#[test]
fn while_the_registry_is_silent_a_node_stays_home_whatever_the_bound() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll().undrain("m1", false);
        world.pass(5 * 60 * MINUTE).evaluate();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning")),
            "nobody has asked the registry since"
        );
        world.run(NODE).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
        assert_eq!(world.forgotten(), [Why::Confirmed]);
    }
}

#[test]
fn a_confirmation_that_the_guard_holds_keeps_a_node_home() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll().undrain("m1", false);
        world.held = true;
        world.pass(MINUTE).run(NODE).pass(5).poll().pass(5 * 60 * MINUTE).poll();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
        world.held = false;
        world.pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
    }
}

#[test]
fn nodes_stay_after_an_undrain_with_stay_of_a_master_that_is_still_off() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(5).fail("m1").pass(MINUTE).run(NODE).pass(5).poll();
        let stand_in = world.registry[NODE].0.clone();
        world.pass(MINUTE).undrain("m1", true);
        assert_eq!(world.forgotten(), [Why::Stayed]);
        world.pass(5 * MINUTE).recover("m1").pass(5 * MINUTE).poll();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), None));
    }
}

#[test]
fn a_run_before_the_return_is_in_force_is_no_move_on_purpose() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll();
        let stand_in = world.registry[NODE].0.clone();
        world.routed = false;
        world.pass(MINUTE).undrain("m1", false);
        let other = if stand_in == "m2" { "m3" } else { "m2" };
        world.pass(10 * MINUTE).produce(NODE, other).pass(5).poll();
        assert_eq!(world.phase(NODE), Some("returning"), "the map file could not be written");
        world.routed = true;
        world.pass(MINUTE).evaluate().pass(10 * MINUTE).poll();
        world.produce(NODE, &stand_in).pass(5).poll().pass(MINUTE).evaluate();
        assert_eq!((world.route(NODE), world.phase(NODE)), (Some(stand_in), None));
        assert_eq!(world.forgotten(), [Why::MovedOnPurpose]);
    }
}

#[test]
fn a_master_that_no_haproxy_has_is_nobodys_home() {
    for mut world in worlds() {
        world.unknown.insert("m3");
        world.restart();
        world.pass(MINUTE).produce(NODE, "m3").pass(5).poll().pass(3 * MINUTE).evaluate();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m3"), None));
        world.pass(MINUTE).produce(NODE, "m1").pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
        world.unknown.clear();
        world.pass(5 * MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn an_order_has_no_bound() {
    for mut world in worlds() {
        let now = world.pass(MINUTE).now;
        world.ownership.own(NODE, "m3", now);
        world.evaluate();
        for _ in 0..10 {
            world.pass(60 * MINUTE).poll();
            assert_eq!(world.route(NODE).as_deref(), Some("m3"));
        }
        world.run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m3"), None));
    }
}

#[test]
fn an_order_of_a_master_that_no_haproxy_has_waits_for_it() {
    for mut world in worlds() {
        world.unknown.insert("m3");
        let now = world.restart().pass(MINUTE).now;
        world.ownership.own(NODE, "m3", now);
        world.evaluate();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), Some("away")));
        world.unknown.clear();
        world.pass(5).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m3"));
    }
}

#[test]
fn a_restart_does_not_make_a_master_that_is_ready_again_wait_anew() {
    for mut world in worlds() {
        world.pass(MINUTE).fail("m1").pass(MINUTE).run(NODE).pass(5).poll().recover("m1");
        world.pass(MINUTE - 10).restart();
        assert_eq!(world.phase(NODE), Some("away"));
        world.pass(20).evaluate();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
    }
}

#[test]
fn an_owner_is_forgotten_once_no_source_has_named_its_node_for_a_week() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").pass(MINUTE);
        world.registry.remove(NODE);
        world.poll().pass(6 * 24 * 60 * MINUTE).poll();
        assert_eq!(world.phase(NODE), Some("away"));
        // Back for a moment: the week begins anew.
        world.produce(NODE, "m2").pass(5).poll();
        world.registry.remove(NODE);
        world.pass(5).poll().pass(6 * 24 * 60 * MINUTE).poll();
        assert_eq!(world.phase(NODE), Some("away"));
        world.pass(2 * 24 * 60 * MINUTE).poll();
        assert_eq!(world.phase(NODE), None);
        assert_eq!(world.forgotten(), [Why::Vanished]);
        assert!(world.stored.records.is_empty());
    }
}

#[test]
fn of_a_master_that_flaps_no_outage_is_lost_and_few_are_kept() {
    for mut world in worlds() {
        world.pass(MINUTE).fail("m1").pass(MINUTE).run(NODE).pass(5).poll();
        for _ in 0..40 {
            world.recover("m1").pass(2 * MINUTE).evaluate().pass(MINUTE).fail("m1").pass(MINUTE);
        }
        assert!(world.stored.outages.len() <= 20, "{}", world.stored.outages.len());
        world.recover("m1").pass(2 * MINUTE).evaluate();
        assert_eq!(
            (world.route(NODE).as_deref(), world.phase(NODE)),
            (Some("m1"), Some("returning"))
        );
        world.run(NODE).pass(5).poll().pass(8 * 24 * 60 * MINUTE).evaluate();
        assert!(world.stored.outages.is_empty(), "{:?}", world.stored.outages);
    }
}

#[test]
fn nodes_that_the_map_does_not_send_home_yet_are_not_given_up() {
    for mut world in worlds() {
        world.pass(MINUTE).drain("m1").run(NODE).pass(5).poll();
        world.routed = false;
        world.undrain("m1", false).pass(10 * 60 * MINUTE).poll();
        assert_eq!(world.phase(NODE), Some("returning"), "the map file could not be written");
        world.routed = true;
        world.evaluate().pass(MINUTE).run(NODE).pass(5).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
    }
}

#[test]
fn what_happens_while_no_haproxy_can_be_seen_is_judged_once_one_is() {
    for mut world in worlds() {
        world.pass(MINUTE).blind = true;
        world.evaluate().pass(MINUTE).down.insert("m1".to_owned());
        world.run(NODE).pass(5).poll().pass(10 * MINUTE).poll();
        assert_eq!(world.phase(NODE), Some("leaving"));
        world.blind = false;
        world.evaluate();
        assert_eq!(world.phase(NODE), Some("away"));
        world.recover("m1").pass(MINUTE).evaluate();
        assert_eq!(world.route(NODE).as_deref(), Some("m1"));
    }
}

#[test]
fn an_order_is_not_confirmed_by_an_older_row_that_is_polled_after_it() {
    let mut world = World::new(&[(NODE, "m1")], true);
    world.pass(MINUTE).produce(NODE, "m2").pass(MINUTE);
    let now = world.now;
    world.ownership.own(NODE, "m2", now);
    world.evaluate().pass(5).poll();
    assert_eq!(world.phase(NODE), Some("returning"));
    world.produce(NODE, "m2").pass(5).poll();
    assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m2"), None));
}

#[test]
fn a_node_that_comes_back_to_the_registry_elsewhere_was_moved_on_purpose() {
    for mut world in worlds() {
        let now = world.pass(MINUTE).now;
        world.ownership.own(NODE, "m3", now);
        world.evaluate().pass(5 * MINUTE).registry.remove(NODE);
        world.poll().pass(5 * MINUTE).poll();
        world.produce(NODE, "m2").pass(5).poll().pass(2 * MINUTE).poll();
        assert_eq!(world.route(NODE).as_deref(), Some("m3"), "until then it was in no map");
        world.pass(5 * MINUTE).poll().produce(NODE, "m1").pass(5).poll().pass(2 * MINUTE).poll();
        assert_eq!((world.route(NODE).as_deref(), world.phase(NODE)), (Some("m1"), None));
    }
}
