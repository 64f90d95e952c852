//! The map file's text, as HAProxy reads it: `key value` a line, `#` comments, empty lines.
//!
//! HAProxy's configuration manual, section on `map` converters; what it does with malformed lines
//! was measured on 2.6 to 3.4.
//!
//! A file that Mapsmith wrote says more in its comments, so that a restart knows all that was
//! known: the revision, who wrote it, and what the sources said of each node whose entry is another
//! one (a pin, a drained master, a reference to nothing, a node that is gone and stays for a while):
//! ```text
//! # Written by Mapsmith: external changes are overwritten. Revision 7
//! # Writer: pid 812 on gw1 (site edge-fra) [418230 4026531836]
//! #= node1 master1
//! #- node2
//! #- node3 2026-11-26T07:00:00Z master1
//! node1 master2
//! node2 master2
//! node3 master1
//! ```

use std::fmt;
use std::io::{self, Write};

use jiff::Timestamp;

use crate::names::{self, Invalid};
use crate::node_map::{EntryMap, EntryMapBuilder};

const HEADER: &str = "# Written by Mapsmith: external changes are overwritten. Revision ";
const WRITER: &str = "# Writer: ";
/// Before a node and the master that the sources name for it, where its entry has another one.
const SAID: &str = "#= ";
/// Before a node that has an entry and that the sources do not know; for one that they knew, with
/// since when they don't, and the master that they named last.
const UNKNOWN: &str = "#- ";

/// The Mapsmith that wrote a map file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// `site.name` in its settings.
    pub site: Option<String>,
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What distinguishes that process from others of the same number: when it was started, and the
    /// namespace that numbered it; empty where the system does not say.
    pub key: String,
}

impl fmt::Display for Writer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pid {} on {}", self.pid, self.host)?;
        self.site.iter().try_for_each(|site| write!(out, " (site {site})"))
    }
}

impl Writer {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('\r');
        let (text, key) =
            text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")).unwrap_or((text, ""));
        let (pid, rest) = text.strip_prefix("pid ")?.split_once(" on ")?;
        let (host, site) = match rest.strip_suffix(')').and_then(|rest| rest.split_once(" (site "))
        {
            Some((host, site)) => (host, Some(site.to_owned())),
            None => (rest, None),
        };
        Some(Self { site, host: host.to_owned(), pid: pid.parse().ok()?, key: key.to_owned() })
    }
}

/// What the sources say of a node whose entry is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    Master(&'a str),
    /// They don't know it.
    Nothing,
    /// They don't know it any more, and it stays for a while.
    Gone {
        since: Timestamp,
        /// The master that they named last.
        master: &'a str,
    },
}

impl<'a> From<Option<&'a str>> for Said<'a> {
    fn from(master: Option<&'a str>) -> Self {
        master.map_or(Self::Nothing, Self::Master)
    }
}

/// A node that the sources don't know any more, as a map file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneEntry {
    pub node: String,
    pub since: Timestamp,
    /// The master that they named last.
    pub master: String,
}

/// What a map file that Mapsmith wrote says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub revision: u64,
    pub writer: Option<Writer>,
}

#[derive(Debug, Default)]
pub struct MapFile {
    /// The entries that are valid, the first of each key.
    pub entries: EntryMap,
    /// What Mapsmith noted in the file's first lines, if it wrote the file.
    pub header: Option<Header>,
    /// Nodes of which the sources said something else than the entry: the master that they name, or
    /// none where they don't know it.
    pub said: Vec<(String, Option<String>)>,
    /// Those of them that the sources knew, and that stay for a while.
    pub gone: Vec<GoneEntry>,
    /// Lines that are rejected: line number (from 1) and why.
    pub rejected: Vec<(usize, Invalid)>,
    /// How many entries stand behind another one of the same key: HAProxy loads them all.
    pub repeated: usize,
}

impl MapFile {
    /// Whether HAProxy loads exactly these entries from it: no line was left out.
    pub fn is_exact(&self) -> bool {
        self.rejected.is_empty() && self.repeated == 0
    }

    /// The revision that Mapsmith noted in the file, if it wrote the file.
    pub fn revision(&self) -> Option<u64> {
        self.header.as_ref().map(|header| header.revision)
    }

    /// What the sources said when the file was written: the entries without overrides.
    pub fn said_by_sources(&self) -> EntryMap {
        let mut said = EntryMapBuilder::new();
        // Valid as they were read, and the first of a key stays, so the entry that replaced it
        // loses.
        for (node, master) in &self.said {
            let _ = master.as_ref().map(|master| said.push(node, master));
        }
        let mut unknown: Vec<_> = self
            .said
            .iter()
            .filter(|(_, master)| master.is_none())
            .map(|(node, _)| node.as_str())
            .collect();
        unknown.sort_unstable();
        for (node, master) in
            self.entries.iter().filter(|(node, _)| unknown.binary_search(node).is_err())
        {
            let _ = said.push(node, master);
        }
        said.finish()
    }
}

/// Reads a map file's text. Never fails: a line that is no valid entry is named in `rejected`.
pub fn parse(text: &[u8]) -> MapFile {
    let mut builder = EntryMapBuilder::new();
    let mut file = MapFile { header: parse_header(text), ..MapFile::default() };
    let ours = file.header.is_some();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        match parse_line(line) {
            Ok(None) if ours => {
                if let Some(gone) = parse_gone(line) {
                    file.said.push((gone.node.clone(), None));
                    file.gone.push(gone);
                }
                file.said.extend(parse_said(line));
            }
            Ok(None) => {}
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

fn parse_line(line: &[u8]) -> Result<Option<(&str, &str)>, Invalid> {
    // HAProxy takes `#` for a comment in a line's first column only: behind a blank it begins a
    // key.
    if line.first() == Some(&b'#') {
        return Ok(None);
    }
    let line =
        str::from_utf8(line).map_err(|_| Invalid::NotString)?.trim_start_matches([' ', '\t']);
    // A line ends for HAProxy with a carriage return, wherever that stands.
    if line.is_empty() || line.starts_with('\r') {
        return Ok(None);
    }
    let line = line.trim_end_matches([' ', '\t', '\r']);
    let (key, value) = line.split_once([' ', '\t']).ok_or(Invalid::EmptyValue)?;
    Ok(Some((key, value.trim_start_matches([' ', '\t']))))
}

/// Reads the first lines of a map file's text, which may be cut behind them; none where Mapsmith
/// did not write it.
pub fn parse_header(text: &[u8]) -> Option<Header> {
    let mut lines =
        text.split(|byte| *byte == b'\n').map(|line| str::from_utf8(line).unwrap_or_default());
    let revision = lines.next()?.strip_prefix(HEADER)?.trim_end_matches('\r').parse().ok()?;
    let writer = lines.next().and_then(|line| line.strip_prefix(WRITER)).and_then(Writer::parse);
    Some(Header { revision, writer })
}

/// A comment that says what the sources said of a node. A wrong one is a comment like any other.
fn parse_said(line: &[u8]) -> Option<(String, Option<String>)> {
    let line = str::from_utf8(line).ok()?.trim_end_matches('\r');
    let (node, master) = match line.strip_prefix(SAID) {
        Some(entry) => entry.split_once(' ').map(|(node, master)| (node, Some(master)))?,
        None => (line.strip_prefix(UNKNOWN)?, None),
    };
    let valid = names::check_key(node).is_ok()
        && master.is_none_or(|master| names::check_value(master).is_ok());
    valid.then(|| (node.to_owned(), master.map(str::to_owned)))
}

/// A comment that says since when the sources don't know a node any more, likewise.
fn parse_gone(line: &[u8]) -> Option<GoneEntry> {
    let line = str::from_utf8(line).ok()?.trim_end_matches('\r').strip_prefix(UNKNOWN)?;
    let (node, rest) = line.split_once(' ')?;
    let (since, master) = rest.split_once(' ')?;
    let since = since.parse().ok()?;
    let valid = names::check_key(node).is_ok() && names::check_value(master).is_ok();
    valid.then(|| GoneEntry { node: node.to_owned(), since, master: master.to_owned() })
}

/// Writes a map file's text: comments with the revision, its writer and what the sources `said` of
/// nodes whose entry is another one, then the entries sorted by key.
pub fn print<'a>(
    entries: &EntryMap,
    header: &Header,
    said: impl IntoIterator<Item = (&'a str, Said<'a>)>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{HEADER}{}", header.revision)?;
    if let Some(writer) = &header.writer {
        writeln!(out, "{WRITER}{writer} [{}]", writer.key)?;
    }
    for (node, said) in said {
        match said {
            Said::Master(master) => writeln!(out, "{SAID}{node} {master}")?,
            Said::Nothing => writeln!(out, "{UNKNOWN}{node}")?,
            Said::Gone { since, master } => writeln!(out, "{UNKNOWN}{node} {since} {master}")?,
        }
    }
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hand_written_file_is_read_as_haproxy_reads_it() {
        let file = parse(
            b"# nodes\n\n node1  master1\r\nnode2\tmaster2\nnode1 other\nlonely\nnode3 two words\n",
        );
        assert_eq!(
            file.entries.iter().collect::<Vec<_>>(),
            [("node1", "master1"), ("node2", "master2")]
        );
        assert_eq!(file.rejected, [(6, Invalid::EmptyValue), (7, Invalid::ValueWhitespace)]);
        assert_eq!((file.revision(), file.repeated, file.is_exact()), (None, 1, false));
    }

    /// As `show map` has it on 2.6, 3.0, 3.2 and 3.4.
    #[test]
    fn a_comment_begins_in_the_first_column_and_may_hold_any_bytes() {
        let file = parse(b"#a m1\n # b m2\n\t#c m3\n# caf\xe9\nd m4\n");
        assert_eq!(file.entries.iter().collect::<Vec<_>>(), [("d", "m4")]);
        assert_eq!(file.rejected, [(2, Invalid::KeyMark), (3, Invalid::KeyMark)]);
    }

    #[test]
    fn a_line_that_begins_with_a_carriage_return_is_none() {
        let file = parse(b" \ra m1\n\r\nb m2 \r\n");
        assert_eq!(file.entries.iter().collect::<Vec<_>>(), [("b", "m2")]);
        assert!(file.is_exact());
    }

    #[test]
    fn the_first_lines_say_the_revision_and_who_wrote_it() {
        for site in [None, Some("edge (fra)".to_owned())] {
            let header = Header {
                revision: 42,
                writer: Some(Writer {
                    site,
                    host: "gw1".to_owned(),
                    pid: 812,
                    key: "418230 4026531836".to_owned(),
                }),
            };
            let mut text = Vec::new();
            print(&[("a", "m1")].into_iter().collect(), &header, [], &mut text).unwrap();
            assert_eq!(parse(&text).header, Some(header), "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(parse(b"# my own map\na m1\n").header, None);
        assert_eq!(
            parse(b"# Written by Mapsmith: external changes are overwritten. Revision x\na m1\n")
                .header,
            None
        );
    }

    #[test]
    fn what_the_sources_said_of_overridden_nodes_survives_in_comments() {
        let text = b"# Written by Mapsmith: external changes are overwritten. Revision 7\n#= a \
            m1\n#- b\n#= gone m3\n#= two words x\na m2\nb m2\nc m1\n";
        let file = parse(text);
        assert_eq!(
            file.entries.iter().collect::<Vec<_>>(),
            [("a", "m2"), ("b", "m2"), ("c", "m1")]
        );
        assert_eq!(
            file.said_by_sources().iter().collect::<Vec<_>>(),
            [("a", "m1"), ("c", "m1"), ("gone", "m3")]
        );
        let external = parse(b"#= a m1\na m2\n");
        assert_eq!(
            external.said_by_sources(),
            external.entries,
            "comments of a file that Mapsmith did not write mean nothing"
        );
    }

    #[test]
    fn nodes_that_are_gone_survive_in_comments_beside_those_that_were_never_known() {
        let text =
            b"# Written by Mapsmith: external changes are overwritten. Revision 7\n#- a\n#- b \
            2026-11-26T07:00:00Z m1\n#- c yesterday m1\n#- d 2026-11-26T07:00:00Z\na m2\nb m2\nc \
            m1\nd m1\n";
        let file = parse(text);
        let since = "2026-11-26T07:00:00Z".parse().unwrap();
        let gone = GoneEntry { node: "b".to_owned(), since, master: "m1".to_owned() };
        assert_eq!(file.gone, [gone]);
        assert_eq!(
            file.said_by_sources().iter().collect::<Vec<_>>(),
            [("c", "m1"), ("d", "m1")],
            "what is no such comment means nothing"
        );
    }

    proptest! {
        #[test]
        fn a_printed_map_parses_to_itself(
            entries in proptest::collection::vec(("[!-~é]{1,12}", "[!-~]{1,8}"), 0..40),
            other in proptest::collection::vec(("[!-~é]{1,12}", "[!-~]{1,8}"), 0..40),
            gone in proptest::collection::vec((0usize..40, "[!-~]{1,8}", 0i64..4_000_000_000), 0..9),
            revision: u64,
        ) {
            let map = |entries: &[(String, String)]| -> EntryMap {
                entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
            };
            let (map, said) =
                (map(&entries), map(&[&entries[entries.len() / 2..], &other[..]].concat()));
            let differ = map.iter().map(|(key, _)| key).chain(said.iter().map(|(key, _)| key));
            let differ: Vec<_> = differ.filter(|key| map.get(key) != said.get(key)).collect();
            // Of those that the sources don't know any are gone, each once.
            let gone: BTreeMap<String, GoneEntry> = gone
                .into_iter()
                .filter_map(|(at, master, second)| {
                    let node = (*differ.get(at)?).to_owned();
                    let valid = said.get(&node).is_none() && names::check_value(&master).is_ok();
                    let since = Timestamp::from_second(second).unwrap();
                    valid.then(|| (node.clone(), GoneEntry { node, since, master }))
                })
                .collect();
            let differ = differ.iter().map(|node| match gone.get(*node) {
                Some(gone) => (*node, Said::Gone { since: gone.since, master: &gone.master }),
                None => (*node, said.get(node).into()),
            });
            let mut text = Vec::new();
            print(&map, &Header { revision, writer: None }, differ, &mut text).unwrap();
            let file = parse(&text);
            prop_assert!(file.is_exact());
            prop_assert_eq!(file.revision(), Some(revision));
            let found: BTreeMap<_, _> =
                file.gone.iter().map(|gone| (gone.node.clone(), gone.clone())).collect();
            prop_assert_eq!(found, gone);
            prop_assert_eq!(file.said_by_sources(), said);
            prop_assert_eq!(file.entries, map);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }
    }
}
