//! A gateway as `haproxy/haproxy.cfg` ships it, with a master process, and stand-in masters.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use haproxy_runtime::RuntimeAddress;
use haproxy_runtime::wire::Payloads;
use haproxy_runtime::{MapClient, MapName, RuntimeClient};
use mapsmith_core::{EntryMap, EntryMapBuilder};

use super::PATIENCE;

/// The masters of the shipped configuration.
pub const MASTERS: [&str; 3] = ["master1", "master2", "master3"];
/// The settings' default payload, in bytes.
pub const PAYLOAD: usize = 15 * 1024;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The name of a node, all of one length.
pub fn node(number: usize) -> String {
    format!("node{number:07}.example.test")
}

/// `entries` nodes over the masters; another `shift` sends every node to another master.
pub fn nodes(entries: usize, shift: usize) -> EntryMap {
    let mut builder = EntryMapBuilder::new();
    for number in 0..entries {
        builder
            .push(&node(number), MASTERS[(number + shift) % MASTERS.len()])
            .expect("a valid entry");
    }
    builder.finish()
}

/// A port that nobody listens on.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn ask(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(command.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn field(info: &str, name: &str) -> Option<String> {
    info.lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned()))
}

/// The gateway: two threads, a master process, the shipped configuration.
pub struct Site {
    process: Child,
    pub folder: tempfile::TempDir,
    pub version: String,
    /// Where requests go.
    pub address: SocketAddr,
}

impl Site {
    /// With this map in its file, in front of these masters.
    pub fn start(binary: &Path, map: &EntryMap, masters: [SocketAddr; 3]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("haproxy/haproxy.cfg");
        // Two threads on every machine; and old workers must go, however long a client keeps its
        // connection.
        fs::write(root.join("bench.cfg"), "global\n  nbthread 2\n  hard-stop-after 10s\n")?;
        let address = free_address()?;
        let log = fs::File::create(root.join("haproxy.log"))?;
        let mut command = Command::new(binary);
        command.arg("-W").arg("-S").arg(root.join("master.sock"));
        command.arg("-f").arg(root.join("bench.cfg")).arg("-f").arg(shipped);
        command
            .env("GATEWAY_BIND", address.to_string())
            .env("STATS_BIND", free_address()?.to_string());
        command
            .env("ADMIN_SOCKET", root.join("admin.sock"))
            .env("NODE_MASTER_MAP", root.join("n.map"));
        for (master, address) in
            ["MASTER1_ADDRESS", "MASTER2_ADDRESS", "MASTER3_ADDRESS"].iter().zip(masters)
        {
            command.env(master, address.to_string());
        }
        write_map(&root.join("n.map"), map)?;
        // It logs each request to its standard output.
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log)).spawn()?;
        let mut site = Self { process, version: String::new(), address, folder };
        let log = |site: &Self| {
            fs::read_to_string(site.folder.path().join("haproxy.log")).unwrap_or_default()
        };
        let ready = wait_for("HAProxy's start", || site.ready());
        let info = ready.with_context(|| format!("{}:\n{}", binary.display(), log(&site)))?;
        site.version = field(&info, "Version").unwrap_or_default();
        Ok(site)
    }

    /// What a worker says that answers and does not stop; and the master process is there too,
    /// which before that loses the signal that would have it reload.
    fn ready(&self) -> Option<String> {
        let master = ask(&self.folder.path().join("master.sock"), "show proc;quit").ok()?;
        let info = ask(&self.socket(), "show info").ok()?;
        (master.contains("worker") && field(&info, "Stopping")? == "0").then_some(info)
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The map's name, which is its file.
    pub fn map(&self) -> String {
        self.folder.path().join("n.map").display().to_string()
    }

    /// The answer to one command line.
    pub fn call(&self, line: &str) -> std::io::Result<String> {
        ask(&self.socket(), line)
    }

    /// Mapsmith's own client of the map.
    pub fn client(&self, payload: usize) -> MapClient {
        let client = RuntimeClient::new(RuntimeAddress::Unix(self.socket()), PATIENCE);
        MapClient::new(client, MapName::new(&self.map()), payload)
    }

    /// The processes that it has beside its master.
    fn workers(&self) -> usize {
        let id = self.process.id();
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().count()
    }

    /// As a script does it: the whole file again, a signal to the master process. Returns when the
    /// new worker answers.
    pub fn rewrite_and_reload(&self, map: &EntryMap) -> anyhow::Result<()> {
        let before = field(&self.ready().unwrap_or_default(), "Pid");
        write_map(&self.folder.path().join("n.map"), map)?;
        let status =
            Command::new("kill").args(["-USR2", &self.process.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "HAProxy's master process is gone");
        wait_for("a reload", || (field(&self.ready()?, "Pid") != before).then_some(()))
    }

    /// Waits until the workers of before the last reload are gone.
    pub fn settle(&self) -> anyhow::Result<()> {
        wait_for("the end of the old workers", || (self.workers() == 1).then_some(()))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A worker ends with its master.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_map(path: &Path, map: &EntryMap) -> anyhow::Result<()> {
    let mut text = Vec::new();
    mapsmith_core::map_file::print(
        map,
        &mapsmith_core::map_file::Header { revision: 0, writer: None },
        [],
        &mut text,
    )?;
    fs::write(path.with_extension("new"), text)?;
    Ok(fs::rename(path.with_extension("new"), path)?)
}

/// The simplest client that could work: a swap's payloads, made beforehand, one blocking connection
/// each; no pause, no check.
pub struct Blast {
    map: String,
    socket: PathBuf,
    version: String,
    commands: Vec<Vec<u8>>,
}

impl Blast {
    pub fn prepare(site: &Site, map: &EntryMap, payload: usize) -> anyhow::Result<Self> {
        let answer = site.call(&format!("prepare map {}", site.map()))?;
        let version = answer.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let header = format!("add map @{version} {} <<", site.map());
        let (mut payloads, mut commands, mut command) =
            (Payloads::new(&header, map.iter(), payload), Vec::new(), Vec::new());
        while payloads.next_into(&mut command) {
            commands.push(command.clone());
        }
        Ok(Self { map: site.map(), socket: site.socket(), version, commands })
    }

    pub fn send(&self) -> std::io::Result<()> {
        for command in &self.commands {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.write_all(command)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        ask(&self.socket, &format!("commit map @{} {}", self.version, self.map)).map(drop)
    }
}

/// Stand-in masters in a HAProxy of their own, of one thread: each answers every request with its
/// name.
pub struct Masters {
    process: Child,
    _folder: tempfile::TempDir,
    pub addresses: [SocketAddr; 3],
}

impl Masters {
    pub fn start(binary: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let addresses = [free_address()?, free_address()?, free_address()?];
        let mut text =
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 1m\n  timeout \
                http-keep-alive 1m\n"
                .to_owned();
        for (master, address) in MASTERS.iter().zip(addresses) {
            let _ = writeln!(
                text,
                "frontend {master}\n  bind {address}\n  http-request return status 200 \
                    content-type text/plain string {master}"
            );
        }
        let configuration = folder.path().join("masters.cfg");
        fs::write(&configuration, text)?;
        let mut command = Command::new(binary);
        command.arg("-db").arg("-f").arg(configuration);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_for("the masters' start", || std::net::TcpStream::connect(addresses[0]).ok())?;
        Ok(Self { process, _folder: folder, addresses })
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
