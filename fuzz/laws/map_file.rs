//! The map file.

use std::collections::BTreeMap;

use mapsmith::source;
use mapsmith_core::map_file;
use mapsmith_core::map_file::{Header, MapFile, Said};

use super::answers::{SOURCES, entries_are_harmless};
use super::{harmless, whatever_the_pieces};

/// A map file's text.
pub fn map_file(text: &[u8]) {
    let file = map_file::parse(text);
    let as_haproxy = map_file_in_haproxy(text);
    if file.is_exact() {
        let loaded: BTreeMap<&[u8], &[u8]> = as_haproxy.iter().copied().collect();
        assert_eq!(loaded.len(), as_haproxy.len(), "HAProxy loads a key twice");
        let read: BTreeMap<&[u8], &[u8]> =
            file.entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        assert_eq!(read, loaded, "HAProxy loads something else");
    }
    for (key, value) in file.entries.iter() {
        assert!(
            as_haproxy.contains(&(key.as_bytes(), value.as_bytes())),
            "HAProxy loads no {key} {value}"
        );
        harmless(key);
        harmless(value);
    }
    assert!(file.rejected.iter().map(|(line, _)| *line).is_sorted(), "{:?}", file.rejected);
    harmless_said(&file);
    round_trip(&file);
    // As a source it is the same map or none at all.
    let source = SOURCES.iter().find(|source| source.name == "file").expect("one of these sources");
    let answer =
        whatever_the_pieces(text, |pieces| source::read_map(source, false, pieces.iter().copied()));
    entries_are_harmless(&answer);
    if let Ok((entries, _)) = answer {
        let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        assert_eq!(entries, map_file::parse(plain).entries);
    }
}

/// What the comments say goes to commands once a pin ends.
fn harmless_said(file: &MapFile) {
    assert!(
        file.header.is_some() || file.said.is_empty(),
        "comments of somebody else's file mean nothing"
    );
    for (node, master) in &file.said {
        harmless(node);
        master.iter().for_each(|master| harmless(master));
    }
}

pub(super) fn round_trip(file: &MapFile) {
    let header = file.header.clone().unwrap_or(Header { revision: 7, writer: None });
    let said = file.said_by_sources();
    let differ = file.entries.iter().map(|(node, _)| node).chain(said.iter().map(|(node, _)| node));
    let differ = differ
        .filter(|node| file.entries.get(node) != said.get(node))
        .map(|node| (node, said.get(node).into()));
    let gone = file
        .gone
        .iter()
        .map(|gone| (gone.node.as_str(), Said::Gone { since: gone.since, master: &gone.master }));
    let mut text = Vec::new();
    map_file::print(&file.entries, &header, differ.chain(gone), &mut text)
        .expect("a vector takes everything");
    let again = map_file::parse(&text);
    assert!(
        again.is_exact()
            && again.revision() == Some(header.revision)
            && again.entries == file.entries
            && again.gone == file.gone
    );
    assert_eq!(again.said_by_sources(), said);
    assert_eq!(map_file_in_haproxy(&text).len(), file.entries.len());
}

/// HAProxy's `pat_ref_read_from_file_smp`: what it loads of a map file, in order. (It reads lines
/// as C texts, which a zero byte ends.)
fn map_file_in_haproxy(text: &[u8]) -> Vec<(&[u8], &[u8])> {
    let until = |text: &'_ [u8], ends: &[u8]| {
        text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len())
    };
    let mut entries = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = &line[..until(line, b"\0")];
        let start = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = &line[start..];
        if line.starts_with(b"#") || matches!(rest.first(), None | Some(b'\r')) {
            continue;
        }
        let (key, rest) = rest.split_at(until(rest, b" \t\r"));
        let value = &rest[rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..];
        entries.push((key, without_blanks_at_its_end(&value[..until(value, b"\r")])));
    }
    entries
}

fn without_blanks_at_its_end(text: &[u8]) -> &[u8] {
    let end =
        text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    &text[..end]
}
