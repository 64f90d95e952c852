//! Slots of a `server-template`.

use super::*;

fn slotted(servers: impl IntoIterator<Item = Server>) -> DesiredServers {
    let mut backend = wanted(servers);
    backend.slots = Some("slot".to_owned());
    desired(backend)
}

#[test]
fn slots_are_used_only_where_no_server_can_be_added() {
    let mut scene = Scene::new(OLD, []).slots(2);
    assert_eq!(words(&scene.look(&slotted([server("a", 1)])).before), ["add b/a at 10.0.0.1:8140"]);

    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    let three = slotted([server("a", 1), server("b", 2), server("c", 3)]);
    let plan = scene.look(&three);
    assert_eq!(
        words(&plan.before),
        ["slot b/slot1 serves a at 10.0.0.1:8140", "slot b/slot2 serves b at 10.0.0.2:8140"]
    );
    assert_eq!(plan.needs_reload.len(), 1);
    assert!(
        matches!(&plan.needs_reload[0].cause, Cause::NoFreeSlot { prefix, .. } if prefix == "slot"),
        "{:?}",
        causes(&plan)
    );
    let again = scene.look(&three);
    assert!(again.has_no_steps());
    assert_eq!(again.needs_reload, plan.needs_reload);
}

#[test]
fn a_slot_keeps_its_server_whoever_comes_and_goes_and_is_free_again_after_its_removal() {
    let mut scene = Scene::new(OLD, []).slots(3).algorithm("static-rr");
    scene.look(&slotted([server("m", 1), server("n", 2)]));
    let one = slotted([server("a", 3), server("n", 2)]);
    let plan = scene.look(&one);
    assert_eq!(words(&plan.before), ["slot b/slot3 serves a at 10.0.0.3:8140"]);
    assert_eq!(words(&plan.after), ["drain b/slot1"]);
    let steps: Vec<_> = (0..5).flat_map(|_| words(&scene.look(&one).after)).collect();
    assert_eq!(steps, ["b/slot1 into maintenance", "slot b/slot1 is free"]);
    // Cleared, it is told from one that a person took out, even by a Mapsmith that remembers
    // nothing.
    scene.restart_mapsmith();
    let back = slotted([server("a", 3), server("m", 1), server("n", 2)]);
    assert_eq!(words(&scene.look(&back).before), ["slot b/slot1 serves m at 10.0.0.1:8140"]);
}

#[test]
fn a_slot_that_a_person_took_out_stays_out_and_no_other_takes_its_place() {
    let mut scene = Scene::new(OLD, []).slots(3).algorithm("static-rr");
    let two = slotted([server("a", 1), server("b", 2)]);
    scene.look(&two);
    scene.external(AdminState::MAINTENANCE, "slot1");
    scene.restart_mapsmith();
    let plan = scene.look(&two);
    assert!(plan.has_no_steps(), "{plan:?}");
    assert_eq!(
        plan.external,
        [ExternalChange {
            backend: "b".to_owned(),
            server: "slot1".to_owned(),
            hand: Hand::Maintenance
        }]
    );
}

#[test]
fn of_two_slots_at_one_address_the_one_that_serves_is_kept() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.server("slot1").address = Some(address(1).ip);
    scene.server("slot1").port = address(1).port;
    *scene.server("slot2") = added(&server("a", 1));
    assert_eq!(scene.look(&slotted([server("a", 1)])), ServerPlan::default());
}

#[test]
fn full_slots_can_be_replaced_as_a_whole() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.look(&slotted([server("a", 1), server("b", 2)]));
    let others = slotted([server("c", 3), server("d", 4)]);
    assert_eq!(
        words(&scene.look(&others).before),
        ["slot b/slot1 serves c at 10.0.0.3:8140", "slot b/slot2 serves d at 10.0.0.4:8140"]
    );
    assert_eq!(scene.look(&others), ServerPlan::default());
}

#[test]
fn a_backup_takes_a_backup_slot_and_no_other() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.server("slot2").backup = true;
    let mut spare = server("a", 1);
    spare.backup = true;
    assert_eq!(
        words(&scene.look(&slotted([spare])).before),
        ["slot b/slot2 serves a at 10.0.0.1:8140"]
    );
    assert_eq!(
        words(&scene.look(&slotted([server("b", 2)])).before),
        ["slot b/slot1 serves b at 10.0.0.2:8140"]
    );
}

#[test]
fn slots_that_haproxy_fills_by_itself_are_not_touched() {
    let mut scene = Scene::new(OLD, []).slots(1).algorithm("static-rr");
    scene.server("slot1").fqdn = Some("masters.example.test".to_owned());
    let plan = scene.look(&slotted([server("a", 1)]));
    assert!(plan.has_no_steps());
    assert_eq!((plan.needs_reload.len(), plan.foreign), (1, 1));
}

// The cases of two other updaters, `lwf/proxymgr` (proxymgr_updater.json) and
// `TritonDataCenter/muppet` (muppet_checkstats.json). They restart or reload for what we change at
// runtime, and undo what a person did; the results here are the intended ones. What they call a
// server's name is ours; all listen on one host each.
