//! `[damping]`: how fast server lists may change.

use std::time::Duration;

use mapsmith_core::desired::damping::DampingPolicy;
use mapsmith_core::desired::guard::Limit;
use serde::Deserialize;

use super::keys::section;
use super::units::duration;

section! {
    /// How fast the server lists of backends may change.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Damping {
        /// How long a list must be quiet before a change of it counts.
        #[unset("1s")]
        #[serde(deserialize_with = "duration")]
        pub debounce: Duration,
        /// The longest that a change waits for quiet; not shorter than `damping.debounce`.
        #[unset("15s")]
        #[serde(deserialize_with = "duration")]
        pub max_delay: Duration,
        /// How long a server stays that is no longer listed, or an address that a resolver no
        /// longer returns. Also how long the sources must name one master before a node that flaps
        /// (3 changes within `guard.window`) moves there.
        #[unset("90s")]
        #[serde(deserialize_with = "duration")]
        pub hold: Duration,
        /// How many of a backend's servers may go within one `damping.hold`: a percentage, rounded
        /// down but at least one, or a number. The last one never goes.
        #[unset("20%")]
        pub max_removed: Limit,
    }
}

impl Default for Damping {
    /// Muppet collects for 15 s, holds for 30 s and removes 20 % (TritonDataCenter/muppet). A
    /// registry that is polled each minute needs a longer hold for one odd answer to do nothing; a
    /// change that comes alone need not wait.
    fn default() -> Self {
        Self {
            debounce: Duration::from_secs(1),
            max_delay: Duration::from_secs(15),
            hold: Duration::from_secs(90),
            max_removed: Limit::Percent(20.0),
        }
    }
}

impl Damping {
    /// The same for the pure core.
    pub fn pace(&self) -> DampingPolicy {
        DampingPolicy {
            debounce: self.debounce,
            max_delay: self.max_delay,
            hold: self.hold,
            max_removed: self.max_removed,
            may_be_empty: false,
        }
    }

    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if self.max_delay < self.debounce {
            problems.push(
                "damping.max_delay: must not be shorter than damping.debounce, which it bounds"
                    .to_owned(),
            );
        }
    }
}
