//! A real PuppetDB that knows many nodes, and what it and its PostgreSQL cost.

use std::ops::Sub;
use std::time::Duration;

use serde_json::{Map, Value, json};
use testkit::puppetdb::PuppetDb;

use crate::common::processor_with_children;
use crate::common::site::{MASTERS, node};

/// How often an agent runs, as Puppet has it.
pub(super) const RUN_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// Facts of a node that stay as they are: with their names 5 KB.
const STABLE_FACTS: usize = 90;

/// A PuppetDB and its nodes.
pub(super) struct Registry {
    pub(super) puppetdb: PuppetDb,
    pub(super) nodes: usize,
}

/// Processor time.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) puppetdb: Duration,
    pub(super) postgres: Duration,
}

impl Registry {
    /// With nodes whose agents ran one after another in the last half hour, each through its first
    /// master.
    pub(super) fn start(nodes: usize) -> Self {
        let registry = Self { puppetdb: PuppetDb::start_as_deployed(), nodes };
        // PuppetDB itself says how it keeps a node's facts: the ones that changed since it knows
        // them are kept apart.
        for run in 0..2 {
            registry.puppetdb.send_facts_with(&node(0), MASTERS[0], facts(run), true);
        }
        registry.fill();
        registry
    }

    /// The first node's facts for all others, straight into the tables of PuppetDB 7: a hundred
    /// thousand commands would take ten minutes.
    fn fill(&self) {
        let masters = MASTERS.map(|master| format!("('{master}')")).join(", ");
        let last = self.nodes - 1;
        let seconds_a_node = RUN_INTERVAL.as_secs_f64() / self.nodes as f64;
        self.puppetdb.database(&[
            &format!("insert into producers (name) values {masters} on conflict do nothing"),
            &format!(
                "insert into certnames (certname) select {NODE} from generate_series(1, {last}) i"
            ),
            &format!(
                "insert into factsets (certname, \"timestamp\", environment_id, hash, \
                    producer_timestamp, producer_id, stable, stable_hash, volatile, paths_hash) \
                 select {NODE}, now(), environment_id, \
                    decode(md5(i::text) || left(md5(i || 'x'), 8), 'hex'), \
                    now() - ({nodes} - i) * {seconds_a_node} * interval '1 second', \
                    (select id from producers where name = 'master' || (i % {masters} + 1)), \
                    stable, stable_hash, volatile, paths_hash \
                 from factsets, generate_series(1, {last}) i",
                nodes = self.nodes,
                masters = MASTERS.len(),
            ),
            "analyze",
        ]);
    }

    /// What both have used so far.
    pub(super) fn cost(&self) -> Cost {
        let [puppetdb, postgres] = self.puppetdb.processes().map(processor_with_children);
        Cost { puppetdb, postgres }
    }
}

/// The name of node `i` in SQL, as [`node`] gives it.
const NODE: &str = "'node' || lpad(i::text, 7, '0') || '.example.test'";

/// The facts of a node: a few of them are others at each run.
pub(super) fn facts(run: usize) -> Value {
    let stable = (0..STABLE_FACTS)
        .map(|number| (format!("fact_{number:02}"), json!(format!("{number:040}"))));
    let mut facts: Map<_, _> = stable.collect();
    for name in ["uptime_seconds", "memoryfree_mb", "load_averages"] {
        facts.insert(name.to_owned(), json!(run));
    }
    Value::Object(facts)
}

impl Cost {
    pub(super) fn whole(&self) -> Duration {
        self.puppetdb + self.postgres
    }

    /// Its part that falls to each of so many.
    pub(super) fn each(&self, count: f64) -> Self {
        Self { puppetdb: self.puppetdb.div_f64(count), postgres: self.postgres.div_f64(count) }
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            puppetdb: self.puppetdb.saturating_sub(other.puppetdb),
            postgres: self.postgres.saturating_sub(other.postgres),
        }
    }
}
