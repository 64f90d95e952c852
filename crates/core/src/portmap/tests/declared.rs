//! What services are in HAProxy's configuration: what Moirai achieved, not its text.

use super::*;
use crate::config::values::FilePath;
use crate::config::{Balance, Config, Frontend, Mode};
use crate::render::render;
use crate::server::{Server, ServerAddress, ServerOptions};

pub fn value<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

pub fn declaration() -> Declaration {
    Declaration {
        naming: Naming::Position,
        listen: Vec::new(),
        certificate: Some(value("/etc/site.pem")),
        alpn: vec![value("h2"), value("http/1.1")],
        ca: value("/etc/ca.pem"),
        max_servers: 32,
    }
}

fn declared(text: &str) -> DeclaredService {
    let portmap = Portmap::parse(text);
    assert_eq!(portmap.rejected, [], "{text}");
    declaration().declare(&portmap.services).remove(0).unwrap()
}

/// The configuration with one server for each service.
pub fn config(services: &[Service]) -> Config {
    let mut config = Config::default();
    for service in declaration().declare(services).into_iter().flatten() {
        let mut backend = service.backend;
        backend.servers.push(Server {
            name: "rs1".to_owned(),
            address: ServerAddress { ip: [10, 0, 0, 7].into(), port: 8080 },
            weight: None,
            backup: false,
            options: ServerOptions::parse(&backend.server_options).unwrap(),
        });
        config.backends.push(backend);
        config.frontends.push(service.frontend);
    }
    config
}

/// The lines of the services' sections, without what is before them.
fn rendered(text: &str) -> Vec<String> {
    let config = config(&Portmap::parse(text).services);
    assert_eq!(config.problems(), [], "{text}");
    let text = render(&config).text().to_owned();
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.skip_while(|line| !line.starts_with("frontend ")).collect()
}

/// The line that begins so.
fn line<'a>(lines: &'a [String], start: &str) -> Option<&'a str> {
    lines.iter().map(String::as_str).find(|line| line.starts_with(start))
}

#[test]
fn each_type_has_the_properties_that_moirai_gave_it() {
    for (text, mode, certificate, tls, verify, cookie, proxy) in [
        ("http", Mode::Http, false, false, false, true, false),
        ("https", Mode::Http, true, true, true, true, false),
        ("https+insecure", Mode::Http, true, true, false, true, false),
        ("https-http", Mode::Http, true, false, false, true, false),
        ("tcp", Mode::Tcp, false, false, false, false, false),
        ("tcp-proxy-v2", Mode::Tcp, false, false, false, false, true),
    ] {
        let service = declared(&format!("{text}://443:web.example.com:8443"));
        let has = |option: &str| service.backend.server_options.iter().any(|one| one == option);
        assert_eq!((service.frontend.mode, service.backend.mode), (mode, mode), "{text}");
        assert_eq!(service.frontend.binds[0].tls.is_some(), certificate, "{text}");
        assert_eq!((has("ssl"), has("verify required")), (tls, verify), "{text}");
        assert_eq!((has("verify none"), has("send-proxy-v2")), (tls && !verify, proxy), "{text}");
        assert_eq!(service.backend.cookie.is_some(), cookie, "{text}");
        assert_eq!(service.frontend.forwarded_for, mode == Mode::Http, "{text}");
        // What Moirai has in its `defaults`.
        assert_eq!(service.backend.balance, Some(Balance::LeastConn));
        assert_eq!((service.backend.retries, service.backend.redispatch), (Some(1), true));
        assert_eq!(service.frontend.maxconn, Some(65535));
        let aborts = service.backend.natives.iter().any(|line| line.is("option"));
        assert_eq!(aborts, mode == Mode::Http, "{text}");
    }
}

#[test]
fn a_portmap_listens_and_sends_on_as_moirai_did() {
    const CNS: &str = "svc.account_uuid.datacenter.cns.domain.zone";
    type Case<'a> = (String, u16, &'a str, Mode, ServersFrom, &'a str);
    let host = |name: &str, port| ServersFrom::Host { name: format!("{name}.{CNS}"), port };
    let cases: [Case<'_>; 7] = [
        (
            format!("https-http://443:some-app.{CNS}:8080"),
            32,
            "bind *:443 ssl crt /etc/site.pem alpn h2,http/1.1",
            Mode::Http,
            host("some-app", 8080),
            "server rs1 10.0.0.7:8080 check rise 2 fall 1",
        ),
        (
            format!("https+insecure://443:insecure-app.{CNS}:8443"),
            32,
            "bind *:443 ssl crt /etc/site.pem alpn h2,http/1.1",
            Mode::Http,
            host("insecure-app", 8443),
            "server rs1 10.0.0.7:8080 check rise 2 fall 1 ssl sni \
                'str(insecure-app.svc.account_uuid.datacenter.cns.domain.zone)' check-sni \
                insecure-app.svc.account_uuid.datacenter.cns.domain.zone verify none check-ssl",
        ),
        (
            format!("http://80:web-app.{CNS}:8080"),
            32,
            "bind *:80",
            Mode::Http,
            host("web-app", 8080),
            "server rs1 10.0.0.7:8080 check rise 2 fall 1",
        ),
        (
            "tcp://636:my-backend.svc.my-login.us-west-1.cns.example.com".to_owned(),
            1024,
            "bind *:636",
            Mode::Tcp,
            ServersFrom::Service {
                name: "my-backend.svc.my-login.us-west-1.cns.example.com".to_owned(),
            },
            "server rs1 10.0.0.7:8080 check rise 2 fall 1",
        ),
        (
            "tcp-proxy-v2://3306:db.backend.com:3306".to_owned(),
            32,
            "bind *:3306",
            Mode::Tcp,
            ServersFrom::Host { name: "db.backend.com".to_owned(), port: 3306 },
            "server rs1 10.0.0.7:8080 check rise 2 fall 1 send-proxy-v2 check-send-proxy",
        ),
        (
            "http://80:a.b:80{rise:5}".to_owned(),
            32,
            "bind *:80",
            Mode::Http,
            ServersFrom::Host { name: "a.b".to_owned(), port: 80 },
            "server rs1 10.0.0.7:8080 check rise 5 fall 1",
        ),
        (
            "http://80:10.0.0.1:8080".to_owned(),
            32,
            "bind *:80",
            Mode::Http,
            ServersFrom::Address(ServerAddress { ip: [10, 0, 0, 1].into(), port: 8080 }),
            "server rs1 10.0.0.7:8080 check rise 2 fall 1",
        ),
    ];
    for (text, max_servers, bind, mode, servers, server) in cases {
        let declaration = Declaration { max_servers, ..declaration() };
        let service = declaration.declare(&Portmap::parse(&text).services).remove(0).unwrap();
        assert_eq!((service.servers, service.max_servers), (servers, max_servers), "{text}");
        let lines = rendered(&text);
        assert_eq!(line(&lines, "bind"), Some(bind), "{lines:#?}");
        assert_eq!(line(&lines, "server "), Some(server), "{lines:#?}");
        assert_eq!((&*lines[0], line(&lines, "backend ")), ("frontend fe0", Some("backend be0")));
        assert_eq!(line(&lines, "default_backend"), Some("default_backend be0"));
        assert_eq!(lines.iter().filter(|line| *line == "mode tcp").count() == 2, mode == Mode::Tcp);
        let cookie = line(&lines, "cookie CLOUD-TRITONCOMPUTE-RS insert indirect nocache");
        assert!(cookie.is_some_and(|line| line.ends_with("dynamic")) == (mode == Mode::Http));
    }
}

/// `verify required` alone takes any certificate of the CA.
#[test]
fn a_server_of_https_must_have_the_certificate_of_its_own_name() {
    for (name, host) in [
        ("Api.example.com:8443", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("_https._tcp.api.example.com", "api.example.com"),
    ] {
        let options = declared(&format!("https://443:{name}")).backend.server_options;
        let expected = [
            "check".to_owned(),
            "rise 2".to_owned(),
            "fall 1".to_owned(),
            "ssl".to_owned(),
            format!("sni str({host})"),
            format!("check-sni {host}"),
            "verify required".to_owned(),
            "ca-file /etc/ca.pem".to_owned(),
            format!("verifyhost {host}"),
            "check-ssl".to_owned(),
        ];
        assert_eq!(options, expected, "{name}");
    }
    for text in ["https://443:10.0.0.1:8443", "https://443:_https._tcp"] {
        let error = &Portmap::parse(text).rejected[0].error;
        assert!(matches!(error, PortmapError::NothingToVerify(_)), "{text}: {error}");
    }
    let insecure = declared("https+insecure://443:10.0.0.1:8443").backend.server_options;
    assert_eq!(insecure, ["check", "rise 2", "fall 1", "ssl", "verify none", "check-ssl"]);
}

#[test]
fn a_health_check_is_a_get_that_must_be_answered_200() {
    let lines = rendered("tcp://3306:db.example.com:3306{check:/ping?a=1,port:9000,rise:2,fall:3}");
    let at = lines.iter().position(|line| line == "option httpchk").expect("a check by HTTP");
    assert_eq!(lines[at + 1], "http-check send meth GET uri '/ping?a=1'");
    assert_eq!(lines[at + 2], "http-check expect status 200");
    let server = line(&lines, "server ").expect("a server");
    assert_eq!(server, "server rs1 10.0.0.7:8080 check port 9000 rise 2 fall 3");
    // A server with several certificates compares the name in the handshake with the header.
    let lines = rendered("https://443:a.b{check:/x}");
    let sent = "http-check send meth GET uri /x ver HTTP/1.1 hdr host a.b";
    assert_eq!(line(&lines, "http-check send"), Some(sent));
    // Another port is checked without TLS, and without a PROXY header.
    let options = declared("https://443:a.b{check:/x,port:1}").backend.server_options;
    assert!(!options.contains(&"check-ssl".to_owned()), "{options:?}");
    let options = declared("tcp-proxy-v2://443:a.b{check:/x,port:1}").backend.server_options;
    assert!(!options.contains(&"check-send-proxy".to_owned()), "{options:?}");
    assert_eq!(line(&rendered("http://80:a.b"), "option httpchk"), None);
}

/// HAProxy, too, asks for SRV records where a name begins so.
#[test]
fn a_name_is_asked_for_addresses_with_a_port_and_for_srv_records_without_one() {
    let service = |name: &str| ServersFrom::Service { name: name.to_owned() };
    for (text, servers) in [
        (
            "http://80:Web.example.com.:8080",
            ServersFrom::Host { name: "web.example.com".to_owned(), port: 8080 },
        ),
        ("http://80:web.example.com", service("web.example.com")),
        ("http://80:_http._tcp.web.example.com", service("_http._tcp.web.example.com")),
        ("http://80:_http._tcp.web.example.com:8080", service("_http._tcp.web.example.com")),
    ] {
        assert_eq!(declared(text).servers, servers, "{text}");
    }
}

#[test]
fn clients_come_back_to_their_server_at_every_gateway_with_that_service() {
    let key = |text: &str| -> Vec<String> {
        let services = declaration().declare(&Portmap::parse(text).services);
        let keys = services.into_iter().flatten().filter_map(|service| service.backend.cookie);
        keys.map(|cookie| cookie.key.reveal().to_owned()).collect()
    };
    let web = key("http://80:a.b:80");
    assert_eq!(web.len(), 1);
    // Neither other services nor the way that servers are checked matter.
    assert_eq!(key("tcp://1:x.y HTTP://80:A.b:80{check:/x,rise:9}"), web);
    for other in ["http://81:a.b:80", "http://80:a.c:80", "http://80:a.b:81", "http://80:a.b"] {
        assert_ne!(key(other), web, "{other}");
    }
    let lines = rendered("http://80:a.b:80");
    assert_eq!(
        line(&lines, "dynamic-cookie-key"),
        Some(&*format!("dynamic-cookie-key {}", web[0]))
    );
}

#[test]
fn names_of_ports_stay_whatever_comes_before_them() {
    let names = |naming, text: &str| -> Vec<String> {
        let declaration = Declaration { naming, ..declaration() };
        let services = declaration.declare(&Portmap::parse(text).services);
        let both = |service: DeclaredService| {
            assert_eq!(service.frontend.default_backend.as_ref(), Some(&service.backend.name));
            format!("{} {}", service.frontend.name, service.backend.name)
        };
        services.into_iter().flatten().map(both).collect()
    };
    let (one, two) = ("http://80:a.b:80", "tcp://22:c.d http://80:a.b:80");
    assert_eq!(names(Naming::Port, one), ["fe-80 be-80"]);
    assert_eq!(names(Naming::Port, two), ["fe-22 be-22", "fe-80 be-80"]);
    assert_eq!(names(Naming::Position, one), ["fe0 be0"]);
    assert_eq!(names(Naming::Position, two), ["fe0 be0", "fe1 be1"]);
}

#[test]
fn a_service_without_a_certificate_is_named_and_the_others_are_declared() {
    let without = Declaration { certificate: None, ..declaration() };
    let services = Portmap::parse("https-http://443:a.b http://80:a.b").services;
    let declared = without.declare(&services);
    assert_eq!(declared[0], Err(NoCertificate(services[0].clone())));
    assert_eq!(
        declared[0].as_ref().unwrap_err().to_string(),
        "https-http://443:a.b: there is no certificate for it; name one"
    );
    assert!(declared[1].is_ok());
}

#[test]
fn a_gateway_listens_where_it_is_told_to() {
    let listen = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let declaration = Declaration { listen, ..declaration() };
    let services = Portmap::parse("https-http://443:a.b").services;
    let Frontend { binds, .. } = declaration.declare(&services).remove(0).unwrap().frontend;
    let addresses: Vec<_> = binds.iter().map(|bind| bind.address.as_str()).collect();
    assert_eq!(addresses, ["127.0.0.1:443", "[::1]:443"]);
    let site: FilePath = value("/etc/site.pem");
    let all_tls = |bind: &crate::config::Bind| {
        bind.tls.as_ref().is_some_and(|tls| tls.certificates == [site.clone()])
    };
    assert!(binds.iter().all(all_tls));
}
