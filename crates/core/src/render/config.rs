//! The sections of `haproxy.cfg`.

use super::rules;
use super::text::{Rendered, Writer};
use super::words::Line;
use crate::config::values::time;
use crate::config::{
    Backend, Balance, Bind, Config, Cookie, ErrorBody, Frontend, HttpCheck, Metrics, Mode, Native,
    Process, Stats, Timeouts,
};
use crate::server::Server;

/// The text for HAProxy 2.6 and later.
pub fn render(config: &Config) -> Rendered {
    let mut writer = Writer::default();
    writer.of("haproxy");
    writer.comment("Written by Mapsmith from its settings: external changes are overwritten.");
    write_process(&mut writer, &config.process);
    for (index, frontend) in config.frontends.iter().enumerate() {
        write_frontend(&mut writer, &format!("frontend[{index}]"), frontend);
    }
    for (index, backend) in config.backends.iter().enumerate() {
        write_backend(&mut writer, &format!("backend[{index}]"), backend);
    }
    writer.finish()
}

fn write_natives(writer: &mut Writer, place: &str, natives: &[Native]) {
    for (index, native) in natives.iter().enumerate() {
        writer.of(&format!("{place}[{index}]"));
        writer.words(native.as_str());
    }
}

fn write_process(writer: &mut Writer, process: &Process) {
    writer.of("haproxy");
    writer.section(&Line::new("global"));
    for (index, log) in process.log.iter().enumerate() {
        writer.of(&format!("haproxy.log[{index}]"));
        writer.line(&Line::new("log").words(log.as_str()));
    }
    let mut value = |key: &str, words: &str, value: Option<&str>| {
        writer.of(&format!("haproxy.{key}"));
        if let Some(value) = value {
            writer.line(&Line::new(words).value(value));
        }
    };
    value("user", "user", process.user.as_ref().map(|user| user.as_str()));
    value("group", "group", process.group.as_ref().map(|group| group.as_str()));
    value("maxconn", "maxconn", process.maxconn.map(|count| count.to_string()).as_deref());
    value("nbthread", "nbthread", process.threads.map(|count| count.to_string()).as_deref());
    value("hard_stop_after", "hard-stop-after", process.hard_stop_after.map(time).as_deref());
    if let Some(socket) = &process.socket {
        writer.of("haproxy.folder");
        writer.line(
            &Line::new("stats socket")
                .value(socket.as_str())
                .words("mode 660 level admin expose-fd listeners"),
        );
        writer.words("stats timeout 1m");
    }
    write_natives(writer, "haproxy.global", &process.global);
    writer.of("haproxy");
    writer.section(&Line::new("defaults"));
    writer.words("mode http");
    writer.words("log global");
    writer.words("option dontlognull");
    write_timeouts(writer, &process.timeouts);
    write_natives(writer, "haproxy.defaults", &process.defaults);
    if let Some(stats) = &process.stats {
        write_stats(writer, stats);
    }
    if let Some(metrics) = &process.metrics {
        write_metrics(writer, metrics);
    }
}

fn write_timeouts(writer: &mut Writer, timeouts: &Timeouts) {
    writer.of("haproxy.timeouts");
    let Timeouts { connect, client, server, queue, http_request, http_keep_alive, tunnel, check } =
        timeouts;
    for (name, value) in [
        ("connect", connect),
        ("client", client),
        ("server", server),
        ("queue", queue),
        ("http-request", http_request),
        ("http-keep-alive", http_keep_alive),
        ("tunnel", tunnel),
        ("check", check),
    ] {
        writer.words(&format!("timeout {name} {}", time(*value)));
    }
}

fn write_stats(writer: &mut Writer, stats: &Stats) {
    writer.of("haproxy.stats");
    writer.section(&Line::new("frontend mapsmith-stats"));
    writer.line(&Line::new("bind").value(stats.bind.as_str()));
    writer.words("http-request set-log-level silent");
    writer.words("stats enable");
    let uri = stats.uri.as_ref().map_or("/", |uri| uri.as_str());
    writer.line(&Line::new("stats uri").value(uri));
}

fn write_metrics(writer: &mut Writer, metrics: &Metrics) {
    writer.of("haproxy.metrics");
    writer.section(&Line::new("frontend mapsmith-metrics"));
    writer.line(&Line::new("bind").value(metrics.bind.as_str()));
    writer.words("http-request set-log-level silent");
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

fn write_frontend(writer: &mut Writer, place: &str, frontend: &Frontend) {
    writer.of(place);
    writer.section(&Line::new("frontend").value(frontend.name.as_str()));
    match frontend.mode {
        // A kept connection that a reload finds idle is closed with its next answer, and not under
        // the client's next request.
        Mode::Http => writer.words("option idle-close-on-response"),
        Mode::Tcp => {
            writer.words("mode tcp");
            writer.words("option tcplog");
        }
    }
    for (at, bind) in frontend.binds.iter().enumerate() {
        writer.of(&format!("{place}.bind[{at}]"));
        writer.line(&bind_line(bind));
    }
    writer.of(place);
    if let Some(maxconn) = frontend.maxconn {
        writer.words(&format!("maxconn {maxconn}"));
    }
    let is_http = frontend.mode == Mode::Http;
    if is_http {
        // Requests that two programs may read differently are no requests.
        writer.words("http-request deny deny_status 400 if { req.hdr_cnt(content-length) gt 1 }");
    } else if !frontend.rules.is_empty() {
        // The name that a client asks for is in what it sends first.
        writer.words("tcp-request inspect-delay 5s");
    }
    if frontend.forwarded_for && is_http {
        writer.words("http-request set-header X-Forwarded-For %[src]");
    }
    rules::write(writer, place, &frontend.rules, is_http);
    write_natives(writer, &format!("{place}.natives"), &frontend.natives);
    if let Some(backend) = &frontend.default_backend {
        writer.of(&format!("{place}.default_backend"));
        writer.line(&Line::new("default_backend").value(backend.as_str()));
    }
}

fn bind_line(bind: &Bind) -> Line {
    let mut line = Line::new("bind").value(bind.address.as_str());
    if bind.accept_proxy {
        line.push_words("accept-proxy");
    }
    if let Some(tls) = &bind.tls {
        line.push_words("ssl crt");
        line.push_value(tls.certificate.as_str());
        if !tls.alpn.is_empty() {
            let protocols: Vec<&str> = tls.alpn.iter().map(|name| name.as_str()).collect();
            line.push_words("alpn");
            line.push_value(&protocols.join(","));
        }
    }
    line
}

fn write_backend(writer: &mut Writer, place: &str, backend: &Backend) {
    writer.of(place);
    writer.section(&Line::new("backend").value(backend.name.as_str()));
    if backend.mode == Mode::Tcp {
        writer.words("mode tcp");
    }
    match &backend.balance {
        Balance::RoundRobin => writer.words("balance roundrobin"),
        Balance::LeastConn => writer.words("balance leastconn"),
        Balance::Random => writer.words("balance random"),
        Balance::Source => writer.words("balance source"),
        Balance::Uri => writer.words("balance uri"),
        Balance::Header(name) => writer.words(&format!("balance hdr({name})")),
    }
    if matches!(backend.balance, Balance::Source | Balance::Uri | Balance::Header(_)) {
        // Servers can be added at runtime, and a server that comes or goes moves its share only.
        writer.words("hash-type consistent");
    }
    if let Some(check) = &backend.check {
        write_check(writer, &format!("{place}.check"), check);
    }
    writer.of(place);
    if let Some(host) = &backend.host {
        writer.line(&Line::new("http-request set-header host").text(host.as_str()));
    }
    if let Some(Cookie { name, key }) = &backend.cookie {
        let line = Line::new("cookie").value(name.as_str());
        writer.line(&line.words("insert indirect nocache httponly dynamic"));
        writer.line(&Line::new("dynamic-cookie-key").value(key.as_str()));
    }
    if let Some(retries) = backend.retries {
        writer.words(&format!("retries {retries}"));
    }
    if backend.redispatch {
        writer.words("option redispatch 1");
    }
    for (at, error) in backend.errors.iter().enumerate() {
        writer.of(&format!("{place}.errors[{at}]"));
        writer.line(&error_line(error));
    }
    write_natives(writer, &format!("{place}.natives"), &backend.natives);
    for server in &backend.servers {
        writer.of(&format!("{place}.servers {}", server.name));
        writer.line(&server_line(server));
    }
}

fn write_check(writer: &mut Writer, place: &str, check: &HttpCheck) {
    writer.of(place);
    writer.words("option httpchk");
    let line = Line::new("http-check send meth")
        .value(check.method.as_ref().map_or("GET", |method| method.as_str()))
        .words("uri");
    let mut line = line.value(check.uri.as_str());
    if let Some(host) = &check.host {
        line = line.words("ver HTTP/1.1 hdr host").text(host.as_str());
    }
    writer.line(&line);
    if let Some(status) = check.status {
        writer.words(&format!("http-check expect status {}", u16::from(status)));
    }
}

fn error_line(error: &ErrorBody) -> Line {
    let mut line = Line::new(&format!("http-error status {}", u16::from(error.status)));
    line.push_words("content-type");
    line.push_value(error.content_type.as_ref().map_or("text/plain", |text| text.as_str()));
    if let Some(seconds) = error.retry_after {
        line.push_words(&format!("hdr Retry-After {seconds}"));
    }
    line.words("string").value(error.body.as_str())
}

fn server_line(server: &Server) -> Line {
    let mut line = Line::new("server").value(&server.name).value(&server.address.to_string());
    if let Some(weight) = server.weight {
        line.push_words(&format!("weight {weight}"));
    }
    if server.backup {
        line.push_words("backup");
    }
    for option in server.options.words() {
        option.split_ascii_whitespace().for_each(|word| line.push_value(word));
    }
    line
}
