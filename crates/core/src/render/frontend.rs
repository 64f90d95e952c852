//! The section of a frontend.

use super::text::Writer;
use super::words::Line;
use super::{commands, log, route, rules, write_natives};
use crate::config::rules::{Action, Rule};
use crate::config::{
    Bind, BindTls, Challenges, ClientCertificates, Config, Frontend, KeepAlive, Mode, RouteBy,
    TlsVersion, Verify,
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
        let time = if frontend.mode == Mode::Tcp { "%t" } else { "%tr" };
        writer.words(&format!(
            r#"error-log-format "%ci:%cp [{time}] %ft: %[fc_err_str] verify=%[ssl_c_err]""#
        ));
    }
    if frontend.mode == Mode::Http {
        write_http(writer, frontend);
        log::write_captures(writer, frontend, log_format);
        let challenges = config.process.challenges.as_ref();
        if let Some(challenges) = challenges.filter(|it| it.frontends.contains(&frontend.name)) {
            writer.origin("acme");
            write_answers(writer, challenges);
            writer.origin(place);
        }
        if frontend.forwarded_for {
            writer.words("http-request set-header X-Forwarded-For %[src]");
        }
    }
    let of_commands = config.commands.as_ref().filter(|_| frontend.mode == Mode::Http);
    if let Some(of_commands) = of_commands {
        writer.origin("commands");
        commands::write_denial(writer, of_commands);
    }
    if let Some(route) = &frontend.route {
        writer.origin(&format!("{place}.route"));
        route::write_requests(writer, route);
    }
    let switching = rules::write(writer, place, frontend);
    let changes_path =
        |rule: &Rule| matches!(rule.action, Action::SetPath(_) | Action::ReplacePath(..));
    if let Some(of_commands) = of_commands
        && frontend.rules.iter().any(changes_path)
    {
        writer.origin("commands");
        commands::write_answers(writer, of_commands);
    }
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
        KeepAlive::None => {
            // `option httpclose` keeps the server's from HAProxy 3.0 on.
            writer.words("option http-server-close");
            writer.words("http-after-response set-header Connection close");
        }
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

/// What a certificate authority is answered, before any other rule.
pub(super) fn write_answers(writer: &mut Writer, challenges: &Challenges) {
    let Challenges { map, .. } = challenges;
    let path = Challenges::PATH;
    writer.words(&format!("acl mapsmith-challenge path_beg {path}"));
    writer.words(&format!(
        "http-request set-var(txn.challenge) path,field(4,/),map_str({map}) if mapsmith-challenge"
    ));
    writer.words(
        "http-request return status 200 content-type application/octet-stream lf-string \
            %[var(txn.challenge)] if { var(txn.challenge) -m found }",
    );
}

fn bind_line(bind: &Bind) -> Line {
    let mut line = Line::new("bind").value(bind.address.as_str());
    if bind.accept_proxy {
        line.push_words("accept-proxy");
    }
    let Some(BindTls { certificates, alpn, strict_sni, min_version, clients }) = &bind.tls else {
        return line;
    };
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
    if *strict_sni {
        line.push_words("strict-sni");
    }
    if let Some(version) = min_version {
        line.push_words(match version {
            TlsVersion::V1_2 => "ssl-min-ver TLSv1.2",
            TlsVersion::V1_3 => "ssl-min-ver TLSv1.3",
        });
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

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::super::tests::frontend;
    use crate::config::values::{BindAddress, FilePath, Name};
    use crate::config::{Challenges, Config, Process};

    fn text(frontends: &[&str], bind: Option<&str>) -> String {
        let name = |name: &&str| Name::try_from((*name).to_owned()).unwrap();
        let challenges = Challenges {
            map: FilePath::try_from("/h/challenges.map".to_owned()).unwrap(),
            frontends: frontends.iter().map(name).collect(),
            bind: bind.map(|bind| BindAddress::try_from(bind.to_owned()).unwrap()),
        };
        let process = Process { challenges: Some(challenges), ..Process::default() };
        let frontends = vec![frontend("web", ":80", Vec::new()), frontend("x", ":81", Vec::new())];
        render(&Config { process, frontends, ..Config::default() }).text().to_owned()
    }

    #[test]
    fn an_authority_is_answered_in_the_frontends_that_it_reaches_before_anything_else() {
        let text = text(&["web"], None);
        let answers = "http-request return status 200 content-type application/octet-stream \
            lf-string %[var(txn.challenge)] if { var(txn.challenge) -m found }";
        assert_eq!(text.matches(answers).count(), 1, "{text}");
        let (web, other) = text.split_once("frontend x").unwrap();
        assert!(!other.contains("challenge"), "{other}");
        let first = web.split_once("frontend web").unwrap().1;
        let first = first.lines().find(|line| line.contains("http-request")).unwrap();
        let looks_up = "path,field(4,/),map_str(/h/challenges.map) if mapsmith-challenge";
        assert!(first.contains(looks_up), "{first}");
    }

    #[test]
    fn a_frontend_for_the_authority_alone_answers_nothing_else() {
        let text = text(&[], Some(":8080"));
        let alone = text.split_once("frontend mapsmith-acme\n    bind :8080\n").unwrap().1;
        let alone = alone.split_once("\n\n").unwrap().0;
        assert!(alone.ends_with("http-request return status 404"), "{alone}");
    }
}
