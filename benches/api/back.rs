//! The way back: what a rollback of a large map takes beside a plain swap of it, and what keeping
//! many revisions takes of the disk.

use std::fs;
use std::time::Instant;

use anyhow::Context as _;
use jiff::Timestamp;
use mapsmith::store::{HistoryBounds, HistoryStore, KeptRevision, SqliteStore};
use mapsmith_core::Note;
use mapsmith_core::history::{self, Fingerprint, RevisionKind, RevisionRecord};
use mapsmith_core::plan::Diff;
use serde_json::Value;

use crate::common::haproxies;
use crate::common::maps::{Registry, changed, nodes};
use crate::running::{Connection, gateway, start_with};

const ENTRIES: usize = 1_000_000;
/// How many of them another answer sends elsewhere.
const MOVED: usize = ENTRIES / 2;
/// How often there and back.
const ROUNDS: usize = 3;
/// Revisions that are kept, and the nodes of each.
const REVISIONS: usize = 500;
const KEPT_ENTRIES: usize = 100_000;
/// The settings' default for how many bytes the history may have.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// From a poll of the other answer until HAProxy has it, and back by a rollback.
pub fn measure_rollback() -> anyhow::Result<()> {
    let binary = haproxies().pop().context("no HAProxy: run scripts/setup")?;
    let maps = tempfile::tempdir()?;
    let map = maps.path().join("n.map");
    fs::write(&map, "")?;
    let gateways = [gateway(&binary, &map)?];
    let first = nodes(ENTRIES, 0);
    let registry = Registry::start(&[first.clone(), changed(&first, MOVED)])?;
    drop(first);
    let folder = tempfile::tempdir()?;
    let free = "[api]\nlisten = \"127.0.0.1:0\"\n[guard]\nwindow = \"0s\"\nmax_moved = \"100%\"\n";
    let mut daemon = start_with(folder.path(), &map, &gateways, &registry, free)?;
    let mut api = Connection::open(&daemon.api(&folder.path().join("log"))?)?;
    api.expect("POST", "/v1/reload?wait=10m", "")?;
    println!(
        "\na rollback of {ENTRIES} nodes of which {MOVED} have moved, beside a swap of the map; \
         HAProxy {}; milliseconds",
        gateways[0].version
    );
    for _ in 0..ROUNDS {
        let before = number(&mut api)?;
        registry.says(1);
        let swapped = json(&mut api, "POST", "/v1/reload?wait=10m")?;
        let steps =
            swapped["instances"][0]["apply"]["steps"].as_array().context("it is applied")?;
        let swap: f64 = steps.iter().filter_map(|step| step["milliseconds"].as_f64()).sum();
        let after = number(&mut api)?;
        println!("  the swap alone {swap:>8.0}");
        let mut took = |name: &str, method: &str, path: &str| -> anyhow::Result<()> {
            let start = Instant::now();
            api.expect_if(method, path, after)?;
            let took = start.elapsed().as_secs_f64() * 1000.0;
            println!("    {name:<38} {took:>8.0}   {:.2} x the swap", took / swap);
            Ok(())
        };
        let rollback = format!("/v1/revisions/{before}/rollback");
        took("the difference, a page of it", "GET", &format!("/v1/revisions/{after}/diff"))?;
        took("a dry run", "POST", &format!("{rollback}?dry_run=true"))?;
        took("the rollback, until HAProxy has it", "POST", &format!("{rollback}?wait=10m"))?;
        registry.says(0);
        api.expect("DELETE", "/v1/hold?wait=10m", "")?;
        api.expect("POST", "/v1/reload?wait=10m", "")?;
    }
    println!("  the daemon's peak memory {} MB", daemon.memory("VmHWM:")? / 1024);
    drop(daemon);
    Ok(())
}

fn json(api: &mut Connection, method: &str, path: &str) -> anyhow::Result<Value> {
    let (status, body) = api.ask(method, path, "")?;
    anyhow::ensure!(status == 200, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}

/// Of the revision in force.
fn number(api: &mut Connection) -> anyhow::Result<u64> {
    json(api, "GET", "/v1/status")?["revision"].as_u64().context("a revision is in force")
}

/// Revisions in each of which half of the nodes go elsewhere: how many are kept, and in how much.
pub fn measure_kept() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("history.db");
    let runtime = tokio::runtime::Runtime::new()?;
    let maps = [nodes(KEPT_ENTRIES, 0), changed(&nodes(KEPT_ENTRIES, 0), KEPT_ENTRIES / 2)];
    let start = Instant::now();
    runtime.block_on(async {
        let store = SqliteStore::open(&path).await?;
        let history = store.history(HistoryBounds { keep: REVISIONS, max_bytes: MOST_BYTES });
        for number in 1..=REVISIONS as u64 {
            let (old, new) = (&maps[number as usize % 2], &maps[(number as usize + 1) % 2]);
            let diff = Diff::between(old, new);
            let record = RevisionRecord {
                number,
                at: Timestamp::now(),
                kind: RevisionKind::Sources,
                note: Note::default(),
                sources: vec!["puppetdb".to_owned()],
                entries: new.len(),
                counts: diff.counts(),
                previous: (number > 1).then(|| number - 1),
                rollback_of: None,
                base: Some(number),
            };
            let blocks = history::encode(&diff, old, new);
            let fingerprint = Fingerprint::of(new);
            history
                .keep_revision(KeptRevision { record, fingerprint, blocks, base: Vec::new() })
                .await?;
        }
        anyhow::Ok(())
    })?;
    let took = start.elapsed() / REVISIONS as u32;
    let bytes: u64 = fs::read_dir(folder.path())?
        .map(|file| Ok(file?.metadata()?.len()))
        .sum::<std::io::Result<u64>>()?;
    let kept: i64 = rusqlite::Connection::open(&path)?.query_row(
        "SELECT count(*) FROM revisions",
        [],
        |row| row.get(0),
    )?;
    println!(
        "\n{kept} of {REVISIONS} revisions kept, in each of which half of {KEPT_ENTRIES} nodes go \
         elsewhere: {:.0} MiB of the disk, {:.2} x what they may have; {:.1} ms each",
        bytes as f64 / 1024.0 / 1024.0,
        bytes as f64 / MOST_BYTES as f64,
        took.as_secs_f64() * 1000.0
    );
    Ok(())
}
