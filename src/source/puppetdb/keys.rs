//! The keys of a PuppetDB.

use std::time::Duration;

use crate::settings::keys::kind_keys;
use crate::settings::units::duration;
use crate::source::SourceKind;
use crate::source::transport::http::keys::url_problems;

/// Each node's facts name the Puppet Server that sent them last: the master that owns the node.
const DEFAULT_QUERY: &str = "factsets[certname, producer, producer_timestamp] {}";

kind_keys! {
    /// Keys of a PuppetDB, beside those above.
    #[derive(Debug, Clone)]
    pub struct PuppetDbKeys {
        /// The PQL query for everything. With the default a node's master is its *producer*: the
        /// Puppet Server that sent its facts last.
        #[unset(says "`factsets[certname, producer, producer_timestamp] {}`")]
        pub query: Option<String>,
        /// The PQL query for what changed since `{since}`, which it must contain. Needed for a
        /// `query` that is not a plain query of factsets or catalogs; without one every poll of
        /// such a query is full.
        #[unset(says "derived from `query`")]
        pub delta_query: Option<String>,
        /// Further PuppetDBs with the same data, asked with the same query, certificates and token
        /// where the one before gives no answer. One whose newest facts are older than what is
        /// known, by more than `overlap`, is not taken. `url` is tried again at the next full poll.
        #[unset(says "none")]
        pub fallback_urls: Vec<String>,
        /// How far a delta query reaches back beyond the newest time that a Puppet Server gave, for
        /// commands that PuppetDB stored late and clocks that differ.
        #[unset("2m")]
        #[serde(deserialize_with = "duration")]
        pub overlap: Duration,
    }
}

impl Default for PuppetDbKeys {
    fn default() -> Self {
        let overlap = Duration::from_secs(120);
        Self { query: None, delta_query: None, fallback_urls: Vec::new(), overlap }
    }
}

impl PuppetDbKeys {
    /// The query for everything.
    pub(crate) fn query(&self) -> &str {
        self.query.as_deref().unwrap_or(DEFAULT_QUERY)
    }

    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        if kind != SourceKind::Puppetdb && (self.query.is_some() || self.delta_query.is_some()) {
            problem("query, delta_query: only a puppetdb source has them".to_owned());
        }
        if kind != SourceKind::Puppetdb && !self.fallback_urls.is_empty() {
            problem("fallback_urls: only a puppetdb source has them".to_owned());
        }
        for url in &self.fallback_urls {
            url_problems("fallback_urls", url, kind, &mut problem);
        }
        if self.delta_query.as_ref().is_some_and(|query| !query.contains("{since}")) {
            problem("delta_query: must contain {since}, where the time is put".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::keys::{Keys, Unset};

    #[test]
    fn the_documented_query_is_the_one_that_is_asked_by_default() {
        let key = PuppetDbKeys::KEYS.iter().find(|key| key.name == "query").unwrap();
        let query = PuppetDbKeys::default().query().to_owned();
        assert!(
            matches!(key.unset, Unset::Says(words) if words == format!("`{query}`")),
            "{key:?}"
        );
    }
}
