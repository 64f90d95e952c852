//! `[history]`: how many revisions are kept.

use serde::Deserialize;

use super::keys::section;
use super::units::size;

/// The most that `history.keep` may be.
const MOST: usize = 10_000;
/// The least that `history.max_bytes` may be: less than this is no history.
const LEAST_BYTES: u64 = 1 << 20;

section! {
    /// The revisions of the map, with what each changed, when and why. They are kept in the file of
    /// `[store]`; without one there is no history.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct History {
        /// How many revisions are kept, 1 to 10000. The oldest ones are forgotten.
        #[unset("500")]
        pub keep: usize,
        /// How much room they may take, at least `"1MiB"`. The newest one is always kept.
        #[unset("256MiB")]
        #[serde(deserialize_with = "size")]
        pub max_bytes: u64,
    }
}

impl Default for History {
    fn default() -> Self {
        Self { keep: 500, max_bytes: 256 << 20 }
    }
}

impl History {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if !(1..=MOST).contains(&self.keep) {
            problems.push(format!("history.keep: must be 1 to {MOST} revisions"));
        }
        if self.max_bytes < LEAST_BYTES {
            problems.push("history.max_bytes: must be at least \"1MiB\"".to_owned());
        }
    }
}
