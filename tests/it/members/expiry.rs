//! Members that are silent for too long; and time in which nobody could be heard.

use super::*;

const DAMPED: &str = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\n\
    servers = \"200ms\"\n[damping]\nhold = \"0s\"\nmax_removed = \"100%\"\n";

#[test]
fn a_silent_member_is_gone_and_the_last_ones_are_kept_and_shown() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, DAMPED, "");
        let masters = [Master::start("a"), Master::start("b")];
        scene.register("1", &masters[0], &json!({"ttl": "1s"}));
        scene.register("1", &masters[1], &json!({"ttl": "1h"}));
        scene.settles(&[&masters[1]]);
        let list = |query: &str| scene.mapsmith.get(&format!("/v1/registrations{query}")).1;
        assert_eq!(list("")["total"], 1);
        let expired = list("?expired=true");
        let (total, item) = (&expired["total"], &expired["items"][0]);
        assert_eq!((total, &item["state"]), (&json!(1), &json!("expired")), "{expired:#}");
        assert_eq!(item["kept_by"], Value::Null, "nobody keeps it");
        let text = printed(&scene.mapsmith.cli(&["member", "list", "--expired"])).1;
        assert!(text.contains("expired") && !text.contains("kept by"), "{text}");

        // Both are silent: an empty list is the guard's case.
        scene.register("1", &masters[0], &json!({"ttl": "1s"}));
        scene.register("1", &masters[1], &json!({"ttl": "1s"}));
        let held = scene.mapsmith.wait_for("the guard holds the list", BOUND, |_| {
            Some(scene.backend()["held"].clone()).filter(|held| !held.is_null())
        });
        assert_eq!(held["of"], "backend app", "{held:#}");
        let kept = list("?expired=true");
        let of: Vec<_> = kept["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| (item["state"].clone(), item["kept_by"].clone()))
            .collect();
        assert!(of.contains(&(json!("expired"), json!(["app"]))), "{kept:#}");
        assert_eq!(scene.gateway.request("node1").0, 200);
        let text = printed(&scene.mapsmith.cli(&["member", "list", "--expired"])).1;
        assert!(text.contains("kept by app"), "{text}");

        // They speak again, and all is well.
        for master in &masters {
            let (status, report) = scene.put("1", master.address(), "", &json!({"ttl": "1h"}));
            assert_eq!(status, 201, "{report:#}");
        }
        scene.settles(&[&masters[0], &masters[1]]);
        assert!(scene.backend()["held"].is_null());
    }
}

#[test]
fn many_that_are_silent_together_are_held_back_and_a_switch_of_as_many_is_not() {
    let scene = Scene::start(newest(), DAMPED, "");
    let old: Vec<_> = (0..24).map(|_| Master::start("old")).collect();
    for master in &old {
        let (status, report) = scene.put("1", master.address(), "", &json!({"ttl": "1h"}));
        assert_eq!(status, 201, "{report:#}");
    }
    scene.settles(&old.iter().collect::<Vec<_>>());
    // The first six were the whole list once, and what was in force lately may come back.
    for master in &old[..18] {
        assert_eq!(scene.put("1", master.address(), "", &json!({"ttl": "1s"})).0, 200);
    }
    scene.mapsmith.wait_for("all of them are expired", BOUND, |mapsmith| {
        let left = mapsmith.get("/v1/registrations").1["total"] == 6;
        (left && !scene.backend()["held"].is_null()).then_some(())
    });
    // A few may go before the others: as many as the guard lets go within its window.
    let all = scene.backend()["servers"].as_array().expect("servers").len();
    assert!(all >= 19, "{all} serve: {:#}", scene.backend());
    let expired = scene.mapsmith.get("/v1/registrations?expired=true").1;
    assert_eq!(expired["total"], 18, "{expired:#}");
    let kept = expired["items"].as_array().expect("items").iter();
    let kept = kept.filter(|item| item["kept_by"] == json!(["app"])).count();
    assert_eq!(kept, all - 6, "{expired:#}");
    let attention = scene.mapsmith.get("/v1/attention").1;
    assert!(attention.to_string().contains("held_change"), "{attention:#}");

    let new = Master::start("new");
    let (status, _) = scene.put("2", new.address(), "", &json!({}));
    assert_eq!(status, 201);
    let (status, report) =
        scene.ask("POST", "/v1/backends/app/switch?wait=60s", &json!({"version": "2"}));
    assert_eq!((status, &report["outcome"]), (200, &json!("in_sync")), "{report:#}");
    assert_eq!((&report["added"], &report["leaving"]), (&json!(1), &json!(all)), "{report:#}");
    scene.settles(&[&new]);
    assert!(scene.backend()["held"].is_null());
}

#[test]
fn time_in_which_mapsmith_was_away_or_stood_still_is_nobodys_silence() {
    let mut scene = Scene::start(newest(), DAMPED, "");
    let masters = [Master::start("a"), Master::start("b")];
    for master in &masters {
        scene.register("1", master, &json!({"ttl": "4s"}));
    }
    scene.mapsmith.kill();
    // Time must pass in which nobody is heard.
    std::thread::sleep(Duration::from_millis(4500));
    scene.mapsmith.restart();
    let page = scene.mapsmith.get("/v1/registrations").1;
    assert_eq!(page["total"], 2, "{page:#}");
    for item in page["items"].as_array().expect("items") {
        assert_eq!(item["state"], "registered", "{page:#}");
    }
    for master in &masters {
        scene.register("1", master, &json!({"ttl": "4s"}));
    }
    scene.mapsmith.signal("STOP");
    // Time must pass in which nobody is heard.
    std::thread::sleep(Duration::from_millis(4500));
    scene.mapsmith.signal("CONT");
    let page = scene.mapsmith.get("/v1/registrations").1;
    assert_eq!(page["total"], 2, "{page:#}\n{}", scene.mapsmith.log());
    scene.settles(&[&masters[0], &masters[1]]);
}
