//! What a portmap becomes in HAProxy: every version takes every type, and each serves what it says.

use std::path::Path;

use mapsmith_core::config::values::FilePath;
use mapsmith_core::config::{Config, Process};
use mapsmith_core::portmap::metadata::{MetricsAcl, Syslog, Timeouts};
use mapsmith_core::portmap::{Declaration, Naming, Portmap};
use mapsmith_core::render::render;
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};

use super::files::Files;
use super::models::value;
use super::running::{Running, ask, verdict};
use crate::support::authority::Authority;
use crate::support::curl::Client;
use crate::support::haproxy::{Binary, installed};
use crate::support::scene::oldest_and_newest;
use crate::support::{eventually, free_port};

/// The portmap in HAProxy's words; each service has one server, at this port.
fn rendered(
    text: &str,
    process: Process,
    certificate: FilePath,
    ca: FilePath,
    ports: &[u16],
) -> String {
    let portmap = Portmap::parse(text);
    assert_eq!(portmap.rejected, []);
    let declaration = Declaration {
        naming: Naming::Port,
        listen: vec!["127.0.0.1".parse().expect("an address")],
        certificate: Some(certificate),
        alpn: vec![value("h2"), value("http/1.1")],
        ca,
        max_servers: 32,
    };
    let mut config = Config { process, ..Config::default() };
    for (service, port) in declaration.declare(&portmap.services).into_iter().zip(ports) {
        let service = service.expect("there is a certificate");
        let mut backend = service.backend;
        let options = ServerOptions::parse(&backend.server_options).expect("they are taken");
        backend.servers.push(Server {
            name: "rs1".to_owned(),
            address: ServerAddress { ip: [127, 0, 0, 1].into(), port: *port },
            weight: None,
            backup: false,
            options,
        });
        config.backends.push(backend);
        config.frontends.push(service.frontend);
    }
    assert_eq!(config.problems(), []);
    render(&config).text().to_owned()
}

#[test]
fn haproxy_of_every_version_takes_every_type_without_a_warning() {
    let files = Files::create();
    let text = "http://8001:a.test:1{check:/a?b=1&c=%20,rise:5} \
                https://8002:_https._tcp.a.test{check:/,port:65534,rise:65535,fall:65535} \
                https+insecure://8003:10.0.0.1:1{check:/} https+insecure://8004:a.test:1 \
                https-http://8005:a.test tcp://8006:a.test:1{check:/~!&()*+;=:@?} \
                tcp-proxy-v2://8007:a.test:1 tcp-proxy-v2://8008:a.test:1{check:/,port:1}";
    let mut process = Process {
        metrics: MetricsAcl::parse("10.0.0.0/8,2001:db8::/32").metrics(value("*:8405")),
        ..Process::default()
    };
    process.log_to_syslog(Syslog::parse("[2001:db8::1]:514").value.as_ref());
    Timeouts::parse("{client:5s}").expect("good ones").apply(&mut process.timeouts);
    let text = rendered(text, process, files.certificate.clone(), files.ca.clone(), &[1; 8]);
    for binary in installed() {
        let (code, said) = verdict(binary, files.folder(), &text);
        let is_silent = !said.lines().any(|line| line.starts_with("[WARNING]"));
        assert!(code == 0 && is_silent, "{:?}\n{text}\n{said}", binary.version);
    }
}

/// A gateway that has all types, and the servers behind it in the same process.
struct Gateway {
    ports: Vec<u16>,
    _haproxy: Running,
}

impl Gateway {
    fn start(binary: &Binary, authority: &Authority, folder: &Path) -> Self {
        let path = |path: std::path::PathBuf| value(path.to_str().expect("a path in UTF-8"));
        let start = || {
            let ports: Vec<u16> = (0..8).map(|_| free_port()).collect();
            let [plain, tls, proxied] = [0; 3].map(|_| free_port());
            let types = [
                ("http", "web.test:1", plain),
                ("https", "web.test:1{check:/}", tls),
                ("https", "other.test:1", tls),
                ("https+insecure", "other.test:1", tls),
                ("https-http", "web.test:1", plain),
                ("tcp", "web.test:1", plain),
                ("tcp-proxy-v2", "web.test:1", proxied),
                // Answered, but not with 200.
                ("http", "web.test:1{check:/empty}", plain),
            ];
            let services = types.iter().zip(&ports);
            let text: String = services
                .map(|((kind, name, _), port)| format!("{kind}://{port}:{name} "))
                .collect();
            let certificate = path(authority.both("web.test"));
            let servers = format!(
                "\nfrontend plain\n    bind 127.0.0.1:{plain}\n    http-request return status 204 \
                 if {{ path /empty }}\n    http-request return status 200 content-type text/plain \
                 lf-string \"plain %[req.hdr(x-forwarded-for)]\"\nfrontend tls\n    bind \
                 127.0.0.1:{tls} ssl crt {certificate}\n    http-request return status 200 \
                 content-type text/plain lf-string \"tls %[ssl_fc_sni]\"\nfrontend proxied\n    \
                 bind 127.0.0.1:{proxied} accept-proxy\n    http-request return status 200 \
                 content-type text/plain lf-string \"from %[src]\"\n"
            );
            let at = types.map(|(.., port)| port);
            let process = Process::default();
            let text = rendered(&text, process, certificate, path(authority.ca()), &at) + &servers;
            let first = ([127, 0, 0, 1], ports[0]).into();
            Running::start(binary, folder, &text, first).map(|haproxy| (ports, haproxy))
        };
        let (ports, haproxy) = (0..10).find_map(|_| start()).expect("free ports");
        Self { ports, _haproxy: haproxy }
    }
}

#[test]
fn each_type_serves_and_a_server_with_a_certificate_of_another_name_is_not_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::create(folder.path());
    authority.issue("web.test");
    let client = Client::stranger(authority.ca());
    for binary in oldest_and_newest() {
        let gateway = Gateway::start(binary, &authority, folder.path());
        let at = |index: usize| ([127, 0, 0, 1], gateway.ports[index]).into();
        let by_http = |index| {
            let reply = ask(at(index), "GET /", &[]);
            (reply.status, reply.body)
        };
        let by_tls = |index| {
            let answer = client.get(at(index), "/", &[]);
            assert_eq!(answer.complaint, "", "HAProxy {:?}", binary.version);
            (answer.status, answer.body)
        };
        let good = |text: &str| (200, text.to_owned());
        assert_eq!(by_http(0), good("plain 127.0.0.1"), "http");
        assert_eq!(by_tls(1), good("tls web.test"), "https");
        let (status, body) = by_tls(2);
        assert!(status == 503 && !body.contains("tls"), "https, another name: {status} {body}");
        assert_eq!(by_tls(3), good("tls other.test"), "https+insecure");
        assert_eq!(by_tls(4), good("plain 127.0.0.1"), "https-http");
        assert_eq!(by_http(5), good("plain "), "tcp");
        assert_eq!(by_http(6), good("from 127.0.0.1"), "tcp-proxy-v2");
        eventually("a check that is not answered 200 fails", super::running::PATIENCE, || {
            (by_http(7).0 == 503).then_some(())
        });
        assert_eq!(by_http(0), good("plain 127.0.0.1"), "its neighbour goes on");
    }
}
