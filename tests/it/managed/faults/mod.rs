//! Faults against a HAProxy that Mapsmith runs, drawn from a seed: settings change, good and bad
//! ones, and at each step of an apply Mapsmith, the master, or a worker is killed or stopped, or
//! the folder can't be written. Clients ask all along. See docs/testing.md.
//!
//! Without variables a short round of fixed seeds runs; `scripts/faults --managed` runs more.

mod clients;
mod laws;
mod processes;
mod registries;
mod run;
mod schedule;
mod site;
mod strike;

/// The short round: on three HAProxys, with and without held sockets, together every kind of fault
/// and of change.
const SHORT: [u64; 3] = [261, 149, 362];

#[test]
fn whatever_fails_of_a_managed_haproxy_traffic_goes_on_and_the_newest_good_settings_win() {
    crate::faults::run_seeds(&SHORT, run::run_seed);
}
