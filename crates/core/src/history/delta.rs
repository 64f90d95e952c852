//! The way back from a map to the one before it, in bytes.
//!
//! Deflated blocks of at most 10,000 rows. A block has the masters that it names, then a row for
//! each node: which of these masters it had, counted from 1, or 0 for none, and its name. Numbers
//! are LEB128; names are lengths and UTF-8.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rustc_hash::FxHashMap;

use crate::EntryMap;
use crate::names;
use crate::plan::Diff;

/// The most rows of a block: what is held in memory beside the result while one is read.
pub const BLOCK_ROWS: usize = 10_000;
/// More than any block has: each row with the longest names and numbers.
const LONGEST_BLOCK: u64 = BLOCK_ROWS as u64 * 2 * (1024 + 10);

/// A block that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what is kept of a revision can't be read: {0}")]
pub struct Malformed(pub(super) &'static str);

/// What leads from `new` back to `old`, between which `diff` lies.
pub fn encode(diff: &Diff, old: &EntryMap, new: &EntryMap) -> Vec<Vec<u8>> {
    let mut rows: Vec<_> = diff.routes(old, new).map(|(node, before, _)| (node, before)).collect();
    rows.sort_unstable();
    rows.chunks(BLOCK_ROWS).map(block).collect()
}

fn block(rows: &[(&str, Option<&str>)]) -> Vec<u8> {
    let (mut masters, mut ids) = (Vec::new(), FxHashMap::default());
    let mut lines = Vec::new();
    for (node, before) in rows {
        let id = before.map_or(0, |master| {
            *ids.entry(master).or_insert_with(|| {
                masters.push(master);
                masters.len()
            })
        });
        number(&mut lines, id);
        name(&mut lines, node);
    }
    let mut bytes = Vec::new();
    number(&mut bytes, masters.len());
    masters.into_iter().for_each(|master| name(&mut bytes, master));
    number(&mut bytes, rows.len());
    bytes.append(&mut lines);
    deflated(&bytes)
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = DeflateEncoder::new(Vec::new(), Compression::fast());
    // A vector takes everything.
    let _ = out.write_all(bytes);
    out.finish().unwrap_or_default()
}

fn number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn name(out: &mut Vec<u8>, name: &str) {
    number(out, name.len());
    out.extend_from_slice(name.as_bytes());
}

/// The master that a node had before, where it is one of a block's: none where it had none.
///
/// # Errors
/// A block that is none.
pub fn before_in(block: &[u8], wanted: &str) -> Result<Option<Option<String>>, Malformed> {
    let mut found = None;
    decode(block, |node, before| {
        if node == wanted {
            found = Some(before.map(str::to_owned));
        }
    })?;
    Ok(found)
}

/// Reads a block: each node with its master before.
pub(super) fn decode(
    block: &[u8],
    mut take: impl FnMut(&str, Option<&str>),
) -> Result<(), Malformed> {
    let mut bytes = Vec::new();
    let mut inflated = DeflateDecoder::new(block).take(LONGEST_BLOCK + 1);
    inflated.read_to_end(&mut bytes).map_err(|_| Malformed("it can't be inflated"))?;
    if bytes.len() as u64 > LONGEST_BLOCK {
        return Err(Malformed("it is longer than any block"));
    }
    let mut rest = bytes.as_slice();
    let count = take_number(&mut rest)?;
    let mut masters = Vec::new();
    for _ in 0..count {
        let master = take_name(&mut rest)?;
        names::check_value(master).map_err(|_| Malformed("a master's name is not valid"))?;
        masters.push(master);
    }
    for _ in 0..take_number(&mut rest)? {
        let id = take_number(&mut rest)?;
        let before = match id.checked_sub(1) {
            None => None,
            Some(id) => Some(*masters.get(id).ok_or(Malformed("it names a master that it lacks"))?),
        };
        let node = take_name(&mut rest)?;
        names::check_key(node).map_err(|_| Malformed("a node's name is not valid"))?;
        take(node, before);
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed("something stands behind its rows")) }
}

fn take_number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let mut number = 0;
    for shift in (0..28).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(CUT)?;
        *rest = behind;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed("a number is too large"))
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let length = take_number(rest)?;
    let (name, behind) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = behind;
    str::from_utf8(name).map_err(|_| Malformed("a name is not UTF-8"))
}

const CUT: Malformed = Malformed("it is cut off");
