//! What the benchmarks stand on: HAProxys and a daemon of their own, and figures of processes.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod maps;
pub mod open_loop;
pub mod site;
pub mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long a program may take to start.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The machine's own HAProxy and those that `scripts/setup` unpacked.
pub fn haproxies() -> Vec<PathBuf> {
    let folder = std::env::var_os("MAPSMITH_DEPS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps"), PathBuf::from);
    let mut unpacked: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("usr/sbin/haproxy"))
        .filter(|path| path.exists())
        .collect();
    unpacked.sort();
    let own = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    own.into_iter().chain(unpacked).collect()
}

/// A HAProxy.
pub struct Gateway {
    process: Child,
    pub folder: tempfile::TempDir,
    pub version: String,
}

impl Gateway {
    /// With so many threads, the sections that `sections` makes of its folder, and what `prepare`
    /// puts there beforehand.
    pub fn start(
        binary: &Path,
        threads: usize,
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
        sections: impl FnOnce(&str) -> String,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        prepare(root)?;
        let path = root.display().to_string();
        let global =
            format!("global\n  nbthread {threads}\n  stats socket {path}/admin.sock level admin\n");
        let defaults = "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  \
            timeout connect 5s\n";
        fs::write(root.join("haproxy.cfg"), global + defaults + &sections(&path))?;
        let process = Command::new(binary)
            .args(["-db", "-f"])
            .arg(root.join("haproxy.cfg"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut gateway = Self { process, folder, version: String::new() };
        let start = Instant::now();
        while gateway.version.is_empty() {
            anyhow::ensure!(start.elapsed() < PATIENCE, "{} does not answer", binary.display());
            let info = gateway.call(b"show info\n").unwrap_or_default();
            let info = String::from_utf8_lossy(&info);
            let version = info.lines().find_map(|line| line.strip_prefix("Version: "));
            gateway.version = version.unwrap_or_default().to_owned();
        }
        Ok(gateway)
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The simplest client: one connection, one command, read to the end.
    pub fn call(&self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.write_all(command)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// The processor time that the process has used.
    pub fn processor(&self) -> Duration {
        processor(self.process.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The processor time of a process, from the scheduler's accounts of its threads, in nanoseconds.
pub fn processor(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let used = threads.filter_map(|thread| {
        let account = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        account.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// The processor time of a process and its children, those that have ended included. Coarser than
/// [`processor`]: in the kernel's hundredths of a second.
pub fn processor_with_children(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in brackets may hold anything. Behind it, from the state on: utime, stime, cutime
    // and cstime are the 12th to the 15th.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let ticks: u64 = fields
        .into_iter()
        .flatten()
        .skip(11)
        .take(4)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    Duration::from_millis(ticks * 10) + children.map(processor_with_children).sum::<Duration>()
}

/// A running `mapsmith run`.
pub struct Daemon(pub Child);

impl Daemon {
    /// On the `mapsmith.toml` in a folder; its log goes to `log` there.
    pub fn start(folder: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mapsmith"));
        command.args(["run", "-c"]).arg(folder.join("mapsmith.toml"));
        command.stderr(Stdio::from(fs::File::create(folder.join("log"))?)).spawn().map(Self)
    }

    /// Where its API listens, once it says so.
    pub fn api(&mut self, log: &Path) -> anyhow::Result<String> {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(log)?;
            let line = text.lines().find(|line| line.contains("API listening"));
            if let Some(line) = line {
                let line: serde_json::Value = serde_json::from_str(line)?;
                return Ok(format!(
                    "http://{}",
                    line["fields"]["address"].as_str().unwrap_or_default()
                ));
            }
            anyhow::ensure!(
                self.0.try_wait()?.is_none() && start.elapsed() < PATIENCE,
                "mapsmith did not start:\n{text}"
            );
            std::thread::yield_now();
        }
    }

    /// A figure of `/proc/PID/status`, in KiB.
    pub fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

/// What a daemon with this API says of itself. By hand: `mapsmith status` is a process more, and
/// fails while something is not in sync.
pub fn status(url: &str) -> anyhow::Result<serde_json::Value> {
    let (_, body) = call(url, "GET", "/v1/status")?;
    serde_json::from_str(&body).with_context(|| body.clone())
}

/// The status and the body of the API's answer.
pub fn call(api: &str, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let address = api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")
            .as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
