//! The map file's text, as HAProxy reads it: `key value` a line, `#` comments, empty lines.
//!
//! HAProxy's configuration manual, section on `map` converters; what it does with odd lines was measured on 2.6 to 3.4.

use std::io::{self, Write};

use super::entry_map::{EntryMap, EntryMapBuilder};
use super::name::Illegal;

const HEADER: &str = "# Written by Mapsmith: changes by hand are overwritten. Revision ";

/// What a map file holds.
#[derive(Debug, Default)]
pub struct MapFile {
    /// The entries that are legal, the first of each key.
    pub entries: EntryMap,
    /// The revision that Mapsmith noted in the file's first line, if it wrote the file.
    pub revision: Option<u64>,
    /// Lines that are left out: line number (from 1) and why.
    pub rejected: Vec<(usize, Illegal)>,
    /// How many entries stand behind another one of the same key: HAProxy loads them all.
    pub repeated: usize,
}

impl MapFile {
    /// Whether HAProxy loads exactly these entries from it: no line was left out.
    pub fn is_exact(&self) -> bool {
        self.rejected.is_empty() && self.repeated == 0
    }
}

/// Reads a map file's text. Never fails: a line that is no legal entry is named in `rejected`.
pub fn parse(text: &[u8]) -> MapFile {
    let mut builder = EntryMapBuilder::new();
    let mut file = MapFile::default();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        match parse_line(line) {
            Ok(None) => {
                if number == 1 {
                    file.revision = parse_header(line);
                }
            }
            Ok(Some((key, value))) => {
                if let Err(reason) = builder.push(key, value) {
                    file.rejected.push((number, reason));
                }
            }
            Err(reason) => file.rejected.push((number, reason)),
        }
    }
    let taken = builder.len();
    file.entries = builder.finish();
    file.repeated = taken - file.entries.len();
    file
}

fn parse_line(line: &[u8]) -> Result<Option<(&str, &str)>, Illegal> {
    // HAProxy takes `#` for a comment in a line's first column only: behind a blank it begins a key.
    if line.first() == Some(&b'#') {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| Illegal::NotText)?.trim_start_matches([' ', '\t']);
    // A line ends for HAProxy with a carriage return, wherever that stands.
    if line.is_empty() || line.starts_with('\r') {
        return Ok(None);
    }
    let line = line.trim_end_matches([' ', '\t', '\r']);
    let (key, value) = line.split_once([' ', '\t']).ok_or(Illegal::EmptyValue)?;
    Ok(Some((key, value.trim_start_matches([' ', '\t']))))
}

fn parse_header(line: &[u8]) -> Option<u64> {
    str::from_utf8(line).ok()?.strip_prefix(HEADER)?.trim_end_matches('\r').parse().ok()
}

/// Writes a map file's text: a comment with the revision, then the entries sorted by key.
///
/// # Errors
/// What `out` answers.
pub fn print(entries: &EntryMap, revision: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{HEADER}{revision}")?;
    for (key, value) in entries.iter() {
        out.write_all(key.as_bytes())?;
        out.write_all(b" ")?;
        out.write_all(value.as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hand_written_file_is_read_as_haproxy_reads_it() {
        let file = parse(b"# nodes\n\n node1  master1\r\nnode2\tmaster2\nnode1 other\nlonely\nnode3 two words\n");
        assert_eq!(file.entries.iter().collect::<Vec<_>>(), [("node1", "master1"), ("node2", "master2")]);
        assert_eq!(file.rejected, [(6, Illegal::EmptyValue), (7, Illegal::ValueWhiteSpace)]);
        assert_eq!((file.revision, file.repeated, file.is_exact()), (None, 1, false));
    }

    /// As `show map` has it on 2.6, 3.0, 3.2 and 3.4.
    #[test]
    fn a_comment_begins_in_the_first_column_and_may_hold_any_bytes() {
        let file = parse(b"#a m1\n # b m2\n\t#c m3\n# caf\xe9\nd m4\n");
        assert_eq!(file.entries.iter().collect::<Vec<_>>(), [("d", "m4")]);
        assert_eq!(file.rejected, [(2, Illegal::KeyMark), (3, Illegal::KeyMark)]);
    }

    #[test]
    fn a_line_that_begins_with_a_carriage_return_is_none() {
        let file = parse(b" \ra m1\n\r\nb m2 \r\n");
        assert_eq!(file.entries.iter().collect::<Vec<_>>(), [("b", "m2")]);
        assert!(file.is_exact());
    }

    #[test]
    fn the_revision_survives_in_the_first_line() {
        let mut text = Vec::new();
        print(&[("a", "m1")].into_iter().collect(), 42, &mut text).unwrap();
        assert_eq!(parse(&text).revision, Some(42));
    }

    proptest! {
        #[test]
        fn a_printed_map_parses_to_itself(entries in proptest::collection::vec(("[!-~é]{1,12}", "[!-~]{1,8}"), 0..40), revision: u64) {
            let map: EntryMap = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let mut text = Vec::new();
            print(&map, revision, &mut text).unwrap();
            let file = parse(&text);
            prop_assert!(file.is_exact());
            prop_assert_eq!(file.revision, Some(revision));
            prop_assert_eq!(file.entries, map);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }
    }
}
