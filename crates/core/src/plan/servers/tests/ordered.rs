//! What an operator has ordered of single servers.

use proptest::prelude::*;

use super::*;
use crate::overrides::{OrderedState, ServerOrder};
use crate::plan::servers::homes;

fn order(state: Option<OrderedState>, weight: Option<u16>) -> ServerOrder {
    ServerOrder { state, weight }
}

fn state(state: OrderedState) -> ServerOrder {
    order(Some(state), None)
}

/// With an order of one server.
fn ordered(mut desired: DesiredServers, server: &str, order: ServerOrder) -> DesiredServers {
    let backend = desired.backends.get_mut("b").expect("the backend");
    backend.ordered.insert(server.to_owned(), order);
    desired
}

/// After its end.
fn released(mut desired: DesiredServers, server: &str) -> DesiredServers {
    let backend = desired.backends.get_mut("b").expect("the backend");
    let order = backend.ordered.remove(server).expect("an order");
    backend.released.insert(server.to_owned(), order.weight);
    desired
}

/// Looks until nothing is left to do; all steps.
fn settle(scene: &mut Scene, desired: &DesiredServers) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..20 {
        let plan = scene.look(desired);
        if plan.has_no_steps() {
            return steps;
        }
        steps.extend(words(&plan.before).into_iter().chain(words(&plan.after)));
    }
    panic!("it does not settle: {steps:#?}");
}

fn two() -> DesiredServers {
    desired(wanted([server("a", 1), server("x", 2)]))
}

#[test]
fn a_server_is_as_it_was_ordered_and_drift_is_corrected() {
    for (wish, step, other) in [
        (OrderedState::Maint, "b/a into maintenance", 0),
        (OrderedState::Drain, "drain b/a", AdminState::MAINTENANCE),
        (OrderedState::Ready, "b/a is ready again", AdminState::MAINTENANCE),
    ] {
        let mut scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
        let wanted = ordered(two(), "a", state(wish));
        if !wish.is_out() {
            scene.external(AdminState::MAINTENANCE, "a");
        }
        assert_eq!(settle(&mut scene, &wanted), [step]);
        scene.external(other, "a");
        let plan = scene.look(&wanted);
        assert_eq!((words(&plan.before), plan.external), (vec![step.to_owned()], vec![]));
        assert_eq!(settle(&mut scene, &wanted), NOTHING);
    }
}

#[test]
fn after_an_order_a_server_is_back_also_where_mapsmith_or_haproxy_began_anew() {
    for wish in [OrderedState::Maint, OrderedState::Drain] {
        let start = || {
            let mut scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
            let wanted = ordered(two(), "a", state(wish));
            settle(&mut scene, &wanted);
            (scene, released(wanted, "a"))
        };
        let (mut scene, back) = start();
        assert_eq!(settle(&mut scene, &back), ["b/a is ready again"]);

        let (mut scene, back) = start();
        scene.restart_mapsmith();
        scene.memory.found_at_start(&back, &scene.process.servers);
        assert_eq!(settle(&mut scene, &back), ["b/a is ready again"]);
        // From then on it is whoever's who takes it out.
        scene.external(AdminState::MAINTENANCE, "a");
        assert_eq!(settle(&mut scene, &back), NOTHING);

        let (mut scene, back) = start();
        scene.memory = scene.memory.of_successor(OLD);
        assert_eq!(settle(&mut scene, &back), ["b/a is ready again"]);
    }
}

#[test]
fn what_nobody_ordered_stays_as_somebody_left_it() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
    scene.external(AdminState::DRAIN, "x");
    let wanted = ordered(two(), "a", state(OrderedState::Ready));
    assert_eq!(settle(&mut scene, &wanted), NOTHING);
    assert_eq!(scene.look(&wanted).external.len(), 1);
    // A weight alone leaves the state to others.
    let wanted = ordered(two(), "x", order(None, Some(7)));
    assert_eq!(settle(&mut scene, &wanted), ["weight 7 for b/x"]);
    assert_eq!(scene.look(&wanted).external.len(), 1);
}

#[test]
fn an_ordered_weight_is_in_place_of_the_listed_one_and_ends_with_it() {
    let heavy = Server { weight: Some(50), ..server("a", 1) };
    for (listed, usual, back) in [
        (heavy.clone(), None, Some("weight 50 for b/a")),
        // HAProxy's own, as the process was configured.
        (server("a", 1), None, Some("weight 1 for b/a")),
        (server("a", 1), Some(3), Some("weight 3 for b/a")),
    ] {
        let mut scene = Scene::new(OLD, [listed.clone(), server("x", 2)]);
        let mut list = wanted([listed, server("x", 2)]);
        list.usual_weight = usual;
        let wanted = ordered(desired(list), "a", order(None, Some(7)));
        assert_eq!(settle(&mut scene, &wanted), ["weight 7 for b/a"]);
        scene.server("a").weight = 9;
        assert_eq!(settle(&mut scene, &wanted), ["weight 7 for b/a"]);
        let after = released(wanted, "a");
        assert_eq!(settle(&mut scene, &after), Vec::from_iter(back));
    }
    // Somebody's own weight is not that of the order.
    let mut scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
    let wanted = ordered(two(), "a", order(None, Some(7)));
    settle(&mut scene, &wanted);
    scene.server("a").weight = 9;
    assert_eq!(settle(&mut scene, &released(wanted, "a")), NOTHING);
}

#[test]
fn a_weight_that_is_listed_no_more_ends_at_once_where_the_file_has_none_either() {
    for (usual, steps) in [(Some(1), vec!["weight 1 for b/a"]), (None, vec![])] {
        let heavy = Server { weight: Some(77), ..server("a", 1) };
        let mut scene = Scene::new(OLD, [heavy, server("x", 2)]);
        let mut list = wanted([server("a", 1), server("x", 2)]);
        (list.usual_weight, list.unweighted) = (usual, [("a".to_owned(), 77)].into());
        let wanted = desired(list);
        assert_eq!(settle(&mut scene, &wanted), steps);
        scene.server("a").weight = 9;
        assert_eq!(settle(&mut scene, &wanted), NOTHING, "that is somebody's");
    }
}

#[test]
fn a_server_that_comes_back_while_it_is_ordered_out_never_serves() {
    let wanted = ordered(
        desired(wanted([checked("a", 1), server("x", 2)])),
        "a",
        order(Some(OrderedState::Maint), Some(7)),
    );
    let mut scene = Scene::new(OLD, [server("x", 2)]);
    let steps = settle(&mut scene, &wanted);
    assert_eq!(steps, ["add b/a at 10.0.0.1:8140, in maintenance", "weight 7 for b/a"]);
    let back = released(wanted, "a");
    let steps = settle(&mut scene, &back);
    assert_eq!(steps, ["weight 1 for b/a", "b/a is ready again"]);
    assert!(scene.server("a").running, "its check has passed");

    let mut scene = Scene::new(OLD, [server("x", 2)]);
    let wanted = ordered(two(), "a", order(None, Some(0)));
    assert_eq!(settle(&mut scene, &wanted), ["add b/a at 10.0.0.1:8140"]);
    assert_eq!(scene.server("a").weight, 0, "from the first moment");
    assert_eq!(settle(&mut scene, &released(wanted, "a")), ["weight 1 for b/a"]);
}

#[test]
fn one_that_is_no_longer_listed_goes_and_has_its_time_to_drain() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
    let wanted_both = ordered(two(), "a", state(OrderedState::Drain));
    settle(&mut scene, &wanted_both);
    scene.memory.advance(BOUND * 100);
    scene.look(&wanted_both);
    scene.server("a").sessions = 1;
    let mut gone = former(wanted([server("x", 2)]), &["a"]);
    gone.ordered.insert("a".to_owned(), state(OrderedState::Drain));
    let gone = desired(gone);
    let plan = scene.look(&gone);
    assert_eq!(phases(&plan), [("a", Phase::Draining)], "its sessions are not cut");
    scene.server("a").sessions = 0;
    let steps = settle(&mut scene, &gone);
    assert_eq!(steps, ["b/a into maintenance", "delete b/a"]);
}

#[test]
fn a_server_that_nobody_lists_follows_its_order_and_nothing_else() {
    let mut scene = Scene::new(OLD, [server("f", 9), server("x", 2)]);
    let only_x = || desired(wanted([server("x", 2)]));
    let wanted = ordered(only_x(), "f", order(Some(OrderedState::Maint), Some(7)));
    assert_eq!(settle(&mut scene, &wanted), ["weight 7 for b/f", "b/f into maintenance"]);
    assert_eq!(scene.look(&wanted).foreign, 1);
    let back = released(wanted, "f");
    assert_eq!(settle(&mut scene, &back), ["weight 1 for b/f", "b/f is ready again"]);
    scene.external(AdminState::MAINTENANCE, "f");
    assert_eq!(settle(&mut scene, &back), NOTHING, "that is somebody else's");
}

#[test]
fn nobody_leaves_while_the_last_server_is_ordered_out() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("old", 2)]);
    let list = former(wanted([server("a", 1)]), &["old"]);
    let wanted = ordered(desired(list), "a", state(OrderedState::Maint));
    settle(&mut scene, &wanted);
    assert_eq!(phases(&scene.look(&wanted)), [("old", Phase::Waiting)]);
}

#[test]
fn a_server_in_a_slot_is_ordered_by_its_own_name() {
    let list = || {
        let mut list = wanted([server("a", 1), server("x", 2)]);
        list.slots = Some("slot".to_owned());
        desired(list)
    };
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    settle(&mut scene, &list());
    let wanted = ordered(list(), "a", state(OrderedState::Maint));
    let steps = settle(&mut scene, &wanted);
    let seen = scene.backend().clone();
    let slot = homes("b", &wanted.backends["b"], &seen)["a"].to_owned();
    assert_eq!(steps, [format!("b/{slot} into maintenance")]);
    let back = released(wanted, "a");
    assert_eq!(settle(&mut scene, &back), [format!("b/{slot} is ready again")]);
    // A slot that would serve nobody else is not taken for a server that is ordered out.
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    let wanted = ordered(list(), "a", state(OrderedState::Maint));
    assert_eq!(settle(&mut scene, &wanted).len(), 1, "x alone has one");
}

proptest! {
    #[test]
    fn whatever_persons_did_listed_servers_become_as_they_were_ordered(
        before in proptest::collection::vec((0u32..3, 0u16..5), 3),
        orders in proptest::collection::vec(
            proptest::option::of((proptest::option::of(0u8..3), proptest::option::of(0u16..5))), 3,
        ),
        is_there in proptest::collection::vec(any::<bool>(), 3),
        has_check in any::<bool>(),
    ) {
        let names = ["a", "c", "d"];
        let listed = |at: usize| {
            let host = u8::try_from(at + 1).unwrap();
            if has_check { checked(names[at], host) } else { server(names[at], host) }
        };
        let mut scene = Scene::new(OLD, (0..3).filter(|at| is_there[*at]).map(listed));
        for at in (0..3).filter(|at| is_there[*at]) {
            let (state, weight) = before[at];
            scene.server(names[at]).weight = weight;
            let admin = [0, AdminState::MAINTENANCE, AdminState::DRAIN][state as usize];
            scene.external(admin, names[at]);
        }
        let mut list = wanted((0..3).map(listed));
        let states = [OrderedState::Ready, OrderedState::Drain, OrderedState::Maint];
        for (at, wish) in orders.iter().enumerate() {
            if let Some((state, weight)) = wish {
                let state = state.map(|state| states[usize::from(state)]);
                list.ordered.insert(names[at].to_owned(), order(state, *weight));
            }
        }
        let wanted = desired(list);
        settle(&mut scene, &wanted);
        for (at, name) in names.iter().enumerate() {
            let (admin, weight) = (scene.server(name).admin, scene.server(name).weight);
            let wish = wanted.backends["b"].ordered.get(*name).copied().unwrap_or_default();
            match wish.state {
                Some(OrderedState::Ready) => prop_assert!(admin.ready(), "{name}"),
                Some(OrderedState::Drain) => {
                    prop_assert!(admin.draining() && !admin.in_maintenance(), "{name}");
                }
                Some(OrderedState::Maint) => prop_assert!(admin.in_maintenance(), "{name}"),
                None if is_there[at] => {
                    prop_assert_eq!(admin.ready(), before[at].0 == 0, "{} is somebody's", name);
                }
                None => prop_assert!(admin.ready(), "{name}"),
            }
            match wish.weight {
                Some(wish) => prop_assert_eq!(weight, wish),
                None if is_there[at] => prop_assert_eq!(weight, before[at].1),
                None => {}
            }
        }
    }
}
