//! The alert rules: Prometheus takes them, they fire when they should, and they speak of metrics
//! that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mapsmith::telemetry;

use crate::support::{promtool, run};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every word of the text that is named like one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("mapsmith_"))
        .collect()
}

fn constants() -> BTreeSet<&'static str> {
    telemetry::NAMES.iter().copied().collect()
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_should() {
    let path = |path: &str| file(path).into_os_string().into_string().expect("a path in UTF-8");
    run(
        promtool(),
        &["check", "rules", "--lint=all", "--lint-fatal", &path("monitoring/alerts.yml")],
    );
    run(promtool(), &["test", "rules", &path("monitoring/alerts_test.yml")]);
}

#[test]
fn the_rules_speak_of_metrics_that_exist() {
    let known = constants();
    assert!(known.len() >= 19, "the constants were not found: {known:?}");
    let rules = read("monitoring/alerts.yml");
    let used = metrics_in(&rules);
    assert!(used.len() >= 9, "the rules' metrics were not found: {used:?}");
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "alerts.yml names metrics that src/telemetry.rs does not: {unknown:?}"
    );
}

#[test]
fn every_rule_is_tested_says_how_bad_it_is_and_what_to_do() {
    let (rules, tests) = (read("monitoring/alerts.yml"), read("monitoring/alerts_test.yml"));
    let rules: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 9, "the rules were not found");
    for rule in rules {
        let name = rule.lines().next().unwrap_or_default();
        assert!(
            tests.contains(&format!("alertname: {name}"))
                || tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is untested"
        );
        for part in ["for: ", "labels: { severity: ", "summary: \"", "description: >-"] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let description = rule.split("description: >-").nth(1).unwrap_or_default();
        assert!(
            description.contains("ook at") || description.contains("mapsmith status"),
            "{name} does not say what to do"
        );
    }
}

#[test]
fn the_metrics_that_the_runbook_explains_exist() {
    let runbook = read("docs/operations.md");
    let known = constants();
    let unknown: Vec<_> =
        metrics_in(&runbook).into_iter().filter(|name| !known.contains(name)).collect();
    assert!(
        unknown.is_empty(),
        "docs/operations.md names metrics that src/telemetry.rs does not: {unknown:?}"
    );
}

#[test]
fn the_runbook_says_what_to_do_about_each_alert_and_how_urgent_it_is() {
    let (rules, runbook) = (read("monitoring/alerts.yml"), read("docs/operations.md"));
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default();
        let (_, severity) = rule.split_once("severity: ").expect("each rule has one");
        let severity = severity.split(' ').next().unwrap_or_default();
        assert!(
            runbook.contains(&format!("| `{name}` | {severity} |")),
            "docs/operations.md has no row of {name} as a {severity}"
        );
    }
}
