//! Holds that the stand-ins' answers are a HAProxy's.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use haproxy_runtime::MapName;
use haproxy_runtime::wire::{Batches, Payloads};

use super::gateways::Fleet;
use crate::common::maps::{PAYLOAD, nodes};
use crate::stand_in::StandIns;

/// The stand-ins' answers must be a HAProxy's, byte by byte, but for addresses in memory and the
/// figures of the process.
pub(super) fn check_stand_ins(binary: &Path) -> anyhow::Result<()> {
    let maps = [nodes(1000, 0), nodes(1000, 1)];
    let fleet = Fleet::start(binary, 1, &maps[0])?;
    let (gateway, socket, map) =
        (&fleet.gateways[0], fleet.folder.path().join("0.sock"), &fleet.map);
    let _stand_ins = StandIns::start(gateway, map, std::iter::once(socket.as_path()))?;
    let name = MapName::new(map);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for (version, to) in [(1, &maps[1]), (2, &maps[0])] {
        let keys = || to.iter().map(|(key, _)| key).step_by(100).chain(["nobody"]);
        let edits = Batches::new(keys().map(|key| name.set(key, "moved")), PAYLOAD, usize::MAX)
            .map(|(line, _)| line);
        let look_ups: Vec<_> = Batches::new(keys().map(|key| name.get(key)), PAYLOAD, usize::MAX)
            .map(|(line, _)| line)
            .collect();
        lines.extend(edits);
        lines.extend(look_ups.clone());
        lines.push(format!("show map {map}\n").into());
        lines.push(format!("prepare map {map}\n").into());
        let header = name.stage_header(version);
        let (mut payloads, mut payload) = (Payloads::new(&header, to.iter(), PAYLOAD), Vec::new());
        while payloads.next_into(&mut payload) {
            lines.push(payload.clone());
        }
        lines.push("show map\n".into());
        lines.push(format!("show map @{version} {map}\n").into());
        lines.push(format!("commit map @{version} {map}\n").into());
        lines.push("show map\n".into());
        lines.push(format!("show map {map}\n").into());
        lines.extend(look_ups);
    }
    for line in &lines {
        let (theirs, ours) = (gateway.call(line)?, call(&socket, line)?);
        let (theirs, ours) = (without_addresses(&theirs), without_addresses(&ours));
        let line = String::from_utf8_lossy(line);
        anyhow::ensure!(theirs == ours, "{line:?}: a HAProxy says {theirs:?}, a stand-in {ours:?}");
    }
    for line in ["show info;show cli level;show map\n", "show servers state;show stat -1 6 -1\n"] {
        let (theirs, ours) = (gateway.call(line.as_bytes())?, call(&socket, line.as_bytes())?);
        let (theirs, ours) = (without_figures(&theirs), without_figures(&ours));
        anyhow::ensure!(theirs == ours, "{line:?}: a HAProxy says {theirs:?}, a stand-in {ours:?}");
    }
    println!("stand-ins for HAProxy {}: {} answers compared", gateway.version, lines.len() + 2);
    Ok(())
}

/// Without addresses in memory.
fn without_addresses(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split("0x")
        .map(|part| part.trim_start_matches(|character: char| character.is_ascii_hexdigit()))
        .collect()
}

fn without_figures(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|character| !character.is_ascii_digit()).collect()
}

pub(super) fn call(socket: &Path, command: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(command)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
