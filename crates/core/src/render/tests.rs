//! Every field of a configuration in the text, each in its place.

use std::time::Duration;

use proptest::prelude::*;

use super::words::{Line, words};
use super::*;
use crate::config::rules::*;
use crate::config::values::*;
use crate::config::*;
use crate::server::{Server, ServerAddress, ServerOptions};

fn value<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

fn rule(all: Vec<Matcher>, action: Action) -> Rule {
    Rule { condition: Condition { all, ..Condition::default() }, action }
}

fn frontend(name: &str, address: &str, rules: Vec<Rule>) -> Frontend {
    let bind = Bind { address: value(address), tls: None, accept_proxy: false };
    Frontend {
        name: value(name),
        mode: Mode::Http,
        binds: vec![bind],
        maxconn: None,
        forwarded_for: true,
        rules,
        default_backend: Some(value("app")),
        natives: Vec::new(),
    }
}

fn backend(name: &str) -> Backend {
    Backend {
        name: value(name),
        mode: Mode::Http,
        balance: Balance::RoundRobin,
        check: None,
        host: None,
        cookie: None,
        retries: None,
        redispatch: false,
        errors: Vec::new(),
        servers: Vec::new(),
        natives: Vec::new(),
    }
}

fn server(name: &str, address: &str) -> Server {
    let address: std::net::SocketAddr = address.parse().unwrap();
    Server {
        name: name.to_owned(),
        address: ServerAddress { ip: address.ip(), port: address.port() },
        weight: Some(10),
        backup: false,
        options: ServerOptions::parse(&["check".to_owned(), "inter 2s".to_owned()]).unwrap(),
    }
}

/// The lines of a section, without their indent.
fn section(rendered: &Rendered, header: &str) -> Vec<String> {
    let lines = rendered.text().lines().skip_while(|line| *line != header).skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn rules_are_conditions_by_name_and_what_is_done_then() {
    let not = Condition {
        all: vec![Matcher::Path(How::Begins, vec![value("/api/"), value("/it's")])],
        none: vec![Matcher::Method(vec![value("GET")])],
        any: vec![
            vec![Matcher::Host(vec![value("a.test")])],
            vec![
                Matcher::Source(vec![value("10.0.0.0/8")]),
                Matcher::Url(How::Regex, vec![value(r"\.x$")]),
            ],
        ],
    };
    let config = Config {
        frontends: vec![frontend(
            "web",
            "127.0.0.1:8080",
            vec![
                Rule { condition: not, action: Action::Backend(value("app")) },
                rule(Vec::new(), Action::Deny(Status::try_from(403).unwrap())),
            ],
        )],
        backends: vec![backend("app")],
        ..Config::default()
    };
    let rendered = render(&config);
    assert_eq!(
        section(&rendered, "frontend web"),
        [
            "option idle-close-on-response",
            "bind 127.0.0.1:8080",
            "http-request deny deny_status 400 if { req.hdr_cnt(content-length) gt 1 }",
            "http-request set-header X-Forwarded-For %[src]",
            r"acl rule0_all0 path_beg -- /api/ '/it'\''s'",
            "acl rule0_none0 method -- GET",
            "acl rule0_any0_0 req.hdr(host),host_only -i -m str -- a.test",
            "acl rule0_any1_0 src -- 10.0.0.0/8",
            r"acl rule0_any1_1 url_reg -- '\.x$'",
            "http-request deny deny_status 403",
            "use_backend app if rule0_all0 !rule0_none0 rule0_any0_0 or rule0_all0 !rule0_none0 rule0_any1_0 rule0_any1_1",
            "default_backend app",
        ]
    );
    let line = rendered.text().lines().position(|line| line.contains("use_backend")).unwrap();
    assert_eq!(rendered.origin(line + 1), Some("frontend[0].rules[0]"));
    assert_eq!(config.problems(), []);
}

#[test]
fn where_rules_rewrite_the_backend_is_chosen_in_their_order() {
    let begins = || vec![Matcher::Path(How::Begins, vec![value("/api/")])];
    let config = Config {
        frontends: vec![frontend(
            "web",
            ":80",
            vec![
                rule(begins(), Action::Backend(value("app"))),
                rule(begins(), Action::ReplacePath(value("^/api(/.*)$"), value(r"\1?100%"))),
            ],
        )],
        backends: vec![backend("app")],
        ..Config::default()
    };
    let lines = section(&render(&config), "frontend web");
    assert_eq!(
        lines[4..],
        [
            "acl rule0_all0 path_beg -- /api/",
            "http-request set-var(txn.backend) 'str(app)' if !{ var(txn.backend) -m found } rule0_all0",
            "acl rule1_all0 path_beg -- /api/",
            r"http-request replace-path '^/api(/.*)$' '\1?100%%' if rule1_all0",
            "use_backend %[var(txn.backend)] if { var(txn.backend) -m found }",
            "default_backend app",
        ]
    );
}

#[test]
fn a_backend_has_its_algorithm_check_answers_and_servers() {
    let config = Config {
        backends: vec![Backend {
            balance: Balance::Header(value("X-Node")),
            check: Some(HttpCheck {
                method: Some(value("GET")),
                uri: value("/ping"),
                host: Some(value("a.test")),
                status: Some(Status::try_from(200).unwrap()),
            }),
            host: Some(value("in.test")),
            cookie: Some(Cookie { name: value("SRV"), key: value("k e y") }),
            retries: Some(2),
            redispatch: true,
            errors: vec![ErrorBody {
                status: Status::try_from(503).unwrap(),
                content_type: Some(value("application/json")),
                body: value(r#"{"error": "busy, 100%"}"#),
                retry_after: Some(5),
            }],
            servers: vec![server("a1", "10.0.0.1:80")],
            natives: vec![value("option abortonclose")],
            ..backend("app")
        }],
        ..Config::default()
    };
    assert_eq!(
        section(&render(&config), "backend app"),
        [
            "balance hdr(X-Node)",
            "hash-type consistent",
            "option httpchk",
            "http-check send meth GET uri /ping ver HTTP/1.1 hdr host a.test",
            "http-check expect status 200",
            "http-request set-header host in.test",
            "cookie SRV insert indirect nocache httponly dynamic",
            "dynamic-cookie-key 'k e y'",
            "retries 2",
            "option redispatch 1",
            r#"http-error status 503 content-type application/json hdr Retry-After 5 string '{"error": "busy, 100%"}'"#,
            "option abortonclose",
            "server a1 10.0.0.1:80 weight 10 check inter 2s",
        ]
    );
}

#[test]
fn what_contradicts_itself_is_named_with_its_place() {
    let config = Config {
        frontends: vec![
            frontend("web", ":80", vec![rule(Vec::new(), Action::Backend(value("nowhere")))]),
            Frontend { binds: Vec::new(), ..frontend("web", ":81", Vec::new()) },
            Frontend {
                mode: Mode::Tcp,
                default_backend: None,
                ..frontend("app", ":80", vec![rule(Vec::new(), Action::SetPath(value("/x")))])
            },
        ],
        backends: vec![backend("app"), backend("app")],
        ..Config::default()
    };
    let problems: Vec<_> = config.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "frontend[0].rules[0]: there is no backend nowhere",
            "frontend[1]: there are two of the name web",
            "frontend[1]: bind: it listens nowhere",
            "frontend[2]: a backend has the name app too",
            "frontend[2].bind[0]: the frontend web listens at :80 too",
            "frontend[2].rules[0]: only src, sni, backend and deny are for frontends of mode tcp",
            "backend[1]: there are two of the name app",
        ]
    );
}

proptest! {
    #[test]
    fn any_text_stays_in_its_field_and_every_line_is_one(texts in proptest::collection::vec("[^\\p{Cc}]{1,40}", 6)) {
        let text = |at: usize| -> Text { value(&texts[at]) };
        let rules = vec![
            rule(vec![Matcher::Path(How::Regex, vec![text(0), text(1)])], Action::SetHeader(value("X-A"), text(2))),
            rule(Vec::new(), Action::Redirect { to: Redirect::Location(text(3)), status: RedirectStatus::Found }),
            rule(Vec::new(), Action::ReplacePath(text(4), text(5))),
        ];
        let config = Config {
            process: Process { hard_stop_after: Some(Duration::from_secs(60)), ..Process::default() },
            frontends: vec![frontend("web", ":80", rules)],
            backends: vec![backend("app")],
        };
        let rendered = render(&config);
        let read: Vec<Vec<String>> = rendered.text().lines().map(|line| words(line).unwrap()).collect();
        let doubled = |at: usize| texts[at].replace('%', "%%");
        let expected = [
            vec!["acl".to_owned(), "rule0_all0".to_owned(), "path_reg".to_owned(), "--".to_owned(), texts[0].clone(), texts[1].clone()],
            vec!["http-request".to_owned(), "set-header".to_owned(), "X-A".to_owned(), doubled(2), "if".to_owned(), "rule0_all0".to_owned()],
            vec!["http-request".to_owned(), "redirect".to_owned(), "location".to_owned(), doubled(3), "code".to_owned(), "302".to_owned()],
            vec!["http-request".to_owned(), "replace-path".to_owned(), texts[4].clone(), doubled(5)],
        ];
        for line in expected {
            prop_assert!(read.contains(&line), "{line:?} is not in\n{}", rendered.text());
        }
        prop_assert_eq!(render(&config), rendered);
    }
}

#[test]
fn a_line_counts_its_words() {
    assert_eq!(Line::new("a b").words("c d").value("e f").len(), 5);
}
