//! A service's text: `{"type": "zookeeper", "port": 8080, ..}`, as ProxyMgr's `service_config` has
//! it.
//!
//! Strict: what is not understood is an error that names the key, and never left out. Keys that
//! ProxyMgr does not know mean nothing there either, but a misspelt one would change what a service
//! does.

use mapsmith_core::server::list::parse_address;
use serde_json::{Map, Value};

use super::Services;
use super::options::{self, Listen};

/// The most elements of a list.
const MOST_ELEMENTS: usize = 200;
/// The most DNS names of a service.
const MOST_NAMES: usize = 50;

/// What every service may have.
const KEYS: [&str; 4] = ["type", "port", "listen_options", "server_options"];

/// A service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub port: u16,
    pub listen: Listen,
    /// An option each.
    pub server_options: Vec<String>,
    pub watcher: Watcher,
}

/// Where its servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watcher {
    /// The children of a path each hold a server.
    ZooKeeper(Ensemble),
    /// They are named like their hosts, and have this port.
    CampanjaZk(Ensemble, u16),
    /// Host names, each with its port.
    Dns(Vec<(String, u16)>),
    /// Lines of `host:port`.
    File(std::path::PathBuf),
}

/// A path of a ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ensemble {
    /// `host:port` each, sorted.
    pub servers: Vec<String>,
    pub path: String,
}

/// Reads a service's text.
///
/// # Errors
/// What is wrong, with its key and what to do.
pub(super) fn read(text: &str, settings: &Services) -> Result<Service, String> {
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("it is JSON, but no object {\"type\": .., \"port\": ..}".to_owned()),
        Err(_) if text.trim().is_empty() => return Err("it holds nothing".to_owned()),
        Err(error) => return Err(format!("it is not JSON: {error}")),
    };
    let fields = Fields(&object);
    let port = fields.port("port")?.ok_or("port: is missing; give the port to listen on")?;
    let (watcher, own_keys) = watcher(&fields, port, settings)?;
    fields.check_keys(own_keys)?;
    let server_options = options::server_options(&fields.texts("server_options")?, settings)
        .map_err(|why| format!("server_options: {why}"))?;
    let lines = fields.texts("listen_options")?;
    let listen = options::listen_options(&lines, &server_options, settings)
        .map_err(|(index, why)| format!("listen_options[{index}]: {why}"))?;
    Ok(Service { port, listen, server_options, watcher })
}

/// Where the servers come from, and the keys that say so.
fn watcher(
    fields: &Fields<'_>,
    port: u16,
    settings: &Services,
) -> Result<(Watcher, &'static [&'static str]), String> {
    let kind = fields.text("type")?;
    Ok(match kind.to_ascii_lowercase().as_str() {
        "zookeeper" => (Watcher::ZooKeeper(ensemble(fields)?), &["path", "server"]),
        "campanjazk" => {
            let port = fields.port("remote_port")?.unwrap_or(port);
            (Watcher::CampanjaZk(ensemble(fields)?, port), &["path", "server", "remote_port"])
        }
        "dns" => (Watcher::Dns(names(fields)?), &["backends"]),
        "file" => {
            let file = settings.file(fields.text("file")?);
            (Watcher::File(file.map_err(|why| format!("file: {why}"))?), &["file"])
        }
        _ => {
            return Err(format!("type: {kind:?} is none of zookeeper, campanjazk, dns and file"));
        }
    })
}

fn ensemble(fields: &Fields<'_>) -> Result<Ensemble, String> {
    let path = fields.text("path")?;
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("path: {path:?} must begin with / and not end with it"));
    }
    let server = |text: &str| {
        // ProxyMgr's client took a server without a host for this machine's.
        let text = if text.starts_with(':') { format!("localhost{text}") } else { text.to_owned() };
        parse_address(&text, None).map(|_| text)
    };
    let servers = fields.text("server")?.split(',').map(str::trim).map(server);
    let mut servers = servers
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("server: {why}; give HOST:PORT, several of them between commas"))?;
    servers.sort_unstable();
    servers.dedup();
    Ok(Ensemble { servers, path: path.to_owned() })
}

fn names(fields: &Fields<'_>) -> Result<Vec<(String, u16)>, String> {
    let hint = "backends: must be a list of {\"name\": HOST, \"port\": NUMBER}";
    let Some(Value::Array(rows)) = fields.0.get("backends") else { return Err(hint.to_owned()) };
    if rows.is_empty() || rows.len() > MOST_NAMES {
        return Err(format!("backends: must have 1 to {MOST_NAMES} names"));
    }
    let row = |(index, row): (usize, &Value)| {
        let of_row = |why: String| format!("backends[{index}].{why}");
        let Value::Object(object) = row else { return Err(hint.to_owned()) };
        let fields = Fields(object);
        let name = fields.text("name").map_err(of_row)?;
        let port = fields.port("port").map_err(of_row)?;
        let port = port.ok_or_else(|| of_row("port: is missing".to_owned()))?;
        match object.keys().find(|key| !matches!(key.as_str(), "name" | "port")) {
            Some(key) => Err(format!("backends[{index}]: there is no key {key:?}")),
            None => Ok((name.to_owned(), port)),
        }
    };
    rows.iter().enumerate().map(row).collect()
}

/// An object's values by their keys; `null` is none.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn field(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<&'a str, String> {
        match self.field(key) {
            None => Err(format!("{key}: is missing")),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{key}: is not a string")),
        }
    }

    fn port(&self, key: &str) -> Result<Option<u16>, String> {
        let Some(value) = self.field(key) else { return Ok(None) };
        let port = value.as_u64().and_then(|number| u16::try_from(number).ok());
        match port.filter(|port| *port > 0) {
            Some(port) => Ok(Some(port)),
            None => Err(format!("{key}: {value} is not a whole number from 1 to 65535")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        let values = match self.field(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) if values.len() <= MOST_ELEMENTS => values,
            Some(Value::Array(_)) => return Err(format!("{key}: at most {MOST_ELEMENTS} texts")),
            Some(_) => return Err(format!("{key}: is not a list of strings")),
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts: Option<Vec<_>> = values.iter().map(text).collect();
        texts.ok_or_else(|| format!("{key}: is not a list of strings"))
    }

    fn check_keys(&self, own: &[&str]) -> Result<(), String> {
        match self.0.keys().find(|key| !KEYS.iter().chain(own).any(|known| known == key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "{key:?}: a service of this type has no such key, only {} and {}",
                KEYS.join(", "),
                own.join(", ")
            )),
        }
    }
}
