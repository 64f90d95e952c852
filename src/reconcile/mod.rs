//! Observe -> plan -> apply -> publish: the only writer to HAProxy and to the map file.
//!
//! `decide` turns snapshots into revisions and writes each to the map file; `decide_servers` turns
//! lists into the servers that backends should have; `instance` brings one HAProxy to the wanted
//! revision, a task each, so that a slow instance delays no other; `rows` is what the two say about
//! rows that a map refuses.

use std::sync::Arc;

use mapsmith_core::plan::Deviation;
use mapsmith_core::{LearnedRoute, Overrides, Revision};

pub mod apply;
pub mod decide;
pub mod decide_servers;
pub mod instance;
pub mod learned;
pub mod map_file;
pub mod resolve;
mod rest;
pub mod rows;
pub mod servers;

/// What every instance should hold.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The desired revision. It is in the map file already.
    pub revision: Arc<Revision>,
    /// Grows with every decision, also where the revision stays: an instance that has seen it has
    /// looked again since.
    pub look: u64,
    /// The highest poll request that the decision takes into account.
    pub considered: u64,
    /// The overrides in the revision.
    pub overrides: Arc<Overrides>,
    /// What the revision changed; none where there was no map before it, or it came from the map
    /// file.
    pub change: Option<Change>,
}

/// What a revision changed: found once, not by each of a hundred instances.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision before it.
    pub from: u64,
    /// What must change in the memory of an instance that holds that one.
    pub deviation: Arc<Deviation>,
}

/// Asks every source to look again and gives the request's number, which [`Wanted::considered`]
/// reaches in time.
pub type AskSources = Box<dyn Fn() -> u64 + Send + Sync>;

/// Told all the routes that an instance has learned and the map does not have: the sources look
/// early at their nodes.
pub type LookEarly = Box<dyn Fn(&Arc<[LearnedRoute]>) + Send + Sync>;
