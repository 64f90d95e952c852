//! What the keys below a prefix of an etcd hold.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mapsmith::settings::Selector;
use mapsmith::source;
use mapsmith_core::snapshot::NAMED_REJECTIONS;
use serde_json::json;

use super::commands::added;

/// A selector of each format.
static SELECTORS: LazyLock<Vec<Selector>> = LazyLock::new(|| {
    ["json", "address"]
        .map(|format| json!({"source": "etcd", "prefix": ["/web/"], "format": [format]}))
        .map(|keys| serde_json::from_value(keys).expect("these keys are right"))
        .to_vec()
});

/// A key a line, without its prefix: the key, a tab, and what it holds.
pub fn keys(text: &[u8]) {
    let mut keys = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let (key, value) = match line.iter().position(|byte| *byte == b'\t') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        keys.entry(key.to_vec()).or_insert_with(|| value.to_vec());
    }
    let forwards: Vec<_> = keys.clone().into_iter().collect();
    let backwards: Vec<_> = keys.clone().into_iter().rev().collect();
    let spoilt: Vec<_> = keys.into_keys().map(|key| (key, b"{".to_vec())).collect();
    for selector in SELECTORS.iter() {
        let answers = [forwards.clone(), backwards.clone(), spoilt.clone()];
        let lists = source::read_keys(selector, answers).expect("the selector is right");
        let [(list, rejections), (again, _), (garbage, _)] = &lists[..] else {
            panic!("an answer each");
        };
        assert_eq!((&list.servers, &list.disputed), (&again.servers, &again.disputed));
        assert!(list.servers.is_sorted_by(|one, next| one.name < next.name));
        assert!(list.rejected.len() as u64 <= rejections.total());
        // The mark at the prefix itself is neither.
        let rows = list.servers.len() as u64 + rejections.total();
        let marks = u64::from(forwards.iter().any(|(key, _)| key.is_empty()));
        assert_eq!(rows, forwards.len() as u64 - marks, "each key is a server or is counted");
        list.servers.iter().for_each(|server| added("b", server, &Default::default()));
        // Garbage in place of a value keeps what it was.
        assert!(garbage.servers.is_empty());
        if garbage.rejected.len() < NAMED_REJECTIONS {
            let kept: Vec<_> =
                garbage.rejected.iter().filter_map(|row| row.name.as_deref()).collect();
            assert!(list.servers.iter().all(|server| kept.contains(&&*server.name)));
        }
    }
}
