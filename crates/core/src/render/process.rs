//! The sections `global` and `defaults`, and the frontends for operators.

use super::frontend::write_answers;
use super::text::Writer;
use super::words::Line;
use super::write_natives;
use crate::config::values::time;
use crate::config::{
    BindTls, Challenges, ClientCertificates, Config, Frontend, Health, Metrics, Process, RouteBy,
    Stats, Timeouts,
};

/// How many reloads a worker may outlive. HAProxy ends one that has seen more of them, failed ones
/// too, however it serves: how many old workers there are is bounded before a reload, and for how
/// long by `hard_stop_after`.
const MOST_RELOADS: u32 = 10_000;

pub(super) fn write(writer: &mut Writer, config: &Config) {
    let process = &config.process;
    write_global(writer, process);
    write_demanded(writer, &config.frontends);
    write_natives(writer, "haproxy.global", &process.global);
    writer.origin("haproxy");
    writer.section(&Line::new("defaults"));
    writer.words("mode http");
    writer.words("log global");
    writer.words("option dontlognull");
    if process.server_states.is_some() {
        writer.words("load-server-state-from-file global");
    }
    write_timeouts(writer, &process.timeouts);
    write_natives(writer, "haproxy.defaults", &process.defaults);
    if let Some(stats) = &process.stats {
        write_stats(writer, stats);
    }
    if let Some(metrics) = &process.metrics {
        write_metrics(writer, metrics);
    }
    if let Some(health) = &process.health {
        write_health(writer, health);
    }
    if let Some(challenges) = &process.challenges {
        write_challenges(writer, challenges);
    }
}

fn write_global(writer: &mut Writer, process: &Process) {
    writer.origin("haproxy");
    writer.section(&Line::new("global"));
    for (index, log) in process.log.iter().enumerate() {
        writer.origin(&format!("haproxy.log[{index}]"));
        writer.line(&Line::new("log").words(log.as_str()));
    }
    let number = |number: u32| number.to_string();
    for (key, keyword, value) in [
        ("user", "user", process.user.as_ref().map(|user| user.as_str().to_owned())),
        ("group", "group", process.group.as_ref().map(|group| group.as_str().to_owned())),
        ("maxconn", "maxconn", process.maxconn.map(number)),
        ("nbthread", "nbthread", process.threads.map(u32::from).map(number)),
        ("hard_stop_after", "hard-stop-after", process.hard_stop_after.map(time)),
    ] {
        writer.origin(&format!("haproxy.{key}"));
        if let Some(value) = value {
            writer.line(&Line::new(keyword).value(&value));
        }
    }
    writer.origin("haproxy");
    writer.words(&format!("mworker-max-reloads {MOST_RELOADS}"));
    if let Some(socket) = &process.socket {
        writer.origin("haproxy.socket");
        writer.line(
            &Line::new("stats socket")
                .value(socket.as_str())
                .words("mode 660 level admin expose-fd listeners"),
        );
        // Room for a reader that takes its time over a large map.
        writer.words("stats timeout 1m");
    }
    if let Some(file) = &process.server_states {
        writer.line(&Line::new("server-state-file").value(file.as_str()));
    }
}

/// What frontends need of the whole process.
fn write_demanded(writer: &mut Writer, frontends: &[Frontend]) {
    for (index, frontend) in frontends.iter().enumerate() {
        let route = frontend.route.as_ref();
        if route.is_some_and(|route| route.by == RouteBy::ClientCertificate) {
            writer.origin(&format!("frontend[{index}].route"));
            // A request can be repeated only if it fits in a buffer, and a catalog is asked for
            // with all the node's facts. The client's certificate in a header takes 3 kB.
            writer.words("tune.bufsize 131072");
            writer.words("tune.maxrewrite 8192");
            break;
        }
    }
    let revokes = |tls: &BindTls| {
        tls.clients.as_ref().is_some_and(|ClientCertificates { crl, .. }| crl.is_some())
    };
    let mut places = frontends.iter().enumerate().flat_map(|(index, frontend)| {
        let binds = frontend.binds.iter().enumerate();
        let revoking = binds.filter(|(_, bind)| bind.tls.as_ref().is_some_and(revokes));
        revoking.map(move |(at, _)| format!("frontend[{index}].bind[{at}]"))
    });
    if let Some(place) = places.next() {
        writer.origin(&place);
        // The list of revoked certificates is read in full handshakes only: so no session is
        // resumed (`no-tls-tickets` is the other half).
        writer.words("tune.ssl.cachesize 0");
    }
}

fn write_timeouts(writer: &mut Writer, timeouts: &Timeouts) {
    let Timeouts { connect, client, server, queue, http_request, http_keep_alive, tunnel, check } =
        timeouts;
    for (key, value) in [
        ("connect", connect),
        ("client", client),
        ("server", server),
        ("queue", queue),
        ("http_request", http_request),
        ("http_keep_alive", http_keep_alive),
        ("tunnel", tunnel),
        ("check", check),
    ] {
        writer.origin(&format!("haproxy.timeouts.{key}"));
        writer.words(&format!("timeout {} {}", key.replace('_', "-"), time(*value)));
    }
}

fn write_stats(writer: &mut Writer, stats: &Stats) {
    writer.origin("haproxy.stats");
    writer.section(&Line::new("frontend mapsmith-stats"));
    writer.line(&Line::new("bind").value(stats.bind.as_str()));
    writer.words("no log");
    writer.words("stats enable");
    let uri = stats.uri.as_ref().map_or("/", |uri| uri.as_str());
    writer.line(&Line::new("stats uri").value(uri));
    writer.words("stats refresh 10s");
    writer.origin("haproxy.stats.auth_file");
    stats.auth.iter().for_each(|user| writer.secret_line("stats auth", user));
}

fn write_metrics(writer: &mut Writer, metrics: &Metrics) {
    writer.origin("haproxy.metrics");
    writer.section(&Line::new("frontend mapsmith-metrics"));
    writer.line(&Line::new("bind").value(metrics.bind.as_str()));
    writer.words("no log");
    if !metrics.allow.is_empty() {
        for allowed in metrics.allow.chunks(32) {
            let line = Line::new("acl allowed src --");
            writer.line(&allowed.iter().fold(line, |line, network| line.value(network.as_str())));
        }
        writer.words("http-request deny deny_status 403 if !allowed");
    }
    writer.words("http-request use-service prometheus-exporter if { path /metrics }");
    writer.words("http-request return status 404");
}

fn write_health(writer: &mut Writer, health: &Health) {
    writer.origin("haproxy.health");
    writer.section(&Line::new("frontend mapsmith-health"));
    writer.line(&Line::new("bind").value(health.bind.as_str()));
    writer.words("no log");
    let (key, ready) = (Health::KEY, Health::READY);
    writer.words(&format!("acl ready str({key}),map_str({}) -m str {ready}", health.map));
    let answer = |status: u16, text: &str| {
        format!("http-request return status {status} content-type text/plain string \"{text}\\n\"")
    };
    writer.words(&format!("{} if ready", answer(200, "ready")));
    writer.words(&answer(503, "not ready"));
}

/// The frontend that gets nothing else.
fn write_challenges(writer: &mut Writer, challenges: &Challenges) {
    let Some(bind) = &challenges.bind else { return };
    writer.origin("acme.port_80");
    writer.section(&Line::new("frontend mapsmith-acme"));
    writer.line(&Line::new("bind").value(bind.as_str()));
    write_answers(writer, challenges);
    writer.words("http-request return status 404");
}
