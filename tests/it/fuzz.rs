//! The laws of the fuzz targets held over their committed seeds, which has every finding among
//! them: on the stable toolchain.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/laws/mod.rs"]
mod laws;

/// What the seeds may come to, in bytes: they are there to begin with, not to replace a run.
const MOST_BYTES: usize = 100_000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The files of a folder with what is in them, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (
                entry.file_name().into_string().expect("a name in UTF-8"),
                fs::read(entry.path()).expect("a file"),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn no_seed_breaks_a_law() {
    let mut broken = Vec::new();
    let mut bytes = 0;
    for (target, law) in laws::TARGETS {
        let seeds = files(&folder("seeds").join(target));
        assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
        for (name, seed) in seeds {
            bytes += seed.len();
            if catch_unwind(|| law(&seed)).is_err() {
                broken.push(format!("fuzz/seeds/{target}/{name}"));
            }
        }
    }
    assert!(broken.is_empty(), "laws are broken, see the panics above: {broken:#?}");
    assert!(
        bytes <= MOST_BYTES,
        "the seeds come to {bytes} bytes: `cargo fuzz cmin` keeps what counts"
    );
}

#[test]
fn every_law_has_a_target_and_every_target_a_law() {
    let laws: BTreeSet<String> = laws::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let targets: BTreeSet<String> =
        files(&folder("targets")).into_iter().map(|(name, _)| name.replace(".rs", "")).collect();
    assert_eq!(targets, laws);
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the manifest");
    let built: BTreeSet<String> = laws
        .iter()
        .filter(|name| manifest.contains(&format!("path = \"targets/{name}.rs\"")))
        .cloned()
        .collect();
    assert_eq!(built, laws);
}
