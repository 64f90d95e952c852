//! What is wrong with the settings of registered nodes.

use mapsmith_core::members::check_name;
use serde::Deserialize;

use crate::settings::Source;
use crate::settings::keys::{SelectorKeys, section};
use crate::source::SourceKind;

section! {
    /// Which members are a backend's servers: those that are registered by this name and version,
    /// each called by its address (`10.0.0.3:8080`). `mapsmith switch` gives the backend another
    /// version, which counts until `version` here is another one than it was then.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct MemberSelector {
        /// What they are registered as, like `myapp`.
        #[unset(required)]
        pub name: String,
        /// Their version, like `"1.0.0"`.
        #[unset(required)]
        pub version: String,
    }
}

impl SelectorKeys for MemberSelector {
    fn problems(&self, mut problem: impl FnMut(String)) {
        for (key, value) in [("name", &self.name), ("version", &self.version)] {
            if let Err(error) = check_name(key, value) {
                problem(format!("{key}: {error}"));
            }
        }
    }
}

/// Reports what can't be so of sources of this kind. `has_store`: there is where registrations are
/// kept.
pub(crate) fn problems(sources: &[Source], has_store: bool, mut problem: impl FnMut(String)) {
    let of_kind = |(_, source): &(usize, &Source)| source.kind == SourceKind::Registrations;
    let mut first: Option<&str> = None;
    for (index, source) in sources.iter().enumerate().filter(of_kind) {
        let mut problem =
            |text: String| problem(format!("source[{index}] {:?}: {text}", source.name));
        if let Some(first) = first {
            problem(format!(
                "type: {first:?} is one of registrations already, and there can be only one: the \
                    API would not know which is meant"
            ));
        }
        first.get_or_insert(&source.name);
        if !has_store {
            problem(
                "type: registrations are kept in the store; set `path` in `[store]` (like \
                    /var/lib/mapsmith/mapsmith.db)"
                    .to_owned(),
            );
        }
        if source.shadow {
            problem("shadow: what is registered here is applied or not there at all".to_owned());
        }
        if !source.masters.is_empty() {
            problem("masters: nodes are registered by HAProxy's names of masters".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::settings::Settings;

    fn problems(text: &str) -> String {
        let base =
            "[map]\npath = \"/n.map\"\n[[instance]]\nname = \"edge\"\nruntime = \"unix@/s\"\n";
        let settings = Settings::of_text(Path::new("/m.toml"), &format!("{base}{text}"), []);
        settings.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn registrations_need_a_store_and_there_is_one_source_of_them() {
        let source = |name: &str, more: &str| {
            format!("[[source]]\nname = {name:?}\ntype = \"registrations\"\n{more}")
        };
        let store = "[store]\npath = \"/m.db\"\n";
        assert_eq!(problems(&format!("{store}{}", source("nodes", "priority = 7\n"))), "");
        assert!(problems(&source("nodes", "")).contains("set `path` in `[store]`"));
        let two = problems(&format!("{store}{}{}", source("a", ""), source("b", "")));
        assert!(two.contains("source[1] \"b\": type: \"a\" is one of registrations"), "{two}");
        for (more, words) in [
            ("[source.masters]\na = \"b\"\n", "masters: nodes are registered by HAProxy's names"),
            ("path = \"/n.json\"\n", "path: a registrations source has none"),
            ("url = \"http://a\"\n", "url"),
            ("node_field = \"a\"\nmaster_field = \"b\"\n", "a registrations source has none"),
        ] {
            let found = problems(&format!("{store}{}", source("a", more)));
            assert!(found.contains(words), "{more}: {found}");
        }
    }
}
