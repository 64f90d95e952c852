//! What is drawn of the process, and of the frontends for operators.

use mapsmith_core::config::values::*;
use mapsmith_core::config::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::files::Files;
use super::{natives, network, text, time, value, values};

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (time(), time(), time(), time(), time(), time(), time(), time()).prop_map(
        |(connect, client, server, queue, http_request, http_keep_alive, tunnel, check)| Timeouts {
            connect,
            client,
            server,
            queue,
            http_request,
            http_keep_alive,
            tunnel,
            check,
        },
    )
}

/// The frontends for operators.
fn operators(
    files: &Files,
) -> impl Strategy<Value = (Option<Stats>, Option<Metrics>, Option<Health>)> + use<> {
    let user = "[a-z]{1,8}:[a-zA-Z0-9]{1,20}".prop_map(|user| Secret::new(value(&user)));
    let stats = (option::of(text()), vec(user, 0..3)).prop_map(|(uri, auth)| Stats {
        bind: value("127.0.0.1:2"),
        uri,
        auth,
    });
    let metrics = vec(network(), 0..70)
        .prop_map(|allow| Metrics { bind: value("unix@/run/metrics.sock"), allow });
    let health = Health { bind: value("127.0.0.1:3"), map: files.map.clone() };
    (option::of(stats), option::of(metrics), option::of(Just(health)))
}

pub(super) fn process(files: &Files) -> impl Strategy<Value = Process> + use<> {
    let own = (
        natives(&["stdout format raw local0", "127.0.0.1:514 local1 notice"]),
        natives(&["description 'a b'", "tune.maxrewrite 2048", "spread-checks 5"]),
        natives(&["option abortonclose", "timeout client-fin 5s", "retries 3"]),
    );
    let who = (
        option::of(values(&["root", "nobody"])),
        option::of(values(&["root", "nogroup"])),
        option::of(values(&["/run/haproxy/admin.sock", "/a@b:80/c+d"])),
    );
    let fields = (
        option::of(1..=5_000_000u32),
        option::of(1..3u16),
        who,
        select(&[LogFormat::Text, LogFormat::Json][..]),
        option::of(time()),
        timeouts(),
        operators(files),
        own,
    );
    let states = files.states.clone();
    fields.prop_map(
        move |(maxconn, threads, who, log_format, hard_stop_after, timeouts, operators, own)| {
            let (user, group, socket) = who;
            let (stats, metrics, health) = operators;
            let (log, global, defaults) = own;
            Process {
                maxconn,
                threads,
                user,
                group,
                log,
                log_format,
                server_states: Some(states.clone()),
                socket,
                hard_stop_after,
                timeouts,
                stats,
                metrics,
                health,
                challenges: None,
                global,
                defaults,
            }
        },
    )
}
