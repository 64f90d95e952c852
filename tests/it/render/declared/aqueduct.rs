//! Aqueduct: frontends with rules, and backends with a health check, a host and natives.

use std::time::Duration;

use super::{Declared, refused, server};
use crate::render::echo::Echo;
use crate::support::eventually;
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn rules_decide_in_their_order_by_host_path_and_url() {
    let names = ["live", "staged", "favicon", "article", "bar", "numbered", "x"];
    let masters = names.map(Master::start);
    let backends: String = masters
        .iter()
        .map(|master| {
            let server = server(&format!("{}-1", master.name()), master.address());
            format!("[[backend]]\nname = {:?}\nservers = [{server}]\n", master.name())
        })
        .collect();
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"live\"
                rules = [
                  {{ header = \"host\", hdr_dom = \"staged.myapp.test\", backend = \"staged\" }},
                  {{ path = \"/favicon.ico\", backend = \"favicon\" }},
                  {{ path_reg = '^/article/[^/]*$', backend = \"article\" }},
                  {{ url_beg = \"/bar\", backend = \"bar\" }},
                  {{ url_reg = '^/a[0-9]\\?q', backend = \"numbered\" }},
                  {{ path_beg = \"/bar/x/\", backend = \"x\" }},
                  {{ path_beg = \"/x/\", backend = \"x\" }},
                ]
                natives = [\"option http-buffer-request\", \"maxconn 50\"]
                {backends}"
            )
        });
        for (path, host, expected) in [
            ("/", "myapp.test", "live"),
            ("/", "www.staged.myapp.test", "staged"),
            ("/", "STAGED.myapp.test:8080", "staged"),
            ("/", "unstaged.myapp.test", "live"),
            ("/favicon.ico", "myapp.test", "favicon"),
            ("/favicon.ico?v=1", "myapp.test", "favicon"),
            ("/article/first", "myapp.test", "article"),
            ("/article/first/more", "myapp.test", "live"),
            ("/bar/x/", "myapp.test", "bar"),
            ("/a1?q=1", "myapp.test", "numbered"),
            ("/a1", "myapp.test", "live"),
            ("/x/y", "myapp.test", "x"),
            ("/x/y", "staged.myapp.test", "staged"),
        ] {
            let reply = haproxy.get_with(path, &[("Host", host)]);
            assert_eq!(reply.body, expected, "{path} of {host}, HAProxy {:?}", binary.version);
        }
    }
}

#[test]
fn connections_are_kept_as_the_frontend_says() {
    let echo = Echo::start();
    for binary in oldest_and_newest() {
        for (keep_alive, client, server_side) in
            [("both", None, false), ("client", None, true), ("none", Some("close"), true)]
        {
            let haproxy = Declared::start(binary, |address| {
                format!(
                    "[[frontend]]
                    name = \"web\"
                    bind = [\"{address}\"]
                    keep_alive = {keep_alive:?}
                    rules = [{{ path = \"/own\", return = {{ status = 200 }} }}]
                    default_backend = \"app\"
                    [[backend]]
                    name = \"app\"
                    servers = [{}]\n",
                    server("app1", echo.address())
                )
            });
            let (_, body) = keeping(&haproxy, "/");
            let closes = body.to_ascii_lowercase().contains("connection: close");
            assert_eq!(closes, server_side, "{keep_alive}: {body}");
            if client.is_some() {
                let (head, _) = keeping(&haproxy, "/own");
                assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
            }
        }
    }
}

/// The head and the body of an answer to a client that would keep its connection.
fn keeping(haproxy: &Declared, path: &str) -> (String, String) {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut stream = std::net::TcpStream::connect(haproxy.address).expect("HAProxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound on reading");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("HAProxy reads");
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("HAProxy answers");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim_end().parse().expect("a length");
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body");
    (head, String::from_utf8(body).expect("in UTF-8"))
}

#[test]
fn servers_get_the_backends_host_and_are_checked_as_it_says() {
    let echo = Echo::start();
    for binary in oldest_and_newest() {
        let path = format!("/check-{}-{}", binary.version.0, binary.version.1);
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"live\"
                [[backend]]
                name = \"live\"
                balance = \"source\"
                host = \"foo.test\"
                check = {{ method = \"OPTIONS\", uri = {path:?}, version = \"1.1\", host \
                    = \"foo.test\", interval = \"700ms\" }}
                natives = [\"option abortonclose\"]
                servers = [{}]
                [[backend]]
                name = \"old\"
                check = {{ method = \"GET\", uri = \"{path}-old\", version = \"1.0\", interval \
                    = \"700ms\" }}
                servers = [{}]\n",
                server("live_1", echo.address()),
                server("old_1", echo.address())
            )
        });
        let head = haproxy.get_with("/a", &[("Host", "bar.test")]).body;
        assert!(head.contains("host: foo.test\r\n") && !head.contains("bar.test"), "{head}");
        let expected = [format!("OPTIONS {path} HTTP/1.1"), "host: foo.test".to_owned()];
        eventually("the server is checked with a host", PATIENCE, || {
            echo.has_seen(&[&expected[0], &expected[1]]).then_some(())
        });
        eventually("the server is checked by HTTP/1.0", PATIENCE, || {
            echo.has_seen(&[&format!("GET {path}-old HTTP/1.0")]).then_some(())
        });
    }
}

#[test]
fn a_rule_that_could_not_work_is_refused_and_not_skipped() {
    let rule = |mode: &str, rule: &str| {
        refused(&format!(
            "[[frontend]]\nname = \"web\"\nmode = {mode:?}\nbind = [\":80\"]\nrules = [{rule}]\n\
             [[backend]]\nname = \"x\"\nmode = {mode:?}\nservers = []\n"
        ))
    };
    for (mode, text, told) in [
        ("http", "{ weird = \"y\", backend = \"x\" }", "weird"),
        ("http", "{ path = \"/a\" }", "frontend[0].rules[0]"),
        ("http", "{ path = \"/a\", backend = \"nowhere\" }", "there is no backend nowhere"),
        ("http", "{ hdr_dom = \"a.test\", backend = \"x\" }", "header"),
        ("tcp", "{ url_reg = '^/a[0-9]$', backend = \"x\" }", "mode tcp has only"),
    ] {
        let complaint = rule(mode, text);
        assert!(complaint.contains(told), "{text}: {complaint}");
    }
}
