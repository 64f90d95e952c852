//! What the children of a ZooKeeper's path hold.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use mapsmith::settings::Selector;
use mapsmith::source;
use mapsmith_core::snapshot::NAMED_REJECTIONS;
use serde_json::json;

use super::commands::added;

/// A selector of each format.
static SELECTORS: LazyLock<Vec<Selector>> = LazyLock::new(|| {
    let registrar = json!({"source": "zk", "format": ["registrar"], "domain": ["example.com"],
        "service": ["web"]});
    let with = |more: serde_json::Value| {
        let mut keys = registrar.clone();
        let more = more.as_object().expect("keys").clone();
        keys.as_object_mut().expect("keys").extend(more);
        keys
    };
    [
        json!({"source": "zk", "format": ["proxymgr"], "path": ["/web"]}),
        json!({"source": "zk", "format": ["campanjazk"], "path": ["/web"], "port": ["80"]}),
        with(json!({})),
        with(json!({"record": ["host"], "ports": ["80", "81"]})),
    ]
    .into_iter()
    .map(|keys| serde_json::from_value(keys).expect("these keys are right"))
    .collect()
});

/// A child a line: its name, a tab, and what it holds.
pub fn children(text: &[u8]) {
    let mut names = BTreeSet::new();
    let mut children = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let (name, data) = match line.iter().position(|byte| *byte == b'\t') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        // A path has no two children of one name.
        if names.insert(name.clone()) {
            children.push((name, data.to_vec()));
        }
    }
    let backwards: Vec<_> = children.iter().rev().cloned().collect();
    let spoilt: Vec<_> = children.iter().map(|(name, _)| (name.clone(), b"{".to_vec())).collect();
    for selector in SELECTORS.iter() {
        let read = |answers: Vec<_>| {
            source::read_children(selector, answers).expect("the selector is right")
        };
        let lists = read(vec![children.clone(), backwards.clone(), spoilt.clone()]);
        let [(list, rejections), (again, _), (garbage, _)] = &lists[..] else {
            panic!("an answer each");
        };
        assert_eq!((&list.servers, &list.disputed), (&again.servers, &again.disputed));
        assert!(list.servers.is_sorted_by(|one, next| one.name < next.name));
        assert!(list.rejected.len() as u64 <= rejections.total());
        list.servers.iter().for_each(|server| added("b", server, &Default::default()));
        // Garbage in place of a record keeps what it was, where the record says it.
        if garbage.servers.is_empty() && garbage.rejected.len() < NAMED_REJECTIONS {
            let kept: BTreeSet<_> =
                garbage.rejected.iter().filter_map(|row| row.name.as_deref()).collect();
            assert!(list.servers.iter().all(|server| kept.contains(&*server.name)));
        }
    }
}
