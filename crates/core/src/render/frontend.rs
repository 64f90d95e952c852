//! The section of a frontend.

use super::text::Writer;
use super::words::Line;
use super::{log, route, rules, write_natives};
use crate::config::{
    Bind, BindTls, ClientCertificates, Config, Frontend, KeepAlive, Mode, RouteBy, Verify,
};

pub(super) fn write(writer: &mut Writer, place: &str, frontend: &Frontend, config: &Config) {
    let log_format = config.process.log_format;
    writer.origin(place);
    writer.section(&Line::new("frontend").value(frontend.name.as_str()));
    if frontend.mode == Mode::Tcp {
        writer.words("mode tcp");
    }
    for (at, bind) in frontend.binds.iter().enumerate() {
        writer.origin(&format!("{place}.bind[{at}]"));
        writer.line(&bind_line(bind));
    }
    writer.origin(place);
    if let Some(maxconn) = frontend.maxconn {
        writer.words(&format!("maxconn {maxconn}"));
    }
    log::write(writer, frontend, log_format);
    let clients = |bind: &Bind| bind.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if frontend.binds.iter().any(clients) {
        // Why a client was refused, `verify` by OpenSSL's number: 10 an expired certificate, 20
        // another CA's, 23 a revoked one.
        writer.words(r#"error-log-format "%ci:%cp [%tr] %ft: %[fc_err_str] verify=%[ssl_c_err]""#);
    }
    if frontend.mode == Mode::Http {
        write_http(writer, frontend);
        log::write_captures(writer, frontend, log_format);
        if frontend.forwarded_for {
            writer.words("http-request set-header X-Forwarded-For %[src]");
        }
    }
    if let Some(route) = &frontend.route {
        writer.origin(&format!("{place}.route"));
        route::write_requests(writer, route);
    }
    let switching = rules::write(writer, place, frontend);
    write_natives(writer, &format!("{place}.natives"), &frontend.natives);
    switching.write(writer);
    if let Some(route) = &frontend.route {
        writer.origin(&format!("{place}.route"));
        route::write_switching(writer, route, frontend.default_backend.is_some());
    }
    if let Some(backend) = &frontend.default_backend {
        writer.origin(&format!("{place}.default_backend"));
        writer.line(&Line::new("default_backend").value(backend.as_str()));
    }
}

fn write_http(writer: &mut Writer, frontend: &Frontend) {
    // A kept connection that a reload finds idle is closed with its next answer, and not under the
    // client's next request.
    writer.words("option idle-close-on-response");
    match frontend.keep_alive {
        KeepAlive::Both => {}
        KeepAlive::Client => writer.words("option http-server-close"),
        KeepAlive::None => writer.words("option httpclose"),
    }
    // Many servers take `X_Forwarded_For` for `X-Forwarded-For`.
    match &frontend.route {
        Some(route) if route::trusts_a_plain_header(route) => {
            writer.words("option http-restrict-req-hdr-names reject");
        }
        _ if frontend.forwarded_for => {
            writer.words("option http-restrict-req-hdr-names delete");
        }
        _ => {}
    }
    let by = frontend.route.as_ref().map(|route| &route.by);
    if by == Some(&RouteBy::ClientCertificate) {
        // The whole request is read before a master is chosen: then it can be repeated.
        writer.words("option http-buffer-request");
    }
}

fn bind_line(bind: &Bind) -> Line {
    let mut line = Line::new("bind").value(bind.address.as_str());
    if bind.accept_proxy {
        line.push_words("accept-proxy");
    }
    let Some(BindTls { certificates, alpn, clients }) = &bind.tls else { return line };
    line.push_words("ssl");
    for certificate in certificates {
        line.push_words("crt");
        line.push_value(certificate.as_str());
    }
    if !alpn.is_empty() {
        let protocols: Vec<&str> = alpn.iter().map(|name| name.as_str()).collect();
        line.push_words("alpn");
        line.push_value(&protocols.join(","));
    }
    if let Some(ClientCertificates { ca, crl, verify }) = clients {
        line.push_words("ca-file");
        line.push_value(ca.as_str());
        if let Some(crl) = crl {
            line.push_words("crl-file");
            line.push_value(crl.as_str());
        }
        line.push_words(match verify {
            Verify::Required => "verify required",
            Verify::Optional => "verify optional",
        });
        if crl.is_some() {
            line.push_words("no-tls-tickets");
        }
    }
    line
}
