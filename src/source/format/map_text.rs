//! A map file that somebody else writes: `node master` a line.
//!
//! HAProxy takes any two words for an entry, so an error page, YAML, or JSON under another name
//! would be a map of junk. Such a text is refused whole; a few lines that are no entries are left
//! out.

use std::sync::Arc;

use mapsmith_core::map_file::{self, MapFile};
use mapsmith_core::{EntryMap, Rejections};
use reqwest::StatusCode;

use super::collector::{Collector, Field, Names, Row};
use super::{Format, Reader, Rows, without_mark};
use crate::source::error::{Excerpt, SourceErrorKind};
use crate::source::transport::secret::Secret;

/// Lines that may be no entries in any file; beyond them a tenth.
const FORGIVEN: usize = 2;

/// Map files.
#[derive(Debug, Clone)]
pub(crate) struct MapText {
    names: Arc<Names>,
}

impl MapText {
    pub(crate) fn new(names: Arc<Names>) -> Self {
        Self { names }
    }
}

impl Format for MapText {
    type Content = EntryMap;
    type Rows = (EntryMap, Rejections);
    type Reader = MapTextReader;

    fn reader(&self, _hidden: Option<Secret>) -> MapTextReader {
        MapTextReader { text: Vec::new(), names: Arc::clone(&self.names) }
    }
}

/// Keeps the text until it has ended: what refuses it may stand in its last line.
#[derive(Debug)]
pub(crate) struct MapTextReader {
    text: Vec<u8>,
    names: Arc<Names>,
}

impl Reader for MapTextReader {
    type Rows = (EntryMap, Rejections);

    fn bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), SourceErrorKind> {
        self.text.extend_from_slice(chunk);
        Ok(())
    }

    fn close(self) -> Result<(EntryMap, Rejections), SourceErrorKind> {
        let text = without_mark(&self.text);
        let file = map_file::parse(text);
        if let Some(why) = no_map_file(text, &file) {
            return Err(SourceErrorKind::NoMapFile(why));
        }
        let mut collector = Collector::new(Arc::clone(&self.names));
        for (line, reason) in &file.rejected {
            collector.reject(&format!("line {line}"), *reason);
        }
        if self.names.keep_all() {
            return Ok((file.entries, collector.settle().1));
        }
        for (node, master) in file.entries.iter() {
            collector.take(&Row {
                node: Field::Text(node.into()),
                master: Field::Text(master.into()),
                ..Row::default()
            });
        }
        Ok(collector.settle())
    }
}

impl Rows for (EntryMap, Rejections) {
    type Content = EntryMap;

    fn settle(self) -> (EntryMap, Rejections) {
        self
    }
}

/// Why the text is something else than a map file, if it is.
fn no_map_file(text: &[u8], file: &MapFile) -> Option<String> {
    if matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Some(
            "it looks like JSON; set format = \"json\", or let its name end in .json".to_owned(),
        );
    }
    let describe = |text: &[u8]| {
        let mut excerpt = Excerpt::new(None);
        excerpt.push(text);
        excerpt.to_string()
    };
    if is_status(text) {
        return Some(format!(
            "it says no more than {:?}, as a server does that has nothing",
            describe(text)
        ));
    }
    let lines = (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .filter(|(_, line)| line.first() != Some(&b'#'));
    for (number, line) in lines {
        if holds_tag(line) {
            return Some(format!("line {number} holds a tag, as a page does: {}", describe(text)));
        }
        let word = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if word.ends_with(b":") {
            return Some(format!(
                "line {number} begins with `{}`, as YAML does; write the node, a blank, and its \
                    master",
                describe(word)
            ));
        }
    }
    let (rejected, lines) =
        (file.rejected.len(), file.entries.len() + file.repeated + file.rejected.len());
    let forgiven = if file.entries.is_empty() { 0 } else { FORGIVEN.max(lines / 10) };
    let (line, reason) = file.rejected.first().filter(|_| rejected > forgiven)?;
    Some(format!(
        "{rejected} of its {lines} lines are no entries, the first is line {line}: {reason}"
    ))
}

/// Whether the whole text is the name of an HTTP status of failure.
fn is_status(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    (400..600)
        .filter_map(|code| StatusCode::from_u16(code).ok()?.canonical_reason())
        .any(|name| name.as_bytes().eq_ignore_ascii_case(text))
}

/// Whether something like `<html>`, `</p>` or `<!--` stands in the line.
fn holds_tag(line: &[u8]) -> bool {
    line.windows(2).any(|pair| {
        pair[0] == b'<' && (pair[1].is_ascii_alphabetic() || matches!(pair[1], b'/' | b'!' | b'?'))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(text: &[u8]) -> Result<(EntryMap, Rejections), SourceErrorKind> {
        let mut reader = MapText::new(Arc::new(Names::new(true, &BTreeMap::new()))).reader(None);
        reader.feed(text)?;
        reader.close()
    }

    #[test]
    fn what_is_no_map_file_is_refused_whole_and_says_what_it_looks_like() {
        for (text, part) in [
            (&b"{\"a\": \"m1\"}"[..], "set format = \"json\""),
            (b"\xef\xbb\xbf\n [{\"a\": \"m1\"}]", "set format = \"json\""),
            (b"node1: master1\nnode2: master2\n", "line 1 begins with `node1:`, as YAML does"),
            (b"---\nnodes:\n  a: m1\n", "line 2 begins with `nodes:`"),
            (b"a m1\n  \"b\": m1\n", "line 2 begins with"),
            (
                b"<html>\n<title>Gone away</title></html>\n",
                "line 1 holds a tag, as a page does: Gone away",
            ),
            (b"a m1\nb m1\nc <b>m1</b>\n", "line 3 holds a tag"),
            (b"Not Found", "\"Not Found\""),
            (b"\nservice unavailable\r\n", "\"service unavailable\""),
            (b"404 Not Found\n", "1 of its 1 lines are no entries"),
            (
                b"a m1\nb\nc\nd\n",
                "3 of its 4 lines are no entries, the first is line 2: master name is empty",
            ),
            (b"\xff\xfea\0 \0m\0\n", "lines are no entries"),
        ] {
            let fault = read(text).expect_err(&String::from_utf8_lossy(text)).to_string();
            assert!(fault.contains(part), "{part:?} is not in {fault:?}");
        }
    }

    #[test]
    fn a_map_file_is_read_with_its_few_lines_that_are_no_entries() {
        let many: String = (0..100).map(|number| format!("n{number} m1\n")).collect::<String>()
            + &"lonely\n".repeat(10);
        for (text, entries, rejected) in [
            (&b""[..], 0, 0),
            (b"# <none> yet: nothing\n", 0, 0),
            (b"\xef\xbb\xbf# nodes\nA m1\nb m2", 2, 0),
            (b"fe80::1 m1\na:b m1\n", 2, 0),
            (b"a m1\nlonely\nb two words\na m2\n", 1, 2),
            (many.as_bytes(), 100, 10),
        ] {
            let (map, rejections) = read(text)
                .unwrap_or_else(|fault| panic!("{}: {fault}", String::from_utf8_lossy(text)));
            assert_eq!(
                (map.len(), rejections.total()),
                (entries, rejected),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }
}
