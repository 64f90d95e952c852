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
async fn a_list_of_another_origin_is_a_change_of_the_one_in_force_whatever_that_ones_origin_was() {
    let origins = ["settings", "node map", "source zookeeper", "source consul service=web"];
    for origin in origins {
        let mut scene = Scene::resume("", &[("listed", origin, 0..40), ("gone", "node map", 0..3)]);
        assert_eq!(scene.servers("listed").len(), 40, "{origin}, before the new one has answered");
        assert_eq!(scene.desired("gone"), None);
        scene.lists(0..1);
        scene.decide(0).await;
        scene.decide(10_000).await;
        let held = scene.status("listed").held.expect(origin);
        assert!(held.reason.contains("remove 39 of the 40 servers in force"), "{}", held.reason);
        assert_eq!(scene.servers("listed").len(), 40, "{origin}");
        scene.decider.approve(&held.id).unwrap();
        scene.decide(10_001).await;
        scene.decide_again(10_002).await;
        assert_eq!(scene.status("listed").held, None, "{origin}");
        assert_eq!(scene.status("listed").leaving.len(), 39, "{origin}, server by server");
    }
}

#[tokio::test]
async fn what_the_settings_write_out_is_never_held_and_what_it_leaves_out_is_taken_away() {
    for origin in ["settings", "source consul"] {
        let mut scene = Scene::resume(WRITTEN, &[("written", origin, 0..40)]);
        assert_eq!(scene.desired("written"), None, "nothing of before where it is written out");
        scene.decide(0).await;
        scene.decide_again(1).await;
        let written = scene.desired("written").unwrap();
        assert_eq!(written.servers.keys().collect::<Vec<_>>(), ["w1"], "{origin}");
        assert_eq!(written.former.len(), 40, "they are Mapsmith's to remove");
        assert_eq!(scene.status("written").held, None, "{origin}");
    }
}

#[tokio::test]
async fn what_the_settings_write_out_with_addresses_is_in_force_with_the_first_decision() {
    let written = WRITTEN.replace("nowhere", "10.0.0.2:2");
    let mut scene = Scene::start(&written);
    scene.decide(0).await;
    assert_eq!(scene.servers("written"), ["w1 10.0.0.1:1", "w2 10.0.0.2:2"], "nothing flaps");
    // Where there is a name to ask for, those that are known are there meanwhile.
    let written = WRITTEN.replace("w2", "s01").replace("nowhere", "late.example:1");
    let scene = Scene::resume(&written, &[("written", "settings", 0..9)]);
    assert_eq!(scene.servers("written"), ["s01 10.0.1.1:8140"]);
    assert_eq!(scene.desired("written").unwrap().former.len(), 8, "Mapsmith's to remove");
}

#[tokio::test]
async fn a_written_list_without_a_server_is_in_force_at_once_and_held_only_over_servers() {
    let none = "[[backend]]\nname = \"written\"\nservers = []\n";
    let accepted = format!("{none}empty = \"accept\"\n");
    let mut scene = Scene::start(&accepted);
    scene.decide(0).await;
    assert_eq!(scene.desired("written").map(|it| it.servers.len()), Some(0), "nothing waits");
    assert_eq!(scene.status("written").held, None, "there is nothing to lose");
    // At a first start a HAProxy that runs may have servers of which nothing is known.
    let mut scene = Scene::start(none);
    scene.decide(0).await;
    assert!(scene.desired("written").is_none() && scene.status("written").held.is_some());
    // Also before any decision, where everything begins anew.
    let mut scene = Scene::resume(none, &[("written", "settings", 0..0)]);
    assert!(scene.desired("written").is_some(), "it is known");
    scene.decide(0).await;
    assert_eq!(scene.status("written").held, None);

    // Servers that were there stay until somebody lets them go, and nothing waits for that.
    let mut scene = Scene::resume(none, &[("written", "settings", 0..4)]);
    scene.decide(0).await;
    assert_eq!(scene.servers("written").len(), 4);
    let held = scene.status("written").held.expect("it is held");
    assert_eq!((held.entries_in_force, held.counts.removed), (4, 4));
    // Or at once, where that is the order.
    let mut scene = Scene::resume(&accepted, &[("written", "settings", 0..4)]);
    let written = scene.desired("written").expect("it is known before any decision");
    assert_eq!((written.servers.len(), written.former.len()), (0, 4), "Mapsmith's to remove");
    scene.decide(0).await;
    assert_eq!(scene.status("written").held, None);
}

#[tokio::test]
async fn a_written_server_whose_host_name_does_not_resolve_at_a_start_keeps_its_address() {
    let written = WRITTEN.replace("w2", "s01").replace("nowhere", "late.example:1");
    let mut scene = Scene::resume(&written, &[("written", "settings", 0..2)]);
    scene.decide(0).await;
    scene.decide_again(1).await;
    assert_eq!(scene.servers("written"), ["s01 10.0.1.1:8140", "w1 10.0.0.1:1"]);
    let late = ("late.example".to_owned(), IpAddr::from([10, 0, 0, 9]));
    scene.names.0.lock().unwrap().extend([late]);
    scene.decide(2).await;
    scene.decide_again(3).await;
    assert_eq!(scene.servers("written"), ["s01 10.0.0.9:1", "w1 10.0.0.1:1"]);
}

#[tokio::test]
async fn the_age_of_a_list_is_that_of_the_last_answer_that_said_what_is_in_force() {
    let mut scene = Scene::resume(WRITTEN, &[("listed", "source consul", 0..40)]);
    let confirmed = |scene: &Scene| scene.status("listed").confirmed_at.map(Timestamp::as_second);
    scene.decide(0).await;
    assert_eq!(confirmed(&scene), Some(0), "as it was stored");
    let since = scene.status("written").confirmed_at;
    scene.lists(0..40);
    scene.decide(1).await;
    assert_eq!(confirmed(&scene), Some(1000));
    scene.answered_at = 1060;
    scene.decide(2).await;
    assert_eq!(confirmed(&scene), Some(1060), "nothing but the time of the answer is new");
    // Neither what waits nor what is held confirms what is in force.
    for (listed, answered_at) in [(0..41, 1120), (0..3, 1180)] {
        scene.lists(listed);
        scene.answered_at = answered_at;
        scene.decide(3).await;
        assert_eq!(confirmed(&scene), Some(1060));
    }
    scene.lists(0..41);
    scene.answered_at = 1240;
    scene.decide(4).await;
    scene.decide(5).await;
    assert_eq!((confirmed(&scene), scene.servers("listed").len()), (Some(1240), 41));
    let written = scene.status("written").confirmed_at;
    assert!(written.is_some() && since.is_none_or(|since| Some(since) == written), "{written:?}");
}
