//! `[references]`: what becomes of map entries whose master HAProxy does not have.

use mapsmith_core::desired::references::{Action, Actions};
use serde::{Deserialize, Deserializer};

use super::keys::section;

section! {
    /// What becomes of map entries that an instance can't route. `keep`: they stay in the map.
    /// `guard`: they stay, but a change that lets their percentage grow by more than
    /// `guard.max_removed` is held. `leave_out`: they are left out where no instance can serve
    /// them, but never all of them. `hold`: the change is held until an instance can route them or
    /// until it is approved.
    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub(super) struct References {
        /// Entries whose master is missing from an instance: neither a backend nor a server there
        /// has its name. Where a backend takes its servers from the map's masters
        /// (`backend.masters`), `guard` means `keep`.
        #[unset("guard")]
        unknown: Action,
        /// Entries whose master exists but is not ready.
        #[unset("keep")]
        not_ready: Action,
    }
}

impl Default for References {
    fn default() -> Self {
        let Actions { unknown, not_ready } = Actions::default();
        Self { unknown, not_ready }
    }
}

/// The section as the pure core takes it.
pub(super) fn actions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Actions, D::Error> {
    let References { unknown, not_ready } = References::deserialize(deserializer)?;
    Ok(Actions { unknown, not_ready })
}
