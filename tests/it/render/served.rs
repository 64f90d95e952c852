//! What a rendered configuration does with requests, on every HAProxy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use mapsmith::settings::Settings;
use mapsmith_core::DesiredServers;
use mapsmith_core::render::render;
use serde_json::Value;

use crate::support::haproxy::{Binary, installed};
use crate::support::shipped::{Plan, Shipped};

/// Settings with their own HAProxy. The addresses stand for those that a test gives it.
const SETTINGS: &str = r#"
[haproxy]
socket = "/run/admin.sock"
log_format = "json"
"#;

/// HAProxy with what these settings render. `listens` is the address that is asked.
fn start(binary: &Binary, more: &str, listens: &str, entries: &[(&str, &str)]) -> Shipped {
    let text = format!("[map]\npath = \"/m.map\"\n{SETTINGS}{more}");
    let text = format!("{text}\n[[source]]\nname = \"s\"\ntype = \"file\"\npath = \"/m\"\n");
    let text = format!("{text}[[instance]]\nname = \"i\"\nruntime = \"unix@/run/admin.sock\"\n");
    let settings = Settings::of_text(Path::new("/mapsmith.toml"), &text, [])
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let config = settings.haproxy_config(&DesiredServers::default()).expect("[haproxy]");
    let health = "/var/lib/mapsmith/haproxy/health.map";
    let text = render(&config)
        .text()
        .replace(listens, "\"${GATEWAY_BIND}\"")
        .replace("127.0.0.1:3", "\"${STATS_BIND}\"")
        .replace(health, "\"${NODE_MASTER_MAP}\"")
        .replace("/run/admin.sock", "\"${ADMIN_SOCKET}\"");
    let plan = entries
        .iter()
        .fold(Plan::of_text(binary, text), |plan, (key, value)| plan.entry(key, value));
    plan.start()
}

/// The answer to these bytes, up to the end of the connection.
fn raw(gateway: &Shipped, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    // A request that is refused may be refused by a reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

const ECHO: &str = r#"
[[frontend]]
name = "web"
bind = "127.0.0.1:1"
rules = [
  { path = "/denied", not = { method = "POST" }, deny = 403 },
  { path = "/old", redirect = { location = "https://new.test/100%" } },
  { path_beg = "/said", return = { status = 200, content_type = "application/json", body = '{"a": "100% %[src]"}' } },
  { path_beg = "/moved/", replace_path = { regex = '^/moved(/.*)$', with = '/to\1' } },
  { set_header = { name = "X-Set", value = "it's 100% %[src]" } },
]
natives = [
  'http-request return status 200 content-type text/plain lf-string "%[path]|%[req.hdr(X-Set)]"',
]
"#;

#[test]
fn rules_are_done_in_their_order_and_values_reach_the_request_as_they_were_written() {
    for binary in installed() {
        let gateway = start(binary, ECHO, "127.0.0.1:1", &[]);
        let get = |path: &str| gateway.send("GET", path, &[], "");
        assert_eq!(get("/denied").status, 403, "{:?}", binary.version);
        assert_eq!(gateway.send("POST", "/denied", &[], "").status, 200);
        let said = get("/said");
        let body = (said.content_type.as_str(), said.body.as_str());
        assert_eq!(body, ("application/json", r#"{"a": "100% %[src]"}"#));
        let old = raw(&gateway, "GET /old HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let location = "location: https://new.test/100%\r\n";
        assert!(old.starts_with("HTTP/1.1 302") && old.contains(location), "{old}");
        assert_eq!(get("/moved/a/b").body, "/to/a/b|it's 100% %[src]");
    }
}

/// A frontend before a server that says what it gets.
const SERVED: &str = r#"
[[frontend]]
name = "web"
bind = "127.0.0.1:1"
default_backend = "app"
[[backend]]
name = "app"
servers = []
natives = ["server echo 127.0.0.1:3"]
[[frontend]]
name = "echo"
bind = "127.0.0.1:3"
natives = [
  'http-request return status 200 content-type text/plain lf-string "%[req.hdr(X-Forwarded-For)]|%[req.hdr(X_Forwarded_For)]|%[req.hdr(X-Other)]"',
]
forwarded_for = false
"#;

#[test]
fn nobody_says_for_himself_whom_he_comes_from() {
    for binary in installed() {
        let gateway = start(binary, SERVED, "127.0.0.1:1", &[]);
        let claims = [
            ("X-Forwarded-For", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("X_Forwarded_For", "10.0.0.3"),
            ("X-Other", "other"),
        ];
        let answer = gateway.send("GET", "/", &claims, "");
        assert_eq!(answer.body, "127.0.0.1||other", "{:?}", binary.version);
    }
}

#[test]
fn requests_that_two_programs_may_read_differently_are_refused() {
    let begin = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    for binary in installed() {
        let gateway = start(binary, ECHO, "127.0.0.1:1", &[]);
        let sound = raw(&gateway, &format!("{begin}Content-Length: 1\r\n\r\nx"));
        assert!(sound.starts_with("HTTP/1.1 200"), "{:?}: {sound}", binary.version);
        for headers in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 2\r\n",
            "Content-Length: +1\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Host: b\r\n",
        ] {
            let answer = raw(&gateway, &format!("{begin}{headers}\r\nx"));
            let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(is_refused, "{:?} {headers:?}: {answer}", binary.version);
        }
    }
}

#[test]
fn each_line_of_the_access_log_is_a_json_object_whatever_a_client_sends() {
    for binary in installed() {
        let gateway = start(binary, ECHO, "127.0.0.1:1", &[]);
        let request = "GET /a\\b?q=\"x\" HTTP/1.1\r\nHost: h\r\nUser-Agent: a\"b\\c\u{1}\r\n\
            Connection: close\r\n\r\n";
        assert!(raw(&gateway, request).starts_with("HTTP/1.1 200"), "{:?}", binary.version);
        raw(&gateway, "nonsense\r\n\r\n");
        let lines = gateway.wait_for("both requests are in the log", || {
            let log = gateway.log();
            let lines: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
            let read = |line: &&str| serde_json::from_str(line);
            let lines: Result<Vec<Value>, _> = lines.iter().map(read).collect();
            lines.ok().filter(|lines| lines.len() == 2)
        });
        // Two threads may log them in either order.
        let of_status = |status: u16| lines.iter().find(|line| line["status"] == status);
        let answered = of_status(200).unwrap_or_else(|| panic!("{lines:#?}"));
        assert_eq!(answered["url"], r#"/a\b?q="x""#, "{:?}", binary.version);
        assert_eq!(answered["host"], "h");
        assert_eq!(answered["agent"], "a\"b\\c\u{1}");
        assert!(of_status(400).is_some(), "{lines:#?}");
    }
}

#[test]
fn the_health_check_answers_what_the_map_says_and_the_runtime_api_switches_it() {
    let health = "health = \"127.0.0.1:2\"\n";
    for binary in installed() {
        let gateway = start(binary, health, "127.0.0.1:2", &[("health", "starting")]);
        let answer = || gateway.send("GET", "/", &[], "");
        assert_eq!((answer().status, answer().body.as_str()), (503, "not ready\n"));
        for (value, status) in [("ready", 200), ("stopping", 503)] {
            gateway.command(&format!("set map {} health {value}", gateway.map()));
            assert_eq!(answer().status, status, "{:?} {value}", binary.version);
        }
        assert!(!gateway.log().contains("mapsmith-health/"), "health checks are not logged");
    }
}
