//! `[guard]`: which changes are held until an operator approves them.

use std::time::Duration;

use mapsmith_core::desired::guard::{Limit, Limits};
use serde::{Deserialize, Deserializer};

use super::keys::section;
use super::units::duration;

section! {
    /// Which changes are held until an operator approves them. A limit is a percentage of the
    /// entries in force (`"20%"`, 0% to 100%) or a number of entries (`500`). A map that loses
    /// every key is held whatever its size. The limits apply to each backend's server list too, but
    /// `min_entries` only requires that the list is not empty.
    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub(super) struct Guard {
        /// The most entries in force that one change may remove.
        #[unset("20%")]
        max_removed: Limit,
        /// The most entries in force that one change may send to another master.
        #[unset("50%")]
        max_moved: Limit,
        /// The most entries that one change may add to those in force. Holds nothing while the map
        /// stays below `guard.free` entries.
        #[unset("100%")]
        max_added: Limit,
        /// The fewest entries that a map must have.
        #[unset("1")]
        min_entries: usize,
        /// The most entries that a map may have, at least `guard.min_entries`.
        #[unset(says "no limit")]
        max_entries: Option<usize>,
        /// Maps in force with fewer entries than this are exempt from percentages.
        #[unset("20")]
        small: usize,
        /// While a map has fewer entries than this, `guard.max_added` holds nothing.
        #[unset("10000")]
        free: usize,
        /// For percentages, the changes within this time count together, against the most entries
        /// within it. What was in force within it may come back. Of server lists only how much they
        /// shrank counts. `0s` evaluates each change by itself.
        #[unset("1h")]
        #[serde(deserialize_with = "duration")]
        window: Duration,
        /// Whether moves, additions and removals are evaluated apart where a change of the map does
        /// not pass as a whole: what passes is applied, the rest is held. So nodes that a registry
        /// lost do not keep others from moving. With `false` the whole change is held. An answer
        /// below `guard.min_entries`, with no node that is in force, or with more new nodes than
        /// such ones where too many are gone, is held as a whole, and so is a server list.
        #[unset("true")]
        partial: bool,
    }
}

impl Default for Guard {
    fn default() -> Self {
        let Limits {
            max_removed,
            max_moved,
            max_added,
            min_entries,
            max_entries,
            small,
            free,
            window,
            partial,
        } = Limits::default();
        Self {
            max_removed,
            max_moved,
            max_added,
            min_entries,
            max_entries,
            small,
            free,
            window,
            partial,
        }
    }
}

/// The section as the pure core takes it.
pub(super) fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let Guard {
        max_removed,
        max_moved,
        max_added,
        min_entries,
        max_entries,
        small,
        free,
        window,
        partial,
    } = Guard::deserialize(deserializer)?;
    Ok(Limits {
        max_removed,
        max_moved,
        max_added,
        min_entries,
        max_entries,
        small,
        free,
        window,
        partial,
    })
}

pub(super) fn problems(limits: &Limits, problems: &mut Vec<String>) {
    if let Some(most) = limits.max_entries
        && most < limits.min_entries
    {
        problems.push(format!(
            "guard.max_entries: {most} is below guard.min_entries, {}; no map could have both",
            limits.min_entries
        ));
    }
}
