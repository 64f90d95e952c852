//! What the control API's answers cost, and what a daemon makes of registrations and streams:
//! `scripts/bench api [ENTRIES...]`.
//!
//! Every figure stands beside the plain way to the same answer, measured in the same run. No figure
//! here is a test.

#![allow(clippy::expect_used, reason = "a benchmark ends where something fails")]

mod back;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod figures;
mod running;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::maps::{changed, median, nodes};
use mapsmith_core::history::{self, Patch};
use mapsmith_core::map_file::{self, Header};
use mapsmith_core::plan::Diff;
use mapsmith_core::{EntryMap, Search};

/// How often a figure is taken; the median is shown.
const ROUNDS: usize = 9;
/// What a page has unless the request says otherwise.
const PAGE: usize = 100;

fn main() -> anyhow::Result<()> {
    // `cargo bench` passes flags of its own harness.
    let sizes: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100_000, 1_000_000] } else { sizes };
    println!("median of {ROUNDS} rounds; milliseconds");
    for entries in sizes {
        measure_search(entries);
        measure_history(entries);
    }
    running::measure()?;
    back::measure_kept()?;
    back::measure_rollback()
}

/// What keeping a revision and going back over it takes, beside printing the map file's text.
fn measure_history(entries: usize) {
    let old = nodes(entries, 0);
    let print = timed(|| {
        let mut text = Vec::new();
        let header = Header { revision: 1, writer: None };
        map_file::print(&old, &header, [], &mut text).expect("a vector takes everything");
        text.len()
    });
    println!("\na revision of {entries} nodes; printing the map file's text takes {print:.1}");
    for moved in [100, entries / 2] {
        let new = changed(&old, moved);
        let diff = Diff::between(&old, &new);
        let pack = timed(|| history::encode(&diff, &old, &new).len());
        let blocks = history::encode(&diff, &old, &new);
        let bytes: usize = blocks.iter().map(Vec::len).sum();
        let back = timed(|| {
            let mut patch = Patch::default();
            blocks.iter().for_each(|block| patch.take(block).expect("a block"));
            patch.apply(&new).len()
        });
        println!(
            "  {moved:>7} moved: packed in {pack:>6.1} ({:.2} x printing) to {bytes} bytes, the map \
                before in {back:>6.1} ({:.2} x)",
            pack / print,
            back / print
        );
    }
}

/// A page of what is looked for, beside a look at every node.
fn measure_search(entries: usize) {
    let map = nodes(entries, 0);
    println!("\nsearch among {entries} nodes, a page of {PAGE} and how many there are");
    let rows = [
        ("no filter", "", "", None),
        ("prefix of a tenth", "node0", "", None),
        ("part of few names", "", "77777", None),
        ("part of a tenth", "", "7.e", None),
        ("part of every name", "", "e", None),
        ("part of no name", "", "xyz", None),
        ("a master", "", "", Some("puppet03")),
        ("part and a master", "", "77", Some("puppet03")),
    ];
    for (name, prefix, contains, master) in rows {
        let search = Search {
            prefix: prefix.to_owned(),
            contains: contains.to_owned(),
            master: master.map(str::to_owned),
        };
        let ours = timed(|| map.search(&search, None, PAGE).total);
        let plain = timed(|| plain(&map, &search));
        println!(
            "  {name:<20} {ours:>8.2}   {:>7.3} x a look at every node ({plain:.1})",
            ours / plain
        );
    }
}

/// How many nodes match, by a look at each.
fn plain(map: &EntryMap, search: &Search) -> usize {
    let matches = |(node, master): &(&str, &str)| {
        node.starts_with(&search.prefix)
            && node.contains(&search.contains)
            && search.master.as_deref().is_none_or(|wanted| wanted == *master)
    };
    map.iter().filter(matches).count()
}

/// The median of some rounds, in milliseconds.
fn timed(mut work: impl FnMut() -> usize) -> f64 {
    let mut took = Vec::<Duration>::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(work());
        took.push(start.elapsed());
    }
    median(took)
}
