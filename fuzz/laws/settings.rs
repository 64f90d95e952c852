//! Settings.

use std::path::Path;

use haproxy_runtime::MapName;
use haproxy_runtime::server::command::BackendName;
use haproxy_runtime::table::TableName;
use mapsmith::settings::{Place, PollSchedule, Problem, Settings, SettingsError};

use super::commands::{added, words};
use super::harmless;

/// Settings as TOML, or as JSON where they begin with a brace.
pub fn settings(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let path = match text.bytes().next() {
        Some(b'{') => "/etc/mapsmith/mapsmith.json",
        Some(b'-' | b'%' | b'?') => "/etc/mapsmith/mapsmith.yaml",
        _ => "/etc/mapsmith/mapsmith.toml",
    };
    match Settings::of_text(Path::new(path), text, []) {
        Err(SettingsError::Unreadable { path: named, message }) => {
            assert_eq!(named, path);
            assert!(!message.trim().is_empty());
        }
        Err(SettingsError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            for Problem { place, text: problem } in problems {
                if let Some(Place::Line(line)) = &place {
                    assert!((1..=text.lines().count() + 1).contains(line), "{place:?}");
                }
                assert!(!problem.contains(|character: char| character.is_control()), "{problem:?}");
                if problem.contains("there is no such key")
                    || problem == "a table of keys must stand here"
                {
                    continue;
                }
                let key = problem.split([':', ' ', '[']).next().unwrap_or_default();
                let known = [
                    "schedule",
                    "api",
                    "map",
                    "guard",
                    "damping",
                    "references",
                    "store",
                    "learned",
                    "source",
                    "instance",
                    "backend",
                ];
                assert!(
                    known.contains(&key.split('.').next().unwrap_or_default()),
                    "the key is not named: {problem}"
                );
            }
        }
        Ok(settings) => taken(&settings),
    }
}

/// Settings that were taken: what of them stands in a command can't be more than its word, and
/// nothing is out of its bounds.
pub(super) fn taken(settings: &Settings) {
    let map = settings.map.path.to_str().expect("a map's path is UTF-8");
    assert_eq!(words(&MapName::new(map).set("k", "v")), ["set", "map", map, "k", "v"]);
    assert_eq!(words(&MapName::new(map).show(None)), ["show", "map", map]);
    if let Some(table) = &settings.learned.table {
        let table = TableName::new(table).expect("a table's name that was taken is valid");
        assert_eq!(words(&table.show()).len(), 3);
    }
    if let PollSchedule::Every(interval) = settings.schedule.poll {
        assert!(interval.as_secs() > 0 && interval.subsec_nanos() == 0);
    }
    assert!(!settings.sources.is_empty() && !settings.instances.is_empty());
    for instance in &settings.instances {
        assert_eq!(instance.runtime.to_string().parse(), Ok(instance.runtime.clone()));
        assert!(
            (1024..=1024 * 1024).contains(&instance.max_payload) && !instance.timeout.is_zero()
        );
        harmless(&instance.name);
    }
    for source in &settings.sources {
        harmless(&source.name);
        source.masters.values().for_each(|master| harmless(master));
    }
    for backend in &settings.backends {
        BackendName::new(&backend.name).expect("a backend's name that was taken is valid");
        let declared = backend.declared();
        let defaults = backend.default_options();
        for server in &declared.servers {
            added(&backend.name, server, &defaults);
        }
    }
}
