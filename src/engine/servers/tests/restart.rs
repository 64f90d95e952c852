//! A list outlives a restart.

use super::*;

#[tokio::test]
async fn the_list_before_a_restart_is_the_last_good_one_after_it() {
    let mut scene =
        Scene::resume(MAPPED, &[("listed", "source consul", 0..40), ("mapped", "node map", 0..2)]);
    assert_eq!(
        (scene.servers("listed").len(), scene.servers("mapped").len()),
        (40, 2),
        "before anything was asked"
    );
    let number = scene.decider.desired().unwrap().number;
    for second in [0, 1, 10_000] {
        scene.decide(second).await;
        let listed = scene.desired("listed").unwrap();
        assert_eq!(
            (listed.servers.len(), listed.manage),
            (40, Manage::Own),
            "nobody has said yet whose the others are"
        );
        assert_eq!(
            scene.status("listed").waiting_for.as_deref(),
            Some("a first answer of source consul")
        );
        assert_eq!(scene.status("mapped").waiting_for.as_deref(), Some("a first node map"));
        assert_eq!(scene.status("listed").stored_since, Some(Timestamp::UNIX_EPOCH));
    }
    assert_eq!(scene.decider.desired().unwrap().number, number, "nothing changed");

    // What is listed then is a change of it: judged by the guard, and slowed down.
    scene.lists(0..10);
    scene.decide(10_010).await;
    scene.decide(20_000).await;
    assert_eq!((scene.servers("listed").len(), scene.status("listed").waiting_for), (40, None));
    assert_eq!(scene.status("listed").stored_since, None, "the source has spoken");
    let held = scene.status("listed").held.unwrap();
    assert!(held.reason.contains("remove 30 of the 40 servers in force"), "{}", held.reason);
    scene.lists(1..40);
    scene.decide(20_010).await;
    scene.decide_again(20_011).await;
    assert_eq!((scene.status("listed").held, scene.status("listed").leaving.len()), (None, 1));
    scene.decide_again(20_041).await;
    let listed = scene.desired("listed").unwrap();
    assert_eq!((listed.servers.len(), listed.manage), (39, Manage::All));
    assert!(
        listed.former.contains("s00"),
        "it is Mapsmith's to remove, although it left the list after the restart"
    );
}

#[tokio::test]
async fn where_from_and_shadow_from_have_changed_places_the_new_list_is_a_change_of_the_old_one() {
    let more = "shadow_from = \"old\"\n[[source]]\nname = \"old\"\nshadow = true\ntype = \"http_json\"\n\
        url = \"http://127.0.0.1:9/\"\n";
    let mut scene = Scene::resume(more, &[("listed", "source old", 0..40)]);
    assert_eq!(scene.servers("listed").len(), 40, "before the new one has answered");
    scene.lists(100..140);
    scene.decide(0).await;
    scene.decide(100).await;
    let held = scene.status("listed").held.unwrap();
    assert!(held.reason.contains("remove 40 of the 40 servers in force"), "{}", held.reason);
    assert_eq!(scene.servers("listed").len(), 40);
    scene.lists(0..39);
    scene.decide(200).await;
    scene.decide_again(201).await;
    scene.decide_again(300).await;
    let listed = scene.desired("listed").unwrap();
    assert!(listed.servers.len() == 39 && listed.former.contains("s39"), "{listed:?}");
}

#[tokio::test]
async fn the_list_of_another_origin_or_of_a_backend_that_is_written_out_by_now_is_not_taken() {
    for (backend, origin) in [
        ("listed", "source zookeeper"),
        ("listed", "source consul service=web"),
        ("listed", "node map"),
        ("written", "source consul"),
        ("gone", "node map"),
    ] {
        let mut scene = Scene::resume(WRITTEN, &[(backend, origin, 0..3)]);
        assert_eq!(scene.decider.desired(), None, "{backend} from {origin}");
        scene.decide(0).await;
        scene.decide(100).await;
        assert_eq!(
            (scene.servers("listed").len(), scene.servers("written").len()),
            (0, 1),
            "{backend} from {origin}"
        );
    }
}
