//! The settings that people copy: every file of `examples/`, and those that the documents show.

use std::fs;
use std::path::{Path, PathBuf};

use mapsmith::settings::Settings;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_example_is_taken_as_it_is() {
    let examples: Vec<_> = fs::read_dir(file("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "md"))
        .collect();
    assert!(!examples.is_empty(), "examples/ has no settings file");
    for path in examples {
        // Without variables: an example must not hang on the environment of who runs the tests.
        Settings::load(&path, []).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_example_is_named_in_the_folders_readme() {
    let readme = fs::read_to_string(file("examples/README.md")).unwrap();
    for entry in fs::read_dir(file("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("({name})")), "{name} is missing");
    }
}

#[test]
fn the_readmes_minimal_settings_are_taken_as_they_are() {
    let readme = fs::read_to_string(file("README.md")).unwrap();
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty(), "README.md shows no settings");
    for block in blocks {
        let text = block.split("```").next().unwrap_or_default();
        Settings::of_text(&file("mapsmith.toml"), text, [])
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}
