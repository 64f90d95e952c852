//! Observe -> plan -> apply -> publish: the only writer to HAProxy and to the map file.
//!
//! `decide` turns snapshots into revisions and writes each to the map file; `instance` brings one HAProxy to the wanted
//! revision, a task each, so that a slow instance delays no other.

use std::sync::Arc;

use crate::model::Revision;

pub mod apply;
pub mod decide;
pub mod instance;
pub mod map_file;

/// What every instance should hold.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The desired revision. It is in the map file already.
    pub revision: Arc<Revision>,
    /// Grows with every decision, also where the revision stays: an instance that has seen it has looked again since.
    pub look: u64,
    /// The highest poll request that the decision takes into account.
    pub considered: u64,
}

/// Asks every source to look again and gives the request's number, which [`Wanted::considered`] reaches in time.
pub type AskSources = Box<dyn Fn() -> u64 + Send + Sync>;
