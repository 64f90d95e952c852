//! `[ownership]`: nodes go home after a drain, a pin or an outage.

use std::time::Duration;

use mapsmith_core::desired::ownership::Policy;
use serde::Deserialize;

use super::keys::section;
use super::units::duration;

/// The longest that a time here may be: what has ended is remembered for a week.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

section! {
    /// Whose a node is, where the registry only names the master that served it last, as PuppetDB's
    /// producer does: after a drain, a pin or an outage its nodes go back to their owner instead of
    /// staying with the stand-in. Needs `[store]`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Ownership {
        /// Whether owners are remembered. Without it a node goes to whoever the registry names.
        #[unset("false")]
        pub remember: bool,
        /// How long a master that was ready in no instance must be ready again before its nodes go
        /// back to it, at most 24h. After an undrain or unpin they go back at once.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub return_after: Duration,
        /// How long a node stays with its owner until the registry names the owner again, which
        /// takes a run of its agent; if it answers later and names another, the node goes there.
        /// At most 24h, not 0.
        #[unset("2h")]
        #[serde(deserialize_with = "duration")]
        pub confirm_within: Duration,
        /// How much before or after an absence of the owner a new master in the registry still
        /// counts as a consequence of it, and no move on purpose: health checks take a while to
        /// fail, and clocks differ. 2s to 24h.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub grace: Duration,
    }
}

impl Default for Ownership {
    fn default() -> Self {
        let Policy { return_after, confirm_within, grace } = Policy::default();
        Self { remember: false, return_after, confirm_within, grace }
    }
}

impl Ownership {
    /// As the pure core takes it; none where owners are not remembered.
    pub fn policy(&self) -> Option<Policy> {
        let Self { remember, return_after, confirm_within, grace } = *self;
        remember.then_some(Policy { return_after, confirm_within, grace })
    }

    pub(super) fn problems(&self, has_store: bool, problems: &mut Vec<String>) {
        if self.remember && !has_store {
            problems.push(
                "ownership.remember: owners outlive a restart in a store; add [store] with its path"
                    .to_owned(),
            );
        }
        if self.confirm_within.is_zero() {
            problems.push("ownership.confirm_within: must not be 0".to_owned());
        }
        // The times that rows carry are kept in whole seconds.
        if self.grace < Duration::from_secs(2) {
            problems.push("ownership.grace: must be 2s at least".to_owned());
        }
        let Self { return_after, confirm_within, grace, .. } = self;
        let keys =
            [("return_after", return_after), ("confirm_within", confirm_within), ("grace", grace)];
        for (key, _) in keys.into_iter().filter(|(_, value)| **value > LONGEST) {
            problems.push(format!("ownership.{key}: must be 24h at most"));
        }
    }
}
