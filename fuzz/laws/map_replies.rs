//! Frames, `show info`, `show map`, `show cli level`, `get map`, `prepare map`.

use haproxy_runtime::error::ReplyError;
use haproxy_runtime::{HaproxyVersion, map, process, wire};

use super::{cuts, whatever_the_pieces};

/// Replies about maps: framed, looked at, listed.
pub fn map_replies(answer: &[u8]) {
    for commands in 0..5 {
        let replies = wire::replies(answer, commands).ok();
        assert_eq!(replies, plain_replies(answer, commands), "the frames of {commands} commands");
        if replies.is_some() {
            for cut in cuts(answer) {
                assert!(
                    wire::replies(&answer[..cut], commands).is_err(),
                    "cut at {cut} it is still whole"
                );
            }
        }
    }
    listing(answer);
    if let Ok(probe) = process::probe(answer, "/etc/haproxy/maps/node-master.map") {
        let _ = probe.process.version.parse::<HaproxyVersion>();
    }
    if let Ok(version) = map::prepared(answer) {
        assert_eq!(
            map::prepared(format!("New version created: {version}\n").as_bytes()),
            Ok(version)
        );
    }
    if let Ok(Some(value)) = map::looked_up(answer) {
        let again = format!(
            "type=str, case=sensitive, found=yes, idx=tree, key=\"k\", value=\"{value}\", \
                type=\"str\"\n"
        );
        assert_eq!(map::looked_up(again.as_bytes()), Ok(Some(value)));
    }
    assert_eq!(map::silent(answer).is_ok(), answer.is_empty());
}

/// Line by line: a reply ends with its first empty line.
fn plain_replies(answer: &[u8], commands: usize) -> Option<Vec<&[u8]>> {
    let (mut replies, mut start, mut line) = (Vec::new(), 0, 0);
    for (at, _) in answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if at == line {
            replies.push(wire::without_severity(&answer[start..at]));
            start = at + 1;
        }
        line = at + 1;
    }
    (start == answer.len() && replies.len() == commands).then_some(replies)
}

type Listed = Result<Vec<(Vec<u8>, Vec<u8>)>, ReplyError>;

fn listing(answer: &[u8]) {
    let read = |pieces: &[&[u8]]| -> Listed {
        let mut entries = Vec::new();
        let mut listing = wire::Listing::new();
        for piece in pieces {
            listing.feed(piece, |key, value| entries.push((key.to_vec(), value.to_vec())))?;
        }
        listing.finish().map(|()| entries)
    };
    let Ok(entries) = whatever_the_pieces(answer, read) else { return };
    // What `show map` prints of them reads the same; an entry with a line break in it is beyond
    // that.
    if !answer.starts_with(b"\n")
        && entries.iter().all(|(key, _)| !key.is_empty() && !key.contains(&b' '))
    {
        let mut again = Vec::new();
        for (key, value) in &entries {
            again.extend_from_slice(b"0x55d0 ");
            again.extend_from_slice(key);
            again.push(b' ');
            again.extend_from_slice(value);
            again.push(b'\n');
        }
        again.push(b'\n');
        assert_eq!(read(&[&again]), Ok(entries));
        for cut in cuts(&again) {
            assert!(read(&[&again[..cut]]).is_err(), "cut at {cut} it is still whole");
        }
    }
}
