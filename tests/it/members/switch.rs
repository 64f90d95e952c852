//! A backend gets another version of its members, under load and back.

use super::*;
use crate::support::load::Load;

fn masters(count: usize, name: &str) -> Vec<Master> {
    (0..count).map(|_| Master::start(name)).collect()
}

fn all(masters: &[Master]) -> Vec<&Master> {
    masters.iter().collect()
}

/// Two versions of members, the first of which serves.
fn both(binary: &'static Binary) -> (Scene, Vec<Master>, Vec<Master>) {
    let scene = Scene::start(binary, "", CHECKED);
    let (old, new) = (masters(3, "old"), masters(3, "new"));
    for (version, masters) in [("1", &old), ("2", &new)] {
        for master in masters {
            let (status, report) = scene.put(version, master.address(), "", &json!({}));
            assert_eq!(status, 201, "{report:#}");
        }
    }
    scene.settles(&all(&old));
    (scene, old, new)
}

impl Scene {
    fn switch(&self, query: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", &format!("/v1/backends/{BACKEND}/switch{query}"), body)
    }

    /// A switch that must arrive.
    fn switched(&self, version: &str) -> Value {
        let (status, report) = self.switch("?wait=60s", &json!({"version": version}));
        assert_eq!(
            (status, &report["outcome"]),
            (200, &json!("in_sync")),
            "{report:#}\n{}",
            self.mapsmith.log()
        );
        report
    }

    /// How many servers HAProxy sends requests to.
    fn up(&self) -> usize {
        let stat = self.gateway.command(&format!("show stat {BACKEND} 4 -1"));
        stat.lines().filter(|line| line.contains(",UP,")).count()
    }

    /// Nothing while it is not shown: settings that were read again begin anew.
    fn version(&self) -> Value {
        let backends = self.mapsmith.get("/v1/backends").1;
        let items = backends["items"].as_array().expect("items").clone();
        let found = items.into_iter().find(|item| item["backend"] == BACKEND);
        found.map_or(Value::Null, |found| found["version"].clone())
    }
}

#[test]
fn a_switch_under_load_fails_no_request_and_never_has_fewer_servers_ready_and_back() {
    for binary in oldest_and_newest() {
        let (scene, old, new) = both(binary);
        // Until their checks have passed HAProxy has nobody to ask.
        scene.mapsmith.wait_for("all are up", BOUND, |_| (scene.up() == 3).then_some(()));
        let load = Load::start(scene.gateway.http_address(), &["node1".to_owned()], 1);
        let serves = |count: usize| {
            let before = load.answered();
            let answered = || (load.answered() > before + count).then_some(());
            scene.mapsmith.wait_for("the load goes on", BOUND, |_| answered());
        };
        serves(50);
        let (status, would) = scene.switch("?dry_run=true", &json!({"version": "2"}));
        assert_eq!((status, &would["stored"]), (200, &json!(false)), "{would:#}");
        assert_eq!((&would["added"], &would["leaving"]), (&json!(3), &json!(3)), "{would:#}");
        let (status, report) = scene.switch("", &json!({"version": "2", "reason": "release"}));
        assert_eq!((status, &report["previous"]), (202, &json!("1")), "{report:#}");
        let mut fewest = usize::MAX;
        scene.mapsmith.wait_for("the new ones serve alone", BOUND, |_| {
            fewest = fewest.min(scene.up());
            let version = scene.version();
            (version["phase"] == "settled").then_some(())
        });
        assert!(fewest >= 3, "{fewest} were ready\n{}", scene.mapsmith.log());
        scene.settles(&all(&new));
        serves(50);
        let version = scene.version();
        assert_eq!(
            (&version["version"], &version["declared"], &version["reason"], &version["by"]),
            (&json!("2"), &json!("1"), &json!("release"), &json!("local")),
            "{version:#}"
        );
        let text = printed(&scene.mapsmith.cli(&["status"])).1;
        assert!(text.contains("app: web version 2, switched from 1 by local"), "{text}");

        let report = scene.switched("1");
        assert_eq!(report["previous"], "2", "{report:#}");
        scene.settles(&all(&old));
        serves(50);
        let answers = load.stop();
        let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(failed.is_empty(), "of {} failed {failed:?}", answers.len());
        assert!(answers.iter().any(|answer| answer.master == "new"));
        let events = scene.mapsmith.get("/v1/activity?topics=switch").1;
        let states: Vec<_> = events["items"]
            .as_array()
            .expect("events")
            .iter()
            .filter_map(|event| event["state"].as_str())
            .collect();
        assert_eq!(states, ["switched", "done", "switched", "done"], "{events:#}");
    }
}

#[test]
fn a_version_that_does_not_become_ready_takes_nothing_away_and_the_way_back_is_open() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary, "", CHECKED);
        let (old, good) = (masters(2, "old"), Master::start("new"));
        for master in &old {
            scene.register("1", master, &json!({}));
        }
        let (status, problem) = scene.switch("", &json!({"version": "2"}));
        assert_eq!((status, &problem["have"]), (409, &json!(0)), "{problem:#}");
        assert!(problem["type"].as_str().unwrap().ends_with("/no-members"), "{problem:#}");
        // Nobody listens there.
        let dead = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        for address in [dead, good.address()] {
            assert_eq!(scene.put("2", address, "", &json!({})).0, 201);
        }
        let body = json!({"version": "2", "min_ready": 3});
        let (status, problem) = scene.switch("", &body);
        assert_eq!((status, &problem["have"]), (409, &json!(2)), "{problem:#}");

        let (status, report) = scene.switch("?wait=3s", &json!({"version": "2"}));
        assert_eq!((status, &report["outcome"]), (202, &json!("behind")), "{report:#}");
        let message = report["message"].as_str().unwrap();
        assert!(message.contains("1 of 2 members of web 2 are ready in edge1"), "{message}");
        // Its check may not have failed as often as it takes.
        assert!(message.contains(&format!("({dead}: ")), "{message}");
        let names: Vec<_> = old.iter().map(|master| master.address().to_string()).collect();
        let serve = |scene: &Scene| {
            let ready = ready(&scene.gateway);
            names.iter().all(|name| ready.contains_key(name))
        };
        assert!(serve(&scene), "{:?}", ready(&scene.gateway));
        for _ in 0..20 {
            assert_eq!(scene.gateway.request("node1").0, 200);
        }

        // So it is after a crash.
        scene.mapsmith.restart();
        scene.mapsmith.wait_for("it goes on", BOUND, |_| {
            (scene.version()["phase"] == "joining").then_some(())
        });
        assert!(serve(&scene), "{:?}", ready(&scene.gateway));
        let versions = scene.mapsmith.get(&format!("/v1/backends/{BACKEND}/versions")).1;
        assert_eq!(versions["items"][0]["ready"], 2, "{versions:#}");

        let back = scene.switched("1");
        assert_eq!(back["previous"], "2");
        scene.settles(&all(&old));
        assert_eq!(scene.version()["phase"], "settled");
    }
}

#[test]
fn a_switch_stays_over_restarts_until_the_settings_say_another_version() {
    let (mut scene, _, new) = both(newest());
    scene.switched("2");
    scene.mapsmith.restart();
    scene.settles(&all(&new));
    let third = Master::start("third");
    scene.register("3", &third, &json!({}));
    let path = scene.mapsmith.configuration().path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("version = \"1\"", "version = \"3\"")).unwrap();
    scene.mapsmith.hangup();
    scene.settles(&[&third]);
    scene.mapsmith.wait_for("it is as the settings say", BOUND, |_| {
        (scene.version()["phase"] == "settled").then_some(())
    });
    let version = scene.version();
    assert_eq!((&version["version"], &version["previous"]), (&json!("3"), &json!("2")));

    // Nobody registers what they name now.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("version = \"3\"", "version = \"9\"")).unwrap();
    scene.mapsmith.hangup();
    scene.mapsmith.wait_for("it says what it waits for", BOUND, |_| {
        let version = scene.version();
        (version["waits_for"] == "no members of web 9 are registered").then_some(())
    });
    let text = printed(&scene.mapsmith.cli(&["status"])).1;
    assert!(text.contains("3 stays until it is ready: no members of web 9 are"), "{text}");
    scene.settles(&[&third]);
}

#[test]
fn only_a_backend_of_members_can_be_switched() {
    let scene = Scene::start(newest(), "", "");
    let (status, problem) = scene.ask("POST", "/v1/backends/nope/switch", &json!({"version": "2"}));
    assert_eq!(status, 404, "{problem:#}");
    for body in [json!({}), json!({"version": "a b"}), json!({"version": "2", "min_ready": 0})] {
        let (status, problem) = scene.switch("", &body);
        assert_eq!(status, 400, "{problem:#}");
    }
    let output = scene.mapsmith.cli(&["switch", BACKEND, "2"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = complaints(&output);
    assert!(errors.contains("0 members of web 2 are registered"), "{errors}");
}
