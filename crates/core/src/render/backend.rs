//! The section of a backend.

use super::text::Writer;
use super::words::Line;
use super::{commands, route, write_natives};
use crate::config::values::time;
use crate::config::{
    Backend, Balance, Config, Cookie, ErrorBody, Expect, HttpCheck, HttpVersion, Mode, Route,
};
use crate::server::Server;

pub(super) fn write(writer: &mut Writer, place: &str, backend: &Backend, config: &Config) {
    writer.origin(place);
    writer.section(&Line::new("backend").value(backend.name.as_str()));
    if backend.mode == Mode::Tcp {
        writer.words("mode tcp");
    }
    match config.commands_to(backend) {
        Some(gateway) => commands::write_backend(writer, gateway),
        None => write_balanced(writer, place, backend, config.route_to(backend)),
    }
    write_natives(writer, &format!("{place}.natives"), &backend.natives);
    for server in &backend.servers {
        writer.origin(&format!("{place}.servers {:?}", server.name));
        writer.line(&server_line(server, backend.disabled.contains(&server.name)));
    }
}

/// What a backend has that shares its requests out; `route` is the one that sends them here.
fn write_balanced(writer: &mut Writer, place: &str, backend: &Backend, route: Option<&Route>) {
    write_balance(writer, backend, route);
    if let Some(check) = &backend.check {
        writer.origin(&format!("{place}.check"));
        write_check(writer, check);
        writer.origin(place);
    }
    if let Some(host) = &backend.host {
        writer.line(&Line::new("http-request set-header host").text(host.as_str()));
    }
    if let Some(Cookie { name, key }) = &backend.cookie {
        let line = Line::new("cookie").value(name.as_str());
        writer.line(&line.words("insert indirect nocache httponly dynamic"));
        writer.secret_line("dynamic-cookie-key", key);
    }
    if let Some(reuse) = backend.http_reuse {
        writer.words(&format!("http-reuse {}", reuse.as_str()));
    }
    write_repetition(writer, backend, route);
    if let Some(time_in_queue) = backend.queue_timeout {
        writer.words(&format!("timeout queue {}", time(time_in_queue)));
    }
    match (route, backend.maxqueue) {
        (Some(route), _) => route::write_backend(writer, backend, route),
        (None, Some(most)) if backend.mode == Mode::Tcp => {
            writer.words(&format!("tcp-request content reject if {{ queue ge {most} }}"));
        }
        (None, Some(most)) => {
            writer.words(&format!("http-request deny deny_status 503 if {{ queue ge {most} }}"));
        }
        (None, None) => {}
    }
    for (at, error) in backend.errors.iter().enumerate() {
        writer.origin(&format!("{place}.errors[{at}]"));
        writer.line(&error_line(error));
    }
}

fn write_balance(writer: &mut Writer, backend: &Backend, route: Option<&Route>) {
    let (words, is_hash) = match &backend.balance {
        // Of the masters that are up always the same one: a run is many requests.
        None if route.is_some_and(|route| route.misdirected.is_none()) => {
            ("hash var(txn.node)".to_owned(), true)
        }
        None | Some(Balance::RoundRobin) => ("roundrobin".to_owned(), false),
        Some(Balance::LeastConn) => ("leastconn".to_owned(), false),
        Some(Balance::Random) => ("random".to_owned(), false),
        Some(Balance::Source) => ("source".to_owned(), true),
        Some(Balance::Uri) => ("uri".to_owned(), true),
        Some(Balance::Header(name)) => (format!("hdr({name})"), true),
    };
    writer.words(&format!("balance {words}"));
    if is_hash {
        // Servers can be added at runtime, and one that comes or goes moves only its own share.
        writer.words("hash-type consistent");
    }
}

/// What is repeated, how often and where.
fn write_repetition(writer: &mut Writer, backend: &Backend, route: Option<&Route>) {
    if backend.redispatch || route.is_some() {
        writer.words("option redispatch 1");
    }
    let own: Vec<String> = backend.retry_on.iter().map(ToString::to_string).collect();
    let retry_on = match route {
        Some(route) if own.is_empty() => route::retry_on(route),
        _ => own.join(" "),
    };
    if !retry_on.is_empty() {
        writer.words(&format!("retry-on {retry_on}"));
    }
    if let Some(retries) = backend.retries.or_else(|| route.map(route::retries)) {
        writer.words(&format!("retries {retries}"));
    }
}

fn write_check(writer: &mut Writer, check: &HttpCheck) {
    writer.words("option httpchk");
    let mut line = Line::new("http-check send meth")
        .value(check.method.as_ref().map_or("GET", |method| method.as_str()))
        .words("uri")
        .value(check.uri.as_str());
    let usual = check.host.as_ref().map(|_| HttpVersion::Http11);
    match check.version.or(usual) {
        Some(HttpVersion::Http10) => line.push_words("ver HTTP/1.0"),
        Some(HttpVersion::Http11) => line.push_words("ver HTTP/1.1"),
        None => {}
    }
    if let Some(host) = &check.host {
        line = line.words("hdr host").text(host.as_str());
    }
    writer.line(&line);
    match &check.expect {
        None => {}
        Some(Expect::Status(statuses)) => {
            writer.line(&Line::new("http-check expect status").value(statuses.as_str()));
        }
        Some(Expect::Body(text)) => {
            writer.line(&Line::new("http-check expect string").value(text.as_str()));
        }
        Some(Expect::BodyRegex(regex)) => {
            writer.line(&Line::new("http-check expect rstring").value(regex.as_str()));
        }
    }
}

fn error_line(error: &ErrorBody) -> Line {
    let mut line = Line::new(&format!("http-error status {}", error.status));
    line.push_words("content-type");
    line.push_value(error.content_type.as_ref().map_or("text/plain", |text| text.as_str()));
    if let Some(seconds) = error.retry_after {
        line.push_words(&format!("hdr Retry-After {seconds}"));
    }
    line.words("string").value(error.body.as_str())
}

fn server_line(server: &Server, is_disabled: bool) -> Line {
    let mut line = Line::new("server").value(&server.name).value(&server.address.to_string());
    if let Some(weight) = server.weight {
        line.push_words(&format!("weight {weight}"));
    }
    if server.backup {
        line.push_words("backup");
    }
    if is_disabled {
        line.push_words("disabled");
    }
    for option in server.options.words() {
        option.split_ascii_whitespace().for_each(|word| line.push_value(word));
    }
    line
}
