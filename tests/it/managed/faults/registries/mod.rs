//! Faults between a backend and the registry that lists its servers, drawn from a seed: a real
//! ZooKeeper, etcd or Consul loses sessions, connections, data and permissions, is killed, stopped
//! or emptied, and Mapsmith or HAProxy with it, while members come, go and move. See
//! docs/testing.md.
//!
//! Without variables a short round of fixed seeds runs; `scripts/faults --registries` runs more.

mod lists;
mod registry;
mod run;
mod scene;
mod schedule;

/// The short round: one of each registry, together every kind of fault.
const SHORT: [u64; 3] = [2373, 52, 773];

#[test]
fn whatever_fails_of_a_registry_servers_stay_traffic_goes_on_and_its_newest_list_wins() {
    crate::faults::run_seeds(&SHORT, run::run_seed);
}
