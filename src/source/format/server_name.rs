//! Names of servers that a registry calls by several words: by a node and a service on it.

use mapsmith_core::server::is_valid_name;
use xxhash_rust::xxh3::xxh3_64;

/// The longest name that is taken as it is: a mark has room behind it.
const LONGEST: usize = 200;

/// A name for HAProxy: the parts with `:` between them. It depends on them alone, so that a server
/// keeps its name whatever else is listed. Where HAProxy can't have it, or a part before the last
/// has a `:` of its own, `_` stands for what is wrong, and a mark of the parts at the end tells it
/// from names that would be the same.
pub(in crate::source) fn server_name(parts: &[&str]) -> String {
    let name = parts.join(":");
    let (_, first) = parts.split_last().unwrap_or((&"", &[]));
    let is_split = first.iter().all(|part| !part.contains(':'));
    if name.len() <= LONGEST && is_valid_name(&name) && is_split {
        return name;
    }
    let mark = xxh3_64(parts.join("\0").as_bytes());
    let written = name.chars().take(LONGEST).map(|character| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | ':' => character,
        _ => '_',
    });
    format!("{}-{mark:016x}", written.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_valid_and_each_pair_of_parts_has_its_own() {
        assert_eq!(server_name(&["node1", "web"]), "node1:web");
        assert_eq!(server_name(&["node1", "web:1"]), "node1:web:1");
        let long = "x".repeat(300);
        let pairs = [
            ["a", "b:c"],
            ["a:b", "c"],
            ["a b", "c"],
            ["a_b", "c"],
            ["a/b", "c"],
            ["ä", "c"],
            ["", ""],
            ["a", &long],
            ["b", &long],
        ];
        let names: Vec<_> = pairs.iter().map(|pair| server_name(pair)).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(is_valid_name(name), "{name:?}");
            assert!(!names[..at].contains(name), "{name:?} stands for two");
        }
        assert!(names[2].starts_with("a_b:c-"), "{}", names[2]);
    }
}
