//! A Puppet agent with folders of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::curl::Client;

/// A node. Its certificate is signed at once if its name ends in `.auto`.
pub struct Agent {
    name: String,
    folder: TempDir,
}

/// What became of a run.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub output: String,
}

impl Run {
    /// Nothing to do, or done without a failure.
    pub fn is_good(&self) -> bool {
        [0, 2].contains(&self.code)
    }

    /// The master that compiled the catalog.
    pub fn compiled_by(&self) -> Option<&str> {
        let (_, rest) = self.output.split_once("compiled by ")?;
        rest.split(['\'', '\n', ']', ' ']).next()
    }
}

impl Agent {
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mapsmith-agent-")
            .tempdir()
            .expect("a temporary folder");
        Self { name: name.to_owned(), folder }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a test may have the agent put files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `puppet agent --test` against this server, a gateway or a guard.
    pub fn run(&self, server: SocketAddr) -> Run {
        self.run_with(server, &[])
    }

    /// The same with facts of its own.
    pub fn run_with(&self, server: SocketAddr, facts: &[(&str, &Path)]) -> Run {
        let output = self.command(server, facts).output().expect("timeout starts");
        Run {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }

    fn command(&self, server: SocketAddr, facts: &[(&str, &Path)]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "600", "puppet", "agent", "--test", "--color=false"]);
        // Without a certificate it says so and ends.
        command.args(["--waitforcert=0", "--keylength=2048", "--certname", &self.name]);
        command.arg(format!("--server={}", server.ip()));
        command.arg(format!("--serverport={}", server.port()));
        for setting in
            ["confdir", "vardir", "ssldir", "rundir", "logdir", "publicdir", "statedir", "codedir"]
        {
            let folder = self.folder.path().join(setting);
            command.arg(format!("--{setting}={}", folder.display()));
        }
        for (name, value) in facts {
            command.env(format!("FACTER_{name}"), value);
        }
        command.stdin(Stdio::null());
        command
    }

    /// A client that shows the agent's certificate, which it has after a first run.
    pub fn client(&self) -> Client {
        let ssl = self.folder.path().join("ssldir");
        let file = |folder: &str, name: &str| {
            let file = ssl.join(folder).join(name);
            assert!(fs::exists(&file).is_ok_and(|there| there), "no {}", file.display());
            file
        };
        let name = format!("{}.pem", self.name);
        Client::with(file("certs", "ca.pem"), file("certs", &name), file("private_keys", &name))
    }
}
