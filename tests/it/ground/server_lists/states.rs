//! A server's states: maintenance, drain, ready, and its check.

use haproxy_runtime::{Refusal, RuntimeClient, ServerCommand, ServerState, ServersClient};
use mapsmith_core::server::AdminState;

use super::{BOUND, DYNAMIC, NOBODY, add, at, every_version, set_state};
use crate::support::eventually;
use crate::support::haproxy::{Gateway, installed};

#[test]
fn an_added_server_waits_in_maintenance_with_its_check_off_until_both_are_enabled() {
    every_version(DYNAMIC, |scene| {
        let reply = scene.gateway.command(&format!(
            "add server b/n1 {NOBODY} check inter 100ms fall 1 weight 7 maxconn 10 maxqueue 5"
        ));
        assert!(reply.starts_with("New server registered.\n"), "{reply}");
        let added = scene.server("b", "n1");
        assert_eq!(added.admin, AdminState(AdminState::MAINTENANCE));
        assert!(added.check_configured && !added.check_enabled && !added.running, "{added:?}");
        assert_eq!(
            (added.weight, added.maxconn, added.maxqueue, added.backup),
            (7, Some(10), Some(5), false)
        );
        assert_eq!(
            (added.address.map(|ip| ip.to_string()), added.port),
            (Some("127.0.0.1".to_owned()), 1)
        );

        assert_eq!(scene.one(ServerCommand::EnableHealth { at: at("b", "n1") }), Ok(()));
        let checked = scene.server("b", "n1");
        assert!(checked.check_enabled && checked.admin.in_maintenance(), "{checked:?}");

        assert_eq!(scene.one(set_state("b", "n1", ServerState::Ready)), Ok(()));
        assert!(scene.server("b", "n1").admin.ready());
        eventually("its check finds nobody", BOUND, || {
            let seen = scene.server("b", "n1");
            (!seen.running && seen.status.starts_with("DOWN")).then_some(())
        });

        assert_eq!(scene.one(set_state("b", "n1", ServerState::Maintenance)), Ok(()));
        let disabled = scene.server("b", "n1");
        assert_eq!(disabled.admin, AdminState(AdminState::MAINTENANCE));
        assert!(
            disabled.check_enabled,
            "a check that pauses in maintenance stays enabled: {disabled:?}"
        );
    });
}

#[test]
fn a_server_is_added_into_rotation_by_one_line() {
    every_version(DYNAMIC, |scene| {
        let commands = [
            add("b", "plain", &["maxconn 3"]),
            add("b", "checked", &["check", "inter 1h"]),
            add("b", "agent", &["agent-check", "agent-port 1"]),
        ];
        assert_eq!(scene.run(&commands), [Ok(()), Ok(()), Ok(())]);
        let seen = scene.observe().remove("b").unwrap();
        assert!(
            seen.servers.values().all(|server| server.admin.ready())
                && seen.servers["plain"].running,
            "{seen:?}"
        );
        assert_eq!(seen.algorithm.as_deref(), Some("roundrobin"));
        assert!(seen.servers["checked"].check_enabled && !seen.servers["plain"].check_configured);
        assert_eq!(
            (seen.servers["plain"].status.as_str(), seen.servers["plain"].maxconn),
            ("no check", Some(3))
        );
        assert_eq!(scene.one(add("b", "plain", &[])), Err(Refusal::NameTaken));
    });
}

#[test]
fn a_draining_server_leaves_maintenance_and_a_disabled_one_leaves_draining() {
    every_version(
        "backend b\n    server s1 127.0.0.1:1\n    server s2 127.0.0.1:1 disabled\n",
        |scene| {
            let admin = |server, state| {
                assert_eq!(scene.one(set_state("b", server, state)), Ok(()));
                scene.server("b", server).admin
            };
            let configured = AdminState::CONFIGURED_MAINTENANCE;
            assert_eq!(admin("s1", ServerState::Drain), AdminState(AdminState::DRAIN));
            assert!(scene.server("b", "s1").running, "HAProxy still counts it as running");
            assert_eq!(admin("s1", ServerState::Maintenance), AdminState(AdminState::MAINTENANCE));
            assert_eq!(admin("s1", ServerState::Drain), AdminState(AdminState::DRAIN));
            assert_eq!(admin("s1", ServerState::Ready), AdminState(0));
            // `disabled` in the configuration leaves a bit for ever, which keeps nobody out.
            let disabled = scene.server("b", "s2");
            assert_eq!(
                (disabled.admin, disabled.running),
                (AdminState(AdminState::MAINTENANCE | configured), false)
            );
            assert_eq!(admin("s2", ServerState::Ready), AdminState(configured));
            let ready = scene.server("b", "s2");
            assert!(ready.running && ready.admin.ready(), "{ready:?}");
        },
    );
}

#[test]
fn every_kind_of_server_is_seen_and_a_disabled_backend_is_not() {
    let sections = "backend b\n    server unix unix@/tmp/nobody.sock\n    server named \
        localhost:80\n    server v6 [2001:db8::1]:80\n    \
        server unresolved no-such-host.invalid:80 init-addr none\n    server spare 127.0.0.1:3 \
        backup weight 0\n\
        backend off\n    disabled\n    server a 127.0.0.1:1\nbackend empty\n    balance \
        source\nlisten both\n    bind abns@mapsmith-{id}\n    server a 127.0.0.1:2\n";
    let sections = sections.replace("{id}", &std::process::id().to_string());
    // Two HAProxys at a time would share the listener's name: its version keeps them apart.
    for binary in installed() {
        let (major, minor) = binary.version;
        let sections = sections.replace("mapsmith-", &format!("mapsmith-{major}.{minor}-"));
        println!("HAProxy {:?}", binary.version);
        let gateway = Gateway::plan(binary).more(&sections).start();
        let client = ServersClient::new(
            RuntimeClient::new(gateway.runtime_address().parse().unwrap(), BOUND),
            15_000,
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(client.observe()).unwrap();
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["b", "both", "default", "empty"]);
        assert_eq!(
            (seen["empty"].servers.len(), seen["empty"].algorithm.as_deref()),
            (0, Some("source"))
        );
        let b = &seen["b"].servers;
        assert_eq!((b["unix"].address, b["unix"].port, &b["unix"].fqdn), (None, 0, &None));
        assert_eq!((b["named"].port, b["named"].fqdn.as_deref()), (80, Some("localhost")));
        assert!(b["named"].address.is_some_and(|ip| ip.is_loopback()));
        assert_eq!(b["v6"].address, Some("2001:db8::1".parse().unwrap()));
        let unresolved = &b["unresolved"];
        assert_eq!(
            (unresolved.address, unresolved.fqdn.as_deref()),
            (None, Some("no-such-host.invalid"))
        );
        assert_eq!(unresolved.status, "MAINT (resolution)");
        assert_eq!(unresolved.admin, AdminState(AdminState::UNRESOLVED));
        assert_eq!((b["spare"].backup, b["spare"].weight), (true, 0));
    }
}
