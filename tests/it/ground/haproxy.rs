//! The facts about HAProxy's runtime API that the code relies on, one a test.
//!
//! A fact that differs between versions says so; each was read off the real process, not off the
//! manual.

use crate::support::haproxy::{Gateway, ask, entries_of, installed};

const UNKNOWN_MAP: &str = "Unknown map identifier. Please use #<id> or <file>.\n\n";

/// Runs a check against every installed HAProxy, with two entries in its map.
fn every_version(check: impl Fn(&Gateway, &str)) {
    for binary in installed() {
        // Shown when the check fails.
        println!("HAProxy {:?}", binary.version);
        let gateway = Gateway::plan(binary)
            .entry("node1", "master1")
            .entry("node2", "master2")
            .user_socket()
            .start();
        check(&gateway, gateway.map_path());
    }
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn version_entries(gateway: &Gateway, version: u32) -> Vec<(String, String)> {
    entries_of(&gateway.command(&format!("show map @{version} {}", gateway.map_path())))
}

fn prepare(gateway: &Gateway) -> u32 {
    let reply = gateway.command(&format!("prepare map {}", gateway.map_path()));
    let version =
        reply.strip_prefix("New version created: ").and_then(|rest| rest.strip_suffix("\n\n"));
    version.and_then(|version| version.parse().ok()).unwrap_or_else(|| panic!("{reply:?}"))
}

#[test]
fn show_info_tells_the_version_the_process_and_its_age() {
    every_version(|gateway, _| {
        let info = gateway.command("show info");
        let (major, minor) = gateway.version();
        assert!(info.starts_with("Name: HAProxy\n"), "{info}");
        assert!(info.contains(&format!("\nVersion: {major}.{minor}")), "{info}");
        for field in ["Pid", "Uptime_sec", "Process_num", "Stopping"] {
            assert!(info.contains(&format!("\n{field}: ")), "{field} in {info}");
        }
        assert!(info.ends_with("\n\n"));
    });
}

#[test]
fn a_map_is_listed_by_its_file_with_its_live_version_its_last_one_and_the_entries_of_all() {
    every_version(|gateway, map| {
        let listed = |counters: &str| {
            let list = gateway.command("show map");
            let (title, rest) = list.split_once('\n').unwrap();
            assert_eq!(title, "# id (file) description");
            assert!(
                rest.contains(&format!(
                    " ({map}) pattern loaded from file '{map}' used by map at file "
                )),
                "{list}"
            );
            assert!(rest.ends_with(&format!(". {counters}\n\n")), "{list}");
        };
        listed("curr_ver=0 next_ver=0 entry_cnt=2");
        assert_eq!(prepare(gateway), 1);
        gateway.command(&format!("add map @1 {map} node3 master1"));
        listed("curr_ver=0 next_ver=1 entry_cnt=3");
        gateway.command(&format!("commit map @1 {map}"));
        listed("curr_ver=1 next_ver=1 entry_cnt=1");
    });
}

#[test]
fn a_version_is_filled_unseen_and_replaces_the_whole_map_at_its_commit() {
    every_version(|gateway, map| {
        let live = pairs(&[("node1", "master1"), ("node2", "master2")]);
        assert_eq!(prepare(gateway), 1);
        assert_eq!(
            gateway.command(&format!("add map @1 {map} <<\nnode2 master1\nnode3 master1\n\n")),
            "\n"
        );
        let staged = pairs(&[("node2", "master1"), ("node3", "master1")]);
        assert_eq!(version_entries(gateway, 1), staged);
        assert_eq!(gateway.memory_map(), live);
        assert_eq!(gateway.command(&format!("commit map @1 {map}")), "\n");
        assert_eq!(gateway.memory_map(), staged);
    });
}

#[test]
fn a_commit_that_another_writer_overtook_is_refused() {
    every_version(|gateway, map| {
        let (earlier, later) = (prepare(gateway), prepare(gateway));
        gateway.command(&format!("add map @{earlier} {map} node1 master2"));
        gateway.command(&format!("add map @{later} {map} node1 master3"));
        assert_eq!(gateway.command(&format!("commit map @{later} {map}")), "\n");
        for version in [earlier, later, later + 1] {
            assert_eq!(
                gateway.command(&format!("commit map @{version} {map}")),
                "Version number out of range.\n\n"
            );
        }
        assert_eq!(gateway.memory_map(), pairs(&[("node1", "master3")]));
    });
}

#[test]
fn an_abandoned_version_survives_the_next_prepare_and_dies_at_the_next_commit() {
    every_version(|gateway, map| {
        let abandoned = prepare(gateway);
        gateway.command(&format!("add map @{abandoned} {map} node9 master1"));
        let next = prepare(gateway);
        assert_eq!(version_entries(gateway, abandoned), pairs(&[("node9", "master1")]));
        gateway.command(&format!("commit map @{next} {map}"));
        assert_eq!(version_entries(gateway, abandoned), pairs(&[]));
        assert!(gateway.command("show map").contains("entry_cnt=0"));
    });
}

#[test]
fn a_version_that_was_never_prepared_takes_no_entry_and_shows_none() {
    every_version(|gateway, map| {
        let refused = "Version number in the future, please use 'prepare map' before.\n\n";
        assert_eq!(gateway.command(&format!("add map @7 {map} node9 master1")), refused);
        assert_eq!(gateway.command(&format!("add map @7 {map} <<\nnode9 master1\n\n")), refused);
        assert_eq!(gateway.command(&format!("show map @7 {map}")), "\n");
    });
}

#[test]
fn an_empty_version_may_be_committed_and_empties_the_map() {
    every_version(|gateway, map| {
        let version = prepare(gateway);
        assert_eq!(gateway.command(&format!("commit map @{version} {map}")), "\n");
        assert_eq!(gateway.command(&format!("show map {map}")), "\n");
    });
}

#[test]
fn clearing_a_version_says_nothing_and_from_3_4_on_does_nothing_beside_a_live_map() {
    every_version(|gateway, map| {
        let version = prepare(gateway);
        gateway.command(&format!("add map @{version} {map} node9 master1"));
        assert_eq!(gateway.command(&format!("clear map @{version} {map}")), "\n");
        let left =
            if gateway.version() >= (3, 4) { pairs(&[("node9", "master1")]) } else { pairs(&[]) };
        assert_eq!(version_entries(gateway, version), left);
        assert_eq!(gateway.memory_map().len(), 2);
    });
}

#[test]
fn an_entry_of_any_version_is_deleted_by_its_reference() {
    every_version(|gateway, map| {
        let version = prepare(gateway);
        gateway.command(&format!("add map @{version} {map} <<\nnode8 master1\nnode9 master1\n\n"));
        let staged = gateway.command(&format!("show map @{version} {map}"));
        let reference = staged.split(' ').next().unwrap();
        assert_eq!(gateway.command(&format!("del map {map} #{reference}")), "\n");
        assert_eq!(version_entries(gateway, version), pairs(&[("node9", "master1")]));
        assert_eq!(gateway.memory_map().len(), 2);
    });
}

#[test]
fn single_changes_touch_open_versions_too_before_3_2() {
    every_version(|gateway, map| {
        let walks_all_versions = gateway.version() < (3, 2);
        let version = prepare(gateway);
        gateway.command(&format!("add map @{version} {map} <<\nnode1 master1\nnode9 master1\n\n"));
        assert_eq!(gateway.command(&format!("set map {map} node1 master2")), "\n");
        let staged = if walks_all_versions { "master2" } else { "master1" };
        assert_eq!(
            version_entries(gateway, version),
            pairs(&[("node1", staged), ("node9", "master1")])
        );
        // Success, though the live map has no such key.
        let only_staged = if walks_all_versions {
            ["\n", "\n"]
        } else {
            ["entry not found.\n\n", "Key not found.\n\n"]
        };
        assert_eq!(gateway.command(&format!("set map {map} node9 master2")), only_staged[0]);
        assert_eq!(gateway.command(&format!("del map {map} node9")), only_staged[1]);
        assert_eq!(gateway.memory_map(), pairs(&[("node1", "master2"), ("node2", "master2")]));
    });
}

#[test]
fn a_key_added_twice_is_held_twice_and_lookups_take_the_first() {
    every_version(|gateway, map| {
        assert_eq!(
            gateway.command(&format!("add map {map} twice master1;add map {map} twice master2")),
            "\n\n"
        );
        let twice = pairs(&[("twice", "master1"), ("twice", "master2")]);
        assert_eq!(gateway.memory_map()[2..], twice);
        assert!(gateway.command(&format!("get map {map} twice")).contains(r#" value="master1","#));
    });
}

#[test]
fn set_changes_all_of_a_key_and_del_removes_all_or_from_3_4_on_the_first() {
    every_version(|gateway, map| {
        gateway.command(&format!("add map {map} twice master1;add map {map} twice master2"));
        assert_eq!(gateway.command(&format!("set map {map} twice master3")), "\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&[("twice", "master3"), ("twice", "master3")]));
        assert_eq!(gateway.command(&format!("del map {map} twice")), "\n");
        let left =
            if gateway.version() >= (3, 4) { pairs(&[("twice", "master3")]) } else { pairs(&[]) };
        assert_eq!(gateway.memory_map()[2..], left);
    });
}

#[test]
fn a_missing_key_is_an_error_in_text() {
    every_version(|gateway, map| {
        assert_eq!(
            gateway.command(&format!("set map {map} nobody master1")),
            "entry not found.\n\n"
        );
        assert_eq!(gateway.command(&format!("del map {map} nobody")), "Key not found.\n\n");
    });
}

#[test]
fn get_map_tells_what_a_lookup_finds() {
    every_version(|gateway, map| {
        assert_eq!(
            gateway.command(&format!("get map {map} node1")),
            "type=str, case=sensitive, found=yes, idx=tree, key=\"node1\", value=\"master1\", \
                type=\"str\"\n\n"
        );
        for absent in ["nobody", "NODE1"] {
            let reply = gateway.command(&format!("get map {map} {absent}"));
            assert_eq!(reply, "type=str, case=sensitive, found=no\n\n");
        }
    });
}

#[test]
fn every_verb_names_a_map_that_haproxy_does_not_know() {
    for binary in installed() {
        let gateway = Gateway::plan(binary).map_unused().entry("node1", "master1").start();
        let map = gateway.map_path();
        assert_eq!(gateway.command("show map"), "# id (file) description\n\n");
        for command in [
            format!("show map {map}"),
            format!("prepare map {map}"),
            format!("add map {map} node1 master1"),
            format!("add map {map} <<\nnode1 master1\n\n"),
            format!("set map {map} node1 master1"),
            format!("del map {map} node1"),
            format!("get map {map} node1"),
            format!("clear map {map}"),
            format!("commit map @1 {map}"),
        ] {
            assert_eq!(gateway.command(&command), UNKNOWN_MAP, "{command}");
        }
    }
}

#[test]
fn a_socket_tells_its_level() {
    every_version(|gateway, _| {
        assert_eq!(gateway.command("show cli level"), "admin\n\n");
        assert_eq!(ask(&gateway.user_runtime_address(), "show cli level").unwrap(), "user\n\n");
    });
}

#[test]
fn a_user_level_socket_is_denied_the_map_from_3_4_on_and_may_change_it_before() {
    every_version(|gateway, map| {
        let user = |command: &str| ask(&gateway.user_runtime_address(), command).unwrap();
        let denied = "Permission denied\n\n";
        // What needs more than user level says so in every version.
        assert_eq!(user("disable frontend gateway"), denied);
        let (prepared, listed) =
            (user(&format!("prepare map {map}")), user(&format!("show map {map}")));
        if gateway.version() >= (3, 4) {
            assert_eq!([prepared.as_str(), listed.as_str()], [denied, denied]);
        } else {
            assert_eq!(prepared, "New version created: 1\n\n");
            assert_eq!(entries_of(&listed).len(), 2);
            assert_eq!(user(&format!("commit map @1 {map}")), "\n");
            assert_eq!(gateway.memory_map(), pairs(&[]));
        }
        assert!(user("show info").starts_with("Name: HAProxy\n"));
    });
}

#[test]
fn commands_of_one_line_are_answered_one_after_another_whatever_became_of_each() {
    every_version(|gateway, map| {
        let reply = |commands: &[&str]| gateway.command(&commands.join(";").replace("MAP", map));
        assert_eq!(
            reply(&["add map MAP a master1", "add map MAP b master1", "set map MAP a master2"]),
            "\n\n\n"
        );
        assert_eq!(
            reply(&[
                "set map MAP a master1",
                "set map MAP nobody master1",
                "del map MAP nobody",
                "del map MAP b"
            ]),
            "\nentry not found.\n\nKey not found.\n\n\n"
        );
        assert_eq!(
            reply(&["prepare map MAP", "show cli level"]),
            "New version created: 1\n\nadmin\n\n"
        );
        let listed = reply(&["del map MAP a", "show map MAP", "show cli level"]);
        let entries = listed.strip_prefix('\n').unwrap().strip_suffix("\n\nadmin\n\n").unwrap();
        assert_eq!(entries_of(entries), pairs(&[("node1", "master1"), ("node2", "master2")]));
    });
}

#[test]
fn a_payload_may_close_a_line_of_commands() {
    every_version(|gateway, map| {
        let command = format!("prepare map {map};add map @1 {map} <<\nnode9 master1\n\n");
        assert_eq!(gateway.command(&command), "New version created: 1\n\n\n");
        assert_eq!(version_entries(gateway, 1), pairs(&[("node9", "master1")]));
    });
}

#[test]
fn nothing_may_follow_the_last_command_of_a_line() {
    every_version(|gateway, map| {
        let reply = gateway.command(&format!("add map {map} a master1;"));
        if gateway.version() < (3, 0) {
            assert!(reply.starts_with("\nUnknown command."), "{reply}");
        } else {
            assert_eq!(reply, "\n\n");
        }
    });
}

#[test]
fn a_line_of_15360_bytes_is_carried_out_whole() {
    every_version(|gateway, map| {
        let mut line = String::new();
        let mut commands = 0;
        while line.len() + 500 < 15_360 {
            line += &format!("add map {map} key{commands} master1;");
            commands += 1;
        }
        line += &format!(
            "add map {map} {:k<1$} master1",
            "",
            15_360 - line.len() - format!("add map {map}  master1\n").len()
        );
        commands += 1;
        assert_eq!(line.len() + 1, 15_360);
        assert_eq!(gateway.command(&line), "\n".repeat(commands));
        assert_eq!(gateway.memory_map().len(), 2 + commands);
    });
}

/// A whole payload command of exactly that many bytes, and its number of entries.
fn payload(map: &str, size: usize) -> (String, usize) {
    let mut command = format!("add map {map} <<\n");
    let mut entries = 0;
    while command.len() + 60 < size {
        command += &format!("node{entries:06} master1\n");
        entries += 1;
    }
    let rest = size - command.len() - " master1\n\n".len();
    command += &format!("{:z<rest$} master1\n\n", "");
    assert_eq!(command.len(), size);
    (command, entries + 1)
}

#[test]
fn a_payload_of_15360_bytes_is_taken_whole() {
    every_version(|gateway, map| {
        let (command, entries) = payload(map, 15_360);
        assert_eq!(gateway.command(&command), "\n");
        assert_eq!(gateway.memory_map().len(), 2 + entries);
    });
}

#[test]
fn a_payload_above_the_buffer_is_never_half_taken_nor_called_a_success_when_dropped() {
    every_version(|gateway, map| {
        let (command, entries) = payload(map, 20_000);
        let reply = gateway.command(&command);
        let taken = gateway.memory_map().len() - 2;
        if reply == "\n" {
            assert_eq!(taken, entries);
        } else {
            // 2.6 says nothing at all.
            assert!(reply.is_empty() || reply.contains("too big for the buffer size"), "{reply}");
            assert_eq!(taken, 0);
        }
    });
}

#[test]
fn a_payload_line_without_a_value_is_an_error_only_at_the_end_and_else_swallows_the_next() {
    every_version(|gateway, map| {
        let reply = gateway.command(&format!("add map {map} <<\na master1\nlonely\n\n"));
        assert_eq!(reply, "Missing value for key 'lonely'.\n\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&[("a", "master1")]));
        assert_eq!(gateway.command(&format!("add map {map} <<\nlonely\nb master1\n\n")), "\n");
        assert!(gateway.command(&format!("get map {map} b")).contains("found=no"));
    });
}

/// Keys a registry may well hold, and as a command line writes them.
const AWKWARD: [(&str, &str); 7] = [
    ("semi;colon", r"semi\;colon"),
    (r"back\slash", r"back\\slash"),
    ("double\"quote", "double\"quote"),
    ("single'quote", "single'quote"),
    ("größe.example", "größe.example"),
    ("in#side", "in#side"),
    ("$HOME{x}@", "$HOME{x}@"),
];

#[test]
fn on_a_command_line_only_semicolon_and_backslash_need_a_backslash() {
    every_version(|gateway, map| {
        let commands: Vec<String> = AWKWARD
            .iter()
            .map(|(_, written)| format!("add map {map} {written} {written}"))
            .collect();
        assert_eq!(gateway.command(&commands.join(";")), "\n".repeat(AWKWARD.len()));
        let held: Vec<_> = AWKWARD.iter().map(|(key, _)| (*key, *key)).collect();
        assert_eq!(gateway.memory_map()[2..], pairs(&held));
        for (key, written) in AWKWARD {
            let found = gateway.command(&format!("get map {map} {written}"));
            assert!(found.contains(&format!("key=\"{key}\", value=\"{key}\"")), "{found}");
            assert_eq!(gateway.command(&format!("del map {map} {written}")), "\n");
        }
        assert_eq!(gateway.memory_map().len(), 2);
    });
}

#[test]
fn a_payload_is_taken_as_it_stands() {
    every_version(|gateway, map| {
        let held: Vec<_> = AWKWARD
            .iter()
            .map(|(key, _)| (*key, *key))
            .chain([("<<key", "<<value"), ("key", "two words")])
            .collect();
        let lines: String = held.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        assert_eq!(gateway.command(&format!("add map {map} <<\n{lines}\n")), "\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&held));
    });
}

#[test]
fn a_word_too_many_on_a_command_line_is_dropped_without_a_word() {
    every_version(|gateway, map| {
        assert_eq!(gateway.command(&format!("add map {map} key two words")), "\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&[("key", "two")]));
    });
}

#[test]
fn a_key_that_begins_with_a_number_sign_is_a_comment_in_the_file_and_an_entry_in_memory() {
    every_version(|gateway, map| {
        assert_eq!(gateway.command(&format!("add map {map} <<\n#key master1\n\n")), "\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&[("#key", "master1")]));
    });
    for binary in installed() {
        let gateway = Gateway::plan(binary).entry("#key", "master1").start();
        assert_eq!(gateway.memory_map(), pairs(&[]));
    }
}

#[test]
fn names_of_255_bytes_are_held_and_found() {
    every_version(|gateway, map| {
        let (first, second, value) = ("a".repeat(255), "b".repeat(255), "c".repeat(255));
        assert_eq!(gateway.command(&format!("add map {map} {first} {value}")), "\n");
        assert_eq!(gateway.command(&format!("add map {map} <<\n{second} {value}\n\n")), "\n");
        assert_eq!(gateway.memory_map()[2..], pairs(&[(&first, &value), (&second, &value)]));
        assert!(
            gateway
                .command(&format!("get map {map} {second}"))
                .contains(&format!("value=\"{value}\""))
        );
    });
}
