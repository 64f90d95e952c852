//! What holds of every rendered text in a real HAProxy: it is taken, and what a setting says
//! arrives as it was said.

use std::net::SocketAddr;

use mapsmith_core::config::rules::*;
use mapsmith_core::config::values::{ErrorStatus, Status, Text};
use mapsmith_core::config::*;
use mapsmith_core::render::render;
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestError, TestRunner};

use super::echo::Echo;
use super::files::Files;
use super::models::{self, value};
use super::running::{Reply, Running, ask, verdict};
use crate::support::free_port;
use crate::support::haproxy::{Binary, installed};
use crate::support::scene::oldest_and_newest;

#[test]
fn every_haproxy_takes_every_valid_configuration_without_a_word() {
    let files = Files::create();
    for binary in installed() {
        let property = |config: Config| {
            prop_assert_eq!(config.problems(), []);
            let rendered = render(&config);
            let (code, said) = verdict(binary, files.folder(), rendered.text());
            // Where nothing is logged a format of logs is of no use, and no harm.
            let mut lines = said.lines().filter(|line| !line.contains("log format ignored"));
            let is_silent = !lines.any(|line| line.starts_with("[WARNING]"));
            prop_assert!(code == 0 && is_silent, "{}\n{}: {}", rendered.text(), code, said);
            Ok(())
        };
        let cases = Cases { cases: 40, max_shrink_iters: 60, ..Cases::default() };
        TestRunner::new(cases).run(&models::config(&files), property).unwrap_or_else(|failure| {
            match failure {
                // It has the whole text, which says more than the drawn value does.
                TestError::Fail(reason, _) => panic!("HAProxy {:?}: {reason}", binary.version),
                TestError::Abort(reason) => panic!("{reason}"),
            }
        });
    }
}

/// What HAProxy does not trim or split by itself.
fn whole_text() -> impl Strategy<Value = Text> {
    let is_whole = |text: &Text| text.as_str().trim_matches(' ') == text.as_str();
    models::text().prop_filter("it begins or ends with a space", is_whole)
}

fn condition(all: Vec<Matcher>) -> Condition {
    Condition { all, ..Condition::default() }
}

fn at_path(path: &str, action: Action) -> Rule {
    let matcher = Matcher::Path(How::Exact, vec![value(path)]);
    Rule { condition: condition(vec![matcher]), action }
}

fn answer(content_type: Text, body: Text) -> Action {
    let status = Status::try_from(200).expect("a status");
    Action::Return { status, content_type: Some(content_type), body: Some(body) }
}

/// The rules that show a text to clients and servers; `at` is its number.
fn rules_of(at: usize, text: &Text) -> Vec<Rule> {
    let redirect = |to| Action::Redirect { to, status: RedirectStatus::Found };
    let header = Matcher::Header(value("X-Match"), HeaderHow::Exact, vec![text.clone()]);
    let matched = answer(value("text/plain"), value(&format!("match {at}")));
    let backend = |name: &str| Action::Backend(value(&format!("{name}{at}")));
    vec![
        Rule { condition: condition(vec![header]), action: matched },
        at_path(&format!("/return/{at}"), answer(text.clone(), text.clone())),
        at_path(&format!("/location/{at}"), redirect(Redirect::Location(text.clone()))),
        at_path(&format!("/prefix/{at}"), redirect(Redirect::Prefix(text.clone()))),
        at_path(&format!("/host/{at}"), backend("host")),
        at_path(&format!("/error/{at}"), backend("error")),
        at_path(&format!("/header/{at}"), Action::SetHeader(value("X-Set"), text.clone())),
        at_path(&format!("/path/{at}"), Action::SetPath(value(&format!("/x{text}")))),
    ]
}

fn backend(name: &str, server: Option<SocketAddr>) -> Backend {
    let server = server.map(|address| Server {
        name: "echo".to_owned(),
        address: ServerAddress { ip: address.ip(), port: address.port() },
        weight: None,
        backup: false,
        options: ServerOptions::default(),
    });
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
        servers: server.into_iter().collect(),
        disabled: Default::default(),
        natives: Vec::new(),
    }
}

fn config_of(address: SocketAddr, texts: &[Text], echo: SocketAddr) -> Config {
    let numbered = || texts.iter().enumerate();
    let bind = Bind { address: value(&address.to_string()), tls: None, accept_proxy: false };
    let frontend = Frontend {
        name: value("web"),
        mode: Mode::Http,
        binds: vec![bind],
        maxconn: None,
        keep_alive: KeepAlive::Both,
        forwarded_for: true,
        route: None,
        rules: numbered().flat_map(|(at, text)| rules_of(at, text)).collect(),
        default_backend: Some(value("echo")),
        natives: Vec::new(),
    };
    let hosts = numbered().map(|(at, text)| Backend {
        host: Some(text.clone()),
        ..backend(&format!("host{at}"), Some(echo))
    });
    let errors = numbered().map(|(at, text)| {
        let error = ErrorBody {
            status: ErrorStatus::UNAVAILABLE,
            content_type: Some(text.clone()),
            body: text.clone(),
            retry_after: Some(7),
        };
        Backend { errors: vec![error], ..backend(&format!("error{at}"), None) }
    });
    let backends = hosts.chain(errors).chain([backend("echo", Some(echo))]);
    Config { frontends: vec![frontend], backends: backends.collect(), ..Config::default() }
}

/// A HAProxy with this configuration, at a port of its own.
fn run(
    binary: &Binary,
    files: &Files,
    config: impl Fn(SocketAddr) -> Config,
) -> (SocketAddr, Running) {
    let mut attempts = (0..10).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
    attempts
        .find_map(|address| {
            let rendered = render(&config(address));
            let running = Running::start(binary, files.folder(), rendered.text(), address)?;
            Some((address, running))
        })
        .expect("a free port")
}

/// A header of the request that arrived at the server.
fn sent(reply: &Reply, name: &str) -> Option<String> {
    reply.body.split("\r\n").find_map(|line| {
        let (header, value) = line.split_once(": ")?;
        header.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

#[test]
fn what_a_setting_says_arrives_byte_for_byte() {
    let (files, echo) = (Files::create(), Echo::start());
    for binary in oldest_and_newest() {
        let property = |texts: Vec<Text>| {
            let (address, _haproxy) =
                run(binary, &files, |address| config_of(address, &texts, echo.address()));
            for (at, text) in texts.iter().enumerate() {
                let text = text.as_str();
                let some = |text: &str| Some(text.to_owned());
                let get = |path: &str| ask(address, &format!("GET /{path}/{at}"), &[]);
                let returned = get("return");
                prop_assert_eq!((returned.status, returned.body.as_str()), (200, text));
                prop_assert_eq!(returned.header("content-type"), some(text));
                prop_assert_eq!(get("location").header("location"), some(text));
                let prefixed = format!("{text}/prefix/{at}");
                prop_assert_eq!(get("prefix").header("location"), Some(prefixed));
                prop_assert_eq!(sent(&get("host"), "host"), some(text));
                let error = get("error");
                prop_assert_eq!((error.status, error.body.as_str()), (503, text));
                prop_assert_eq!(error.header("content-type"), some(text));
                prop_assert_eq!(error.header("retry-after"), some("7"));
                prop_assert_eq!(sent(&get("header"), "x-set"), some(text));
                let path = get("path").body;
                prop_assert!(path.starts_with(&format!("GET /x{text} HTTP/1.1\r\n")), "{}", path);
                // A header's value is a list, of which a matcher sees one after another.
                if !text.contains(',') {
                    let reply = ask(address, "GET /", &[("X-Match", text)]);
                    let same = |other: &Text| other.as_str().eq_ignore_ascii_case(text);
                    let first = texts.iter().position(same).expect("it is one of them");
                    prop_assert_eq!(reply.body, format!("match {first}"), "{}", text);
                }
            }
            Ok(())
        };
        let cases = Cases { cases: 2, max_shrink_iters: 50, ..Cases::default() };
        TestRunner::new(cases)
            .run(&vec(whole_text(), 30), property)
            .unwrap_or_else(|failure| panic!("HAProxy {:?}: {failure}", binary.version));
    }
}
