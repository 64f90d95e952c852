//! From a change of a load balancer's metadata to the first answer by it:
//! `scripts/bench portmap [--quick] [PLACE...]`.
//!
//! The daemon with a HAProxy that it runs, and one service whose server is another one after each
//! change: a reload each. A change counts from before the metadata is replaced until the service's
//! port gives the new server's answer, asked every millisecond. The floor, in the same run and by
//! the HAProxy of before: `haproxy -c` of the same file and a bare reload, which is the least that
//! such a change costs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Daemon, PATIENCE, haproxies};
use serde_json::json;
use testkit::free_port;
use testkit::master::Master;
use testkit::registry::Registry;

const CHANGES: usize = 50;
const QUICK_CHANGES: usize = 5;
const FLOORS: usize = 10;
/// Between two questions for what is to come.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// The longest rest between two changes, which begin at random moments.
const LONGEST_REST: Duration = Duration::from_millis(1500);

/// Where metadata is.
enum Place {
    File(PathBuf),
    /// A stand-in for `mdata-get`, whose keys are files of this folder.
    Command(PathBuf),
    Url(Registry),
}

impl Place {
    fn start(name: &str, root: &Path) -> Self {
        match name {
            "file" => Self::File(root.join("metadata.json")),
            "url" => Self::Url(Registry::start(&[])),
            _ => {
                let folder = root.join("mdata");
                fs::create_dir(&folder).expect("a folder");
                let program = folder.join("mdata-get");
                let text = format!("#!/bin/sh\nexec cat {}/\"$1\" 2>/dev/null\n", folder.display());
                fs::write(&program, text).expect("a program");
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
                Self::Command(folder)
            }
        }
    }

    /// The keys of the `[[source]]`.
    fn settings(&self) -> String {
        match self {
            Self::File(path) => format!("path = {path:?}"),
            Self::Command(folder) => format!("command = [{:?}]", folder.join("mdata-get")),
            Self::Url(registry) => format!("url = \"{}\"", registry.url()),
        }
    }

    fn say(&self, portmap: &str) {
        let keys = [("loadbalancer", "true"), ("portmap", portmap)];
        let keys = keys.map(|(key, value)| (format!("cloud.tritoncompute:{key}"), value));
        let document = json!(keys.iter().cloned().collect::<std::collections::BTreeMap<_, _>>());
        match self {
            Self::File(path) => replace(path, &document.to_string()),
            Self::Url(registry) => registry.answers(200, &document.to_string()),
            Self::Command(folder) => {
                keys.iter().for_each(|(key, value)| replace(&folder.join(key), value));
            }
        }
    }
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).expect("it can be written");
    fs::rename(&fresh, path).expect("it can be put in place");
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let changes = if quick { QUICK_CHANGES } else { CHANGES };
    let binary = haproxies().pop().ok_or_else(|| anyhow::anyhow!("no HAProxy: scripts/setup"))?;
    println!("milliseconds from before the change to the first answer; {changes} changes each");
    println!("                 p50      p99");
    for place in ["file", "url", "command"] {
        if named.is_empty() || named.iter().any(|name| *name == place) {
            measure(place, &binary, changes)?;
        }
    }
    Ok(())
}

fn measure(name: &str, binary: &Path, changes: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let place = Place::start(name, root);
    let masters: Vec<_> = (0..2).map(|number| Master::start(&format!("m{number}"))).collect();
    let port = free_port();
    let portmap =
        |number: usize| format!("http://{port}:127.0.0.1:{}", masters[number % 2].address().port());
    place.say(&portmap(0));
    write_settings(root, &place, binary)?;
    let mut daemon = Daemon::start(root)?;
    let haproxy = OwnHaproxy(root.to_owned());
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    until(|| answers(at, masters[0].name()))?;
    let mut took = Vec::new();
    for number in 1..=changes {
        thread::sleep(LONGEST_REST.mul_f64(fastrand::f64()));
        let start = Instant::now();
        place.say(&portmap(number));
        until(|| answers(at, masters[number % 2].name()))?;
        took.push(start.elapsed());
    }
    // HAProxy outlives the daemon, which is to have no part in what follows.
    daemon.0.kill()?;
    daemon.0.wait()?;
    let floors: Result<Vec<_>, _> = (0..FLOORS).map(|_| haproxy.check_and_reload(binary)).collect();
    print_row(name, took);
    print_row("  floor", floors?);
    Ok(())
}

fn write_settings(root: &Path, place: &Place, binary: &Path) -> anyhow::Result<()> {
    let settings = format!(
        "[haproxy]\nmanaged = true\nfolder = \"{0}/haproxy\"\nbinary = {binary:?}\n\
        [api]\nlisten = \"127.0.0.1:0\"\n[schedule]\njitter = \"0s\"\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n\
        [[source]]\nname = \"metadata\"\ntype = \"metadata\"\n{1}\n\
        [portmap]\nsource = \"metadata\"\naddress = \"127.0.0.1\"\n",
        root.display(),
        place.settings()
    );
    fs::write(root.join("mapsmith.toml"), settings)?;
    Ok(())
}

/// The HAProxy that the daemon runs in this folder; it ends with the measurement.
struct OwnHaproxy(PathBuf);

impl OwnHaproxy {
    fn check_and_reload(&self, binary: &Path) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let file = self.0.join("haproxy/haproxy.cfg");
        let mut check = Command::new(binary);
        check.arg("-c").arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        anyhow::ensure!(check.status()?.success(), "HAProxy refuses the file");
        let mut master = UnixStream::connect(self.0.join("haproxy/master.sock"))?;
        master.write_all(b"reload\n")?;
        let mut answer = String::new();
        master.read_to_string(&mut answer)?;
        anyhow::ensure!(answer.contains("Success=1"), "{answer}");
        Ok(start.elapsed())
    }
}

impl Drop for OwnHaproxy {
    fn drop(&mut self) {
        let mut stop = Command::new(env!("CARGO_BIN_EXE_mapsmith"));
        stop.args(["haproxy", "stop", "-c"]).arg(self.0.join("mapsmith.toml"));
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn until(mut there: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !there() {
        anyhow::ensure!(start.elapsed() < PATIENCE, "it did not come");
        thread::sleep(ASK_EVERY);
    }
    Ok(())
}

/// Whether the service on a port answers with this server's name.
fn answers(at: SocketAddr, name: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split_once("\r\n\r\n").is_some_and(|(_, body)| body == name))
}

fn print_row(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let figure = |part: f64| {
        let at = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len()) - 1;
        format!("{:>9.1}", took[at].as_secs_f64() * 1000.0)
    };
    println!("  {name:<9}{}{}", figure(0.5), figure(0.99));
}
