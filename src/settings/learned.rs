//! `[learned]`: the routes that HAProxy learned by asking another master in the same request.

use mapsmith_core::server::is_valid_name;
use serde::Deserialize;

use super::keys::section;

/// The most that `learned.max` may be: what the shipped stick table holds.
const MOST_ROUTES: usize = 100_000;

section! {
    /// The routes that HAProxy learned by redispatch: it asked another master in the same request.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Learned {
        /// The stick table in which HAProxy keeps them: the name of its backend, or `PEERS/NAME`
        /// for a table of a `peers` section. Without it nothing is read.
        pub table: Option<String>,
        /// The most routes that are read and kept of an instance, 1 to 100000. The rest is counted.
        #[unset("10000")]
        pub max: usize,
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self { table: None, max: 10_000 }
    }
}

impl Learned {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if let Some(table) = &self.table
            && !table.splitn(2, '/').all(is_valid_name)
        {
            problems.push(format!(
                "learned.table: {table:?} can be no stick table; give the name \
                of its backend, or PEERS/NAME"
            ));
        }
        if !(1..=MOST_ROUTES).contains(&self.max) {
            problems.push(format!("learned.max: must be 1 to {MOST_ROUTES} routes"));
        }
    }
}
