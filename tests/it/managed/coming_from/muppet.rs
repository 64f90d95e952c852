//! Muppet: HAProxy's servers beside the registry's, which are wrong and why, and what is done.

use super::{Listed, Row};
use crate::support::scene::{newest, oldest_and_newest, reload};

const X: Row<'_> = ("4afa9ff4:6780", "127.0.0.1:6780", &[]);
const Y: Row<'_> = ("5c679a71:6781", "127.0.0.1:6781", &[]);
const Z: Row<'_> = ("cdf37eb6:8081", "127.0.0.1:8081", &[]);

#[test]
fn what_muppet_reloads_for_or_disables_is_done_by_the_runtime_api() {
    for binary in oldest_and_newest() {
        let listed = Listed::start(binary, "", &[X, Y]);
        let moved: Row<'_> = (Y.0, "127.0.0.2:6781", &[]);
        for (name, rows) in [
            // They reload.
            ("no-server", &[X][..]),
            // They enable it; here it comes back.
            ("re-enabled", &[X, Y]),
            // They reload.
            ("addr-mismatch", &[X, moved]),
            // They reload, and disable.
            ("mixed-no-server-and-want-disabled", &[Z]),
            // They see nothing wrong in servers that are missing.
            ("empty-stats", &[X, Y, Z]),
        ] {
            println!("{name}");
            listed.list(rows);
            listed.wait_for(rows);
        }
        // all-in-sync
        let before = listed.states();
        reload(&listed.managed.mapsmith);
        assert_eq!(listed.states(), before);
        assert_eq!(listed.reloads(), 0);
    }
}

#[test]
fn a_server_that_an_operator_drains_or_maintains_stays_so_and_is_shown() {
    for binary in oldest_and_newest() {
        let listed = Listed::start(binary, "", &[X, Y]);
        // Theirs takes DRAIN for enabled and disables it; what an operator set stays here.
        for (order, state) in [("drain", "DRAIN"), ("maint", "MAINT")] {
            listed.command(&format!("set server app/{} state {order}", Y.0));
            listed.wait_for_external(Y.0);
            // The list goes on around it.
            for rows in [&[X, Y, Z][..], &[X, Y]] {
                listed.list(rows);
                let expected: Vec<_> = rows
                    .iter()
                    .map(|row| (row.0, row.1, if row.0 == Y.0 { state } else { "READY" }))
                    .collect();
                listed.wait_for_states(&expected);
            }
            listed.command(&format!("set server app/{} state ready", Y.0));
            listed.wait_for(&[X, Y]);
        }
        assert_eq!(listed.reloads(), 0);
    }
}

/// A server that no list names is an error to theirs.
#[test]
fn a_server_that_no_list_names_goes_as_with_a_start_of_haproxy_unless_it_is_to_be_left_alone() {
    for (keys, stays) in [("", false), ("manage = \"own\"", true)] {
        let listed = Listed::start(newest(), keys, &[X, Y]);
        listed.command("add server app/stranger 127.0.0.1:9");
        listed.command("enable server app/stranger");
        if stays {
            listed.managed.mapsmith.wait_for("it is counted", super::PATIENCE, |_| {
                (listed.servers()["foreign"] == 1).then_some(())
            });
        }
        listed.list(&[X, Y, Z]);
        let stranger = stays.then_some(("stranger", "127.0.0.1:9", "READY"));
        let ours = [X, Y, Z].map(|row| (row.0, row.1, "READY"));
        listed.wait_for_states(&stranger.into_iter().chain(ours).collect::<Vec<_>>());
        assert_eq!(listed.reloads(), 0);
    }
}

#[test]
fn what_the_runtime_api_can_not_bring_is_one_reload() {
    for binary in oldest_and_newest() {
        // Theirs reloads where servers stay wrong for too long; here as soon as that is known.
        let listed = Listed::start(binary, "natives = [\"balance static-rr\"]", &[X, Y]);
        listed.list(&[X, Y, Z]);
        listed.wait_for(&[X, Y, Z]);
        listed.managed.mapsmith.wait_for("the reload is shown", super::PATIENCE, |_| {
            (listed.managed.status()["last_reload"]["reason"] == "servers").then_some(())
        });
        listed.managed.mapsmith.wait_for("nothing is missing", super::PATIENCE, |_| {
            (listed.servers()["state"] == "in_sync").then_some(())
        });
        reload(&listed.managed.mapsmith);
        assert_eq!(listed.managed.reloads(), 1, "{}", listed.managed.mapsmith.log());
    }
}

#[test]
fn an_empty_list_takes_the_servers_of_nobody() {
    for binary in oldest_and_newest() {
        let listed = Listed::start(binary, "", &[X, Y]);
        listed.list(&[]);
        listed.managed.mapsmith.wait_for("it is told", super::PATIENCE, |mapsmith| {
            let status = mapsmith.get("/v1/status").1["backends"].to_string();
            status.contains("held").then_some(())
        });
        listed.wait_for(&[X, Y]);
        assert_eq!(listed.reloads(), 0);
    }
}
