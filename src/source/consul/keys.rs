//! The keys of a Consul, and of what a backend wants of it.

use serde::Deserialize;

use crate::settings::keys::{SelectorKeys, kind_keys, section};
use crate::source::SourceKind;

kind_keys! {
    /// Keys of a Consul. Where its answer says that it is not whole, for want of a leader or of
    /// rights, the last good one stays.
    #[derive(Debug, Clone, Default)]
    pub struct ConsulKeys {
        /// The folder of Consul's key-value store that is the node map, with `/` at its end:
        /// `mapsmith/nodes/`. The last part of a key below it is a node, the value its master.
        #[unset(says "no node map")]
        pub kv: Option<String>,
        /// The datacentre that is asked about.
        #[unset(says "the agent's own")]
        pub datacenter: Option<String>,
        /// Who may answer: `default` (the leader, which may just have lost that role; the first
        /// answer, and one that is older than the one before, as with `consistent`), `consistent`
        /// (the leader, once the others have said so), `stale` (any server while it knows a leader)
        /// or `cached` (the agent; `kv` and reloads ask the leader all the same).
        #[unset("default")]
        pub consistency: Consistency,
    }
}

/// Who may answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The leader.
    #[default]
    Default,
    /// The leader, confirmed by the others.
    Consistent,
    /// Any server.
    Stale,
    /// The agent's cache.
    Cached,
}

impl Consistency {
    /// The parameter of a request.
    pub(super) fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Consistent => Some("consistent"),
            Self::Stale => Some("stale"),
            Self::Cached => Some("cached"),
        }
    }
}

impl ConsulKeys {
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let Self { kv, datacenter, consistency } = self;
        let given = kv.is_some() || datacenter.is_some() || *consistency != Consistency::Default;
        if kind != SourceKind::Consul && given {
            problem("kv, datacenter, consistency: only a consul source has them".to_owned());
        }
        if kv.as_ref().is_some_and(|kv| !kv.ends_with('/') || kv.starts_with('/')) {
            problem(
                "kv: must end with /, and not begin with it (example: mapsmith/nodes/)".to_owned(),
            );
        }
        if kv.as_ref().is_some_and(|kv| kv.split('/').any(is_dots)) {
            problem("kv: a part of a path in a URL can't be . or ..".to_owned());
        }
    }
}

section! {
    /// The instances of a service. Of each, Mapsmith takes the address (without one its node's), the
    /// port and the weight (`Weights.Passing`; where one is above 256, all are scaled to that).
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct ConsulSelector {
        /// The service's name.
        #[unset(required)]
        pub service: String,
        /// A tag, or a list of tags, that the instances must have, all of them.
        #[unset(says "none")]
        #[serde(default)]
        pub tag: Vec<String>,
        /// Whether only instances count whose checks pass. With `false` all do, those in maintenance
        /// too.
        #[unset("true")]
        #[serde(default = "passing")]
        pub passing: bool,
        /// The datacentre.
        #[unset(says "the source's")]
        pub datacenter: Option<String>,
    }
}

/// Whether a part of a path would lead elsewhere in a URL.
fn is_dots(part: &str) -> bool {
    matches!(part, "." | "..")
}

fn passing() -> bool {
    true
}

impl SelectorKeys for ConsulSelector {
    fn problems(&self, mut problem: impl FnMut(String)) {
        if self.service.is_empty() || self.service.contains('/') || is_dots(&self.service) {
            problem(format!("service: {:?} is not the name of a service", self.service));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Selector;
    use crate::settings::keys::{Keys, Unset};

    #[test]
    fn what_would_lead_elsewhere_in_a_url_is_no_service_and_no_folder() {
        for (service, is_good) in [("web", true), (".web", true), (".", false), ("..", false)] {
            let mut problems = Vec::new();
            let text = serde_json::json!({"source": "c", "service": [service]});
            let selector: Selector = serde_json::from_value(text).unwrap();
            let keys = selector.read::<ConsulSelector>().unwrap();
            keys.problems(|problem| problems.push(problem));
            assert_eq!(problems.is_empty(), is_good, "{service}: {problems:?}");
        }
        for (kv, is_good) in [("a/nodes/", true), ("a/../nodes/", false), ("./nodes/", false)] {
            let mut problems = Vec::new();
            let keys = ConsulKeys { kv: Some(kv.to_owned()), ..ConsulKeys::default() };
            keys.problems(SourceKind::Consul, |problem| problems.push(problem));
            assert_eq!(problems.is_empty(), is_good, "{kv}: {problems:?}");
        }
    }

    #[test]
    fn each_documented_default_of_a_selector_is_the_one_in_force() {
        let read = |more: &str| {
            let text = format!("{{\"source\": \"c\", \"service\": [\"web\"]{more}}}");
            let selector: Selector = serde_json::from_str(&text).unwrap();
            selector.read::<ConsulSelector>().unwrap()
        };
        for key in ConsulSelector::KEYS {
            if let Unset::Value(value) = key.unset {
                let given = read(&format!(", \"{}\": [\"{value}\"]", key.name));
                assert_eq!(given, read(""), "{}", key.name);
            }
        }
    }
}
