//! A HAProxy that runs a rendered text.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::eventually;
use crate::support::haproxy::Binary;
use crate::support::process::{Ending, Process};

/// Longer than any start or answer takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What `haproxy -c` says of a text: its exit code, and what it printed.
pub fn verdict(binary: &Binary, folder: &Path, text: &str) -> (i32, String) {
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text).expect("the file can be written");
    let mut command = Command::new(&binary.path);
    let output = command.arg("-c").arg("-f").arg(&file).output().expect("HAProxy starts");
    let code = output.status.code().expect("it ended by itself");
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Ended on drop.
pub struct Running {
    process: Process,
}

impl Running {
    /// Returns when something listens at this address; none where it is taken.
    pub fn start(binary: &Binary, folder: &Path, text: &str, at: SocketAddr) -> Option<Self> {
        let file = folder.join("running.cfg");
        fs::write(&file, text).expect("the file can be written");
        let program = binary.path.to_str().expect("a path in UTF-8");
        let file = file.to_str().expect("a folder named in UTF-8");
        let log = folder.join("haproxy.log");
        // A port is not shared with another process.
        let command = [program, "-db", "-dR", "-f", file];
        let mut process = Process::start(&command, &log, Ending::default());
        let listens = eventually("HAProxy listens or ends", PATIENCE, || {
            if process.exit_status().is_some() {
                return Some(false);
            }
            TcpStream::connect(at).is_ok().then_some(true)
        });
        if !listens {
            let log = process.log();
            assert!(
                log.contains("Address already in use"),
                "HAProxy does not start:\n{log}\n{text}"
            );
        }
        listens.then_some(Self { process })
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// What came back on a connection of its own, to the last byte, for a request without `Host` and
/// `Connection`, which are added.
pub fn ask(at: SocketAddr, request_line: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = format!("{request_line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += "Host: a.test\r\n";
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(at).expect("HAProxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a bound on reading");
    stream.write_all((request + "\r\n").as_bytes()).expect("HAProxy reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("HAProxy answers and closes");
    Reply::parse(&String::from_utf8(bytes).expect("an answer in UTF-8"))
}

/// An answer, its headers as they came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.unwrap_or_else(|| panic!("not an answer: {text:?}")),
            headers: lines.map(header).collect(),
            body: body.to_owned(),
        }
    }

    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    }
}
