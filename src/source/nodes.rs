//! The key of registries that hold a node map below a path or prefix, beside other things.

use super::SourceKind;
use super::etcd::keys::check_prefix;
use super::zookeeper::keys::check_path;
use crate::settings::keys::kind_keys;

kind_keys! {
    /// Where the node map is. Without it the source is no part of the node map.
    #[derive(Debug, Clone, Default)]
    pub struct NodesKeys {
        /// `zookeeper`: the path whose children are the nodes, by their names; each holds its
        /// master's name. `etcd`: the prefix, with `/` at its end (`/mapsmith/nodes/`), whose keys
        /// are the nodes, by what follows it; the value is the master's name.
        #[unset(says "no node map")]
        pub nodes: Option<String>,
    }
}

impl NodesKeys {
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let Some(nodes) = &self.nodes else { return };
        let checked = match kind {
            SourceKind::Zookeeper => check_path(nodes),
            SourceKind::Etcd => check_prefix(nodes),
            _ => Err(format!("a {kind} source has none")),
        };
        if let Err(reason) = checked {
            problem(format!("nodes: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_nodes_are_is_checked_as_the_registry_takes_it() {
        for (kind, nodes, expected) in [
            (SourceKind::Zookeeper, "/nodes", None),
            (SourceKind::Zookeeper, "/nodes/", Some("nodes: \"/nodes/\" is not a path")),
            (SourceKind::Etcd, "/nodes/", None),
            (SourceKind::Etcd, "/nodes", Some("nodes: \"/nodes\" must end with /")),
            (SourceKind::Consul, "/nodes/", Some("nodes: a consul source has none")),
        ] {
            let mut problems = Vec::new();
            let keys = NodesKeys { nodes: Some(nodes.to_owned()) };
            keys.problems(kind, |problem| problems.push(problem));
            match expected {
                None => assert!(problems.is_empty(), "{kind} {nodes}: {problems:?}"),
                Some(part) => assert!(problems.concat().contains(part), "{problems:?}"),
            }
        }
    }
}
