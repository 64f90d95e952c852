//! Backends that are drawn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mapsmith_core::config::values::*;
use mapsmith_core::config::*;
use mapsmith_core::server::{Server, ServerAddress, ServerOptions};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{header, natives, own_status, regex, text, time, value, values};

fn server() -> impl Strategy<Value = Server> {
    let options: &[&[&str]] = &[
        &[],
        &["check"],
        &["check", "inter 2s", "rise 1", "fall 5"],
        &["maxconn 10", "maxqueue 3"],
        &["ssl", "verify none", "send-proxy-v2"],
    ];
    let ip = prop_oneof![
        any::<u32>().prop_map(|ip| IpAddr::from(Ipv4Addr::from(ip | 1))),
        any::<u128>().prop_map(|ip| IpAddr::from(Ipv6Addr::from(ip | 1))),
    ];
    (ip, 1..u16::MAX, option::of(0..=256u16), any::<bool>(), select(options)).prop_map(
        |(ip, port, weight, backup, options)| {
            let options: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
            Server {
                name: format!("{ip}-{port}").replace("::", "-"),
                address: ServerAddress { ip, port },
                weight,
                backup,
                options: ServerOptions::parse(&options).expect("options of a server"),
            }
        },
    )
}

fn balance(mode: Mode) -> BoxedStrategy<Balance> {
    let of_both =
        select(&[Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::Source][..]);
    match mode {
        Mode::Http => {
            let by_header = header().prop_map(Balance::Header);
            prop_oneof![4 => of_both, 1 => Just(Balance::Uri), 1 => by_header].boxed()
        }
        Mode::Tcp => of_both.boxed(),
    }
}

fn error_body() -> impl Strategy<Value = ErrorBody> {
    (own_status(), option::of(text()), text(), option::of(any::<u32>())).prop_map(
        |(status, content_type, body, retry_after)| ErrorBody {
            status,
            content_type,
            body,
            retry_after,
        },
    )
}

fn check() -> impl Strategy<Value = HttpCheck> {
    let methods = values::<Method>(&["GET", "HEAD", "OPTIONS"]);
    let versions = select(&[HttpVersion::Http10, HttpVersion::Http11][..]);
    let expect = prop_oneof![
        values(&["200", "200-399", "200,204,300-399"]).prop_map(Expect::Status),
        text().prop_map(Expect::Body),
        regex().prop_map(Expect::BodyRegex),
    ];
    (option::of(methods), text(), option::of(versions), option::of(text()), option::of(expect))
        .prop_map(|(method, uri, version, host, expect)| {
            let version =
                version.filter(|version| host.is_some() || *version == HttpVersion::Http10);
            HttpCheck { method, uri, version, host, expect }
        })
}

/// What only backends of mode http have.
#[derive(Debug, Clone)]
struct OfHttp {
    host: Option<Text>,
    cookie: Option<Cookie>,
    errors: Vec<ErrorBody>,
    retry_on: Vec<RetryOn>,
    http_reuse: Option<HttpReuse>,
}

fn of_http() -> impl Strategy<Value = OfHttp> {
    let cookie = (header(), text()).prop_map(|(name, key)| Cookie { name, key: Secret::new(key) });
    let retry_on = subsequence(&["conn-failure", "empty-response", "404", "503"][..], 0..=4);
    let reuse = select(&[HttpReuse::Never, HttpReuse::Safe][..]);
    (option::of(text()), option::of(cookie), vec(error_body(), 0..3), retry_on, option::of(reuse))
        .prop_map(|(host, cookie, mut errors, retry_on, http_reuse)| {
            errors.sort_by_key(|error| error.status);
            errors.dedup_by_key(|error| error.status);
            let retry_on = retry_on.into_iter().map(value).collect();
            OfHttp { host, cookie, errors, retry_on, http_reuse }
        })
}

pub(super) fn backend(mode: Mode) -> impl Strategy<Value = Backend> {
    let limits = (option::of(0..1000u16), option::of(0..1000u32), option::of(time()));
    let fields = (
        "[A-Za-z0-9_.:-]{0,20}",
        option::of(balance(mode)),
        option::of(check()),
        option::of(of_http()),
        limits,
        any::<bool>(),
        vec(server(), 0..6),
        natives(&["option abortonclose", "timeout server 10s", "fullconn 1000"]),
    );
    fields.prop_map(
        move |(name, balance, check, of_http, limits, redispatch, mut servers, natives)| {
            let (retries, maxqueue, queue_timeout) = limits;
            let of_http = of_http.filter(|_| mode == Mode::Http);
            servers.sort_by(|one, other| one.name.cmp(&other.name));
            servers.dedup_by(|one, other| one.name == other.name);
            Backend {
                name: value(&format!("b{name}")),
                mode,
                balance,
                check,
                host: of_http.as_ref().and_then(|http| http.host.clone()),
                cookie: of_http.as_ref().and_then(|http| http.cookie.clone()),
                retries,
                redispatch,
                retry_on: of_http.as_ref().map(|http| http.retry_on.clone()).unwrap_or_default(),
                http_reuse: of_http.as_ref().and_then(|http| http.http_reuse),
                maxqueue,
                queue_timeout,
                errors: of_http.map(|http| http.errors).unwrap_or_default(),
                server_options: Vec::new(),
                servers,
                disabled: Default::default(),
                natives,
            }
        },
    )
}
