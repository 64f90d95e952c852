//! The gateways that are shipped: the files under `haproxy/` as they stand, filled in through their
//! environment variables.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use crate::haproxy::{Binary, ask};
use crate::http::{self, Response};
use crate::owner::Owner;
use crate::process::{Ending, Process};
use crate::{eventually, free_port, poll};

/// Longer than any start, health check or answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One backend of all masters, which finds a node's master by redispatch.
pub const REDISPATCH: &str = "haproxy.cfg";

/// One backend a master.
pub const BACKEND_PER_MASTER: &str = "backend-per-master.cfg";

/// The gateway of Puppet agents.
pub const PUPPET: &str = "puppet.cfg";

/// The guard beside a Puppet Server.
pub const PUPPET_MASTER: &str = "puppet-master.cfg";

/// Where a shipped file is.
pub fn path_of(shape: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../haproxy").join(shape)
}

/// What a [`Shipped`] is to be.
pub struct Plan {
    binary: Binary,
    text: String,
    threads: u32,
    entries: String,
    environment: Vec<String>,
}

impl Plan {
    /// A shipped file with two threads and an empty map, and what else it names by default.
    pub fn of(binary: &Binary, file: &str) -> Self {
        let path = path_of(file);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::of_text(binary, text)
    }

    /// The same with another text that names such variables.
    pub fn of_text(binary: &Binary, text: String) -> Self {
        Self {
            binary: binary.clone(),
            text,
            threads: 2,
            entries: String::new(),
            environment: Vec::new(),
        }
    }

    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// An entry that the map has.
    pub fn entry(mut self, node: &str, master: &str) -> Self {
        self.entries += &format!("{node} {master}\n");
        self
    }

    /// One of the variables that the file names.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        assert!(self.text.contains(&format!("presetenv {name} ")), "the file names no {name}");
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Where the masters are: the first is `master1`, and so on.
    pub fn masters(self, masters: [&Owner; 3]) -> Self {
        masters.into_iter().enumerate().fold(self, |plan, (index, master)| {
            assert_eq!(master.name(), format!("master{}", index + 1));
            plan.set(&format!("MASTER{}_ADDRESS", index + 1), &master.address().to_string())
        })
    }

    /// Limits every master to so many requests at a time.
    pub fn slots(self, slots: u32) -> Self {
        self.set("MASTER_MAXCONN", &slots.to_string())
    }

    /// Another text instead of one that the file has: to show why it has it.
    pub fn instead_of(mut self, shipped: &str, other: &str) -> Self {
        assert!(self.text.contains(shipped), "the file has no {shipped:?}");
        self.text = self.text.replace(shipped, other);
        self
    }

    /// Starts it; returns when its runtime API answers.
    pub fn start(self) -> Shipped {
        let directory = tempfile::Builder::new()
            .prefix("mapsmith-shipped-")
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
        let (map, socket, threads, configuration) =
            (file("node-master.map"), file("admin.sock"), file("threads.cfg"), file("haproxy.cfg"));
        fs::write(&map, &self.entries).expect("the map file can be written");
        fs::write(&threads, format!("global\n    nbthread {}\n", self.threads))
            .expect("the folder can be written to");
        fs::write(&configuration, &self.text).expect("the configuration can be written");
        let binary = self.binary.path.to_str().expect("a path in UTF-8");
        let log = directory.path().join("haproxy.log");
        for _ in 0..10 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut variables = self.environment.clone();
            variables.extend([
                format!("GATEWAY_BIND={address}"),
                format!("MASTER_BIND={address}"),
                format!("STATS_BIND=127.0.0.1:{}", free_port()),
                format!("ADMIN_SOCKET={socket}"),
                format!("NODE_MASTER_MAP={map}"),
            ]);
            let mut command = vec!["env"];
            command.extend(variables.iter().map(String::as_str));
            // As a test's own gateway: a port is not shared with another process.
            command.extend([binary, "-db", "-dR", "-f", &threads, "-f", &configuration]);
            let ending = Ending { remove: Some(directory.path().to_owned()), ..Ending::default() };
            let mut process = Process::start(&command, &log, ending);
            let runtime = format!("unix@{socket}");
            let answers = eventually("HAProxy answers or ends", PATIENCE, || {
                if process.exit_status().is_some() {
                    return Some(false);
                }
                ask(&runtime, "show info").is_ok_and(|info| info.contains("Pid: ")).then_some(true)
            });
            if answers {
                return Shipped { process, runtime, map, address, _directory: directory };
            }
        }
        panic!("HAProxy does not start:\n{}", fs::read_to_string(log).unwrap_or_default());
    }
}

/// A running gateway and its folder, both gone on drop.
pub struct Shipped {
    // Before the folder, since fields are dropped in this order.
    process: Process,
    runtime: String,
    map: String,
    address: SocketAddr,
    _directory: TempDir,
}

impl Shipped {
    /// A gateway of two threads with an empty map; the first master is its `master1`, and so on.
    pub fn plan(binary: &Binary, shape: &str, masters: [&Owner; 3]) -> Plan {
        Plan::of(binary, shape).masters(masters)
    }

    /// The admin socket, as Mapsmith's settings write it.
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// The map file, exactly as HAProxy knows it.
    pub fn map(&self) -> &str {
        &self.map
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs a command on the admin socket.
    pub fn command(&self, command: &str) -> String {
        ask(&self.runtime, command)
            .unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.log()))
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A request for a node.
    pub fn ask(&self, method: &str, path: &str, node: &str) -> Response {
        self.send(method, path, &[("X-Node-Name", node)], "")
    }

    /// Any request.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        http::request(self.address, method, path, headers, body).unwrap_or_else(|error| {
            panic!("{method} {path}: the gateway does not answer: {error}\n{}", self.log())
        })
    }

    /// Sends a request for a node and leaves the answer to be fetched.
    pub fn start(&self, method: &str, path: &str, node: &str) -> JoinHandle<io::Result<Response>> {
        let (address, method, path, node) =
            (self.address, method.to_owned(), path.to_owned(), node.to_owned());
        thread::spawn(move || http::request(address, &method, &path, &[("X-Node-Name", &node)], ""))
    }

    /// A number of `show stat`; the server `BACKEND` has the backend's own.
    pub fn number(&self, backend: &str, server: &str, column: &str) -> usize {
        let table = self.command("show stat");
        let mut rows =
            table.lines().map(|row| row.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let columns = rows.next().unwrap_or_default();
        let at = columns
            .iter()
            .position(|name| *name == column)
            .unwrap_or_else(|| panic!("no column {column}: {table}"));
        let row = rows
            .find(|row| row.starts_with(&[backend, server]))
            .unwrap_or_else(|| panic!("no {backend}/{server}: {table}"));
        row[at].parse().unwrap_or_else(|error| {
            panic!("{column} of {backend}/{server} is {:?}: {error}", row[at])
        })
    }

    /// Waits until so many requests wait in this backend, whether for one server or for any.
    pub fn wait_for_queue(&self, backend: &str, length: usize) {
        self.wait_for(&format!("{length} requests wait in {backend}"), || {
            (self.queue(backend) == length).then_some(())
        });
    }

    /// How many requests wait in this backend, whether for one server or for any.
    pub fn queue(&self, backend: &str) -> usize {
        ["BACKEND", "master1", "master2", "master3"]
            .iter()
            .map(|server| self.number(backend, server, "qcur"))
            .sum()
    }

    /// [`eventually`], with the log in the panic.
    pub fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        poll(PATIENCE, look)
            .unwrap_or_else(|| panic!("did not happen within {PATIENCE:?}: {what}\n{}", self.log()))
    }
}
