//! The site of a run: gateways, masters, registries and a Mapsmith, what is true of them, and when
//! they are at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::client::{Known, Watched, Watchers, memory_of};
use super::daemon;
use super::disk::Volume;
use super::laws::{Excuse, Laws, MapFile, read_map};
use super::registry::{Registries, Reply};
use super::schedule::{Polling, Routing, Schedule, Site};
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Gateway, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::owners::Owners;
use crate::support::poll;
use crate::support::pool::{self, with_backend};
use crate::support::random::Random;
use crate::support::site::{Nodes, counters};

/// Within this everything must be in sync after the faults are over. Generous: the machine may have
/// much else to do.
const BOUND: Duration = Duration::from_secs(60);

/// How long something is watched that must not change.
const WATCH: Duration = Duration::from_millis(20);

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
        let gateways: Vec<_> = (0..site.instances)
            .map(|_| {
                let mut plan = Gateway::plan(binary).map_at(&map);
                plan = masters
                    .iter()
                    .fold(plan, |plan, master| plan.master(master.name(), master.address()));
                if let Some(first) = server_masters.first() {
                    plan = with_backend(
                        plan,
                        &format!("    balance roundrobin\n    server s0 {}\n", first.address()),
                    );
                }
                if site.routing == Routing::Redispatch {
                    plan = plan.redispatch();
                }
                if site.master_worker { plan.master_worker() } else { plan }.start()
            })
            .collect();
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
        whole.watchers = Watchers::start(Watched {
            routing: whole.site.routing,
            seed,
            laws: whole.laws.clone(),
            owners: whole.owners.clone(),
            known: whole.known.clone(),
            gateways: whole
                .gateways
                .iter()
                .map(|gateway| (gateway.http_address(), gateway.runtime_address()))
                .collect(),
            map,
        });
        whole
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

    /// The registries say what is true.
    pub fn publish(&self) {
        publish(&self.registries, &self.site, &self.registry, &self.servers, &self.server_masters);
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

    /// Nodes move to other masters, come and go, and servers are listed again: first in truth, then
    /// in what the registries will say once [`Self::publish`] is called.
    pub fn changes(&mut self, random: &mut Random) {
        let names = self.master_names();
        let nodes: Vec<_> =
            self.registry.keys().filter(|node| !self.pins.contains_key(*node)).cloned().collect();
        let moving = random.between(1, (nodes.len() / 14).max(1));
        for _ in 0..moving {
            let node = random.pick(&nodes);
            let others: Vec<_> =
                names.iter().filter(|name| **name != self.registry[node]).collect();
            let master = (*random.pick(&others)).clone();
            self.owners.moves(node, &master);
            self.registry.insert(node.clone(), master);
        }
        let coming = random.below((nodes.len() / 100).max(1) + 1);
        for _ in 0..coming {
            let (node, master) = (node_name(self.names_given), random.pick(&names).clone());
            self.names_given += 1;
            self.owners.moves(&node, &master);
            self.registry.insert(node, master);
        }
        // With redispatch an owner answers as long as there is one: nodes that nobody owns would
        // only fail.
        let mut going = 0;
        if self.site.routing == Routing::Map && nodes.len() >= 50 {
            going = random.below(nodes.len() / 100 + 1);
            for _ in 0..going {
                let node = random.pick(&nodes);
                self.known.write().unwrap_or_else(PoisonError::into_inner).remove(node);
                self.registry.remove(node);
            }
        }
        if self.site.servers && random.chance(40) {
            self.list_servers(random);
        }
        let listed: Vec<_> = self.servers.keys().collect();
        self.journal
            .note(&format!("  {moving} nodes move, {coming} come, {going} go; servers {listed:?}"));
    }

    /// The configured server and up to two more, each under a name that was never there.
    fn list_servers(&mut self, random: &mut Random) {
        for master in 1..self.server_masters.len() {
            if random.chance(50) {
                self.servers.retain(|_, listed| *listed != master);
                if random.chance(60) {
                    self.servers.insert(format!("s{}", self.names_given), master);
                    self.names_given += 1;
                }
            }
        }
    }

    /// The share of nodes that a step back to an older registry moves and removes, in per cent.
    fn distance(
        &self,
        from: &BTreeMap<String, String>,
        to: &BTreeMap<String, String>,
    ) -> (usize, usize) {
        let moved = from
            .iter()
            .filter(|(node, master)| to.get(*node).is_some_and(|other| other != *master))
            .count();
        let removed = from.keys().filter(|node| !to.contains_key(*node)).count();
        (moved * 100 / from.len().max(1), removed * 100 / from.len().max(1))
    }

    /// The map file as it was so many rests ago, or later, so that the way from it to what is true
    /// now is one that the guard lets pass.
    pub fn older_file(&self, back: usize) -> &[u8] {
        let last = self.rests.len() - 1;
        let near = |rest: &&Rest| {
            let (moved, removed) = self.distance(&rest.registry, &self.registry);
            moved <= 35 && removed <= 10
        };
        let from = &self.rests[last.saturating_sub(back)..];
        &from.iter().find(near).unwrap_or(&self.rests[last]).file
    }

    /// What the registries said so many rests ago, and whether the guard holds it back; none where
    /// it is a near thing.
    pub fn older_registry(&self, back: usize) -> Option<(BTreeMap<String, String>, bool)> {
        let rest = &self.rests[(self.rests.len() - 1).saturating_sub(back)];
        let (moved, removed) = self.distance(&self.registry, &rest.registry);
        let (moved_back, removed_back) = self.distance(&rest.registry, &self.registry);
        let held = moved > 55 || removed > 25;
        let passes = moved < 45 && removed < 15 && moved_back < 45 && removed_back < 15;
        (held || passes).then(|| (rest.registry.clone(), held))
    }

    /// The registries say this, whatever is true.
    pub fn publish_map(&self, registry: &BTreeMap<String, String>) {
        publish(&self.registries, &self.site, registry, &self.servers, &self.server_masters);
    }

    /// Pins a node, or unpins one; its owner is the one that is ordered. An order may only fail
    /// where the store is said to be `broken`.
    pub fn order(&mut self, random: &mut Random, broken: bool) -> Outcome {
        let pinned: Vec<_> = self.pins.keys().cloned().collect();
        if !pinned.is_empty() && random.chance(40) {
            let node = random.pick(&pinned).clone();
            let answer = self.mapsmith.ask("DELETE", &format!("/v1/overrides/{node}"), &[], "");
            self.journal.note(&format!("  unpin {node}: {}", answer.status));
            if answer.status < 300 {
                self.pins.remove(&node);
                let back = self.registry.get(&node).cloned();
                back.iter().for_each(|master| self.owners.moves(&node, master));
                return Ok(());
            }
            return if broken {
                Ok(())
            } else {
                Err(format!("unpin {node}: {} {}", answer.status, answer.body))
            };
        }
        let nodes: Vec<_> = self.registry.keys().cloned().collect();
        let (node, master) =
            (random.pick(&nodes).clone(), random.pick(&self.master_names()).clone());
        // It may be answered by the new one from here on.
        self.owners.moves(&node, &master);
        let body = json!({ "master": master }).to_string();
        let answer =
            self.mapsmith.ask("PUT", &format!("/v1/overrides/{node}?force=true"), &[], &body);
        self.journal.note(&format!("  pin {node} to {master}: {}", answer.status));
        if answer.status < 300 {
            self.pins.insert(node, master);
            return Ok(());
        }
        let before = self.pins.get(&node).or(self.registry.get(&node)).cloned();
        before.iter().for_each(|master| self.owners.moves(&node, master));
        if broken { Ok(()) } else { Err(format!("pin {node}: {} {}", answer.status, answer.body)) }
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

    /// A gateway's live map, sorted.
    pub fn memory(&self, gateway: usize) -> Option<Nodes> {
        let mut entries = memory_of(
            &self.gateways[gateway].runtime_address(),
            &self.map_path().display().to_string(),
        )?;
        entries.sort();
        Some(entries)
    }

    fn file(&self) -> Result<MapFile, String> {
        let text = fs::read(self.map_path()).map_err(|error| format!("the map file: {error}"))?;
        read_map(&text).map_err(|error| format!("the map file: {error}"))
    }

    /// Waits until every instance holds what should be there, and Mapsmith says so; then the next
    /// fault may come.
    ///
    /// # Errors
    /// What is still not as it should be when the bound is over.
    pub fn settle(&mut self) -> Outcome {
        let began = Instant::now();
        self.nudge();
        self.settles_on(&self.expected())?;
        self.longest = self.longest.max(began.elapsed());
        self.laws.look_at_file(&self.map_path());
        self.laws.rest();
        for gateway in 0..self.gateways.len() {
            self.laws.closed(gateway, Excuse::Old);
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) =
            self.registry.keys().cloned().collect::<BTreeSet<_>>();
        let file = fs::read(self.map_path()).map_err(|error| format!("the map file: {error}"))?;
        self.rests.push(Rest { file, registry: self.registry.clone() });
        self.journal.note("  at rest");
        Ok(())
    }

    /// Waits until all say exactly this.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn settles_on(&self, expected: &Nodes) -> Outcome {
        let mut short = String::new();
        let settled = poll(BOUND, || match self.is_settled(expected) {
            Ok(()) => Some(()),
            Err(reason) => {
                short = reason;
                None
            }
        });
        settled.ok_or_else(|| format!("not at rest after {BOUND:?}: {short}"))
    }

    /// Waits until file and memories say exactly this, whatever Mapsmith says of it.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn holds(&self, expected: &Nodes) -> Outcome {
        let mut short = String::new();
        let held =
            poll(BOUND, || self.is_held_by_all(expected).map_err(|reason| short = reason).ok());
        held.map(drop).ok_or_else(|| format!("not so after {BOUND:?}: {short}"))
    }

    /// Whether every gateway has exactly these entries.
    pub fn is_in_memory(&self, entries: &Nodes) -> bool {
        (0..self.gateways.len()).all(|gateway| self.memory(gateway).as_ref() == Some(entries))
    }

    /// The file's revision, where file and memories say this.
    fn is_held_by_all(&self, expected: &Nodes) -> Result<u64, String> {
        let (revision, file) = self.file()?;
        differs("the map file", &file, expected)?;
        for gateway in 0..self.gateways.len() {
            let memory =
                self.memory(gateway).ok_or_else(|| format!("gateway {gateway} does not answer"))?;
            differs(&format!("the memory of gateway {gateway}"), &memory, expected)?;
        }
        Ok(revision)
    }

    fn is_settled(&self, expected: &Nodes) -> Outcome {
        let status = self.status();
        let not_null = |value: &Value, what: &str| {
            if value.is_null() { Ok(()) } else { Err(format!("{what}: {value}")) }
        };
        let file_revision = self.is_held_by_all(expected)?;
        let beside =
            fs::read_dir(self.map_volume.path()).map_err(|error| error.to_string())?.flatten();
        let beside: Vec<_> =
            beside.map(|file| file.file_name()).filter(|name| name != "node-master.map").collect();
        if !beside.is_empty() {
            return Err(format!("{beside:?} are left beside the map file"));
        }
        for gateway in 0..self.gateways.len() {
            let counted = counters(&self.gateways[gateway]).entries;
            if counted != expected.len() as u64 {
                return Err(format!(
                    "gateway {gateway} counts {counted} entries instead of {}: staged ones are \
                        left",
                    expected.len()
                ));
            }
            let instance = &status["instances"][gateway];
            if instance["state"] != "in_sync" || instance["revision"] != file_revision {
                return Err(format!("Mapsmith says of gateway {gateway}: {instance}"));
            }
            if self.site.servers {
                let wanted: BTreeMap<_, _> = self
                    .servers
                    .iter()
                    .map(|(name, master)| {
                        (name.clone(), self.server_masters[*master].address().to_string())
                    })
                    .collect();
                let ready = pool::ready(&self.gateways[gateway]);
                let all = pool::servers(&self.gateways[gateway]).len();
                if ready != wanted || all != wanted.len() {
                    return Err(format!(
                        "gateway {gateway} has {all} servers, ready {ready:?}, instead of \
                            {wanted:?}"
                    ));
                }
                if instance["servers"]["state"] != "in_sync" {
                    return Err(format!("Mapsmith says of gateway {gateway}: {instance}"));
                }
            }
        }
        for source in status["sources"].as_array().into_iter().flatten() {
            not_null(&source["error"], "a source")?;
        }
        not_null(&status["map_file"]["error"], "the map file")?;
        if is_held(&status) { Err(format!("held: {}", status["held"])) } else { Ok(()) }
    }

    /// What is in memory, in the file and among the servers now.
    pub fn photograph(&self) -> Result<Photograph, String> {
        let servers = self.gateways.iter().map(|gateway| {
            if self.site.servers { pool::servers(gateway) } else { BTreeMap::new() }
        });
        Ok(Photograph {
            file: Some(self.file()?),
            servers: servers.collect(),
            ..self.photograph_memory()?
        })
    }

    /// The same of memory alone: the file may be ahead, or none that can be read.
    pub fn photograph_memory(&self) -> Result<Photograph, String> {
        let memories: Option<_> =
            (0..self.gateways.len()).map(|gateway| self.memory(gateway)).collect();
        Ok(Photograph {
            memories: memories.ok_or("a gateway does not answer")?,
            file: None,
            servers: Vec::new(),
        })
    }

    /// Waits until `told` is, and for as long as `more` says, and sees that nothing at all changes.
    ///
    /// # Errors
    /// What changed, or that it was never told.
    pub fn stays(
        &self,
        before: &Photograph,
        what: &str,
        mut told: impl FnMut(&Self) -> bool,
    ) -> Outcome {
        let began = Instant::now();
        loop {
            let mut now =
                if before.file.is_none() { self.photograph_memory()? } else { self.photograph()? };
            if before.servers.is_empty() {
                now = now.without_servers();
            }
            if now != *before {
                return Err(format!(
                    "{what}: a part of it was applied: {}",
                    before.difference(&now)
                ));
            }
            if told(self) {
                return Ok(());
            }
            if began.elapsed() > BOUND {
                return Err(format!("{what}: not told within {BOUND:?}: {}", self.status()));
            }
            thread::sleep(WATCH);
        }
    }

    /// Kills a gateway for so long, and starts it again.
    pub fn restart_gateway(&mut self, gateway: usize, meanwhile: impl FnOnce(&mut Self)) {
        self.laws.excused(gateway, Excuse::Down);
        self.gateways[gateway].kill();
        meanwhile(self);
        self.gateways[gateway].restart();
        self.laws.closed(gateway, Excuse::Down);
    }

    /// Every node's answer, once more, now that all is in sync.
    pub fn ask_for_all(&self) -> Outcome {
        for (node, master) in self.expected() {
            for gateway in &self.gateways {
                let answer = gateway.request(&node);
                if answer != (200, master.clone()) {
                    return Err(format!(
                        "at rest {node} is answered by {answer:?} instead of {master}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.mapsmith.kill();
        daemon::forget_fake_time(self.mapsmith.id());
    }
}

/// See [`Whole::photograph`].
#[derive(Debug, PartialEq, Eq)]
pub struct Photograph {
    memories: Vec<Nodes>,
    /// None where it is not compared.
    file: Option<MapFile>,
    servers: Vec<BTreeMap<String, (String, u32)>>,
}

impl Photograph {
    /// What is compared where server lists go their own way.
    pub fn without_servers(self) -> Self {
        Self { servers: Vec::new(), ..self }
    }

    fn difference(&self, other: &Self) -> String {
        for (gateway, (before, after)) in self.memories.iter().zip(&other.memories).enumerate() {
            if let Err(difference) =
                differs(&format!("the memory of gateway {gateway}"), after, before)
            {
                return difference;
            }
        }
        let (before, after) =
            (self.file.clone().unwrap_or_default(), other.file.clone().unwrap_or_default());
        if let Err(difference) = differs("the map file", &after.1, &before.1) {
            return difference;
        }
        format!(
            "revision {} -> {}, servers {:?} -> {:?}",
            before.0, after.0, self.servers, other.servers
        )
    }
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
