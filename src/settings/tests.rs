//! Settings as people write them, and what they are told where they err.

use super::*;

const SMALL: &str = r#"
[map]
path = "/etc/haproxy/maps/node-master.map"
[[source]]
name = "puppetdb"
type = "puppetdb"
url = "http://127.0.0.1:8080"
[[instance]]
name = "edge1"
runtime = "unix@/run/haproxy/admin.sock"
"#;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapsmith.toml");
    std::fs::write(&path, text).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(&path, variables).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn a_short_file_is_enough() {
    let settings = load(SMALL, &[]).unwrap();
    assert_eq!(settings.schedule.poll, PollSchedule::Every(Duration::from_secs(60)));
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:7070");
    assert!(settings.map.lowercase && settings.sources[0].required);
    assert_eq!(settings.guard, Limits::default());
}

#[test]
fn every_key_can_be_overlaid_by_a_variable() {
    let settings = load(
        SMALL,
        &[
            ("MAPSMITH__API__LISTEN", "127.0.0.1:0"),
            ("MAPSMITH__MAP__LOWERCASE", "false"),
            ("MAPSMITH__SOURCE__0__URL", "http://127.0.0.1:9"),
            ("MAPSMITH__SOURCE__0__FULL_POLL", "5m"),
            ("MAPSMITH__INSTANCE__0__RUNTIME", "tcp@127.0.0.1:9999"),
            ("MAPSMITH__GUARD__MIN_ENTRIES", "7"),
            ("MAPSMITH__SCHEDULE__POLL", "0 * * * * *"),
            ("MAPSMITH_URL", "not a setting"),
        ],
    )
    .unwrap();
    assert_eq!(settings.api.listen.port(), 0);
    assert!(!settings.map.lowercase);
    assert_eq!(settings.sources[0].url.as_deref(), Some("http://127.0.0.1:9"));
    assert_eq!(settings.sources[0].name, "puppetdb");
    assert_eq!(settings.sources[0].full_poll, Duration::from_secs(300));
    assert_eq!(settings.instances[0].runtime.to_string(), "tcp@127.0.0.1:9999");
    assert_eq!(settings.guard.min_entries, 7);
    assert_eq!(settings.schedule.poll, PollSchedule::Cron("0 * * * * *".to_owned()));
}

#[test]
fn a_misspelt_key_or_a_wrong_value_is_named() {
    for (text, parts) in [
        (SMALL.replace("url =", "uri ="), &["uri"][..]),
        (format!("{SMALL}\n[schedule]\npoll = \"often\""), &["often", "schedule.poll"]),
        (format!("{SMALL}\n[schedule]\npoll = \"0 99 * * * *\""), &["0 99 * * * *", "cron"]),
        (format!("{SMALL}\n[guard]\nmax_removed = \"lots\""), &["lots", "20%"]),
        (SMALL.replace("unix@/run", "/run"), &["unix@/run/haproxy/admin.sock"]),
        (SMALL.replace("\"puppetdb\"\nurl", "\"ldap\"\nurl"), &["ldap"]),
        ("= 1".to_owned(), &["FILE"]),
    ] {
        let message = load(&text, &[]).unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

#[test]
fn all_problems_are_named_at_once() {
    let message = load(
        r#"
[api]
listen = "0.0.0.0:7070"
[map]
path = "relative.map"
[[source]]
name = "a b"
type = "http_json"
node_field = "node"
cert = "c.pem"
[[source]]
name = "f"
type = "file"
url = "http://127.0.0.1"
"#,
        &[],
    )
    .unwrap_err();
    for part in [
        "9 problem(s)",
        "api.listen",
        "map.path",
        "\"a b\" is no name",
        "instance: there is none",
        "url is missing",
        "node_field and master_field",
        "cert and key",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn sources_stand_in_order_of_priority_and_paths_are_relative_to_the_file() {
    let text = format!("{SMALL}\n[[source]]\nname = \"override\"\ntype = \"file\"\npath = \"pins.json\"\npriority = 10");
    let settings = load(&text, &[]).unwrap();
    assert_eq!(settings.sources.iter().map(|source| &*source.name).collect::<Vec<_>>(), ["override", "puppetdb"]);
    assert!(settings.sources[0].path.as_ref().unwrap().is_absolute());
}

#[test]
fn settings_that_would_fight_themselves_are_refused() {
    let twice = format!("{SMALL}\n[[instance]]\nname = \"edge2\"\nruntime = \"unix@/run/haproxy/admin.sock\"");
    let own = format!("{SMALL}\n[[source]]\nname = \"own\"\ntype = \"file\"\npath = \"/etc/haproxy/maps/node-master.map\"");
    for (text, part) in [(twice, "has the socket of \"edge1\""), (own, "path is the map file")] {
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_time_that_no_clock_can_hold_is_refused_and_not_a_crash() {
    for key in ["poll", "verify", "observe", "jitter"] {
        let text = format!("{SMALL}\n[schedule]\n{key} = \"18446744073709551615s\"");
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains("longer than a year"), "{key}: {message}");
    }
    let message = load(&format!("{SMALL}\n[schedule]\npoll = \"1500ms\""), &[]).unwrap_err();
    assert!(message.contains("whole seconds"), "{message}");
}
