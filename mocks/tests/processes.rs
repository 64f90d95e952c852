//! The binary as scripts and containers meet it: the line it prints, its exit codes, its end on a
//! signal.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

fn mocks() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mocks"))
}

/// A stand-in that ends with the test, and where it listens.
struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = mocks().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Running { child, url }
    }

    fn healthy(&self, path: &str) -> bool {
        let url = format!("{}{path}", self.url);
        mocks().args(["healthcheck", &url]).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stand_in_says_where_it_listens_and_ends_cleanly_when_told_to() {
    for signal in ["-TERM", "-INT"] {
        let mut puppetdb = Running::start(&["puppetdb", "--listen", "127.0.0.1:0"]);
        assert!(puppetdb.healthy("/pdb/meta/v1/version"));
        let pid = puppetdb.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert!(puppetdb.child.wait().unwrap().success(), "exit code after {signal}");
        assert!(!puppetdb.healthy("/pdb/meta/v1/version"));
    }
}

#[test]
fn a_healthcheck_fails_where_the_answer_is_no_success() {
    let puppetdb = "http://127.0.0.1:9";
    let master = Running::start(&[
        "master",
        "--name",
        "master1",
        "--listen",
        "127.0.0.1:0",
        "--puppetdb",
        puppetdb,
    ]);
    assert!(master.healthy("/healthz"));
    assert!(!master.healthy("/no-node-no-success"));
}

#[test]
fn nodes_can_be_registered_from_the_command_line() {
    let puppetdb = Running::start(&["puppetdb", "--listen", "127.0.0.1:0"]);
    let master = Running::start(&[
        "master",
        "--name",
        "master1",
        "--listen",
        "127.0.0.1:0",
        "--puppetdb",
        &puppetdb.url,
    ]);
    let said =
        mocks().args(["register", "--master", &master.url, "web1", "web2"]).output().unwrap();
    assert!(said.status.success());
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(
        said,
        format!("web1 is registered with {0}/\nweb2 is registered with {0}/\n", master.url)
    );
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let puppetdb = Running::start(&["puppetdb", "--listen", "127.0.0.1:0"]);
    let address = puppetdb.url.strip_prefix("http://").unwrap();
    let second = mocks().args(["puppetdb", "--listen", address]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.starts_with(&format!("mocks: cannot listen on {address}: ")), "{said}");
}
