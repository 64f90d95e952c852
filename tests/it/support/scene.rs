//! What most tests begin with: a gateway, a registry and a Mapsmith between them.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::haproxy::{Binary, Gateway, installed};
use super::mapsmith::Mapsmith;

/// Longer than any change takes to arrive.
pub const BOUND: Duration = Duration::from_secs(60);

/// The oldest and the newest HAProxy there is.
pub fn oldest_and_newest() -> [&'static Binary; 2] {
    let installed = installed();
    [&installed[0], &installed[installed.len() - 1]]
}

/// The newest HAProxy there is, where the version can't matter.
pub fn newest() -> &'static Binary {
    oldest_and_newest()[1]
}

/// The one version that every machine has, for texts that differ by version.
pub fn version_3_0() -> &'static Binary {
    installed().iter().find(|binary| binary.version == (3, 0)).expect("installed() asserts it")
}

/// A schedule that polls at the start and when asked, and never by itself while a test runs.
pub const ON_REQUEST: &str = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\n";

/// `[map]` and `[[instance]]` for a gateway.
pub fn gateway_settings(gateway: &Gateway) -> String {
    format!("[map]\npath = {:?}\n", gateway.map_path())
        + &instance_settings("edge1", &gateway.runtime_address())
}

/// An `[[instance]]`.
pub fn instance_settings(name: &str, runtime: &str) -> String {
    format!("[[instance]]\nname = {name:?}\nruntime = {runtime:?}\ntimeout = \"2s\"\n")
}

/// A `[[source]]` of type `http_json`.
pub fn source_settings(name: &str, url: &str) -> String {
    format!("[[source]]\nname = {name:?}\ntype = \"http_json\"\nurl = {url:?}\ntimeout = \"5s\"\n")
}

/// A `[[source]]` of type `file`.
pub fn file_source_settings(name: &str, path: &Path) -> String {
    format!("[[source]]\nname = {name:?}\ntype = \"file\"\npath = {path:?}\n")
}

/// The gateway's live map as HAProxy holds it, sorted.
pub fn memory(gateway: &Gateway) -> Vec<(String, String)> {
    let mut entries = gateway.memory_map();
    entries.sort();
    entries
}

/// Entries, as [`memory`] gives them.
pub fn entries(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut entries: Vec<_> =
        entries.iter().map(|(node, master)| ((*node).to_owned(), (*master).to_owned())).collect();
    entries.sort();
    entries
}

/// Nodes `n000`, `n001`, ... of one master, as a registry names them.
pub fn nodes(count: usize, master: &str) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("n{number:03}"), master.to_owned())).collect()
}

/// The same, borrowed.
pub fn borrowed(nodes: &[(String, String)]) -> Vec<(&str, &str)> {
    nodes.iter().map(|(node, master)| (node.as_str(), master.as_str())).collect()
}

/// The entries of the map file, and so what HAProxy loads at its next start. Comments are left out.
pub fn map_file(gateway: &Gateway) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(gateway.map_path()).expect("the map file is there");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("an entry"))
        .map(|(node, master)| (node.to_owned(), master.to_owned()))
        .collect()
}

/// Waits until Mapsmith is in sync, and returns its status.
pub fn in_sync(mapsmith: &Mapsmith) -> Value {
    mapsmith.wait_for("Mapsmith is ready", BOUND, |mapsmith| {
        (mapsmith.get("/readyz").0 == 200).then_some(())
    });
    mapsmith.get("/v1/status").1
}

/// `POST /v1/reload?wait=30s` that must end with every instance in sync.
pub fn reload(mapsmith: &Mapsmith) -> Value {
    let (status, report) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 200, "{report:#}\n{}", mapsmith.log());
    report
}

/// A sample of the metrics, by name and labels as they stand in the exposition:
/// `mapsmith_revision`, `mapsmith_source_entries{source="registry"}`.
pub fn metric(mapsmith: &Mapsmith, series: &str) -> Option<f64> {
    let (_, text) = mapsmith.get("/metrics");
    // An error of the API is JSON.
    text.as_str()?
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// What a program printed on standard output, and its exit code.
pub fn printed(output: &Output) -> (i32, String) {
    let code = output.status.code().expect("it ended by itself");
    (code, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a program complained about.
pub fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
