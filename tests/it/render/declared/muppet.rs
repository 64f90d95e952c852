//! Muppet: a load balancer of a storage service's front ends, by kinds of servers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Declared, server};
use crate::support::eventually;
use crate::support::free_port;
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn servers_of_each_kind_are_a_backend_with_their_ports_and_health_checks() {
    let [foo, bar] = ["foo.test:81", "bar.test:81"].map(Master::start);
    let baz: Vec<Master> =
        (8081..=8084).map(|port| Master::start(&format!("baz.test:{port}"))).collect();
    let server_of = |master: &Master| server(master.name(), master.address());
    let buckets: Vec<String> = baz.iter().map(server_of).collect();
    for binary in oldest_and_newest() {
        let trusted = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let haproxy = Declared::start(binary, |address| {
            format!(
                "nbthread = 2
                [[frontend]]
                name = \"http_external\"
                bind = [\"{address}\"]
                default_backend = \"insecure_api\"
                [[frontend]]
                name = \"http_trusted\"
                bind = [\"{trusted}\"]
                default_backend = \"buckets_api\"
                [[backend]]
                name = \"insecure_api\"
                check = {{ uri = \"/ping\", interval = \"30s\" }}
                options = [\"slowstart 10s\"]
                servers = [{}, {}]
                [[backend]]
                name = \"buckets_api\"
                check = {{ uri = \"/ping\", interval = \"30s\" }}
                servers = [{}]\n",
                server_of(&foo),
                server_of(&bar),
                buckets.join(", ")
            )
        });
        let external: BTreeSet<String> = (0..8).map(|_| haproxy.get("/").body).collect();
        assert_eq!(external.into_iter().collect::<Vec<_>>(), ["bar.test:81", "foo.test:81"]);
        let inside: BTreeSet<String> =
            (0..16).map(|_| super::ask(trusted, "GET /", &[]).body).collect();
        let all: BTreeSet<String> = baz.iter().map(|master| master.name().to_owned()).collect();
        assert_eq!(inside, all);
    }
}

#[test]
fn without_any_server_the_listener_stays_and_answers_what_the_settings_say() {
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                servers = []
                errors = [{{ status = 503, content_type = \"application/json\", \
                    body = '{{\"code\": \"ServiceUnavailable\"}}', retry_after = 5 }}]\n"
            )
        });
        let reply = haproxy.get("/");
        assert_eq!((reply.status, reply.body.as_str()), (503, r#"{"code": "ServiceUnavailable"}"#));
        assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
        assert_eq!(reply.header("retry-after").as_deref(), Some("5"));
    }
}

#[test]
fn each_request_is_a_line_of_json_whatever_the_client_sends() {
    let app = Master::start("app1");
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "log_format = \"json\"
                [[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                servers = [{}]\n",
                server("app1", app.address())
            )
        });
        let agent = r#"a "quoted" \ agent 100% é"#;
        haproxy.get_with("/a?b=%22c%22", &[("User-Agent", agent)]);
        let line: Value = eventually("the request is logged", PATIENCE, || {
            let log = haproxy.haproxy.log();
            log.lines().find_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok())
        });
        assert_eq!(line["agent"], agent, "{line:#}");
        assert_eq!(line["url"], "/a?b=%22c%22", "{line:#}");
        assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &200.into()), "{line:#}");
        assert_eq!(
            (&line["backend"], &line["server"]),
            (&"app".into(), &"app1".into()),
            "{line:#}"
        );
        for time in ["queue_ms", "connect_ms", "request_ms", "response_ms", "total_ms"] {
            assert!(line[time].is_i64(), "{time}: {line:#}");
        }
    }
}

/// What comes back for bytes as they stand.
fn exchange(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("HAProxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound on reading");
    stream.write_all(request.as_bytes()).expect("HAProxy reads");
    let mut answer = String::new();
    // HAProxy may reset a connection whose request it did not read to the end.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn requests_and_answers_of_two_lengths_are_passed_on_to_nobody() {
    let app = Master::start("app1");
    let two_lengths = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address_of_two = two_lengths.local_addr().expect("a bound address");
    thread::spawn(move || {
        for stream in two_lengths.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\nok secret",
            );
        }
    });
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                rules = [{{ path = \"/two\", backend = \"two\" }}]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                servers = [{}]
                [[backend]]
                name = \"two\"
                servers = [{}]\n",
                server("app1", app.address()),
                server("two1", address_of_two)
            )
        });
        for smuggled in [
            "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{smuggled}");
            let answer = exchange(haproxy.address, &request);
            let denied = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
            assert!(denied, "{:?}: {smuggled:?}: {answer}", binary.version);
        }
        let reply = haproxy.get("/two");
        assert_eq!(reply.status, 502, "{reply:?}");
    }
}

#[test]
fn statistics_and_metrics_are_at_addresses_of_their_own_for_whom_the_settings_name() {
    for binary in oldest_and_newest() {
        let [stats, open, closed] =
            [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let settings = |address: SocketAddr, metrics: SocketAddr, allow: &str| {
            format!(
                "stats = {{ bind = \"{stats}\", uri = \"/stats\" }}
                metrics = {{ bind = \"{metrics}\", allow = [{allow:?}] }}
                [[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                servers = []\n"
            )
        };
        let one = Declared::start(binary, |address| settings(address, open, "127.0.0.0/8"));
        let table = super::ask(stats, "GET /stats;csv", &[]);
        assert!(table.status == 200 && table.body.contains("web,FRONTEND"), "{table:?}");
        let exported = super::ask(open, "GET /metrics", &[]);
        assert!(exported.body.contains("haproxy_frontend_sessions_total"), "{exported:?}");
        drop(one);
        let _other = Declared::start(binary, |address| settings(address, closed, "10.0.0.0/8"));
        assert_eq!(super::ask(closed, "GET /metrics", &[]).status, 403);
    }
}

#[test]
fn the_documents_name_metrics_that_haproxy_has() {
    const DOCUMENT: &str = include_str!("../../../../docs/coming-from.md");
    let is_part = |character: char| character.is_ascii_lowercase() || character == '_';
    let named: BTreeSet<&str> = DOCUMENT
        .split(|character| !is_part(character))
        .filter(|word| {
            ["haproxy_frontend_", "haproxy_backend_", "haproxy_server_"]
                .iter()
                .any(|kind| word.starts_with(kind))
        })
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for binary in oldest_and_newest() {
        let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let _haproxy = Declared::start(binary, |address| {
            format!(
                "metrics = {{ bind = \"{metrics}\" }}
                [[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                check = {{ uri = \"/ping\" }}
                servers = [{}]\n",
                server("app1", gone)
            )
        });
        // A check has a duration once it has ended.
        eventually("each is there", PATIENCE, || {
            let exported = super::ask(metrics, "GET /metrics", &[]).body;
            named.iter().all(|name| exported.contains(&format!("# TYPE {name} "))).then_some(())
        });
    }
}
