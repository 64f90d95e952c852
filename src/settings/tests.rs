//! Settings as people write them, and what they are told where they err.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::units::parse_size;
use super::*;
use crate::source::FileFormat;

pub(super) const SMALL: &str = r#"
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

pub(super) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    load_as("toml", text, variables)
}

pub(super) fn load_as(
    ending: &str,
    text: &str,
    variables: &[(&str, &str)],
) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("mapsmith.{ending}"));
    std::fs::write(&path, text).unwrap();
    let variables =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load(&path, variables)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
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
    assert_eq!(settings.sources[0].of_kind.http.url.as_deref(), Some("http://127.0.0.1:9"));
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
fn a_byte_order_mark_before_the_settings_is_skipped() {
    let settings = load(&format!("\u{feff}{SMALL}"), &[]).unwrap();
    assert_eq!(settings.sources[0].name, "puppetdb");
}

#[test]
fn a_files_format_goes_by_its_name_unless_it_is_set() {
    for (path, format, expected) in [
        ("nodes.json", "", FileFormat::Json),
        ("nodes.JSON", "", FileFormat::Json),
        ("nodes.map", "", FileFormat::Map),
        ("nodes", "", FileFormat::Map),
        ("nodes.json.bak", "", FileFormat::Map),
        ("nodes", "format = \"json\"", FileFormat::Json),
        ("nodes.json", "format = \"map\"", FileFormat::Map),
    ] {
        let text = format!(
            "{SMALL}\n[[source]]\nname = \"f\"\ntype = \"file\"\npath = {path:?}\npriority = \
                1\n{format}\n"
        );
        assert_eq!(
            load(&text, &[]).unwrap().sources[0].of_kind.file.file_format(),
            expected,
            "{path} {format}"
        );
    }
    let puppetdb = SMALL.replace("type = \"puppetdb\"", "type = \"puppetdb\"\nformat = \"map\"");
    let message = load(&puppetdb, &[]).unwrap_err();
    assert!(message.contains("format: a puppetdb source has none"), "{message}");
    let text = format!(
        "{SMALL}\n[[source]]\nname = \"f\"\ntype = \"file\"\npath = \"f\"\nformat = \"yaml\"\n"
    );
    let message = load(&text, &[]).unwrap_err();
    assert!(message.contains("\"yaml\" is none of json, map or lines"), "{message}");
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
        "\"a b\" is not a name",
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
    let text = format!(
        "{SMALL}\n[[source]]\nname = \"override\"\ntype = \"file\"\npath \
            = \"pins.json\"\npriority = 10"
    );
    let settings = load(&text, &[]).unwrap();
    assert_eq!(
        settings.sources.iter().map(|source| &*source.name).collect::<Vec<_>>(),
        ["override", "puppetdb"]
    );
    assert!(settings.sources[0].of_kind.file.path.as_ref().unwrap().is_absolute());
}

#[test]
fn the_store_is_optional_and_its_path_is_relative_to_the_file() {
    assert!(load(SMALL, &[]).unwrap().store.is_none());
    let settings = load(&format!("{SMALL}\n[store]\npath = \"state/mapsmith.db\""), &[]).unwrap();
    let path = settings.store.unwrap().path;
    assert!(path.is_absolute() && path.ends_with("state/mapsmith.db"), "{path:?}");
    let settings =
        load(SMALL, &[("MAPSMITH__STORE__PATH", "/var/lib/mapsmith/mapsmith.db")]).unwrap();
    assert_eq!(settings.store.unwrap().path, Path::new("/var/lib/mapsmith/mapsmith.db"));
    for (store, part) in [
        ("[store]", "path"),
        ("[store]\npath = \"\"", "names no file"),
        ("[store]\npath = \"/etc/haproxy/maps/node-master.map\"", "is the map file"),
        (
            "[store]\npath = \"a.db\"\n[[source]]\nname = \"a\"\ntype = \"file\"\npath = \"a.db\"",
            "path is the store",
        ),
    ] {
        let message = load(&format!("{SMALL}\n{store}"), &[]).unwrap_err();
        assert!(
            message.contains("store") && message.contains(part),
            "{part:?} is not in: {message}"
        );
    }
}

#[test]
fn settings_that_would_fight_themselves_are_refused() {
    let twice = format!(
        "{SMALL}\n[[instance]]\nname = \"edge2\"\nruntime = \"unix@/run/haproxy/admin.sock\""
    );
    let own = format!(
        "{SMALL}\n[[source]]\nname = \"own\"\ntype = \"file\"\npath \
            = \"/etc/haproxy/maps/node-master.map\""
    );
    for (text, part) in [(twice, "has the socket of \"edge1\""), (own, "path is the map file")] {
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_haproxy_of_mapsmiths_own_loads_the_map_from_the_file_that_is_written() {
    for (map, path) in [
        ("", "/srv/haproxy/node-master.map"),
        ("[map]\nfile = \"/srv/nodes.map\"\n", "/srv/nodes.map"),
        ("[map]\npath = \"/srv/n.map\"\nfile = \"/mnt/n.map\"\n", "/srv/n.map"),
    ] {
        let managed = "[haproxy]\nmanaged = true\nfolder = \"/srv/haproxy\"\n";
        let text = format!("{map}{managed}[store]\npath = \"/srv/s.db\"\n");
        assert_eq!(load(&text, &[]).unwrap().map.path, Path::new(path), "{text}");
    }
}

/// After `show map PATH` 2.6 waits for a payload where the path ends with the mark, 3.4 where it
/// begins with it.
#[test]
fn a_map_whose_name_no_command_can_carry_is_refused() {
    for path in ["<</node-master.map", "/etc/haproxy/maps/<<"] {
        let text = SMALL
            .replace("[map]\n", "[map]\nfile = \"n.map\"\n")
            .replace("/etc/haproxy/maps/node-master.map", path);
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains("map.path") && message.contains("payload mark"), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_form_is_told_with_its_key_and_what_may_stand_there() {
    let with = |more: &str| format!("{SMALL}{more}");
    let source = |more: &str| SMALL.replace("type = \"puppetdb\"", more);
    let backend = "[[backend]]\nname = \"a\"\nservers = []\n";
    for (text, told) in [
        (String::new(), "map.path: is missing"),
        (source(""), "source[0].type: is missing"),
        (
            source("type = \"pupetdb\""),
            "source[0].type: \"pupetdb\" is none of puppetdb, consul, zookeeper, etcd, dns, \
                http_json, file, metadata or registrations",
        ),
        (
            with("[references]\nunknown = \"drop\""),
            "references.unknown: \"drop\" is none of keep, guard, leave_out or hold",
        ),
        (with(backend) + "manage = \"some\"", "backend[0].manage: \"some\" is none of own or all"),
        (
            with("[schedule]\nverify = \"60\""),
            "schedule.verify: \"60\" is not a duration like \"500ms\"",
        ),
        (
            with("[schedule]\npoll = \"* * * * *\""),
            "schedule.poll: \"* * * * *\" is not a cron expression of six fields, seconds first",
        ),
        (
            with("[api]\nlisten = \"localhost:7070\""),
            "api.listen: \"localhost:7070\" is not an address with a port like \"127.0.0.1:7070\"",
        ),
        (
            with("max_payload = -5"),
            "instance[0].max_payload: \"-5\" is not a size in bytes like 15360 or \"512MiB\"",
        ),
        (
            with("[guard]\nmin_entries = 9\nmax_entries = 8"),
            "guard.max_entries: 8 is below guard.min_entries, 9",
        ),
        (with("[guard]\nwindow = \"often\""), "guard.window: \"often\" is not a duration like"),
        (
            with("[guard]\nmax_removed = \"120%\""),
            "guard.max_removed: \"120%\" is not a limit: write a percentage like",
        ),
        (
            source("type = \"puppetdb\"\nnmae = 1"),
            "source[0].nmae: there is no such key; did you mean name?",
        ),
        (
            SMALL.replace("http://127.0.0.1:8080", "puppetdb"),
            "url: \"puppetdb\" is not a valid URL (example: https://puppetdb.example.com:8081)",
        ),
        (
            source("type = \"consul\"").replace("url = \"http://127.0.0.1:8080\"\n", ""),
            "url is missing (example: http://127.0.0.1:8500)",
        ),
        (
            "[services]\nfrom = \"puppetdb\"\n[[source]]\nname = \"puppetdb\"\n\
                type = \"puppetdb\"\nurl = \"http://127.0.0.1:8080\"\n"
                .to_owned(),
            "services.from: needs [haproxy] with managed = true or \"attached\"",
        ),
        (
            with("[services]\nfrom = \"puppetdb\"\naddress = \"everywhere\""),
            "services.address: \"everywhere\" is not an IP address like 127.0.0.1",
        ),
        (
            SMALL.replace("unix@", ""),
            "instance[0].runtime: \"/run/haproxy/admin.sock\" is not a runtime address; write",
        ),
    ] {
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(told), "{told:?} is not in: {message}");
    }
    for (name, told) in [
        ("MAPSMITH__SCHEDULE__VERIFY", "schedule.verify: \"soon\""),
        ("MAPSMITH__SOURCE__7__URL", "source[7].url: there are 1 of them"),
    ] {
        let message = load(SMALL, &[(name, "soon")]).unwrap_err();
        assert!(message.contains(told) && message.contains(name), "{message}");
    }
}

#[test]
fn a_time_that_no_clock_can_hold_is_refused_and_not_a_crash() {
    for (section, key) in [
        ("schedule", "poll"),
        ("schedule", "verify"),
        ("schedule", "observe"),
        ("schedule", "jitter"),
        ("guard", "window"),
    ] {
        let text = format!("{SMALL}\n[{section}]\n{key} = \"18446744073709551615s\"");
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains("longer than a year"), "{key}: {message}");
    }
    let message = load(&format!("{SMALL}\n[schedule]\npoll = \"1500ms\""), &[]).unwrap_err();
    assert!(message.contains("whole seconds"), "{message}");
}

#[test]
fn learned_routes_need_a_table_that_can_be_one_and_a_bound() {
    let settings = load(SMALL, &[("MAPSMITH__LEARNED__TABLE", "puppet")]).unwrap();
    assert_eq!((settings.learned.table.as_deref(), settings.learned.max), (Some("puppet"), 10_000));
    assert!(load(SMALL, &[]).unwrap().learned.table.is_none());
    assert!(load(SMALL, &[("MAPSMITH__LEARNED__TABLE", "gateways/puppet")]).is_ok());
    for (key, value, told) in [
        (
            "MAPSMITH__LEARNED__TABLE",
            "puppet; shutdown",
            "learned.table: \"puppet; shutdown\" can be no stick table",
        ),
        ("MAPSMITH__LEARNED__MAX", "0", "learned.max: must be 1 to 100000 routes"),
        ("MAPSMITH__LEARNED__MAX", "100001", "learned.max: must be 1 to 100000 routes"),
    ] {
        let problem = load(SMALL, &[(key, value)]).unwrap_err();
        assert!(problem.contains(told), "{problem}");
    }
}

#[test]
fn what_contradicts_itself_is_told_beside_what_is_misspelt_and_with_its_line() {
    let text = r#"[api]
listen = "0.0.0.0:7070"
[map]
path = "relative.map"
[guard]
hold = 1
[[source]]
name = "f"
type = "file"
url = "http://127.0.0.1"
[[source]]
name = "g"
type = "http_json"
uri = "http://127.0.0.1"
"#;
    assert_eq!(
        load(text, &[]).unwrap_err(),
        [
            "FILE: 7 problem(s) in the settings:",
            "  - instance: there is none; add an [[instance]] with its runtime socket",
            "  - line 2: api.listen: 0.0.0.0:7070 can be reached from other machines; set \
                api.token_file, or listen on 127.0.0.1",
            "  - line 4: map.path: \"relative.map\" is relative to HAProxy's working folder; set \
                map.file to where Mapsmith shall write it",
            "  - line 6: guard.hold: there is no such key; there are max_removed, max_moved, \
                max_added, min_entries, max_entries, small, free, window, partial",
            "  - line 7: source[0] \"f\": path is missing",
            "  - line 10: source[0] \"f\": url: a file source has none",
            "  - line 14: source[1].uri: there is no such key; did you mean url?",
        ]
        .join("\n")
    );
}

#[test]
fn what_a_person_means_is_taken_or_is_told_how_to_be_written() {
    let single = SMALL.replace("[[source]]", "[source]").replace("[[instance]]", "[instance]");
    let settings = load(
        &format!("{single}max_payload = \"8KiB\""),
        &[("MAPSMITH__SOURCE__0__MAX_BYTES", "512MiB")],
    )
    .unwrap();
    assert_eq!((settings.sources.len(), &*settings.sources[0].name), (1, "puppetdb"));
    assert_eq!(
        (settings.sources[0].max_bytes, settings.instances[0].max_payload),
        (512 * 1024 * 1024, 8 * 1024)
    );
    let twice = load(&format!("{single}[instance]\nname = \"edge2\"\nruntime = \"unix@/b\""), &[])
        .unwrap_err();
    assert!(
        twice.contains("TOML parse error at line 11")
            && twice.contains("in double brackets: [[source]]"),
        "{twice}"
    );
    for (size, bytes) in [("1000", 1000), ("20 MB", 20_000_000), ("2g", 2 << 30), ("7B", 7)] {
        assert_eq!(parse_size(size), Some(bytes), "{size}");
    }
    for wrong in ["", "MiB", "-1", "1.5GiB", "99999999999GiB", "many"] {
        assert_eq!(parse_size(wrong), None, "{wrong}");
    }
    for (value, told) in [
        ("0.2", "0.2 may be a percentage or a number; write \"20%\""),
        ("0.07", "write \"7%\""),
        (
            "\"20\"",
            "\"20\" may be a percentage or a number; write \"20%\" for a percentage, or 20 without \
                quotes for a number",
        ),
        ("20.5", "\"20.5\" is not a limit"),
        ("-1", "is not a limit: write a percentage"),
        ("true", "write a percentage like \"20%\""),
        ("[20]", "write a percentage like \"20%\""),
    ] {
        let message = load(&format!("{SMALL}[guard]\nmax_removed = {value}"), &[]).unwrap_err();
        assert!(
            message.contains("line 12: guard.max_removed: ") && message.contains(told),
            "{value}: {message}"
        );
    }
    for (value, limit) in [
        ("20", mapsmith_core::desired::guard::Limit::Entries(20)),
        ("\"20 %\"", mapsmith_core::desired::guard::Limit::Percent(20.0)),
    ] {
        assert_eq!(
            load(&format!("{SMALL}[guard]\nmax_removed = {value}"), &[]).unwrap().guard.max_removed,
            limit
        );
    }
    let message = load(&format!("{SMALL}[schedule]\npoll = 60\nverify = \"90\""), &[]).unwrap_err();
    assert!(
        message.contains("write \"60s\" for seconds")
            && message.contains("write \"90s\" for seconds"),
        "{message}"
    );
}

#[test]
fn a_schedule_that_never_comes_is_refused() {
    for poll in ["0 0 0 31 2 *", "0 0 0 30 2 *", "0 0 0 31 4,6,9,11 *", "0 0 0 1 1 * 2020"] {
        let message = load(&format!("{SMALL}[schedule]\npoll = {poll:?}"), &[]).unwrap_err();
        assert!(
            message.contains(&format!("line 12: schedule.poll: {poll:?} never comes")),
            "{message}"
        );
    }
    for poll in ["0 0 0 29 2 *", "0 0 0 31 * *", "0 0 0 1 1 * 2999"] {
        load(&format!("{SMALL}[schedule]\npoll = {poll:?}"), &[]).unwrap();
    }
}

#[test]
fn who_asks_the_daemon_needs_no_more_of_the_settings_than_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapsmith.toml");
    std::fs::write(
        &path,
        "[api]\nlisten = \"127.0.0.1:9\"\ntoken_file = \"token\"\n[map]\npaht = 3\n",
    )
    .unwrap();
    let api = Settings::load_api(&path, []).unwrap();
    assert_eq!((api.listen.port(), api.token_file), (9, Some(folder.path().join("token"))));
    let variables = [("MAPSMITH__API__LISTEN", "127.0.0.1:8"), ("MAPSMITH__SOURCE__7__URL", "x")]
        .map(|(name, value)| (name.into(), value.into()));
    assert_eq!(Settings::load_api(&path, variables).unwrap().listen.port(), 8);
    std::fs::write(&path, "[api]\nlisten = \"localhost\"\n").unwrap();
    let message = Settings::load_api(&path, []).unwrap_err().to_string();
    assert!(
        message.contains("line 2: api.listen: \"localhost\" is not an address with a port"),
        "{message}"
    );
}
