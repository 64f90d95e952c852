//! The access log of a frontend.

use super::text::Writer;
use crate::config::{Frontend, LogFormat, Mode};

/// HAProxy's HTTP format without captures, then the node and the master that the map names for it.
const OF_ROUTE: &str = r#"log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}r node=%{+Q}[var(txn.node)] master=%{+Q}[var(txn.master)]""#;

/// What a JSON line says of every connection. `retries` is `+1` where another server was tried.
const JSON_CONNECTION: &str = r#""time":%Ts.%ms,"client":"%ci","client_port":%cp,"frontend":"%f","tls":"%sslv","backend":"%b","server":"%s","queue_ms":%Tw,"connect_ms":%Tc,"bytes":%B,"termination":"%tsc","connections":%ac,"server_queue":%sq,"backend_queue":%bq,"retries":"%rc""#;
/// And of every request.
const JSON_REQUEST: &str = r#""method":"%HM","version":"%HV","host":"%[var(txn.log_host),json(utf8s)]","url":"%[var(txn.log_url),json(utf8s)]","agent":"%[var(txn.log_agent),json(utf8s)]","status":%ST,"request_ms":%TR,"response_ms":%Tr,"total_ms":%Ta"#;
/// And of every request that the node map routes.
const JSON_ROUTE: &str =
    r#""node":"%[var(txn.node),json(utf8s)]","master":"%[var(txn.master),json(utf8s)]""#;

/// Writes the format, unless a native line has another.
pub(super) fn write(writer: &mut Writer, frontend: &Frontend, format: LogFormat) {
    if frontend.natives.iter().any(|native| native.is("log-format")) {
        return;
    }
    match (format, frontend.mode, frontend.route.is_some()) {
        (LogFormat::Text, Mode::Tcp, _) => writer.words("option tcplog"),
        (LogFormat::Text, Mode::Http, false) => writer.words("option httplog"),
        (LogFormat::Text, Mode::Http, true) => writer.words(OF_ROUTE),
        (LogFormat::Json, Mode::Tcp, _) => {
            let total = r#""total_ms":%Tt"#;
            writer.words(&format!("log-format '{{{JSON_CONNECTION},{total}}}'"));
        }
        (LogFormat::Json, Mode::Http, is_route) => {
            let route = if is_route { format!(",{JSON_ROUTE}") } else { String::new() };
            writer.words(&format!("log-format '{{{JSON_CONNECTION},{JSON_REQUEST}{route}}}'"));
        }
    }
}

/// Writes what keeps parts of a request for its line; it must stand before any rule that ends one.
pub(super) fn write_captures(writer: &mut Writer, frontend: &Frontend, format: LogFormat) {
    if format == LogFormat::Json && frontend.mode == Mode::Http {
        writer.words("http-request set-var(txn.log_host) req.hdr(host)");
        writer.words("http-request set-var(txn.log_url) pathq");
        writer.words("http-request set-var(txn.log_agent) req.fhdr(user-agent)");
    }
}
