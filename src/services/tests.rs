//! What is known of services, over beginnings anew.

use std::path::Path;

use mapsmith_core::services::ServicesStatus;
use mapsmith_core::{ServiceTexts, SourceState};
use serde_json::json;

use super::Known;
use crate::settings::Settings;

const FILE: &str = r#"
    [haproxy]
    managed = true
    [[source]]
    name = "zk"
    type = "zookeeper"
    servers = ["zk1:2181"]
    [services]
    from = { source = "zk", path = "/service_config" }
"#;

fn settings(more: &str) -> Settings {
    Settings::of_text(Path::new("/etc/mapsmith/a.toml"), &format!("{FILE}{more}"), []).unwrap()
}

fn services(count: u16) -> ServiceTexts {
    let text = |port: u16| {
        json!({"type": "zookeeper", "path": "/a", "server": "zk1:2181", "port": port}).to_string()
    };
    let texts = (0..count).map(|number| (format!("s{number:02}"), Ok(text(8000 + number))));
    ServiceTexts { texts: texts.collect() }
}

/// Takes an answer with so many services, and goes by what comes of it, as a beginning anew does.
fn take(known: &Known, file: &Settings, count: u16) -> (Known, ServicesStatus) {
    let mut known = known.clone();
    known.take(file, &services(count));
    known.go_by(known.next(file).expect("services are known"));
    let source = SourceState::<ServiceTexts>::before_first_poll("zk".into(), "k".into(), true);
    let status = known.status(source.status);
    (known, status)
}

#[tokio::test]
async fn losses_count_together_over_beginnings_anew_and_changed_settings() {
    let file = settings("");
    let (known, status) = take(&Known::default(), &file, 25);
    assert_eq!(status.in_force.map(|services| services.len()), Some(25));
    let (known, status) = take(&known, &file, 21);
    assert_eq!(status.held, None, "4 of 25 may go");
    let changed = settings("[guard]\nmax_moved = \"40%\"\n");
    let known = known.under(&file, &changed);
    let (mut known, status) = take(&known, &changed, 17);
    let held = status.held.expect("8 of 25 within an hour may not");
    assert!(held.reason.contains("8 of 25 within 1h"), "{}", held.reason);
    assert_eq!(status.in_force.map(|services| services.len()), Some(21));

    known.approve(&held.id).expect("it is held");
    let known = known.under(&changed, &file);
    let (_, status) = take(&known, &file, 17);
    assert_eq!(status.held, None, "the approval outlives that too");
    assert_eq!(status.in_force.map(|services| services.len()), Some(17));
}
