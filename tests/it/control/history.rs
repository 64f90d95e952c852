//! What the map was before: revisions with their reasons, the difference of two, and any map again.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::scene::{BOUND, borrowed, in_sync, metric, nodes, printed, reload};

fn numbers(report: &Value) -> Vec<u64> {
    let items = report["items"].as_array().expect("items");
    items.iter().map(|item| item["number"].as_u64().expect("a number")).collect()
}

fn database(scene: &Scene) -> Connection {
    let path = scene.mapsmith.configuration().directory().join("mapsmith.db");
    Connection::open(path).expect("the store")
}

#[test]
fn every_revision_is_kept_with_its_reason_and_its_map_can_be_had_after_a_restart() {
    let first = owned(&[("a", "m1"), ("b", "m1"), ("c", "m2")]);
    let mut scene = Scene::start(&first);
    let second = owned(&[("a", "m2"), ("b", "m1"), ("d", "m1")]);
    scene.registry.knows(&borrowed(&second));
    reload(&scene.mapsmith);
    scene.order("PUT", "overrides/b", json!({"master": "m9", "reason": "try m9"}));

    let text = |scene: &Scene, number: u64| {
        let path = format!("/v1/revisions/{number}/map");
        let response = scene.mapsmith.ask("GET", &path, &[], "");
        assert_eq!(response.status, 200, "{}", response.body);
        response.body
    };
    let holds = |scene: &Scene| {
        let all = scene.get("/v1/revisions");
        // 0 is the empty file that Mapsmith found.
        assert_eq!((numbers(&all), &all["total"]), (vec![3, 2, 1, 0], &json!(4)), "{all:#}");
        let kinds: Vec<_> = (0..4).map(|at| all["items"][at]["kind"].clone()).collect();
        assert_eq!(kinds, ["override", "sources", "sources", "found"]);
        assert_eq!(all["items"][0]["reason"], "try m9");
        let second = scene.get("/v1/revisions/2");
        assert_eq!(
            (&second["counts"], &second["sources"], &second["state"]),
            (&json!({"added": 1, "moved": 1, "removed": 1}), &json!(["registry"]), &json!("kept"))
        );
        assert_eq!(text(scene, 1), "a m1\nb m1\nc m2\n");
        assert_eq!(text(scene, 2), "a m2\nb m1\nd m1\n");
        assert_eq!(text(scene, 3), "a m2\nb m9\nd m1\n");
    };
    holds(&scene);
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    holds(&scene);

    let diff = scene.get("/v1/revisions/2/diff?limit=2");
    assert_eq!(
        (&diff["from"], &diff["to"], &diff["total"], &diff["items"]),
        (
            &json!(1),
            &json!(2),
            &json!(3),
            &json!([
                {"node": "a", "from": "m1", "to": "m2"},
                {"node": "c", "from": "m2", "to": null}
            ])
        )
    );
    assert_eq!(diff["shift"].as_array().map(Vec::len), Some(3), "{diff:#}");
    let next = diff["next"].as_str().expect("another page");
    let rest = scene.get(&format!("/v1/revisions/2/diff?limit=2&after={next}"));
    assert_eq!(rest["items"], json!([{"node": "d", "from": null, "to": "m1"}]));
    let back = scene.get("/v1/revisions/1/diff?from=3");
    assert_eq!(back["items"][1], json!({"node": "b", "from": "m9", "to": "m1"}));
    // Nothing is kept of before Mapsmith; the map that it found is.
    let found = scene.refused("GET", "/v1/revisions/0/diff", "", 410);
    let detail = found["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("of the map before revision 0 nothing is kept"), "{found:#}");
    let ahead = scene.refused("GET", "/v1/map?since=999", "", 410);
    let detail = ahead["detail"].as_str().unwrap_or_default();
    let words = "there is no revision 999 yet, the map in force is 3";
    assert!(detail.starts_with(words) && ahead["oldest"] == 0, "{ahead:#}");

    let (code, shown) = printed(&scene.mapsmith.cli(&["history", "--limit", "1"]));
    assert_eq!(code, 0);
    for word in
        ["3  ", "0 added, 1 moved, 0 removed  override local (try m9)", "in force", "of 4 rev"]
    {
        assert!(shown.contains(word), "{word:?}: {shown}");
    }
    let (code, shown) = printed(&scene.mapsmith.cli(&["diff", "1", "3"]));
    let expected = "revision 1 -> 3: 1 added, 2 moved, 1 removed\n";
    assert!(code == 0 && shown.starts_with(expected) && shown.contains("b  m1 -> m9"), "{shown}");
}

#[test]
fn a_client_fetches_what_has_changed_since_its_map_or_is_told_to_fetch_it_all() {
    let scene = Scene::start_with(&nodes(2, "m1"), "[history]\nkeep = 2\n");
    for count in 3..6 {
        scene.registry.knows(&borrowed(&nodes(count, "m1")));
        reload(&scene.mapsmith);
    }
    let since = |known: u64| scene.mapsmith.ask("GET", &format!("/v1/map?since={known}"), &[], "");
    let lines = since(2);
    assert_eq!(
        (lines.status, lines.content_type.as_str(), lines.body.as_str()),
        (
            200,
            "application/x-ndjson",
            "{\"from\":null,\"node\":\"n003\",\"to\":\"m1\"}\n\
             {\"from\":null,\"node\":\"n004\",\"to\":\"m1\"}\n"
        )
    );
    assert_eq!((since(4).status, since(4).body.as_str()), (200, ""));
    for known in [0, 1, 5] {
        let problem = scene.refused("GET", &format!("/v1/map?since={known}"), "", 410);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("whole map")));
        assert!(problem["oldest"].is_u64(), "{problem:#}");
    }
    assert_eq!(numbers(&scene.get("/v1/revisions")), [4, 3]);
    assert_eq!(scene.refused("GET", "/v1/revisions/1/map", "", 410)["oldest"], 2);
    scene.refused("GET", "/v1/revisions/1", "", 404);
    scene.refused("GET", "/v1/revisions/9/diff", "", 404);
    scene.refused("GET", "/v1/revisions/x", "", 400);
}

#[test]
fn a_revision_that_can_not_be_kept_comes_into_force_and_the_history_tells() {
    let mut scene = Scene::start(&nodes(2, "m1"));
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON revisions \
        BEGIN SELECT RAISE(ABORT, 'broken by the test'); END";
    database(&scene).execute_batch(broken).expect("a trigger");
    scene.registry.knows(&borrowed(&nodes(3, "m1")));
    reload(&scene.mapsmith);
    let all = scene.get("/v1/revisions");
    assert_eq!(numbers(&all), [1, 0], "{all:#}");
    assert!(all["error"].as_str().is_some_and(|error| error.contains("broken by the test")));
    assert_eq!(metric(&scene.mapsmith, "mapsmith_history_failed"), Some(1.0));
    let lines = scene.mapsmith.ask("GET", "/v1/map?since=1", &[], "");
    assert_eq!(lines.body, "{\"from\":null,\"node\":\"n002\",\"to\":\"m1\"}\n");

    database(&scene).execute_batch("DROP TRIGGER broken").expect("no trigger");
    scene.registry.knows(&borrowed(&nodes(4, "m1")));
    reload(&scene.mapsmith);
    let all = scene.get("/v1/revisions");
    assert_eq!((numbers(&all), &all["error"]), (vec![3, 1, 0], &Value::Null));
    assert_eq!(all["items"][0]["previous"], 1);
    let first = scene.mapsmith.ask("GET", "/v1/revisions/1/map", &[], "").body;
    assert_eq!(first, "n000 m1\nn001 m1\n", "what was before the gap can be had");
    scene.refused("GET", "/v1/revisions/2/map", "", 410);

    // A map file of another hand: what was before is not what it was made of.
    scene.mapsmith.kill();
    let path = scene.gateway.map_path();
    let text = std::fs::read_to_string(path).expect("the map file");
    std::fs::write(path, format!("{text}other m1\n")).expect("the map file");
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    let all = scene.get("/v1/revisions");
    let states: Vec<_> = all["items"].as_array().expect("items").iter().collect();
    assert!(states.iter().any(|item| item["kind"] == "found"), "{all:#}");
    assert!(states.iter().any(|item| item["state"] == "lost"), "{all:#}");
}

#[test]
fn when_something_changed_last_is_known_after_a_change_of_the_settings_and_after_a_restart() {
    let mut scene = Scene::start(&owned(&[("a", "m1"), ("b", "m1"), ("c", "m1")]));
    scene.registry.knows(&borrowed(&owned(&[("a", "m2"), ("b", "m1"), ("c", "m1")])));
    reload(&scene.mapsmith);
    scene.order("PUT", "overrides/b", json!({"master": "m9"}));
    let times = |scene: &Scene| {
        let changes = ["a", "b"].map(|node| {
            let change = scene.get(&format!("/v1/nodes/{node}"))["last_change"].clone();
            assert!(change.is_object(), "{node}: {}", scene.mapsmith.log());
            change
        });
        let status = scene.get("/v1/status");
        let since = status["instances"][0]["state_since"].clone();
        (changes, scene.get("/v1/map")["at"].clone(), since)
    };
    let before = times(&scene);
    let path = scene.mapsmith.configuration().path();
    let text = std::fs::read_to_string(&path).expect("the settings");
    std::fs::write(&path, format!("{text}[history]\nkeep = 99\n")).expect("other settings");
    scene.mapsmith.hangup();
    scene.mapsmith.wait_for("other settings are in force", BOUND, |mapsmith| {
        mapsmith.log().contains("going on with the changed settings").then_some(())
    });
    in_sync(&scene.mapsmith);
    assert_eq!(times(&scene), before);

    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    let ([first, second], at, _) = times(&scene);
    let second_of = |at: &Value| at.as_str().map(|at| at[..19].to_owned());
    for (found, known) in [(&first, &before.0[0]), (&second, &before.0[1])] {
        let brief = |change: &Value| {
            let of = |field: &str| change[field].clone();
            (of("revision"), of("from"), of("to"), second_of(&change["at"]))
        };
        assert_eq!(brief(found), brief(known));
    }
    assert_eq!(second_of(&at), second_of(&before.1), "the map in force is as old as it is");
    assert_eq!(scene.get("/v1/nodes/c")["last_change"]["revision"], 1, "that it was added");
    let text = printed(&scene.mapsmith.cli(&["explain", "a"])).1;
    assert!(text.contains("since revision 2, ") && text.contains("m1 -> m2"), "{text}");
}
