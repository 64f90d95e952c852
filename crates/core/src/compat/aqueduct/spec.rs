//! What Aqueduct's words come to here: the keys of a `[[frontend]]` or `[[backend]]`. What HAProxy
//! alone can judge goes to it as a native line, as it was written.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::body::INTERVAL;
use super::rules::{self, check_backend};
use super::{Backend, BackendType, Frontend, Health, KeepAlive, Mode, Refusal};
use crate::config::Native;
use crate::config::natives::NativeError;
use crate::config::values::BindAddress;
use crate::objects::Spec;
use crate::server::MOST_SERVERS;

/// What a frontend is here.
///
/// # Errors
/// It can be none.
pub fn frontend(frontend: &Frontend) -> Result<Spec, Refusal> {
    let Frontend { bind, backend, mode, keepalive, rules, natives } = frontend;
    check_backend("backend", backend)?;
    let mut spec = Spec::new();
    let mut lines = Vec::new();
    let addresses: Vec<&str> = bind.split(',').map(str::trim).collect();
    let is_plain = |address: &&str| BindAddress::try_from((*address).to_owned()).is_ok();
    match addresses.iter().all(is_plain) {
        true => spec.insert("bind".to_owned(), addresses.into()),
        false => {
            // With options, say.
            lines.push(format!("bind {bind}"));
            spec.insert("bind".to_owned(), json!([]))
        }
    };
    if *mode == Mode::Tcp {
        spec.insert("mode".to_owned(), "tcp".into());
    } else {
        let keep_alive = match keepalive {
            KeepAlive::Close => Some("none"),
            KeepAlive::ServerClose => Some("client"),
            KeepAlive::Default => (!rules.is_empty()).then_some("client"),
        };
        if let Some(keep_alive) = keep_alive {
            spec.insert("keep_alive".to_owned(), keep_alive.into());
        }
    }
    spec.insert("forwarded_for".to_owned(), false.into());
    spec.insert("default_backend".to_owned(), backend.clone().into());
    lines.extend(rules::lines(rules)?);
    lines.extend(natives.iter().cloned());
    put_natives(&mut spec, lines)?;
    Ok(spec)
}

/// What a backend of this key is here; `registrations` is the source of members that register.
///
/// # Errors
/// It can be none.
pub fn backend(key: &str, backend: &Backend, registrations: &str) -> Result<Spec, Refusal> {
    let Backend { kind, balance, host, mode, members, natives, health, .. } = backend;
    let is_http = *mode == Mode::Http;
    let mut spec = Spec::new();
    let mut lines = Vec::new();
    if !is_http {
        spec.insert("mode".to_owned(), "tcp".into());
    }
    match balance_of(balance) {
        Some(known) => drop(spec.insert("balance".to_owned(), known)),
        None => lines.push(format!("balance {balance}")),
    }
    let host = host.as_deref().filter(|_| is_http);
    if let Some(host) = host {
        spec.insert("host".to_owned(), host.into());
    }
    spec.insert("check".to_owned(), check_of(health.as_ref(), is_http, host));
    let servers = |servers: Vec<Value>| ("servers".to_owned(), servers.into());
    let (listing, list) = match (kind, &backend.name, &backend.version) {
        (BackendType::Static, ..) => servers(servers_of(key, members)?),
        (BackendType::Dynamic, Some(name), Some(version)) => {
            let from = json!({"source": registrations, "name": name, "version": version});
            ("from".to_owned(), from)
        }
        // Nobody registers without them.
        (BackendType::Dynamic, ..) => servers(Vec::new()),
    };
    spec.insert(listing, list);
    lines.extend(natives.iter().cloned());
    put_natives(&mut spec, lines)?;
    Ok(spec)
}

/// As HAProxy's own words have it; none where only HAProxy knows it, if anybody.
fn balance_of(balance: &str) -> Option<Value> {
    match balance {
        "roundrobin" | "leastconn" | "random" | "source" | "uri" => Some(balance.into()),
        other => {
            let header = other.strip_prefix("hdr(")?.strip_suffix(')')?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_header = !header.is_empty() && header.bytes().all(is_name);
            is_header.then(|| json!({"header": header}))
        }
    }
}

/// Every member is checked, by HTTP where there is a health check of mode http.
fn check_of(health: Option<&Health>, is_http: bool, host: Option<&str>) -> Value {
    let interval = health.map_or(INTERVAL, |health| health.interval);
    let mut check = json!({"interval": format!("{interval}ms")});
    let Some(Health { method, uri, http_version, .. }) = health.filter(|_| is_http) else {
        return check;
    };
    check["method"] = method.as_str().into();
    check["uri"] = uri.as_str().into();
    check["version"] = http_version.trim_start_matches("HTTP/").into();
    if let Some(host) = host.filter(|_| http_version == "HTTP/1.1") {
        check["host"] = host.into();
    }
    check
}

/// Of members that are the same one is enough: HAProxy takes no two servers of one name.
fn servers_of(key: &str, members: &[Value]) -> Result<Vec<Value>, Refusal> {
    if members.len() > MOST_SERVERS {
        let count = members.len();
        let text = format!("members must be at most {MOST_SERVERS} of a backend, and has {count}");
        return Err(Refusal::payload("members", text));
    }
    let (mut servers, mut known) = (Vec::new(), HashSet::new());
    for (at, member) in members.iter().enumerate() {
        let place = |field: &str| format!("members.{at}.{field}");
        let host = member.get("host").and_then(Value::as_str).filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| Refusal::payload(&place("host"), "host is required"))?;
        let port = match member.get("port") {
            Some(Value::String(port)) => port.parse::<u16>().ok(),
            Some(Value::Number(port)) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
            Some(_) => None,
            None => return Err(Refusal::payload(&place("port"), "port is required")),
        };
        let port = port.filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            Refusal::payload(&place("port"), "port must be a number from 1 to 65535")
        })?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = match bare.contains(':') {
            true => format!("[{bare}]:{port}"),
            false => format!("{bare}:{port}"),
        };
        let name = format!("{key}_{bare}:{port}");
        if known.insert(name.clone()) {
            servers.push(json!({"name": name, "address": address}));
        }
    }
    Ok(servers)
}

/// Lines that say nothing were always taken.
fn put_natives(spec: &mut Spec, lines: Vec<String>) -> Result<(), Refusal> {
    let mut natives: Vec<Value> = Vec::new();
    for line in lines {
        match Native::try_from(line.clone()) {
            Ok(native) => natives.push(native.as_str().into()),
            Err(NativeError::Empty) => {}
            Err(error) => return Err(Refusal::payload("natives", error.to_string())),
        }
    }
    if !natives.is_empty() {
        spec.insert("natives".to_owned(), natives.into());
    }
    Ok(())
}
