//! Pins and drains over what the sources say.

use super::*;

#[tokio::test]
async fn a_pin_is_a_revision_of_its_own_and_goes_without_a_trace() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.order(&[("n001", "m9"), ("new", "m2")], &[]);
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((2, 3)));
    assert_eq!(
        (scene.file(), scene.causes()),
        (vec!["n000 m1".into(), "n001 m9".into(), "new m2".into()], vec!["override".into()])
    );
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((2, 3)), "the same again is no change");
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.causes()),
        (Some((3, 4)), vec!["puppetdb".to_owned()]),
        "the sources go on beside it"
    );
    scene.order(&[], &[]);
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((4, 3)), vec!["n000 m1".into(), "n001 m1".into(), "n002 m1".into()])
    );
}

#[tokio::test]
async fn the_guard_does_not_hold_what_an_operator_ordered() {
    let mut scene = Scene::start(None).await;
    let two_masters: EntryMap = nodes(100, "m1").iter().chain([("spare", "m2")]).collect();
    scene.one(two_masters.clone()).await;
    scene.order(&[], &[("m1", None)]);
    scene.one(two_masters.clone()).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(
        (scene.wanted(), scene.decider.decision().log.last().unwrap().counts.moved),
        (Some((2, 101)), 100)
    );
    scene.order(&[], &[]);
    scene.one(two_masters.clone()).await;
    assert_eq!(
        scene.decider.decision().in_force.as_ref().unwrap().entries.as_ref(),
        &two_masters,
        "exactly the former map"
    );
}

#[tokio::test]
async fn an_override_comes_into_force_while_an_answer_is_held_and_approving_it_keeps_the_override()
{
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    let id = scene.held().id.clone();
    scene.order(&[("n050", "m2")], &[]);
    scene.one(nodes(10, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.held().id.as_str(), scene.held().counts.removed),
        (Some((2, 100)), id.as_str(), 90)
    );
    assert_eq!(
        (scene.causes(), scene.file()[50].as_str()),
        (vec!["override".to_owned()], "n050 m2")
    );
    let approved = scene.decider.approve(&id).unwrap();
    scene.one(nodes(10, "m1")).await;
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(
        (scene.wanted(), scene.file()[10].as_str()),
        (Some((3, 11)), "n050 m2"),
        "the pin outlives its node"
    );
    assert_eq!(scene.causes(), ["puppetdb"]);
}

#[tokio::test]
async fn an_override_hides_no_loss_from_the_guard() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.order(&[("n000", "m9"), ("n001", "m9")], &[]);
    scene.one(nodes(2, "m1")).await;
    // Every node of the map is pinned, so nothing would change now. At the pins' end everything
    // would.
    scene.one(EntryMap::default()).await;
    assert!(scene.held().reason.contains("min_entries"), "{}", scene.held().reason);
    scene.order(&[], &[]);
    scene.one(EntryMap::default()).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((3, 2)), vec!["n000 m1".to_owned(), "n001 m1".to_owned()])
    );
}

#[tokio::test]
async fn an_override_that_can_not_be_written_to_the_file_comes_into_force_when_it_can() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("moved");
    fs::rename(&folder, &away).unwrap();
    scene.order(&[("n000", "m2")], &[]);
    scene.one(nodes(2, "m1")).await;
    assert!(scene.decider.decision().file.as_ref().unwrap().error.is_some());
    assert_eq!(scene.wanted(), Some((1, 2)));
    fs::rename(&away, &folder).unwrap();
    scene.one(nodes(2, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((2, 2)), vec!["n000 m2".to_owned(), "n001 m1".to_owned()])
    );
    assert_eq!(scene.causes(), ["override"]);
}

#[tokio::test]
async fn drained_masters_that_keep_their_nodes_are_told_for_as_long_as_they_do() {
    let mut scene = Scene::start(None).await;
    scene.order(&[], &[("m1", None)]);
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.decider.decision().stuck.as_slice()),
        (Some((1, 3)), &["m1".to_owned()][..])
    );
    scene.one(nodes(3, "m1")).await;
    assert_eq!(scene.decider.decision().stuck, ["m1"]);
    scene.one(nodes(3, "m1").iter().chain([("x", "m2")]).collect()).await;
    assert!(scene.decider.decision().stuck.is_empty());
    assert_eq!(scene.file(), ["n000 m2", "n001 m2", "n002 m2", "x m2"]);
}

#[tokio::test]
async fn an_override_that_was_stored_but_never_came_into_the_file_is_not_held_at_the_next_start() {
    let two_masters: EntryMap = nodes(100, "m1").iter().chain([("spare", "m2")]).collect();
    let mut scene = Scene::start(None).await;
    scene.one(two_masters.clone()).await;
    // Ordered, and killed before the file was written.
    scene.order(&[], &[("m1", None)]);
    scene.restart().await;
    scene.one(two_masters.clone()).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.decider.decision().in_force.as_ref().unwrap().entries.load(), [("m2", 101)]);
    // What the sources lost is held all the same.
    scene.restart().await;
    scene.one(nodes(10, "m2")).await;
    assert_eq!((scene.held().counts.removed, scene.wanted()), (91, Some((2, 101))));
}
