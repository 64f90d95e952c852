//! Back to what the sources had said: nothing of theirs is applied until somebody says so.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::http::Response;
use crate::support::scene::{
    BOUND, borrowed, complaints, entries, in_sync, map_file, memory, metric, nodes, printed, reload,
};

impl Scene {
    fn roll_back(&self, to: u64, in_force: u64, query: &str, body: &Value) -> Response {
        let tag = format!("\"{in_force:x}\"");
        let path = format!("/v1/revisions/{to}/rollback?{query}");
        self.mapsmith.ask("POST", &path, &[("If-Match", &tag)], &body.to_string())
    }

    /// Who rejected what is shown everywhere; taken back it is held again, and rejected once more.
    fn shows_and_takes_back_a_rejection(&self, id: &str) {
        let rejected = self.get("/v1/hold")["rejected"].clone();
        assert_eq!(
            (&rejected["id"], &rejected["of"], &rejected["by"], &rejected["reason"]),
            (&json!(id), &json!("map"), &json!("local"), &json!("no")),
            "{rejected:#}"
        );
        assert_eq!(rejected["counts"], json!({"added": 1, "moved": 0, "removed": 0}));
        assert!(rejected["at"].is_string(), "{rejected:#}");
        let attention = self.get("/v1/attention");
        let mut items = attention["items"].as_array().expect("items").iter();
        let item = items.find(|item| item["kind"] == "rejected_change").expect("the rejection");
        assert_eq!(item["severity"], "look", "{item:#}");
        let (code, shown) = printed(&self.mapsmith.cli(&["status"]));
        assert!(shown.contains(&format!("mapsmith unreject {id}")), "{code} {shown}");

        let path = format!("/v1/held/{id}/reject");
        self.refused("DELETE", "/v1/held/0/reject", "", 404);
        let tried = self.mapsmith.ask("DELETE", &format!("{path}?dry_run=true"), &[], "");
        let tried = value(&tried, 200);
        assert_eq!((&tried["dry_run"], &tried["rejected"]["id"]), (&json!(true), &json!(id)));
        assert_eq!(self.get("/v1/held"), json!([]), "it was only tried");
        let (code, shown) = printed(&self.mapsmith.cli(&["unreject", id, "--reason", "a slip"]));
        assert!(code == 0 && shown.starts_with("rejected no more: 1 added"), "{code} {shown}");
        assert_eq!(self.get("/v1/held")[0]["id"], json!(id), "it is held again");
        assert_eq!(self.get("/v1/hold")["rejected"], Value::Null);
        let audit = self.get("/v1/audit?limit=1")["items"][0].clone();
        assert_eq!(
            (&audit["method"], &audit["route"], &audit["reason"]),
            (&json!("DELETE"), &json!("/v1/held/{id}/reject"), &json!("a slip"))
        );
        let activity = self.get("/v1/activity?topics=rejected&limit=10");
        assert!(activity.to_string().contains("taken_back"), "{activity:#}");
        let (code, shown) = printed(&self.mapsmith.cli(&["reject", id, "--reason", "no"]));
        assert!(code == 0, "{code} {shown}");
    }

    fn says(&self, nodes: &[(String, String)]) {
        self.registry.knows(&borrowed(nodes));
        reload(&self.mapsmith);
    }
}

fn value(response: &Response, expected: u16) -> Value {
    assert_eq!(response.status, expected, "{}", response.body);
    serde_json::from_str(&response.body).expect("JSON")
}

/// What was said at revisions 1 and 2, with a pin since 3.
fn pinned() -> Scene {
    let scene = Scene::start(&owned(&[("a", "m1"), ("b", "m1")]));
    scene.says(&owned(&[("a", "m2"), ("b", "m1"), ("c", "m2")]));
    scene.order("PUT", "overrides/b", json!({"master": "m9"}));
    scene
}

#[test]
fn a_rollback_brings_back_what_was_said_under_todays_pins_and_holds_the_sources_until_resumed() {
    let mut scene = pinned();
    scene.refused("POST", "/v1/revisions/1/rollback", "", 428);
    let stale = value(&scene.roll_back(1, 2, "", &json!({})), 412);
    assert_eq!(
        (&stale["changed_by"], &stale["changes"][0]["number"]),
        (&json!("local"), &json!(3))
    );
    assert_eq!(scene.roll_back(9, 3, "", &json!({})).status, 404);
    for body in [json!({"for": "soon"}), json!({"for": "8d"}), json!({"fro": "1h"})] {
        assert_eq!(scene.roll_back(1, 3, "", &body).status, 400, "{body}");
    }

    let dry = value(&scene.roll_back(1, 3, "dry_run=true", &json!({})), 200);
    assert_eq!(
        (&dry["dry_run"], &dry["stored"], &dry["hold"], &dry["counts"]),
        (&json!(true), &json!(false), &Value::Null, &json!({"added": 0, "moved": 1, "removed": 1}))
    );
    let moved = json!({"from": "m2", "to": "m1", "nodes": 1});
    assert!(dry["shift"].as_array().is_some_and(|shift| shift.contains(&moved)), "{dry:#}");
    assert_eq!((&dry["masters"][0]["before"], &dry["masters"][0]["after"]), (&json!(0), &json!(1)));
    assert_eq!(scene.get("/v1/hold"), json!({"hold": null, "rejected": null}));

    let body = json!({"reason": "site 7", "for": "2h"});
    let done = value(&scene.roll_back(1, 3, "wait=60s", &body), 200);
    assert_eq!(
        (&done["kind"], &done["of"], &done["revision"], &done["outcome"], &done["stored"]),
        (&json!("rollback"), &json!(1), &json!(4), &json!("in_sync"), &json!(true))
    );
    let restored = entries(&[("a", "m1"), ("b", "m9")]);
    assert_eq!(
        (memory(&scene.gateway), map_file(&scene.gateway)),
        (restored.clone(), restored.clone())
    );
    let kept = scene.get("/v1/revisions/4");
    assert_eq!(
        (&kept["kind"], &kept["of"], &kept["reason"]),
        (&json!("rollback"), &json!(1), &json!("site 7"))
    );
    let refused = value(&scene.roll_back(2, 4, "", &json!({})), 409);
    assert_eq!(
        (&refused["type"], &refused["resume"]),
        (&json!("/v1/problems/on-hold"), &json!("/v1/hold"))
    );
    let said = complaints(&scene.mapsmith.cli(&["rollback", "2"]));
    assert!(said.contains("`mapsmith resume`") && said.contains("--replace"), "{said}");

    // Nothing of what the sources say is applied, also over a restart.
    reload(&scene.mapsmith);
    scene.mapsmith.kill();
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    reload(&scene.mapsmith);
    assert_eq!(memory(&scene.gateway), restored);
    let hold = scene.get("/v1/hold")["hold"].clone();
    assert_eq!(
        (&hold["of"], &hold["revision"], &hold["by"], &hold["waiting"]["moved"]),
        (&json!(1), &json!(4), &json!("local"), &json!(1)),
        "{hold:#}"
    );
    assert_eq!(metric(&scene.mapsmith, "mapsmith_hold_lasting"), Some(1.0));
    let refused = scene.refused("POST", "/v1/held/approve", r#"{"id": "0"}"#, 409);
    assert_eq!(refused["resume"], "/v1/hold");
    let (_, shown) = printed(&scene.mapsmith.cli(&["status"]));
    assert!(shown.contains("rolled back to revision 1") && shown.contains("(site 7)"), "{shown}");

    let resumed = scene.mapsmith.ask("DELETE", "/v1/hold?wait=60s", &[], "");
    assert_eq!(value(&resumed, 200)["outcome"], "in_sync");
    assert_eq!(memory(&scene.gateway), entries(&[("a", "m2"), ("b", "m9"), ("c", "m2")]));
    scene.refused("DELETE", "/v1/hold", "", 404);
    // The pin never came into what was said.
    scene.order("DELETE", "overrides/b", Value::Null);
    assert_eq!(memory(&scene.gateway), entries(&[("a", "m2"), ("b", "m1"), ("c", "m2")]));
}

#[test]
fn a_hold_that_is_over_leaves_a_held_change_that_is_rejected_or_approved() {
    let mut scene = Scene::start(&nodes(3, "m1"));
    scene.says(&nodes(4, "m1"));
    let (code, shown) = printed(&scene.mapsmith.cli(&["rollback", "1", "--dry-run"]));
    assert!(code == 0 && shown.contains("0 added, 0 moved, 1 removed; nothing"), "{shown}");
    let order = ["rollback", "1", "--for", "1s", "--reason", "site 7", "--in-force", "1"];
    let late = scene.mapsmith.cli(&order);
    assert!(complaints(&late).contains("revision 2 is in force"), "{}", complaints(&late));
    let (code, shown) = printed(&scene.mapsmith.cli(&order[..6]));
    assert!(code == 0 && shown.starts_with("rolled back to revision 1; "), "{shown}");
    let held = |scene: &Scene| {
        let held = |mapsmith: &crate::support::mapsmith::Mapsmith| {
            let held = mapsmith.get("/v1/held").1[0].clone();
            held["id"].as_str().map(|id| (id.to_owned(), held["reason"].to_string()))
        };
        scene.mapsmith.wait_for("something is held", BOUND, held)
    };
    let (id, reason) = held(&scene);
    assert!(reason.contains("its time is over"), "{reason}");
    assert_eq!(memory(&scene.gateway), nodes(3, "m1"));
    assert_eq!(metric(&scene.mapsmith, "mapsmith_hold_over"), Some(1.0));

    let (code, shown) = printed(&scene.mapsmith.cli(&["reject", &id, "--reason", "no"]));
    assert!(code == 0 && shown.starts_with("rejected: 1 added"), "{shown}");
    reload(&scene.mapsmith);
    scene.mapsmith.kill();
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    reload(&scene.mapsmith);
    assert_eq!((scene.get("/v1/held"), memory(&scene.gateway)), (json!([]), nodes(3, "m1")));
    scene.shows_and_takes_back_a_rejection(&id);
    let (_, shown) = printed(&scene.mapsmith.cli(&["history", "--limit", "1"]));
    assert!(shown.contains("ROLLBACK to revision 1 local (site 7)"), "{shown}");

    scene.registry.knows(&borrowed(&nodes(5, "m1")));
    assert_eq!(scene.mapsmith.post("/v1/reload?wait=60s").0, 409);
    let (other, _) = held(&scene);
    scene.refused("POST", &format!("/v1/held/{id}/approve"), "", 409);
    let approved = scene.mapsmith.ask("POST", &format!("/v1/held/{other}/approve"), &[], "");
    assert_eq!(value(&approved, 200)["added"], 2);
    in_sync(&scene.mapsmith);
    scene.says(&nodes(6, "m1"));
    assert_eq!(memory(&scene.gateway), nodes(6, "m1"), "the sources are followed again");
    let audit = scene.get("/v1/audit?limit=30");
    let routes: Vec<_> = audit["items"].as_array().expect("rows").iter().collect();
    let has = |route: &str| routes.iter().any(|row| row["route"] == route && row["status"] == 200);
    assert!(has("/v1/held/{id}/reject") && has("/v1/revisions/{number}/rollback"), "{audit:#}");
}

#[test]
fn a_rollback_that_was_stored_when_mapsmith_was_killed_is_carried_out_at_the_start() {
    let mut scene = pinned();
    scene.mapsmith.kill();
    let path = scene.mapsmith.configuration().directory().join("mapsmith.db");
    let database = Connection::open(path).expect("the store");
    database
        .execute("INSERT INTO hold (id, rollback_of, since) VALUES (1, 1, 0)", [])
        .expect("an order that was not carried out");
    drop(database);
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    assert_eq!(memory(&scene.gateway), entries(&[("a", "m1"), ("b", "m9")]));
    let hold = scene.get("/v1/hold")["hold"].clone();
    assert_eq!((&hold["revision"], &hold["until"]), (&json!(4), &Value::Null), "{hold:#}");
}
