//! Every field of a configuration in the text, each in its place.

use std::time::Duration;

use proptest::prelude::*;

use super::words::{Line, words};
use super::*;
use crate::config::rules::*;
use crate::config::values::*;
use crate::config::*;
use crate::server::{Server, ServerAddress, ServerOptions};

pub(super) fn value<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

fn rule(all: Vec<Matcher>, action: Action) -> Rule {
    Rule { condition: Condition { all, ..Condition::default() }, action }
}

pub(super) fn frontend(name: &str, address: &str, rules: Vec<Rule>) -> Frontend {
    let bind = Bind { address: value(address), tls: None, accept_proxy: false };
    Frontend {
        name: value(name),
        mode: Mode::Http,
        binds: vec![bind],
        maxconn: None,
        keep_alive: KeepAlive::Both,
        forwarded_for: true,
        route: None,
        rules,
        default_backend: Some(value("app")),
        natives: Vec::new(),
    }
}

pub(crate) fn backend(name: &str) -> Backend {
    Backend {
        name: value(name),
        mode: Mode::Http,
        balance: None,
        check: None,
        host: None,
        cookie: None,
        retries: None,
        redispatch: false,
        retry_on: Vec::new(),
        http_reuse: None,
        maxqueue: None,
        queue_timeout: None,
        errors: Vec::new(),
        server_options: Vec::new(),
        servers: Vec::new(),
        disabled: Default::default(),
        natives: Vec::new(),
    }
}

pub(crate) fn server(name: &str, address: &str) -> Server {
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
                rule(Vec::new(), Action::Deny(ErrorStatus::FORBIDDEN)),
            ],
        )],
        backends: vec![backend("app")],
        ..Config::default()
    };
    let rendered = render(&config);
    assert_eq!(
        section(&rendered, "frontend web"),
        [
            "bind 127.0.0.1:8080",
            "option httplog",
            "option idle-close-on-response",
            "option http-restrict-req-hdr-names delete",
            "http-request set-header X-Forwarded-For %[src]",
            r"acl rule0_all0 path -m beg -- /api/ '/it'\''s'",
            "acl rule0_none0 method -- GET",
            "acl rule0_any0_0 req.hdr(host),host_only -i -m str -- a.test",
            "acl rule0_any1_0 src -- 10.0.0.0/8",
            r"acl rule0_any1_1 pathq -m reg -- '\.x$'",
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
        lines[5..],
        [
            "acl rule0_all0 path -m beg -- /api/",
            "http-request set-var(txn.backend) 'str(app)' if !{ var(txn.backend) -m found } rule0_all0",
            "acl rule1_all0 path -m beg -- /api/",
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
            balance: Some(Balance::Header(value("X-Node"))),
            check: Some(HttpCheck {
                method: Some(value("GET")),
                uri: value("/ping"),
                version: None,
                host: Some(value("a.test")),
                expect: Some(Expect::Status(value("200-299"))),
            }),
            host: Some(value("in.test")),
            cookie: Some(Cookie { name: value("SRV"), key: Secret::new(value("k e y")) }),
            retries: Some(2),
            redispatch: true,
            retry_on: vec![RetryOn::ConnFailure, RetryOn::Status(503)],
            http_reuse: Some(HttpReuse::Safe),
            maxqueue: Some(100),
            queue_timeout: Some(Duration::from_secs(5)),
            errors: vec![ErrorBody {
                status: ErrorStatus::UNAVAILABLE,
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
    let rendered = render(&config);
    assert!(rendered.shown().contains("\n    dynamic-cookie-key ***\n"));
    assert!(!format!("{config:?} {rendered:?}").contains("k e y"), "no secret is shown");
    assert_eq!(
        section(&rendered, "backend app"),
        [
            "balance hdr(X-Node)",
            "hash-type consistent",
            "option httpchk",
            "http-check send meth GET uri /ping ver HTTP/1.1 hdr host a.test",
            "http-check expect status 200-299",
            "http-request set-header host in.test",
            "cookie SRV insert indirect nocache httponly dynamic",
            "dynamic-cookie-key 'k e y'",
            "http-reuse safe",
            "option redispatch 1",
            "retry-on conn-failure 503",
            "retries 2",
            "timeout queue 5s",
            "http-request deny deny_status 503 if { queue ge 100 }",
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
            "frontend[1]: bind: give at least one address",
            "frontend[2]: a backend has the name app too",
            "frontend[2].bind[0]: the frontend web listens at :80 too",
            "frontend[2].rules[0]: a frontend of mode tcp has only src, sni, backend and deny",
            "backend[1]: there are two of the name app",
        ]
    );
}

fn route(by: RouteBy, backend: Option<&str>, misdirected: Option<u16>) -> Route {
    Route {
        by,
        map: value("/etc/haproxy/maps/node-master.map"),
        backend: backend.map(value),
        misdirected: misdirected.map(|status| ErrorStatus::try_from(status).unwrap()),
        shared: Vec::new(),
        open: Vec::new(),
    }
}

#[test]
fn a_route_by_header_sends_each_node_to_its_master_and_finds_the_owner_by_redispatch() {
    let by = RouteBy::Header(value("X-Node-Name"));
    let route = Route { shared: vec![value("/ca/")], ..route(by, Some("app"), Some(404)) };
    let gateway = Frontend {
        route: Some(route),
        default_backend: None,
        forwarded_for: false,
        ..frontend("gateway", ":80", Vec::new())
    };
    let config = Config {
        frontends: vec![gateway],
        backends: vec![Backend { maxqueue: Some(300), ..backend("app") }],
        ..Config::default()
    };
    assert_eq!(config.problems(), []);
    let rendered = render(&config);
    let frontend = section(&rendered, "frontend gateway");
    assert_eq!(
        frontend[2..],
        [
            "option idle-close-on-response",
            "option http-restrict-req-hdr-names reject",
            "http-request set-var(txn.node) req.hdr(X-Node-Name),lower",
            "http-request set-var(txn.master) var(txn.node),map_str(/etc/haproxy/maps/node-master.map)",
            "acl one_node_named req.hdr_cnt(X-Node-Name) eq 1",
            "acl node_is_a_name var(txn.node) -m len 1:255",
            r#"http-request return status 400 content-type text/plain string 'Name one node, and only one, in the header X-Node-Name (at most 255 bytes).'"\n" if !one_node_named or !node_is_a_name"#,
            "acl shared_path path_beg -- /ca/",
            "http-request set-var(txn.shared) bool(true) if shared_path",
            "default_backend app",
        ]
    );
    let backend = section(&rendered, "backend app");
    for line in [
        "balance roundrobin",
        "retry-on conn-failure 404",
        "retries 28",
        "acl learned var(txn.node),in_table(app)",
        "use-server %[var(txn.master)] if mapped !learned",
        "stick store-response var(txn.node) if answered learned !shared",
    ] {
        assert!(backend.iter().any(|it| it == line), "{line:?} is not in {backend:#?}");
    }
    let queue = backend.iter().find(|line| line.contains("srv_queue")).unwrap();
    assert!(queue.ends_with("if mapped !learned { var(txn.master),srv_queue ge 300 }"), "{queue}");
}

#[test]
fn a_route_to_a_backend_for_each_master_answers_for_masters_that_have_none() {
    let by = RouteBy::Header(value("X-Node-Name"));
    let gateway = Frontend {
        route: Some(route(by, None, None)),
        default_backend: None,
        ..frontend("gateway", ":80", Vec::new())
    };
    let config = Config { frontends: vec![gateway], ..Config::default() };
    assert_eq!(config.problems(), []);
    let rendered = render(&config);
    let frontend = section(&rendered, "frontend gateway");
    assert!(frontend.ends_with(&[
        "use_backend %[var(txn.master)]".to_owned(),
        "default_backend mapsmith-no-backend".to_owned()
    ]));
    assert!(rendered.text().contains("\nbackend mapsmith-no-backend\n"));
}

#[test]
fn a_route_that_can_not_work_is_named_with_its_key() {
    let gateway = |route: Route| Frontend {
        route: Some(route),
        default_backend: None,
        ..frontend("gateway", ":80", Vec::new())
    };
    let by = || RouteBy::Header(value("X-Node-Name"));
    for (route, part) in [
        (route(by(), Some("nowhere"), None), "route.backend: there is no backend nowhere"),
        (route(by(), None, Some(404)), "route: misdirected: needs `backend`"),
        (route(by(), Some("app"), Some(503)), "route: misdirected: must be 404 or 421"),
        (
            route(RouteBy::ClientCertificate, Some("app"), None),
            "route: by: each bind needs `certificate` and `client_ca`",
        ),
    ] {
        let config = Config {
            frontends: vec![gateway(route)],
            backends: vec![backend("app")],
            ..Config::default()
        };
        let problems: Vec<_> = config.problems().iter().map(ToString::to_string).collect();
        assert!(problems[0].contains(part), "{part:?} is not in {problems:?}");
    }
}

#[test]
fn a_passed_on_handshake_is_waited_for_before_its_name_decides() {
    let rules =
        vec![rule(vec![Matcher::Sni(vec![value("a.test")])], Action::Backend(value("app")))];
    let config = Config {
        frontends: vec![Frontend { mode: Mode::Tcp, ..frontend("web", ":443", rules) }],
        backends: vec![Backend { mode: Mode::Tcp, ..backend("app") }],
        ..Config::default()
    };
    assert_eq!(
        section(&render(&config), "frontend web"),
        [
            "mode tcp",
            "bind :443",
            "option tcplog",
            "tcp-request inspect-delay 5s",
            "acl rule0_all0 req.ssl_sni -i -m str -- a.test",
            "tcp-request content accept if { req.ssl_hello_type 1 }",
            "use_backend app if rule0_all0",
            "default_backend app",
        ]
    );
}

#[test]
fn native_request_lines_come_before_the_lines_that_choose_a_backend() {
    let rules = vec![rule(Vec::new(), Action::Backend(value("app")))];
    let config = Config {
        frontends: vec![Frontend {
            natives: vec![value("http-request set-var(txn.a) int(1)")],
            ..frontend("web", ":80", rules)
        }],
        backends: vec![backend("app")],
        ..Config::default()
    };
    let lines = section(&render(&config), "frontend web");
    assert_eq!(
        lines[lines.len() - 3..],
        ["http-request set-var(txn.a) int(1)", "use_backend app", "default_backend app"]
    );
}

#[test]
fn what_haproxy_would_take_for_something_else_is_named_with_its_place() {
    let nothing = Matcher::Host(Vec::new());
    let deny = || Action::Deny(ErrorStatus::FORBIDDEN);
    let any = Condition { any: vec![Vec::new()], ..Condition::default() };
    let rules = vec![rule(vec![nothing], deny()), Rule { condition: any, action: deny() }];
    let config = Config {
        process: Process {
            socket: Some(value(&format!("/{}", "a".repeat(97)))),
            timeouts: Timeouts { client: Duration::from_micros(999), ..Timeouts::default() },
            server_states: Some(value("/states")),
            global: vec![value("server-state-file /mine")],
            ..Process::default()
        },
        frontends: vec![frontend("web", ":80", rules)],
        backends: vec![backend("app")],
        ..Config::default()
    };
    let problems: Vec<_> = config.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "haproxy.socket: is longer than 97 bytes",
            "haproxy.timeouts.client: must be at least 1ms and at most 24 days, HAProxy's limits",
            "haproxy.global[0]: Mapsmith gives HAProxy a file of its own; remove the line",
            "frontend[0].rules[0]: a condition without values never matches",
            "frontend[0].rules[1]: any: an empty table matches everything",
        ]
    );
}

#[test]
fn a_rule_that_fits_has_no_line_of_more_words_than_haproxy_takes() {
    let group = |at: usize| vec![Matcher::Host(vec![value(&format!("{at}.test"))]); 2];
    let chosen = |groups: usize| Rule {
        condition: Condition { any: (0..groups).map(group).collect(), ..Condition::default() },
        action: Action::Backend(value("app")),
    };
    let rewrites = rule(Vec::new(), Action::SetPath(value("/x")));
    for groups in 0..30 {
        let rules = vec![chosen(groups), rewrites.clone()];
        let fitting = rules.iter().all(fits);
        let config = Config {
            frontends: vec![frontend("web", ":80", rules)],
            backends: vec![backend("app")],
            ..Config::default()
        };
        let rendered = render(&config);
        let longest = rendered.text().lines().map(|line| line.trim().split(' ').count()).max();
        assert!(!fitting || longest <= Some(words::MAX_WORDS), "{groups}: {longest:?}");
        assert!(fitting || groups > 4, "{groups} do not fit");
    }
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
            ..Config::default()
        };
        let rendered = render(&config);
        let read: Vec<Vec<String>> = rendered.text().lines().map(|line| words(line).unwrap()).collect();
        let doubled = |at: usize| texts[at].replace('%', "%%");
        let expected = [
            vec!["acl".to_owned(), "rule0_all0".to_owned(), "path".to_owned(), "-m".to_owned(), "reg".to_owned(), "--".to_owned(), texts[0].clone(), texts[1].clone()],
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

#[test]
fn who_comes_by_tls_is_not_redirected_there_and_what_is_never_reached_is_told() {
    let redirect = |to| Action::Redirect { to, status: RedirectStatus::default() };
    let to_https = rule(Vec::new(), redirect(Redirect::Https));
    let to_other = rule(Vec::new(), redirect(Redirect::Location(value("https://a.example/"))));
    let rules = vec![to_https.clone(), to_other, to_https];
    let config = Config { frontends: vec![frontend("web", ":80", rules)], ..Config::default() };
    let text = render(&config);
    assert!(text.text().contains("redirect scheme https code 302 if !{ ssl_fc }\n"), "{text:?}");
    let problems: Vec<_> = config.problems().iter().map(ToString::to_string).collect();
    let told = "frontend[0].rules[2]: is never reached: rules[1] answers every request";
    assert_eq!(problems[0], told);
}
