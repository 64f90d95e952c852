//! Entries that point nowhere.

use super::*;

/// A scene whose instance has these masters, where entries that point nowhere are held.
async fn holding(masters: &[(&str, bool)], map: EntryMap) -> Scene {
    let mut scene = Scene::start(None).await;
    scene.decider =
        scene.decider.with_actions(Actions { unknown: Action::Hold, not_ready: Action::Keep });
    scene.decider.see(vec![Arc::new(masters.iter().copied().collect())]);
    scene.one(map).await;
    scene
}

#[tokio::test]
async fn an_override_comes_into_force_while_an_answer_is_held_for_where_it_points_to() {
    let mut scene =
        holding(&[("m1", true), ("m2", true)], [("a", "m1"), ("b", "m1")].into_iter().collect())
            .await;
    let said: EntryMap = [("a", "gone"), ("b", "m1"), ("c", "m1")].into_iter().collect();
    scene.one(said.clone()).await;
    assert!(scene.held().reason.contains("gone"));
    scene.order(&[("b", "m2")], &[]);
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a m1", "b m2"], "nothing of the answer, all of the override");
    assert_eq!(scene.causes(), ["override"]);
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(said).await;
    assert_eq!(scene.file(), ["a gone", "b m2", "c m1"]);
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(scene.decider.decision().held, None);
}

#[tokio::test]
async fn an_override_to_a_master_that_is_nowhere_waits_alone_and_can_be_approved() {
    let said: EntryMap = [("a", "m1"), ("b", "m1")].into_iter().collect();
    let mut scene = holding(&[("m1", true), ("m2", true)], said.clone()).await;
    scene.order(&[("a", "gone"), ("b", "m2"), ("c", "gone")], &[]);
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a m1", "b m2"]);
    assert_eq!(scene.decider.decision().kept_from, ["gone"]);
    // The registry goes on meanwhile.
    let id = scene.held().id.clone();
    let more: EntryMap = [("a", "m1"), ("b", "m1"), ("d", "m2")].into_iter().collect();
    scene.one(more.clone()).await;
    assert_ne!(scene.held().id, id, "an approval is for what was seen");
    scene.one(said.clone()).await;
    let approved = scene.decider.approve(&id).unwrap();
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a gone", "b m2", "c gone"]);
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    scene.one(said).await;
    assert_eq!(scene.decider.decision().held, None, "it is no news any more");
    assert!(scene.decider.decision().kept_from.is_empty());
}

#[tokio::test]
async fn who_approves_what_the_guard_holds_is_told_of_entries_that_point_nowhere_too() {
    let mut scene = holding(&[("m1", true)], nodes(100, "m1")).await;
    scene.one(nodes(100, "gone")).await;
    assert!(
        scene.held().reason.contains("moved") && scene.held().reason.contains("gone"),
        "{}",
        scene.held().reason
    );
    scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(nodes(100, "gone")).await;
    assert_eq!((scene.wanted(), scene.decider.decision().held.as_ref()), (Some((2, 100)), None));
}

#[tokio::test]
async fn an_approval_of_what_the_guard_holds_is_one_of_where_it_points_to_also_with_a_pin() {
    let mut scene = holding(&[("m1", true), ("m2", true)], nodes(100, "m1")).await;
    scene.order(&[("n000", "m2")], &[]);
    scene.one(nodes(100, "gone")).await;
    assert!(scene.held().reason.contains("gone"), "{}", scene.held().reason);
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(nodes(100, "gone")).await;
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(scene.decider.decision().held, None);
    assert_eq!(scene.file().iter().filter(|entry| entry.ends_with("gone")).count(), 99);
}

#[tokio::test]
async fn what_was_left_out_is_not_let_in_while_it_is_there_and_not_ready() {
    let mut scene = Scene::start(None).await;
    scene.decider =
        scene.decider.with_actions(Actions { unknown: Action::LeaveOut, not_ready: Action::Hold });
    let said: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
    for (masters, file) in [
        (vec![("m1", true)], vec!["a m1"]),
        (vec![("m1", true), ("m2", false)], vec!["a m1"]),
        (vec![("m1", true), ("m2", true)], vec!["a m1", "b m2"]),
        (vec![("m1", true), ("m2", false)], vec!["a m1", "b m2"]),
    ] {
        scene.decider.see(vec![Arc::new(masters.iter().copied().collect())]);
        scene.one(said.clone()).await;
        assert_eq!(scene.file(), file, "{masters:?}");
    }
}
