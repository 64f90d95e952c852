//! The program under test, as a user runs it: its own binary with a configuration file.

use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Ending, Process};
use super::{eventually, http, poll};

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mapsmith");

/// Longer than any start or end takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration file in a folder of its own, which is there for other files too.
pub struct Config {
    directory: TempDir,
    /// `NAME=value`.
    environment: Vec<String>,
    /// The same, and set again for a restart.
    extra: Vec<String>,
    /// Of `mapsmith run`.
    arguments: Vec<String>,
    /// The soft and the hard limit of open files, like `64:256`; none leaves the test's own.
    open_files: Option<String>,
}

impl Config {
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mapsmith.toml")
    }

    /// Runs a verb on this configuration (`-c` is added) to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(&[], arguments).output().expect("timeout starts")
    }

    /// [`Config::cli`], with standard output going to this file.
    pub fn cli_into(&self, arguments: &[&str], file: &str) -> Output {
        let standard_output =
            fs::File::options().write(true).open(file).expect("the file can be written");
        self.command(&[], arguments).stdout(standard_output).output().expect("timeout starts")
    }

    /// [`Config::cli`], run by another program: `setpriv`, with arguments.
    pub fn cli_as(&self, runner: &[&str], arguments: &[&str]) -> Output {
        self.command(runner, arguments).output().expect("timeout starts")
    }

    fn command(&self, runner: &[&str], arguments: &[&str]) -> Command {
        let mut command = command(runner, arguments, None);
        let variables =
            self.environment.iter().map(|variable| variable.split_once('=').expect("NAME=value"));
        command.arg("-c").arg(self.path()).envs(variables);
        command
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Gives `mapsmith run` an argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets the soft and the hard limit of the files that the daemon may have open.
    pub fn open_files(mut self, soft: usize, hard: usize) -> Self {
        self.open_files = Some(format!("{soft}:{hard}"));
        self
    }

    /// Starts `mapsmith run`; returns when its API listens.
    pub fn start(self) -> Mapsmith {
        let (process, address) = self.launch();
        Mapsmith { process, config: self, address }
    }

    fn launch(&self) -> (Process, SocketAddr) {
        let log = self.directory.path().join("mapsmith.log");
        // A process before this one wrote to it too.
        let old = fs::read_to_string(&log).map_or(0, |log| log.len());
        let path = self.path();
        let mut command = vec!["env", "-u", "RUST_LOG"];
        command.extend(self.environment.iter().chain(&self.extra).map(String::as_str));
        let limit = self.open_files.as_ref().map(|limit| format!("--nofile={limit}"));
        command.extend(limit.iter().flat_map(|limit| ["prlimit", limit]));
        command.extend([BINARY, "run", "-c", path.to_str().expect("a folder named in UTF-8")]);
        command.extend(self.arguments.iter().map(String::as_str));
        let ending = Ending { remove: Some(self.directory.path().to_owned()), ..Ending::default() };
        let mut process = Process::start(&command, &log, ending);
        let address = eventually("mapsmith says that its API listens, or ends", PATIENCE, || {
            let ended = process.exit_status();
            let found = process.log().get(old..).and_then(api_address);
            assert!(
                found.is_some() || ended.is_none(),
                "mapsmith ended: {ended:?}\n{}",
                process.log()
            );
            found
        });
        (process, address)
    }
}

/// The running daemon, killed on drop.
pub struct Mapsmith {
    process: Process,
    config: Config,
    address: SocketAddr,
}

impl Mapsmith {
    /// Writes a configuration: what a test gives, and an API on a free port unless it gives an
    /// `[api]` itself.
    pub fn config(toml: &str) -> Config {
        let directory =
            tempfile::Builder::new().prefix("mapsmith-").tempdir().expect("a temporary folder");
        let config = Config {
            directory,
            environment: Vec::new(),
            extra: Vec::new(),
            arguments: Vec::new(),
            open_files: None,
        };
        let api = if toml.contains("[api]") { "" } else { "\n[api]\nlisten = \"127.0.0.1:0\"\n" };
        fs::write(config.path(), format!("{toml}{api}")).expect("the configuration can be written");
        config
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The configuration that it runs on.
    pub fn configuration(&self) -> &Config {
        &self.config
    }

    /// The status, and the body: as it stands, in a string, where it isn't JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str) -> (u16, Value) {
        self.request("POST", path)
    }

    /// A connection to its API, for a request that outlasts a borrow of this.
    pub fn connect(&self) -> http::Connection {
        http::Connection::open(self.address)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Any request, with the answer as it came.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response {
        http::request(self.address, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// A request to a daemon that may be gone.
    pub fn try_ask(&self, method: &str, path: &str) -> io::Result<http::Response> {
        http::request(self.address, method, path, &[], "")
    }

    fn request(&self, method: &str, path: &str) -> (u16, Value) {
        let response = self.ask(method, path, &[], "");
        let body = serde_json::from_str(&response.body).unwrap_or(Value::String(response.body));
        (response.status, body)
    }

    /// [`eventually`], with the log in the panic.
    pub fn wait_for<T>(
        &self,
        what: &str,
        bound: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        poll(bound, || look(self))
            .unwrap_or_else(|| panic!("did not happen within {bound:?}: {what}\n{}", self.log()))
    }

    /// Asks it to end, and returns its exit code.
    pub fn sigterm(&mut self) -> i32 {
        self.process.signal("TERM");
        self.process.wait(PATIENCE)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same configuration; kills it first if it runs. Its log goes on.
    pub fn restart(&mut self) {
        self.kill();
        (self.process, self.address) = self.config.launch();
    }

    /// Where its API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets variables of its environment, each `NAME=value`, and no others of those that this set
    /// before; for the next start.
    pub fn extra_variables(&mut self, variables: &[&str]) {
        self.config.extra = variables.iter().map(|variable| (*variable).to_owned()).collect();
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it runs no more.
    pub fn has_ended(&mut self) -> bool {
        self.process.exit_status().is_some()
    }

    /// Sends it any signal, and waits for nothing.
    pub fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for its end; returns its exit code.
    pub fn wait(&mut self) -> i32 {
        self.process.wait(PATIENCE)
    }

    /// SIGHUP: look again.
    pub fn hangup(&mut self) {
        self.process.signal("HUP");
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Runs a verb against its API to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        cli(arguments, Some(&self.api_url()))
    }
}

/// Runs the binary to its end; one that never ends is killed, and fails.
pub fn cli(arguments: &[&str], url: Option<&str>) -> Output {
    command(&[], arguments, url).output().expect("timeout starts")
}

/// The same with a text on its standard input.
pub fn cli_reading(arguments: &[&str], input: &[u8]) -> Output {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input).and_then(|()| file.rewind()).expect("it can be written");
    command(&[], arguments, None).stdin(file).output().expect("timeout starts")
}

/// The binary with these arguments, run by `runner`, to be ended if it never ends.
fn command(runner: &[&str], arguments: &[&str], url: Option<&str>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).args(runner).arg(BINARY).args(arguments);
    // A test's outcome must not hang on the environment of the person who runs it.
    for name in ["RUST_LOG", "MAPSMITH_CONFIG", "MAPSMITH_URL", "MAPSMITH_TOKEN"] {
        command.env_remove(name);
    }
    if let Some(url) = url {
        command.env("MAPSMITH_URL", url);
    }
    command
}

/// The address in the log line that says that the API listens.
fn api_address(log: &str) -> Option<SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines
        .map(|line| line["fields"].clone())
        .find(|fields| fields["message"] == "API listening")?;
    fields["address"].as_str()?.parse().ok()
}
