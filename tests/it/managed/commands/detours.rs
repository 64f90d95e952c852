//! Paths that lead to a command by a detour.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Recorder, Scene};

/// The status of a request with this path, byte for byte.
fn sent(address: SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).expect("a frontend");
    let head = "Host: x\r\nX-Node-Name: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    // HAProxy may answer before it has read all.
    let _ = stream.write_all(format!("POST {path} HTTP/1.1\r\n{head}").as_bytes());
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    line.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

impl Scene {
    /// Whatever is written in a path beside its parts, the frontends that others reach deny it.
    pub(super) fn no_detour_reaches_a_master(&self) {
        let escapes = "%0A %00 %7f %1F %zz %2 % %a %e %2f %3b %25 %C3%BC";
        let plain = "// ;v=1 /./ /x/../ ? # /\\";
        let long = "/".repeat(6000);
        let detours = escapes.split(' ').chain(plain.split(' ')).chain([long.as_str(), ""]);
        for detour in detours {
            for path in [
                format!("/nodes{detour}/a/commands"),
                format!("/nodes/a{detour}/commands"),
                format!("/nodes/a/x{detour}/../commands"),
                format!("/{detour}/nodes/a/Commands"),
                format!("/nodes/a/comman%64s{detour}"),
                format!("/nodes/a/commands/{detour}nodes/../.."),
            ] {
                for public in [self.public, self.web] {
                    let status = sent(public, &path);
                    // What is behind `?` is no path any more.
                    let is_denied = detour == "?" || matches!(status, 400 | 403);
                    assert!(is_denied, "{path:.80}: {status}");
                }
            }
        }
        let has_path = |request: &String| {
            let path = request.split(['?', '\r']).next().unwrap_or_default();
            request.starts_with("POST ") && path.to_lowercase().contains("/comm")
        };
        let is_mapsmiths = |request: &String| request.contains("\r\nx-command-id: ");
        let requests = self.masters.iter().flat_map(Recorder::heard);
        let commands: Vec<_> = requests.filter(|it| has_path(it) && !is_mapsmiths(it)).collect();
        assert_eq!(commands, [""; 0]);
    }
}
