//! What a backend's list is: the members of its version, while it is switched also those of the one
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{BackendVersion, Members, SwitchPhase};
use crate::server::list::ServerList;

/// A backend's list, and what of it an operator has ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberListing {
    pub list: Arc<ServerList>,
    /// The number of the latest order that made it so; 0 where none did.
    pub order: u64,
    /// What may stay of the servers in force by that order; none where all may.
    pub keep: Option<Arc<BTreeSet<String>>>,
    /// Those that were taken away by their own word: they need not be waited for.
    pub left: Arc<BTreeSet<String>>,
    /// Whether members of two versions are in it: more than the backend has for long.
    pub joining: bool,
}

/// The lists of all backends that take members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberListings {
    /// Greater with each change.
    pub number: u64,
    /// By backend.
    pub of: BTreeMap<String, MemberListing>,
}

/// The list of a backend of this version. `order` is the number of its latest order.
pub fn listing(members: &Members, version: &BackendVersion, order: u64) -> MemberListing {
    let (name, joining) = (&version.name, version.phase == SwitchPhase::Joining);
    let known = || Arc::new(members.known(name, version.versions()));
    MemberListing {
        list: Arc::new(members.list(name, version.versions())),
        order,
        keep: (!joining).then(known),
        left: Arc::new(members.left(name, version.versions())),
        joining,
    }
}
