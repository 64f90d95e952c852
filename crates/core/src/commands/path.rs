//! The path of a command, with the node's name in it.

use std::fmt;

use serde::Deserialize;

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
            NODE => format!("/{}", encoded(node)),
            part => format!("/{part}"),
        };
        Some(self.parts.iter().map(part).collect())
    }

    /// A regular expression (POSIX extended) of the paths that a server may take for this one,
    /// whichever node they name: with empty parts, `.`, `..`, or parameters behind a part. It
    /// matches more than those; who denies by it wants that. Paths are decoded and their case does
    /// not count.
    pub fn regex(&self) -> String {
        let literal = |part: &String| part.replace('.', "[.]");
        let literals: Vec<_> =
            self.parts.iter().filter(|part| *part != NODE).map(literal).collect();
        // What is between two parts may be the node, nothing, or a detour.
        let joined = literals.join("[^/]*/(.*/)?");
        match self.parts.last().is_some_and(|last| last == NODE) {
            true => format!("/{joined}[^/]*/."),
            false => format!("/{joined}"),
        }
    }
}

/// Percent-encoded, but for what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string can't fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
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
    use regex::RegexBuilder;

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

    fn denies(template: &str, path: &str) -> bool {
        let template = PathTemplate::try_from(template.to_owned()).unwrap();
        let regex = RegexBuilder::new(&template.regex()).case_insensitive(true).build().unwrap();
        regex.is_match(path)
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
        ] {
            assert!(denies("/nodes/{node}/commands", path), "{path}");
        }
        for path in ["/nodes/n1", "/nodes/n1/facts", "/commands", "/catalog/n1", "/"] {
            assert!(!denies("/nodes/{node}/commands", path), "{path}");
        }
        assert!(denies("/run/{node}", "/run/n1") && !denies("/run/{node}", "/run/"));
        assert!(denies("/{node}/run", "/n1/run"));
        assert!(!denies("/v1.0/{node}/run", "/v1x0/n1/run"));
    }

    proptest! {
        #[test]
        fn what_is_sent_has_the_parts_of_the_template_and_is_denied_to_others(node in ".{1,40}") {
            let template = template("/nodes/{node}/commands");
            if let Some(path) = template.of(&node) {
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
                let denied = denies("/nodes/{node}/commands", &path);
                prop_assert!(denied);
            }
        }
    }
}
