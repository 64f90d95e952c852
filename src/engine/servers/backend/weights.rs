//! Weights that a list had said, and says no more: an instance has them until somebody says another
//! one.

use std::collections::BTreeMap;

use mapsmith_core::Server;

/// Takes down which servers of the new list have lost the weight that the old one said.
pub(super) fn note_ended(
    ended: &mut BTreeMap<String, u16>,
    old: &BTreeMap<String, Server>,
    new: &BTreeMap<String, Server>,
) {
    ended.retain(|name, _| new.get(name).is_some_and(|server| server.weight.is_none()));
    let of_old = |name: &String| old.get(name).and_then(|server| server.weight);
    let without = new.iter().filter(|(_, server)| server.weight.is_none());
    ended.extend(without.filter_map(|(name, _)| Some((name.clone(), of_old(name)?))));
}
