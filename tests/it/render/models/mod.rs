//! Configurations that are drawn: valid ones, with every matcher, action and setting, and in every
//! text what ends a word, begins a comment, or stands for something else where it is not quoted.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mapsmith_core::config::rules::*;
use mapsmith_core::config::values::*;
use mapsmith_core::config::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::files::Files;
use backend::backend;
use process::process;

mod backend;
mod process;

/// What HAProxy's tokenizer, its expressions or its log formats read as something else.
const NASTY: [&str; 40] = [
    "'",
    "\"",
    "\\",
    "\\\\",
    "\\n",
    "\\x41",
    "\\'",
    "$",
    "$HOME",
    "${HOME}",
    "\"$HOME\"",
    "%",
    "%%",
    "%[",
    "%[src]",
    "%ci",
    "%{+Q}o",
    "%1",
    "#",
    " # ",
    "{}",
    "{ path / }",
    "[",
    "]",
    "(",
    ")",
    " ",
    "  ",
    ",",
    ";",
    "|",
    "`",
    "!",
    "--",
    " if TRUE",
    " unless ",
    "-f /etc/passwd",
    "é",
    "日本",
    "\u{1f600}",
];

pub fn value<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: Debug,
{
    T::try_from(text.to_owned()).unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

fn values<T: TryFrom<String> + Clone + Debug + 'static>(
    texts: &'static [&'static str],
) -> impl Strategy<Value = T> + Clone
where
    T::Error: Debug,
{
    select(texts).prop_map(value)
}

/// Some of these lines, each once.
fn natives(lines: &'static [&'static str]) -> impl Strategy<Value = Vec<Native>> {
    subsequence(lines, 0..=lines.len())
        .prop_map(|lines| lines.into_iter().map(value::<Native>).collect())
}

/// Any text at all, mostly a nasty one.
pub fn text() -> impl Strategy<Value = Text> + Clone {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9/._-]{1,8}",
        8 => select(&NASTY[..]).prop_map(str::to_owned),
        1 => "[^\\p{Cc}]{1,8}",
    ];
    vec(piece, 1..6).prop_map(|pieces| value(&pieces.concat()))
}

/// An expression that finds a text as it stands.
fn regex() -> impl Strategy<Value = Text> + Clone {
    text().prop_map(|text| {
        let mut expression = String::from("^(/.*)?");
        for character in text.as_str().chars() {
            if character.is_ascii() && !character.is_ascii_alphanumeric() {
                expression.push('\\');
            }
            expression.push(character);
        }
        value(&(expression + "[a-z]{1,3}$"))
    })
}

fn header() -> impl Strategy<Value = HeaderName> + Clone {
    "[A-Za-z][A-Za-z0-9_.-]{0,20}".prop_map(|name| value(&name))
}

fn network() -> impl Strategy<Value = Network> + Clone {
    let v4 = (any::<u32>(), option::of(0..=32u8))
        .prop_map(|(address, bits)| (IpAddr::from(Ipv4Addr::from(address)), bits));
    let v6 = (any::<u128>(), option::of(0..=128u8))
        .prop_map(|(address, bits)| (IpAddr::from(Ipv6Addr::from(address)), bits));
    prop_oneof![v4, v6].prop_map(|(address, bits)| {
        let bits = bits.map(|bits| format!("/{bits}")).unwrap_or_default();
        value(&format!("{address}{bits}"))
    })
}

/// Mostly a few; at times more than fit in one line.
fn some<T: Debug>(one: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![8 => vec(one.clone(), 1..4), 1 => vec(one, 30..70)]
}

fn time() -> impl Strategy<Value = Duration> + Clone {
    prop_oneof![
        (1..100_000u64).prop_map(Duration::from_millis),
        (1..1000u64).prop_map(Duration::from_secs),
        Just(Duration::from_millis(i32::MAX as u64)),
    ]
}

fn how() -> impl Strategy<Value = How> + Clone {
    select(&[How::Exact, How::Begins, How::Ends][..])
}

/// A matcher that frontends of either mode have.
fn tcp_matcher() -> impl Strategy<Value = Matcher> + Clone {
    prop_oneof![
        vec(network(), 1..40).prop_map(Matcher::Source),
        vec(text(), 1..4).prop_map(Matcher::Sni),
    ]
}

fn http_matcher(files: &Files) -> impl Strategy<Value = Matcher> + Clone + use<> {
    let header_how = select(&[HeaderHow::Exact, HeaderHow::Begins, HeaderHow::Domain][..]);
    let methods = values::<Method>(&["GET", "POST", "DELETE", "PROPFIND", "X"]);
    let key =
        prop_oneof![header().prop_map(MapKey::Header), Just(MapKey::Path), Just(MapKey::Host)];
    let (map, addresses) = (files.map.clone(), files.address_map.clone());
    prop_oneof![
        2 => tcp_matcher(),
        1 => (how(), some(text())).prop_map(|(how, values)| Matcher::Path(how, values)),
        1 => (how(), some(text())).prop_map(|(how, values)| Matcher::Url(how, values)),
        1 => vec(regex(), 1..4).prop_map(|values| Matcher::Path(How::Regex, values)),
        1 => vec(regex(), 1..4).prop_map(|values| Matcher::Url(How::Regex, values)),
        1 => (header(), header_how, some(text()))
            .prop_map(|(name, how, values)| Matcher::Header(name, how, values)),
        1 => (header(), vec(regex(), 1..4))
            .prop_map(|(name, values)| Matcher::Header(name, HeaderHow::Regex, values)),
        1 => some(text()).prop_map(Matcher::Host),
        1 => vec(methods, 1..4).prop_map(Matcher::Method),
        1 => key.prop_map(move |key| Matcher::Map(key, map.clone())),
        1 => Just(Matcher::Map(MapKey::Source, addresses)),
    ]
    .boxed()
}

fn condition(matcher: BoxedStrategy<Matcher>) -> impl Strategy<Value = Condition> {
    let group = vec(matcher.clone(), 1..3);
    (vec(matcher.clone(), 0..3), vec(matcher, 0..3), vec(group, 0..3))
        .prop_map(|(all, none, any)| Condition { all, none, any })
}

/// A backend by its place among those of the frontend's mode; [`assemble`] gives it its name.
fn backend_name() -> impl Strategy<Value = Name> + Clone {
    values(&["0", "1", "2", "3"])
}

/// One of the statuses that HAProxy itself answers with.
fn own_status() -> impl Strategy<Value = ErrorStatus> + Clone {
    select(&[400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 502, 503][..])
        .prop_map(|code: u16| ErrorStatus::try_from(code).expect("a status"))
}

fn http_action() -> impl Strategy<Value = Action> {
    let to = prop_oneof![
        text().prop_map(Redirect::Location),
        text().prop_map(Redirect::Prefix),
        Just(Redirect::Https),
    ];
    let redirect_status = select(
        &[
            RedirectStatus::Moved,
            RedirectStatus::Found,
            RedirectStatus::SeeOther,
            RedirectStatus::Temporary,
            RedirectStatus::Permanent,
        ][..],
    );
    let answer = (200..600u16, option::of(text()), option::of(text())).prop_map(
        |(code, content_type, body)| {
            let body = body.filter(|_| !matches!(code, 204 | 304));
            Action::Return { status: Status::try_from(code).expect("a status"), content_type, body }
        },
    );
    prop_oneof![
        3 => backend_name().prop_map(Action::Backend),
        1 => (to, redirect_status).prop_map(|(to, status)| Action::Redirect { to, status }),
        1 => own_status().prop_map(Action::Deny),
        1 => answer,
        1 => (header(), text()).prop_map(|(name, text)| Action::SetHeader(name, text)),
        1 => header().prop_map(Action::DelHeader),
        1 => path().prop_map(Action::SetPath),
        1 => (regex(), text()).prop_map(|(found, path)| Action::ReplacePath(found, path)),
    ]
}

fn tcp_action() -> impl Strategy<Value = Action> {
    prop_oneof![backend_name().prop_map(Action::Backend), own_status().prop_map(Action::Deny)]
}

fn rules(files: &Files, mode: Mode) -> BoxedStrategy<Vec<Rule>> {
    let (matcher, action) = match mode {
        Mode::Http => (http_matcher(files).boxed(), http_action().boxed()),
        Mode::Tcp => (tcp_matcher().boxed(), tcp_action().boxed()),
    };
    let rule = (condition(matcher), action)
        .prop_map(|(condition, action)| Rule { condition, action })
        .prop_filter("more conditions than a line holds", mapsmith_core::render::fits);
    let reached = |mut rules: Vec<Rule>| {
        let last = rules.iter().position(Rule::answers_all);
        rules.truncate(last.map_or(rules.len(), |last| last + 1));
        rules
    };
    vec(rule, 0..6).prop_map(reached).boxed()
}

/// A bind without its port or path, which [`assemble`] gives it.
fn bind(files: &Files) -> impl Strategy<Value = Bind> + use<> {
    let address = values(&["127.0.0.1:1", ":1", "*:1", "[::1]:1", "unix@/1"]);
    (address, option::of(tls(files)), any::<bool>()).prop_map(|(address, tls, accept_proxy)| Bind {
        address,
        tls,
        accept_proxy,
    })
}

fn tls(files: &Files) -> impl Strategy<Value = BindTls> + use<> {
    let certificates = vec(Just(files.certificate.clone()), 1..3);
    let alpn = subsequence(&["h2", "http/1.1"][..], 0..=2);
    let (ca, verify) = (files.ca.clone(), select(&[Verify::Required, Verify::Optional][..]));
    let clients =
        option::of(verify).prop_map(move |verify| verify.map(|verify| clients_of(&ca, verify)));
    let (versions, strict_sni) = (&[TlsVersion::V1_2, TlsVersion::V1_3][..], any::<bool>());
    let names = (strict_sni, option::of(select(versions)));
    (certificates, alpn, names, clients).prop_map(|(certificates, alpn, names, clients)| BindTls {
        certificates,
        alpn: alpn.into_iter().map(value).collect(),
        strict_sni: names.0,
        min_version: names.1,
        clients,
    })
}

fn clients_of(ca: &FilePath, verify: Verify) -> ClientCertificates {
    ClientCertificates { ca: ca.clone(), crl: None, verify }
}

/// A route by a header; [`assemble`] gives it the backend that it names by its place.
fn route(files: &Files) -> impl Strategy<Value = Route> + use<> {
    let map = files.map.clone();
    let not_found = ErrorStatus::try_from(404).expect("a status");
    let to = option::of((backend_name(), option::of(Just(not_found)), vec(path(), 0..3)));
    (header(), to).prop_map(move |(name, to)| {
        let (backend, misdirected, shared) = match to {
            None => (None, None, Vec::new()),
            Some((backend, misdirected, shared)) => (Some(backend), misdirected, shared),
        };
        let (by, map) = (RouteBy::Header(name), map.clone());
        Route { by, map, backend, misdirected, shared, open: Vec::new() }
    })
}

fn path() -> impl Strategy<Value = Text> + Clone {
    text().prop_map(|text| value(&format!("/{text}")))
}

fn frontend(files: &Files, mode: Mode) -> impl Strategy<Value = Frontend> + use<> {
    let natives: &[&str] = match mode {
        Mode::Http => &[
            "option http-buffer-request",
            "capture request header X-A len 10",
            "monitor-uri '/a b'",
        ],
        Mode::Tcp => &["option tcpka", "timeout client 10s"],
    };
    let keep_alive = select(&[KeepAlive::Both, KeepAlive::Client, KeepAlive::None][..]);
    let is_http = mode == Mode::Http;
    let fields = (
        "[A-Za-z0-9_.:-]{0,20}",
        vec(bind(files), 1..4),
        option::of(1..1_000_000u32),
        (keep_alive, any::<bool>(), option::weighted(0.2, route(files))),
        rules(files, mode),
        option::of(backend_name()),
        self::natives(natives),
    );
    fields.prop_map(move |(name, binds, maxconn, of_http, rules, default_backend, natives)| {
        let (keep_alive, forwarded_for, route) = of_http;
        let route = route.filter(|_| is_http);
        // A route that has a backend sends everything there.
        let routes_all = route.as_ref().is_some_and(|route| route.backend.is_some());
        Frontend {
            name: value(&format!("f{name}")),
            mode,
            binds,
            maxconn,
            keep_alive,
            forwarded_for,
            route,
            rules,
            default_backend: default_backend.filter(|_| !routes_all),
            natives,
        }
    })
}

/// A valid configuration; what it has HAProxy open is among these files.
pub fn config(files: &Files) -> impl Strategy<Value = Config> + use<> {
    let frontends = prop_oneof![
        3 => frontend(files, Mode::Http).boxed(),
        1 => frontend(files, Mode::Tcp).boxed(),
    ];
    let backends = (vec(backend(Mode::Http), 1..3), vec(backend(Mode::Tcp), 1..3));
    (process(files), vec(frontends, 1..4), backends).prop_map(
        |(process, frontends, (http, tcp))| {
            let backends = [http, tcp].concat();
            assemble(Config { process, frontends, backends, ..Config::default() })
        },
    )
}

/// Gives frontends, backends and addresses what no two may share, and rules their backends.
fn assemble(mut config: Config) -> Config {
    for (index, backend) in config.backends.iter_mut().enumerate() {
        backend.name = value(&format!("{}{index}", backend.name));
    }
    let named = |mode: Mode, name: &Name| {
        let place: usize = name.as_str().parse().expect("a place");
        let of_mode: Vec<_> = config.backends.iter().filter(|one| one.mode == mode).collect();
        of_mode[place % of_mode.len()].name.clone()
    };
    let (mut port, mut added) = (10_000, Vec::new());
    for (index, frontend) in config.frontends.iter_mut().enumerate() {
        frontend.name = value(&format!("{}{index}", frontend.name));
        for bind in &mut frontend.binds {
            port += 1;
            let address = bind.address.as_str().trim_end_matches('1');
            bind.address = value(&format!("{address}{port}"));
        }
        for rule in &mut frontend.rules {
            if let Action::Backend(name) = &mut rule.action {
                *name = named(frontend.mode, name);
            }
        }
        let is_idle = frontend.rules.is_empty() && frontend.natives.is_empty();
        if is_idle && frontend.route.is_none() {
            frontend.default_backend.get_or_insert(value("0"));
        }
        // Two routes to one backend would have to be alike.
        let routed = frontend.route.as_mut().and_then(|route| route.backend.as_mut());
        if let Some(name) = routed {
            *name = value(&format!("routed{index}"));
            let of_http = config.backends.iter().find(|backend| backend.mode == Mode::Http);
            let backend = of_http.expect("there is one").clone();
            added.push(Backend { name: name.clone(), ..backend });
        }
        if let Some(name) = &mut frontend.default_backend {
            *name = named(frontend.mode, name);
        }
    }
    config.backends.extend(added);
    config
}
