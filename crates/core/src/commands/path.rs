//! The path of a command, with the node's name in it.

use std::fmt;

use serde::Deserialize;

use crate::quoting::path_segment;

/// Stands for the node's name.
const NODE: &str = "{node}";
/// The longest path, in bytes.
const LONGEST: usize = 255;

/// A path like `/nodes/{node}/commands`. The node's name is a whole part of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathTemplate {
    parts: Vec<String>,
}

/// Not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a path like \"/nodes/{{node}}/commands\": parts of letters, digits and . _ ~ -, \
        of which one is {{node}}"
)]
pub struct NotAPath(String);

impl PathTemplate {
    /// The path for this node; none where no path can have its name: `..` leads elsewhere, however
    /// it is encoded.
    pub fn of(&self, node: &str) -> Option<String> {
        if matches!(node, "" | "." | "..") {
            return None;
        }
        let part = |part: &String| match part.as_str() {
            NODE => format!("/{}", path_segment(node)),
            part => format!("/{part}"),
        };
        Some(self.parts.iter().map(part).collect())
    }

    /// What every path has that a server may take for this one, whichever node it names: each of
    /// these, anywhere. Other paths have them, too; who denies by it wants that. Paths are decoded
    /// and their case does not count.
    ///
    /// No order and no expression: whatever else stands in the path (empty parts, `..`, parameters
    /// behind a part, a line break) changes nothing, and no path is too long to be looked through.
    pub fn marks(&self) -> Vec<String> {
        let literals = self.parts.iter().filter(|part| *part != NODE);
        literals.map(|part| format!("/{part}")).collect()
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = NotAPath;

    fn try_from(text: String) -> Result<Self, NotAPath> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let is_part = |part: &str| {
            part == NODE || !matches!(part, "" | "." | "..") && part.bytes().all(plain)
        };
        let parts = text.strip_prefix('/').filter(|_| text.len() <= LONGEST);
        let parts: Vec<_> = parts.unwrap_or_default().split('/').map(str::to_owned).collect();
        let named = parts.iter().filter(|part| *part == NODE).count();
        if named != 1 || parts.len() < 2 || !parts.iter().all(|part| is_part(part)) {
            return Err(NotAPath(text));
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| write!(out, "/{part}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> PathTemplate {
        PathTemplate::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_nodes_name_stays_in_its_part_of_the_path() {
        let path = |node: &str| template("/nodes/{node}/commands").of(node);
        let whole = |part: &str| Some(format!("/nodes/{part}/commands"));
        assert_eq!(path("web1.example.test"), whole("web1.example.test"));
        assert_eq!(path("a/../b"), whole("a%2F..%2Fb"));
        assert_eq!(path("a?x=1#y"), whole("a%3Fx%3D1%23y"));
        assert_eq!(path("%2e%2e"), whole("%252e%252e"));
        assert_eq!(path("ü"), whole("%C3%BC"));
        assert_eq!(path("a\r\nb"), whole("a%0D%0Ab"));
        for node in ["", ".", ".."] {
            assert_eq!(path(node), None, "{node:?}");
        }
    }

    #[test]
    fn a_path_that_is_none_is_named() {
        assert_eq!(template("/{node}/run").to_string(), "/{node}/run");
        for wrong in [
            "",
            "/",
            "nodes/{node}",
            "/{node}",
            "/nodes/x",
            "/nodes/{node}/{node}",
            "/nodes/a{node}/x",
            "/nodes//{node}",
            "/nodes/{node}/",
            "/../{node}",
            "/nodes/{node}/a?b",
            "/nodes/{node}/%61",
            "/nodes/{node}/a b",
            "/nodes/{Node}/x",
        ] {
            assert!(PathTemplate::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    fn denies(template: &PathTemplate, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        template.marks().iter().all(|mark| path.contains(&mark.to_ascii_lowercase()))
    }

    /// What a server finds in a path that it takes as widely as any does.
    fn taken(path: &str) -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('/') {
            match part.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part.to_ascii_lowercase()),
            }
        }
        parts
    }

    #[test]
    fn whatever_a_server_may_take_for_the_path_is_denied() {
        for path in [
            "/nodes/n1/commands",
            "//nodes//n1//commands//",
            "/./nodes/./n1/./commands",
            "/x/../nodes/n1/commands",
            "/nodes/x/../n1/commands/17",
            "/NODES/n1/Commands",
            "/nodes;v=1/n1;a/commands;b",
            "/nodes/a/b/commands",
            "/nodes/a\nb/commands",
            "/nodes/n1/x\n/../commands",
            "/nodes\0/n1/commands",
        ] {
            assert!(denies(&template("/nodes/{node}/commands"), path), "{path}");
        }
        for path in ["/nodes/n1", "/nodes/n1/facts", "/commands", "/catalog/n1", "/"] {
            assert!(!denies(&template("/nodes/{node}/commands"), path), "{path}");
        }
        assert!(denies(&template("/run/{node}"), "/run/n1"));
        assert!(denies(&template("/{node}/run"), "/n1/run"));
        assert!(!denies(&template("/v1.0/{node}/run"), "/v1x0/n1/run"));
    }

    proptest! {
        #[test]
        fn what_is_sent_has_the_parts_of_the_template_and_is_denied_to_others(
            node in "(.|[\r\n\\x00-\x1f%/;]){1,40}"
        ) {
            let template = template("/nodes/{node}/commands");
            if let Some(path) = template.of(&node) {
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(denies(&template, &path));
            }
        }

        #[test]
        fn no_detour_leads_past_the_denial(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("nodes".to_owned()),
                    Just("Commands".to_owned()),
                    "(nodes|COMMANDS|n1)(;[a-z=\n]{0,3})?",
                    "(\\.|\\.\\.|)",
                    "(.|\n){0,3}",
                ],
                0..9,
            )
        ) {
            let path = format!("/{}", parts.join("/"));
            let found = taken(&path);
            if let [first, _, last, ..] = &found[..]
                && first == "nodes" && last == "commands"
            {
                prop_assert!(denies(&template("/nodes/{node}/commands"), &path), "{:?}", path);
            }
        }
    }
}
