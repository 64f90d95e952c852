//! A running HAProxy and its folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::Binary;
use super::plan::Plan;
use crate::process::{Ending, Process};
use crate::{eventually, http, poll};

/// Longer than any start, reload or reply takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running HAProxy and its folder, both gone on drop.
///
/// Every master is a backend, chosen by the map; what the map leaves out goes to a backend that
/// answers 404 itself.
pub struct Gateway {
    // Before the folder, since fields are dropped in this order.
    pub(super) process: Option<Process>,
    pub(super) http_port: u16,
    pub(super) runtime_port: u16,
    pub(super) admin_socket: String,
    pub(super) user_socket: String,
    /// Its address, where there is a master process.
    pub(super) master_socket: String,
    pub(super) map: String,
    pub(super) configuration: String,
    pub(super) log: PathBuf,
    pub(super) plan: Plan,
    pub(super) directory: TempDir,
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
    pub(super) fn launch(&mut self) -> bool {
        let binary = self.plan.binary.path.to_str().expect("a path in UTF-8");
        let ending = Ending { remove: Some(self.directory.path().to_owned()), ..Ending::default() };
        // Without SO_REUSEPORT, with which another test's HAProxy could share the port that was
        // free a moment ago, and answer some of the requests.
        let mut command = vec![binary, "-dR", "-f", &self.configuration];
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
