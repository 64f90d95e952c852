//! The site of a run: gateways, masters, registries and a Mapsmith, what is true of them, and when
//! they are at rest.

mod moves;
mod photograph;
mod rest;

pub use photograph::Photograph;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::client::{Known, Watched, Watchers};
use super::daemon;
use super::disk::Volume;
use super::laws::{Excuse, Laws};
use super::registry::{Registries, Reply};
use super::schedule::{Polling, Routing, Schedule, Site};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Binary, Gateway, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::owners::Owners;
use crate::support::pool::{self, with_backend};
use crate::support::random::Random;
use crate::support::site::Nodes;

/// Within this everything must be in sync after the faults are over. Generous: the machine may have
/// much else to do.
const BOUND: Duration = Duration::from_secs(60);

/// What the documents that say the truth are called, before a source's number.
pub const NODES: &str = "nodes";

/// What went wrong, in words.
pub type Outcome = Result<(), String>;

/// What happened when: told where a run fails.
#[derive(Clone)]
pub struct Journal {
    began: Instant,
    lines: Arc<Mutex<String>>,
}

impl Journal {
    pub fn new() -> Self {
        Self { began: Instant::now(), lines: Arc::default() }
    }

    pub fn note(&self, what: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(lines, "{:9.3} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A moment at which everything was in sync.
struct Rest {
    file: Vec<u8>,
    registry: BTreeMap<String, String>,
}

/// The running whole. The order is that in which its parts end.
pub struct Whole {
    pub site: Site,
    pub mapsmith: Mapsmith,
    pub proxies: Vec<AdminProxy>,
    pub gateways: Vec<Gateway>,
    pub watchers: Watchers,
    pub registries: Registries,
    masters: Vec<Master>,
    /// The masters behind the backend with a server list, the one that its configuration names
    /// first.
    server_masters: Vec<Master>,
    pub map_volume: Volume,
    pub store_volume: Volume,
    pub laws: Arc<Laws>,
    pub owners: Owners,
    known: Known,
    pub journal: Journal,
    /// Where the clock's step is written; none where the clock can't be stepped.
    clock: Option<PathBuf>,
    /// What the registries say, and is true but for pins.
    registry: BTreeMap<String, String>,
    pub pins: BTreeMap<String, String>,
    /// The listed servers: name, and which of `server_masters`.
    servers: BTreeMap<String, usize>,
    names_given: usize,
    rests: Vec<Rest>,
    /// The longest that it took to come to rest.
    pub longest: Duration,
}

impl Whole {
    /// Everything in sync at the start.
    ///
    /// # Panics
    /// When that is not so.
    pub fn start(seed: u64, schedule: &Schedule, journal: &Journal) -> Self {
        let site = schedule.site.clone();
        let mut random = Random::new(seed);
        let binary = &installed()[site.haproxy % installed().len()];
        journal.note(&format!("HAProxy {:?}, {site:?}", binary.version));
        let owners = Owners::new(&[]);
        let count = if site.routing == Routing::Map { 5 } else { 3 };
        let master = |number: usize| match site.routing {
            Routing::Map => Master::start(&format!("m{number}")),
            Routing::Redispatch => Master::owning(&format!("m{number}"), &owners),
        };
        let masters: Vec<_> = (1..=count).map(master).collect();
        let server_masters: Vec<_> =
            (0..if site.servers { 3 } else { 0 }).map(|_| Master::start(pool::BACKEND)).collect();
        let (map_volume, store_volume) = (Volume::start(), Volume::start());
        let map = map_volume.path().join("node-master.map");
        fs::write(&map, "").expect("the map file");
        let gateways = start_gateways(&site, binary, &map, &masters, server_masters.first());
        let proxies: Vec<_> =
            gateways.iter().map(|gateway| AdminProxy::start(&gateway.runtime_address())).collect();
        let registries = Registries::start();
        let mut names: Vec<_> = masters.iter().map(|master| master.name().to_owned()).collect();
        names.extend(server_masters.first().map(|master| master.name().to_owned()));
        let registry: BTreeMap<_, _> =
            (0..site.nodes).map(|node| (node_name(node), random.pick(&names).clone())).collect();
        registry.iter().for_each(|(node, master)| owners.moves(node, master));
        let servers: BTreeMap<_, _> =
            if site.servers { [("s0".to_owned(), 0)].into() } else { BTreeMap::new() };
        publish(&registries, &site, &registry, &servers, &server_masters);

        let text = daemon::settings(&site, &map, &registries, NODES, &proxies, store_volume.path());
        let (mapsmith, clock) = daemon::start(Mapsmith::config(&text));
        let laws = Arc::new(Laws::new(site.routing));
        let known = Known::default();
        let mut whole = Self {
            watchers: Watchers::none(),
            names_given: site.nodes,
            site,
            mapsmith,
            proxies,
            gateways,
            registries,
            masters,
            server_masters,
            map_volume,
            store_volume,
            laws,
            owners,
            known,
            journal: journal.clone(),
            clock,
            registry,
            pins: BTreeMap::new(),
            servers,
            rests: Vec::new(),
            longest: Duration::ZERO,
        };
        if let Err(error) = whole.settle() {
            panic!("at the start: {error}\n{}", whole.mapsmith.log());
        }
        whole.watchers = whole.watch(seed, map);
        whole
    }

    /// Watches the laws from here on.
    fn watch(&self, seed: u64, map: PathBuf) -> Watchers {
        Watchers::start(Watched {
            routing: self.site.routing,
            seed,
            laws: self.laws.clone(),
            owners: self.owners.clone(),
            known: self.known.clone(),
            gateways: self
                .gateways
                .iter()
                .map(|gateway| (gateway.http_address(), gateway.runtime_address()))
                .collect(),
            map,
        })
    }

    pub fn map_path(&self) -> PathBuf {
        self.map_volume.path().join("node-master.map")
    }

    /// What every map must say.
    pub fn expected(&self) -> Nodes {
        with_pins(&self.registry, &self.pins)
    }

    pub fn master_names(&self) -> Vec<String> {
        let own = self.masters.iter().map(|master| master.name().to_owned());
        own.chain(self.server_masters.first().map(|master| master.name().to_owned())).collect()
    }

    /// What the registries say when they are right.
    pub fn registry(&self) -> &BTreeMap<String, String> {
        &self.registry
    }

    /// Makes the settings of a second Mapsmith for the same gateways and map file, with documents
    /// of its own and no store.
    pub fn second_settings(&self, documents: &str) -> String {
        let site = Site { pins: false, ..self.site.clone() };
        daemon::settings(
            &site,
            &self.map_path(),
            &self.registries,
            documents,
            &self.proxies,
            self.store_volume.path(),
        )
    }

    /// What a registry says when it is right.
    pub fn document(&self, source: usize) -> Map<String, Value> {
        document(&self.site, &self.registry, source)
    }

    /// Has Mapsmith look, where it does not look by itself.
    pub fn nudge(&self) {
        if self.site.polling == Polling::OnRequest {
            self.mapsmith.post("/v1/reload");
        }
    }

    /// [`Self::nudge`] of a Mapsmith whose API may not answer.
    pub fn nudge_by_signal(&mut self) {
        if self.site.polling == Polling::OnRequest {
            self.mapsmith.hangup();
        }
    }

    /// [`Self::nudge`] of a Mapsmith that may be gone already, or go before it answers.
    pub fn nudge_if_alive(&self) {
        if self.site.polling == Polling::OnRequest {
            let _ = self.mapsmith.try_ask("POST", "/v1/reload");
        }
    }

    /// What every map must say while one master is drained to another.
    pub fn expected_with_drain(&self, from: &str, to: &str) -> Nodes {
        let place = |master: &String| if master == from { to.to_owned() } else { master.clone() };
        let registry =
            self.registry.iter().map(|(node, master)| (node.clone(), place(master))).collect();
        with_pins(&registry, &self.pins)
    }

    /// Steps Mapsmith's clock to so many seconds from the right time; false where that can't be
    /// done.
    pub fn step_clock(&self, seconds: i64) -> bool {
        let Some(clock) = &self.clock else { return false };
        let fresh = clock.with_extension("new");
        fs::write(&fresh, format!("{seconds:+}\n")).expect("the clock's file");
        fs::rename(&fresh, clock).expect("the clock's file");
        true
    }

    /// Kills it, and starts it again with these settings (`MAPSMITH__SECTION__KEY=value`) beside
    /// its own, and no others.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.mapsmith.extra_variables(settings);
        self.restart_mapsmith();
    }

    /// Kills it if it runs, and starts it again.
    pub fn restart_mapsmith(&mut self) {
        let before = self.mapsmith.id();
        self.mapsmith.restart();
        daemon::forget_fake_time(before);
    }

    pub fn status(&self) -> Value {
        self.mapsmith.get("/v1/status").1
    }

    /// Kills a gateway for so long, and starts it again.
    pub fn restart_gateway(&mut self, gateway: usize, meanwhile: impl FnOnce(&mut Self)) {
        self.laws.excused(gateway, Excuse::Down);
        self.gateways[gateway].kill();
        meanwhile(self);
        self.gateways[gateway].restart();
        self.laws.closed(gateway, Excuse::Down);
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.mapsmith.kill();
        daemon::forget_fake_time(self.mapsmith.id());
    }
}

/// Gateways on one map file, as the site says, with a backend whose first server is `server`.
fn start_gateways(
    site: &Site,
    binary: &Binary,
    map: &Path,
    masters: &[Master],
    server: Option<&Master>,
) -> Vec<Gateway> {
    let start = |_| {
        let mut plan = Gateway::plan(binary).map_at(map);
        plan =
            masters.iter().fold(plan, |plan, master| plan.master(master.name(), master.address()));
        if let Some(first) = server {
            let lines = format!("    balance roundrobin\n    server s0 {}\n", first.address());
            plan = with_backend(plan, &lines);
        }
        if site.routing == Routing::Redispatch {
            plan = plan.redispatch();
        }
        if site.master_worker { plan.master_worker() } else { plan }.start()
    };
    (0..site.instances).map(start).collect()
}

fn node_name(number: usize) -> String {
    format!("n{number:05}.example.test")
}

/// The registry that knows a node.
pub fn source_of(site: &Site, node: &str) -> usize {
    let number: usize = node
        .trim_start_matches('n')
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    number % site.sources
}

pub fn with_pins(registry: &BTreeMap<String, String>, pins: &BTreeMap<String, String>) -> Nodes {
    let mut all = registry.clone();
    all.extend(pins.clone());
    all.into_iter().collect()
}

fn document(site: &Site, registry: &BTreeMap<String, String>, source: usize) -> Map<String, Value> {
    let own = registry.iter().filter(|(node, _)| source_of(site, node) == source);
    own.map(|(node, master)| (node.clone(), master.clone().into())).collect()
}

fn publish(
    registries: &Registries,
    site: &Site,
    registry: &BTreeMap<String, String>,
    servers: &BTreeMap<String, usize>,
    masters: &[Master],
) {
    for source in 0..site.sources {
        let document = Value::Object(document(site, registry, source)).to_string();
        registries.answers(&format!("{NODES}{source}"), Reply::Whole(200, document));
    }
    let row = |(name, master): (&String, &usize)| {
        let address: SocketAddr = masters[*master].address();
        json!({ "name": name, "address": address.ip().to_string(), "port": address.port() })
    };
    let list: Vec<_> = servers.iter().map(row).collect();
    registries.answers("servers", Reply::Whole(200, Value::Array(list).to_string()));
}

/// Whether the guard holds anything.
pub fn is_held(status: &Value) -> bool {
    status["held"].as_array().is_some_and(|held| !held.is_empty())
}

fn differs(what: &str, found: &Nodes, expected: &Nodes) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let (found_set, expected_set): (BTreeSet<_>, BTreeSet<_>) =
        (found.iter().collect(), expected.iter().collect());
    let more: Vec<_> = found_set.difference(&expected_set).take(3).collect();
    let less: Vec<_> = expected_set.difference(&found_set).take(3).collect();
    Err(format!(
        "{what} has {} entries, expected are {}; too many, among others: {more:?}; missing: \
            {less:?}",
        found.len(),
        expected.len()
    ))
}
