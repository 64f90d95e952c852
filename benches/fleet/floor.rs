//! The floor: what a plain client takes for the same.

use std::time::Duration;

use mapsmith_core::EntryMap;

use super::ROUNDS;
use super::gateways::Fleet;

/// What a plain client takes to send one instance and many the same.
pub(super) struct Floor {
    pub(super) edits: [Vec<Duration>; 2],
    pub(super) swap: [Vec<Duration>; 2],
}

impl Floor {
    pub(super) fn measure(fleets: &[Fleet; 2], maps: &[EntryMap; 3]) -> anyhow::Result<Self> {
        let mut floor = Self { edits: [const { Vec::new() }; 2], swap: [const { Vec::new() }; 2] };
        for _ in 0..ROUNDS {
            for (at, fleet) in fleets.iter().enumerate() {
                floor.edits[at].push(fleet.floor_of_edits(&maps[0], &maps[1])?);
                floor.edits[at].push(fleet.floor_of_edits(&maps[1], &maps[0])?);
                floor.swap[at].push(fleet.floor_of_a_swap(&maps[2])?);
                floor.swap[at].push(fleet.floor_of_a_swap(&maps[0])?);
            }
        }
        Ok(floor)
    }
}
