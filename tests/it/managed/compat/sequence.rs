//! Every step that Aqueduct's own server was observed at, in its order. Where the answer is another
//! one, docs/compat.md has the step and the reason.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{PATIENCE, Scene, aqueduct};
use crate::support::free_port;
use crate::support::haproxy::Binary;
use crate::support::scene::oldest_and_newest;

/// The rows of the document's table: a step, what is answered here.
fn deviations() -> BTreeMap<u64, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compat.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [step, _, _, here, why] = cells[..] else { return None };
        assert!(!why.is_empty(), "{line}: without a reason");
        Some((step.parse().ok()?, here.to_owned()))
    });
    rows.collect()
}

/// What is answered here at the steps that differ.
fn expected(step: u64, as_there: &Value) -> Option<(u16, Value)> {
    let text = |text: &str| Value::from(text);
    Some(match step {
        // With HAProxy's own words.
        17 | 38 | 47 => (400, Value::Null),
        39 => (404, text("backend h7 not found")),
        43 => (200, 200.into()),
        45 => (404, text("backend nope not found")),
        46 => {
            let mut backend = as_there.clone();
            backend["version"] = "1.1.0".into();
            (200, backend)
        }
        49 => {
            let mut frontend = as_there.clone();
            frontend["natives"] = json!([]);
            (200, frontend)
        }
        54 | 55 => {
            let refused = [json!("foo9"), json!("h7")];
            let all = as_there.as_array()?.iter().filter(|it| !refused.contains(&it["key"]));
            (200, all.cloned().collect())
        }
        _ => return None,
    })
}

fn walk(binary: &'static Binary) {
    let scene = Scene::start(binary);
    let deviations = deviations();
    // Another test may have port 80.
    let steps = aqueduct()["sequence_1"].to_string();
    let steps = steps.replace("*:80\"", &format!("*:{}\"", free_port()));
    let steps: Vec<Value> = serde_json::from_str(&steps).expect("it is JSON still");
    assert_eq!(steps.len(), 56);
    let mut differing = Vec::new();
    for step in &steps {
        let number = step["n"].as_u64().expect("a number");
        let (method, path) = (step["method"].as_str().unwrap(), step["path"].as_str().unwrap());
        let body = match &step["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let response = scene.send(method, path, &[("Content-Type", "application/json")], &body);
        let answer = serde_json::from_str(&response.body);
        let answer = answer.unwrap_or_else(|_| Value::String(response.body.clone()));
        let expect = &step["expect"];
        let kind = response.header("content-type").unwrap_or_default();
        let as_there = expect["status"] == response.status
            && expect["content_type"] == kind
            && expect["body"] == answer;
        let told =
            format!("step {number}: {method} {path} {body}\n{}\n{answer:#}", response.status);
        if as_there {
            assert!(!deviations.contains_key(&number), "{told}\nis as there, and listed");
            continue;
        }
        differing.push(number);
        let here = deviations.get(&number).unwrap_or_else(|| panic!("{told}\nis not listed"));
        assert!(here.contains(&format!("`{}`", response.status)), "{told}\nis listed as {here}");
        let (status, body) = expected(number, &expect["body"]).unwrap_or_else(|| panic!("{told}"));
        assert_eq!(response.status, status, "{told}");
        match body {
            Value::Null => {
                let words = answer["message"].as_str().unwrap_or_default();
                let is_refused = ["HAProxy refuses it", "which is not listed"];
                assert!(is_refused.iter().any(|it| words.contains(it)), "{told}");
                assert_eq!(
                    (&answer["statusCode"], &answer["error"]),
                    (&400.into(), &"Bad Request".into())
                );
            }
            body => assert_eq!(answer, body, "{told}"),
        }
    }
    assert_eq!(differing, deviations.into_keys().collect::<Vec<_>>());
    // All of it is declared as everything else is.
    let mapsmith = &scene.managed.mapsmith;
    mapsmith.wait_for("the frontend waits for its backend", PATIENCE, |_| {
        let config = mapsmith.get("/v1/config").1;
        let mut frontends = config["frontends"].as_array()?.iter();
        let frontend = frontends.find(|it| it["name"] == "frontend:foo")?;
        (frontend["status"]["state"] == "pending").then_some(())
    });
    let actor = json!({"kind": "compat", "name": "compat.aqueduct"});
    mapsmith.wait_for("the audit has who declared it and how it ended", PATIENCE, |_| {
        let audit = mapsmith.get("/v1/audit?target=frontends/frontend:foo").1;
        let row = &audit["items"][0];
        (row["actor"] == actor && row["status"] == 200).then_some(())
    });
    let events = mapsmith.get("/v1/activity?topics=config").1.to_string();
    assert!(events.contains("frontends/frontend:upd is deleted"), "{events}");
}

#[test]
fn every_step_is_answered_as_aqueduct_did_or_is_listed_with_the_reason() {
    oldest_and_newest().into_iter().for_each(walk);
}
