//! What must hold of any bytes from outside: one function a fuzz target, each of which panics where
//! a law is broken.
//!
//! `scripts/fuzz` feeds them what libFuzzer finds; `tests/it/fuzz.rs` includes these files and
//! feeds them the committed seeds, so that a finding stays fixed. Where a thing can be told in a
//! second way, slow and plain, the two are compared.

mod answers;
mod children;
mod commands;
mod keys;
mod map_file;
mod map_replies;
mod names;
mod portmap;
mod server_replies;
mod services;
mod settings;
mod table_replies;

pub use answers::answers;
pub use children::children;
pub use keys::keys;
pub use map_file::map_file;
pub use map_replies::map_replies;
pub use names::names;
pub use portmap::portmap;
pub use server_replies::server_replies;
pub use services::services;
pub use settings::settings;
pub use table_replies::table_replies;

use mapsmith_core::names::MAX_BYTES;

/// What must hold of any bytes; panics where it does not.
pub type Law = fn(&[u8]);

/// The targets by name. Each has a file in `targets/` and a folder in `seeds/`.
pub const TARGETS: [(&str, Law); 11] = [
    ("answers", answers),
    ("children", children),
    ("keys", keys),
    ("map_file", map_file),
    ("map_replies", map_replies),
    ("names", names),
    ("portmap", portmap),
    ("server_replies", server_replies),
    ("services", services),
    ("settings", settings),
    ("table_replies", table_replies),
];

/// Places to cut a text at: the first, the last and some between.
fn cuts(text: &[u8]) -> impl Iterator<Item = usize> {
    let length = text.len();
    (0..length).filter(move |at| *at < 8 || *at + 8 > length || at % (length / 16).max(1) == 0)
}

/// The text in pieces: whole, byte by byte, and in two uneven ways.
fn chunkings(text: &[u8]) -> [Vec<&[u8]>; 4] {
    let uneven = |first: usize, size: usize| {
        let (head, rest) = text.split_at(first.min(text.len()));
        std::iter::once(head).chain(rest.chunks(size)).collect()
    };
    [vec![text], text.chunks(1).collect(), uneven(text.len() / 3, 7), uneven(1, 64)]
}

/// One outcome for all ways to cut `text` into pieces.
fn whatever_the_pieces<T: PartialEq + std::fmt::Debug>(
    text: &[u8],
    read: impl Fn(&[&[u8]]) -> T,
) -> T {
    let [whole, others @ ..] = chunkings(text);
    let outcome = read(&whole);
    for pieces in others {
        assert_eq!(
            read(&pieces),
            outcome,
            "in pieces of {:?} bytes",
            pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>()
        );
    }
    outcome
}

/// What may stand in a map: one word, printable, of a length that a stick table and a DNS name can
/// have.
fn harmless(word: &str) {
    assert!(!word.is_empty() && word.len() <= MAX_BYTES, "{word:?}");
    assert!(
        !word.contains(|character: char| character.is_whitespace() || character.is_control()),
        "{word:?}"
    );
    assert!(!word.starts_with('#') && !word.starts_with("<<") && !word.ends_with("<<"), "{word:?}");
}
