//! What metadata declares, as texts that each stand by themselves: a service by its listen port,
//! and each value that stands beside the portmap by its key. Pure.
//!
//! An order is not the same as nothing: `loadbalancer` with `false` closes every listener. A key
//! that is gone, or a portmap that can't be read, is no order, and what is in force stays.

use std::collections::BTreeMap;

use super::metadata::{Enabled, KEYS};
use super::service::shown;
use super::{Portmap, PortmapError, Rejected, Service};
use crate::services::{ServiceForms, ServiceTexts};

/// The key of the text that says which service comes first.
pub const ORDER: &str = "order";
/// The most rejected pieces that are named, beside those of services in force.
const MAX_NAMED: usize = 50;

/// What metadata declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Services by their listen ports; none where metadata says nothing that could be gone by.
    pub services: Option<ServiceTexts>,
    /// The values beside them, by their keys, and the order of the services.
    pub values: BTreeMap<String, Result<String, String>>,
    /// Why what is in force stays, whatever the metadata says.
    pub kept: Option<String>,
    /// Whether every listener is closed by order.
    pub closed: bool,
}

/// Whether a text of this name is a service's.
pub fn is_service(name: &str) -> bool {
    name.parse::<u16>().is_ok()
}

impl Wanted {
    /// What the keys say, where these services and values are in force. `ordered`: the order of
    /// services counts.
    pub fn new(metadata: &ServiceTexts, in_force: &ServiceForms, ordered: bool) -> Self {
        let running: ServiceForms = in_force
            .iter()
            .filter(|(name, _)| is_service(name))
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect();
        let mut values = values(metadata);
        let stay = |why: String, rejected: Vec<Rejected>| {
            if running.is_empty() {
                return Self { kept: Some(why), ..Self::default() };
            }
            let mut services = ServiceTexts::from(running.clone());
            reject(&mut services, &running, &rejected);
            let order = in_force.get(ORDER).map(|order| (ORDER.to_owned(), Ok(order.clone())));
            let values = values.clone().into_iter().chain(order).collect();
            Self { services: Some(services), values, kept: Some(why), closed: false }
        };
        match enabled(metadata) {
            Ok(true) => {}
            Ok(false) => {
                let services = Some(ServiceTexts::default());
                return Self { services, closed: true, ..Self::default() };
            }
            Err(why) => return stay(why, Vec::new()),
        }
        let text = match metadata.texts.get("portmap") {
            Some(Ok(text)) => text,
            Some(Err(why)) => return stay(format!("portmap: {why}"), Vec::new()),
            None => {
                let why = "portmap is not set; set it, or set loadbalancer to false to close all \
                    listeners";
                return stay(why.to_owned(), Vec::new());
            }
        };
        let Portmap { services, rejected } = Portmap::parse(text);
        if services.is_empty() {
            return stay(nothing_usable(&rejected), rejected);
        }
        let mut texts = ServiceTexts::default();
        let port = |service: &Service| service.listen_port.to_string();
        texts.texts.extend(services.iter().map(|one| (port(one), Ok(one.to_string()))));
        reject(&mut texts, &running, &rejected);
        let kept = keep_unknown(&mut texts, &running, &rejected);
        if ordered {
            let order: Vec<_> = services.iter().map(port).collect();
            values.insert(ORDER.to_owned(), Ok(order.join(" ")));
        }
        Self { services: Some(texts), values, kept, closed: false }
    }
}

/// Whether there is a load balancer; else why that is not known.
fn enabled(metadata: &ServiceTexts) -> Result<bool, String> {
    let what = "set it to true, or to false to close all listeners";
    match metadata.texts.get("loadbalancer") {
        None => Err(format!("loadbalancer is not set; {what}")),
        Some(Err(why)) => Err(format!("loadbalancer: {why}; {what}")),
        Some(Ok(text)) => match Enabled::parse(text) {
            Enabled::Yes => Ok(true),
            Enabled::No => Ok(false),
            Enabled::Unknown => {
                Err(format!("loadbalancer: {} is neither true nor false; {what}", shown(text)))
            }
        },
    }
}

/// The keys beside the portmap.
fn values(metadata: &ServiceTexts) -> BTreeMap<String, Result<String, String>> {
    let beside = KEYS.into_iter().filter(|key| !matches!(*key, "loadbalancer" | "portmap"));
    beside
        .filter_map(|key| {
            let (key, value) = metadata.texts.get_key_value(key)?;
            Some((key.clone(), value.clone().map_err(|why| format!("{key}: {why}"))))
        })
        .collect()
}

fn nothing_usable(rejected: &[Rejected]) -> String {
    match rejected {
        [] => "portmap is empty; set loadbalancer to false to close all listeners".to_owned(),
        [one] => format!("portmap has no valid service: {one}"),
        [first, rest @ ..] => {
            format!("portmap has no valid service: {first}; and {} more", rest.len())
        }
    }
}

/// Says of each piece why it is none: by its port where that is known and no other's, so that the
/// service keeps its last good form.
fn reject(texts: &mut ServiceTexts, running: &ServiceForms, rejected: &[Rejected]) {
    let mut unnamed = 0;
    let mut named = 0;
    for piece in rejected {
        let port = port_of(piece).filter(|port| !texts.texts.contains_key(port));
        let name = match port {
            Some(port) if running.contains_key(&port) => port,
            _ if named == MAX_NAMED => {
                unnamed += 1;
                continue;
            }
            port => {
                named += 1;
                port.unwrap_or_else(|| format!("column {}", piece.column))
            }
        };
        texts.texts.insert(name, Err(piece.to_string()));
    }
    if unnamed > 0 {
        let why = format!("{unnamed} more pieces of portmap are rejected");
        texts.texts.insert("portmap".to_owned(), Err(why));
    }
}

/// Has every service stay that is in force, where a piece can't be told from any of them. Why, if
/// so.
fn keep_unknown(
    texts: &mut ServiceTexts,
    running: &ServiceForms,
    rejected: &[Rejected],
) -> Option<String> {
    let unknown = rejected.iter().find(|piece| {
        port_of(piece).is_none() && !matches!(piece.error, PortmapError::PortTaken { .. })
    })?;
    let gone = || running.iter().filter(|(name, _)| !texts.texts.contains_key(*name));
    let first = gone().next().map(|(name, _)| name.clone())?;
    let staying: Vec<_> = gone().map(|(name, text)| (name.clone(), Ok(text.clone()))).collect();
    texts.texts.extend(staying);
    Some(format!("{unknown}; it may be the service on port {first}, which stays until it is right"))
}

/// The port that a piece wants to listen on.
fn port_of(piece: &Rejected) -> Option<String> {
    let (_, rest) = piece.string.split_once("://")?;
    let digits = rest.split_once(':').map_or(rest, |(port, _)| port).trim();
    let port: u16 = digits.parse().ok().filter(|port| *port > 0)?;
    Some(port.to_string())
}
