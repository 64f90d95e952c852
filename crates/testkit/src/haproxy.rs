//! Real HAProxies that a test owns: each with a folder, ports and sockets of its own, in every
//! version that is installed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Ending, Process};
use crate::{eventually, find_program, free_port, http, poll};

/// Longer than any start, reload or reply takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An installed HAProxy.
#[derive(Clone, Debug)]
pub struct Binary {
    pub version: (u32, u32),
    pub path: PathBuf,
}

/// The machine's own HAProxy and those that `scripts/setup` unpacked, oldest first.
///
/// # Panics
/// When the machine's own (2.6 or later) or the 3.0 is missing.
pub fn installed() -> &'static [Binary] {
    static INSTALLED: OnceLock<Vec<Binary>> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let own = find_program("haproxy").and_then(|path| inspect(&path));
        let own = own
            .filter(|own| own.version >= (2, 6))
            .expect("HAProxy 2.6 or later is not installed: run scripts/setup");
        let unpacked = match std::env::var_os("MAPSMITH_DEPS") {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/deps"),
        };
        let mut binaries: Vec<Binary> = fs::read_dir(unpacked)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| inspect(&entry.path().join("usr/sbin/haproxy")))
            .collect();
        binaries.push(own);
        binaries.sort_by_key(|binary| binary.version);
        assert!(
            binaries.iter().any(|binary| binary.version == (3, 0)),
            "HAProxy 3.0 is not there beside the machine's own: run scripts/setup"
        );
        binaries
    })
}

/// What `haproxy -v` says; nothing where that does not run.
fn inspect(path: &Path) -> Option<Binary> {
    let output = Command::new(path).arg("-v").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout);
    let mut numbers = version.strip_prefix("HAProxy version ")?.split('.');
    let version = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(Binary { version, path: path.to_owned() })
}

/// What a [`Gateway`] is to be.
#[derive(Clone)]
pub struct Plan {
    binary: Binary,
    threads: u32,
    entries: Vec<(String, String)>,
    masters: BTreeMap<String, SocketAddr>,
    map: Option<String>,
    map_is_used: bool,
    level: &'static str,
    user_socket: bool,
    tcp_socket: bool,
    master_worker: bool,
    more: String,
    redispatch: Option<Redispatch>,
}

/// What a [`Plan::redispatch`] is to be.
#[derive(Clone)]
struct Redispatch {
    retry_on: &'static str,
    /// The local peer's name, then every peer's name and port, this one's included.
    peers: Option<(String, Vec<(String, u16)>)>,
}

impl Plan {
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// An entry that the map file has at the start.
    pub fn entry(mut self, node: &str, master: &str) -> Self {
        self.entries.push((node.to_owned(), master.to_owned()));
        self
    }

    /// A backend with this one server.
    pub fn master(mut self, name: &str, address: SocketAddr) -> Self {
        self.masters.insert(name.to_owned(), address);
        self
    }

    /// The map file is another gateway's, as on two gateways that name it alike. Entries are that
    /// gateway's too.
    pub fn map_of(mut self, other: &Gateway) -> Self {
        self.map = Some(other.map.clone());
        self
    }

    /// The map file is at this place, where it must be already.
    pub fn map_at(mut self, path: &Path) -> Self {
        self.map = Some(path.to_str().expect("a path in UTF-8").to_owned());
        self
    }

    /// The admin socket is of this level instead.
    pub fn level(mut self, level: &'static str) -> Self {
        self.level = level;
        self
    }

    /// The configuration does not mention the map, so that HAProxy does not know it.
    pub fn map_unused(mut self) -> Self {
        self.map_is_used = false;
        self
    }

    /// The configuration mentions the map again.
    pub fn map_used(mut self) -> Self {
        self.map_is_used = true;
        self
    }

    /// A second socket, of user level.
    pub fn user_socket(mut self) -> Self {
        self.user_socket = true;
        self
    }

    /// A second admin socket, on TCP.
    pub fn tcp_socket(mut self) -> Self {
        self.tcp_socket = true;
        self
    }

    /// A master process that replaces its worker on SIGUSR2, as Debian's service runs it.
    pub fn master_worker(mut self) -> Self {
        self.master_worker = true;
        self
    }

    /// One backend `puppet` that has every master as a server: a master that answers 404 is
    /// followed by another one in the same request, and who answered 200 is learned in the stick
    /// table `puppet`.
    pub fn redispatch(mut self) -> Self {
        self.redispatch = Some(Redispatch { retry_on: "conn-failure 404", peers: None });
        self
    }

    /// A master that does not own the node answers 421 instead, which HAProxy knows from 3.2 on.
    pub fn misdirected_is_421(mut self) -> Self {
        self.redispatch.as_mut().expect("planned with redispatch").retry_on = "conn-failure 421";
        self
    }

    /// The stick table is shared with these gateways, each a name and a port; `local` is this one's
    /// name.
    pub fn peers(mut self, local: &str, peers: &[(&str, u16)]) -> Self {
        let peers = peers.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        self.redispatch.as_mut().expect("planned with redispatch").peers =
            Some((local.to_owned(), peers));
        self
    }

    /// Sections at the end of the configuration, as they stand. A backend of theirs serves the
    /// nodes that the map gives it.
    pub fn more(mut self, sections: &str) -> Self {
        self.more.push_str(sections);
        self
    }

    /// Starts it; returns when its runtime API answers.
    pub fn start(self) -> Gateway {
        let directory = tempfile::Builder::new()
            .prefix("mapsmith-gateway-")
            .tempdir()
            .expect("a temporary folder");
        let file = |name: &str| {
            directory
                .path()
                .join(name)
                .into_os_string()
                .into_string()
                .expect("a folder named in UTF-8")
        };
        let mut gateway = Gateway {
            process: None,
            http_port: 0,
            runtime_port: 0,
            admin_socket: file("admin.sock"),
            user_socket: file("user.sock"),
            master_socket: format!("unix@{}", file("master.sock")),
            map: self.map.clone().unwrap_or_else(|| file("node-master.map")),
            configuration: file("haproxy.cfg"),
            log: directory.path().join("haproxy.log"),
            plan: self,
            directory,
        };
        if gateway.plan.map.is_none() {
            let entries: String = gateway
                .plan
                .entries
                .iter()
                .map(|(node, master)| format!("{node} {master}\n"))
                .collect();
            fs::write(&gateway.map, entries).expect("the map file can be written");
        }
        for _ in 0..10 {
            gateway.http_port = free_port();
            gateway.runtime_port = free_port();
            fs::write(&gateway.configuration, gateway.render())
                .expect("the configuration can be written");
            if gateway.launch() {
                return gateway;
            }
        }
        panic!("HAProxy does not start:\n{}", gateway.log());
    }
}

/// A running HAProxy and its folder, both gone on drop.
///
/// Every master is a backend, chosen by the map; what the map leaves out goes to a backend that
/// answers 404 itself.
pub struct Gateway {
    // Before the folder, since fields are dropped in this order.
    process: Option<Process>,
    http_port: u16,
    runtime_port: u16,
    admin_socket: String,
    user_socket: String,
    /// Its address, where there is a master process.
    master_socket: String,
    map: String,
    configuration: String,
    log: PathBuf,
    plan: Plan,
    directory: TempDir,
}

impl Gateway {
    /// A gateway of two threads with an empty map.
    pub fn plan(binary: &Binary) -> Plan {
        Plan {
            binary: binary.clone(),
            threads: 2,
            entries: Vec::new(),
            masters: BTreeMap::new(),
            map: None,
            map_is_used: true,
            level: "admin",
            user_socket: false,
            tcp_socket: false,
            master_worker: false,
            more: String::new(),
            redispatch: None,
        }
    }

    pub fn version(&self) -> (u32, u32) {
        self.plan.binary.version
    }

    /// The admin socket, as Mapsmith's settings write it.
    pub fn runtime_address(&self) -> String {
        format!("unix@{}", self.admin_socket)
    }

    /// The TCP admin socket, where one was planned.
    pub fn tcp_runtime_address(&self) -> String {
        assert!(self.plan.tcp_socket, "planned without a TCP socket");
        format!("tcp@127.0.0.1:{}", self.runtime_port)
    }

    /// The user-level socket, where one was planned.
    pub fn user_runtime_address(&self) -> String {
        assert!(self.plan.user_socket, "planned without a user-level socket");
        format!("unix@{}", self.user_socket)
    }

    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.http_port))
    }

    /// The map file, exactly as the configuration names it.
    pub fn map_path(&self) -> &str {
        &self.map
    }

    /// What HAProxy has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Runs a command on the admin socket; see [`ask`].
    pub fn command(&self, command: &str) -> String {
        ask(&self.runtime_address(), command)
            .unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.log()))
    }

    /// The live map as HAProxy holds it, in its order, duplicates included.
    pub fn memory_map(&self) -> Vec<(String, String)> {
        entries_of(&self.command(&format!("show map {}", self.map)))
    }

    /// The process that answers on the admin socket: the worker, where there is a master process.
    pub fn pid(&self) -> u32 {
        let info = self.command("show info");
        field(&info, "Pid").unwrap_or_else(|| panic!("show info without a pid: {info:?}"))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again at the same addresses, with what the map file holds now; kills it first if
    /// it runs.
    pub fn restart(&mut self) {
        self.kill();
        eventually("HAProxy starts again at its addresses", PATIENCE, || {
            self.launch().then_some(())
        });
    }

    /// Kills it and starts it with another configuration at the same addresses; the map file stays
    /// as it is.
    pub fn restart_as(&mut self, plan: impl FnOnce(Plan) -> Plan) {
        self.plan = plan(self.plan.clone());
        fs::write(&self.configuration, self.render()).expect("the configuration can be written");
        self.restart();
    }

    /// Has the master process replace its worker, and waits until the new one answers.
    pub fn reload(&mut self) {
        assert!(self.plan.master_worker, "planned without a master process");
        let old = self.pid();
        self.process().signal("USR2");
        poll(PATIENCE, || {
            let info = ask(&self.runtime_address(), "show info").ok()?;
            let is_new = field(&info, "Pid")? != old && field(&info, "Stopping")? == 0;
            (is_new && self.is_ready()).then_some(())
        })
        .unwrap_or_else(|| panic!("no new worker answers within {PATIENCE:?}:\n{}", self.log()));
    }

    /// The runtime API answers; and so does a master process, which before that loses the signal
    /// that would have it reload.
    fn is_ready(&self) -> bool {
        // The master's socket stays open after a reply, hence the "quit".
        let answers = |address: &str, command: &str, expected: &str| {
            ask(address, command).is_ok_and(|reply| reply.contains(expected))
        };
        answers(&self.runtime_address(), "show info", "Pid: ")
            && (!self.plan.master_worker
                || answers(&self.master_socket, "show proc;quit", "worker"))
    }

    /// Freezes it: connections are accepted by the kernel and never answered.
    pub fn stop_process(&mut self) {
        self.process().signal_group("STOP");
    }

    /// Ends [`Self::stop_process`].
    pub fn continue_process(&mut self) {
        self.process().signal_group("CONT");
    }

    /// The stick table of learned routes as HAProxy lists it: each key, and the server.
    pub fn learned(&self) -> Vec<(String, String)> {
        let listing = self.command("show table puppet");
        let field = |line: &str, name: &str| {
            let (_, rest) = line.split_once(name)?;
            rest.split(' ').next().map(str::to_owned)
        };
        let row = |line: &str| Some((field(line, ": key=")?, field(line, " server_key=")?));
        listing.lines().skip(1).filter_map(row).collect()
    }

    /// A request for a node through the gateway: the status, and the body, which is the master's
    /// name.
    pub fn request(&self, node: &str) -> (u16, String) {
        let response = http::request(self.http_address(), "GET", "/", &[("X-Node-Name", node)], "")
            .unwrap_or_else(|error| panic!("the gateway does not answer: {error}\n{}", self.log()));
        (response.status, response.body)
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("HAProxy runs")
    }

    /// False when HAProxy ended instead of answering: most likely another process took a port.
    fn launch(&mut self) -> bool {
        let binary = self.plan.binary.path.to_str().expect("a path in UTF-8");
        let ending = Ending { remove: Some(self.directory.path().to_owned()), ..Ending::default() };
        let mut command = vec![binary, "-f", &self.configuration];
        if self.plan.master_worker {
            command.extend(["-W", "-S", self.master_socket.trim_start_matches("unix@")]);
        } else {
            command.push("-db");
        }
        let mut process = Process::start(&command, &self.log, ending);
        let answers = eventually("HAProxy answers or ends", PATIENCE, || {
            if process.exit_status().is_some() {
                return Some(false);
            }
            self.is_ready().then_some(true)
        });
        self.process = answers.then_some(process);
        answers
    }

    fn render(&self) -> String {
        let Self { plan, admin_socket, user_socket, map, http_port, runtime_port, .. } = self;
        let mut text = format!("global\n    nbthread {}\n", plan.threads);
        // So that a reload hands the sockets over and no connection is refused meanwhile.
        let hand_over = if plan.master_worker { " expose-fd listeners" } else { "" };
        text +=
            &format!("    stats socket {admin_socket} mode 600 level {}{hand_over}\n", plan.level);
        if plan.user_socket {
            text += &format!("    stats socket {user_socket} mode 600 level user\n");
        }
        if plan.tcp_socket {
            text += &format!("    stats socket ipv4@127.0.0.1:{runtime_port} level admin\n");
        }
        if let Some((local, _)) =
            plan.redispatch.as_ref().and_then(|redispatch| redispatch.peers.as_ref())
        {
            text += &format!("    localpeer {local}\n");
        }
        text += "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    \
            timeout server 60s\n";
        text += &format!("frontend gateway\n    bind 127.0.0.1:{http_port}\n");
        if let Some(redispatch) = &plan.redispatch {
            return text + &render_redispatch(redispatch, map, &plan.masters);
        }
        if plan.map_is_used {
            text +=
                &format!("    use_backend %[req.hdr(X-Node-Name),lower,map_str({map},default)]\n");
        }
        text += "    default_backend default\n";
        text += "backend default\n    http-request return status 404 content-type text/plain \
            string none\n";
        for (name, address) in &plan.masters {
            text += &format!("backend {name}\n    server {name} {address}\n");
        }
        text + &plan.more
    }
}

/// The shape of one backend for all masters, from the frontend's rules on.
///
/// A retry avoids only the server tried last, and the turn of the others is shared with the traffic
/// beside it: each try finds the owner among three masters with a chance of one half at worst, so
/// that 28 miss it once in a hundred million searches.
fn render_redispatch(
    redispatch: &Redispatch,
    map: &str,
    masters: &BTreeMap<String, SocketAddr>,
) -> String {
    let mut text = format!(
        "    http-request set-var(txn.node) req.hdr(X-Node-Name),lower
    http-request return status 400 content-type text/plain string \"name the node in \
    X-Node-Name\" unless {{ var(txn.node) -m len gt 0 }}
    http-request set-var(txn.master) var(txn.node),map_str({map})
    default_backend puppet
backend puppet
    balance roundrobin
    option redispatch 1
    retries 28
    retry-on {}
    http-error status 503 content-type text/plain string \"no master answers\"
    acl learned var(txn.node),in_table(puppet)
    acl as_mapped srv_name,strcmp(txn.master) eq 0
    use-server %[var(txn.master)] if {{ var(txn.master) -m found }} !learned
    stick match var(txn.node)
    stick store-response var(txn.node) if {{ status 200:299 }} !as_mapped
    stick store-response var(txn.node) if {{ status 200:299 }} learned\n",
        redispatch.retry_on
    );
    let shared = if redispatch.peers.is_some() { " peers gateways" } else { "" };
    text += &format!("    stick-table type string len 255 size 100k expire 10m{shared}\n");
    for (name, address) in masters {
        text += &format!("    server {name} {address}\n");
    }
    if let Some((_, peers)) = &redispatch.peers {
        text += "peers gateways\n";
        for (name, port) in peers {
            text += &format!("    peer {name} 127.0.0.1:{port}\n");
        }
    }
    text
}

/// Runs a command on a connection of its own and returns the whole reply, to its last byte.
///
/// A newline is put at the end of a command that has none: a payload brings its own.
pub fn ask(address: &str, command: &str) -> io::Result<String> {
    let mut command = command.to_owned();
    if !command.ends_with('\n') {
        command.push('\n');
    }
    let mut reply = Vec::new();
    if let Some(path) = address.strip_prefix("unix@") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(stream, &command, &mut reply)?;
    } else {
        let stream = TcpStream::connect(address.trim_start_matches("tcp@"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(stream, &command, &mut reply)?;
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn exchange(mut stream: impl Read + Write, command: &str, reply: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(command.as_bytes())?;
    stream.read_to_end(reply)?;
    Ok(())
}

/// The entries of a `show map` reply. Each line is a reference, the key and the value.
pub fn entries_of(reply: &str) -> Vec<(String, String)> {
    reply
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.splitn(3, ' ').skip(1);
            let mut word =
                || words.next().unwrap_or_else(|| panic!("not an entry: {line:?}")).to_owned();
            (word(), word())
        })
        .collect()
}

/// A number of `show info`.
fn field(info: &str, name: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}
