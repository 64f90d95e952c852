//! What is drawn in a test comes from a seed that is fixed: two runs of the tests tell the same.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::support::random;

/// Of a property; more belongs into `scripts/explore`.
const MOST_CASES: u32 = 1000;

#[test]
fn property_tests_draw_the_same_cases_in_every_run() {
    let config = Config::default();
    assert_eq!(
        config.rng_seed,
        RngSeed::Fixed(random::seed()),
        "the seed of property tests is not fixed"
    );
    assert_eq!(config.failure_persistence, None, "cases of earlier runs would be tested besides");
    let drawn = || {
        let mut runner = TestRunner::new(Config::default());
        (0..20)
            .map(|_| any::<u64>().new_tree(&mut runner).expect("a number").current())
            .collect::<Vec<_>>()
    };
    assert_eq!(drawn(), drawn());
}

#[test]
fn the_seed_of_a_plain_cargo_test_is_written_down_and_its_cases_are_bounded() {
    let settings =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".cargo/config.toml"))
            .expect("Cargo's settings");
    assert!(settings.contains("\nPROPTEST_RNG_SEED = \"1\"\n"), "{settings}");
    assert!(!settings.contains("force"), "scripts/explore could set no other seed: {settings}");
    // Whoever asks for more cases by Cargo's or by proptest's means has asked for it.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        assert!(Config::default().cases <= MOST_CASES, "{} cases", Config::default().cases);
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_test_draws_from_anything_but_the_seed() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut files);
    // This file names what the others must not have.
    files.retain(|file| !file.ends_with("it/seeds.rs"));
    assert!(files.len() > 50, "{} files", files.len());
    let unseeded = ["fastrand::", "thread_rng", "getrandom", "RngSeed::Random", "TestRng::"];
    let mut offences = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| unseeded.iter().any(|word| line.contains(word)))
        {
            offences.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
        }
    }
    assert!(
        offences.is_empty(),
        "a test draws without a seed; take support::random:\n{}",
        offences.join("\n")
    );
}

#[test]
fn scripts_explore_runs_every_test_that_draws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = fs::read_to_string(root.join("scripts/explore")).expect("the script");
    let mut files = Vec::new();
    rust_files(&root.join("tests/it"), &mut files);
    files.retain(|file| {
        !file.ends_with("seeds.rs") && !file.components().any(|part| part.as_os_str() == "support")
    });
    let draws = |text: &str| {
        ["TestRunner::new", "proptest!", "random::seed()"].iter().any(|word| text.contains(word))
    };
    let drawing: Vec<_> =
        files.iter().filter(|file| draws(&fs::read_to_string(file).expect("a source"))).collect();
    assert!(drawing.len() >= 3, "{drawing:?}");
    let root = root.join("tests/it");
    for file in drawing {
        let path = file.strip_prefix(&root).expect("a file of the folder").with_extension("");
        let names = path.iter().map(|name| name.to_str().expect("a name in UTF-8"));
        let module: Vec<_> = names.filter(|name| *name != "mod").collect();
        let module = module.join("::");
        assert!(
            script.contains(&format!(" {module}::")) || script.contains(&format!("({module}::")),
            "{module} draws, and scripts/explore does not run it"
        );
    }
}
