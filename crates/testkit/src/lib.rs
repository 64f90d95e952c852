//! What tests and benchmarks stand on: real servers that a test owns, stand-ins, and the few
//! helpers they share.
//!
//! Everything here blocks, so that it can be called from plain tests and from async ones alike.
//! Nothing waits by sleeping: see [`eventually`].
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

pub mod acme;
pub mod admin_proxy;
pub mod authority;
pub mod consul;
pub mod curl;
pub mod daemon;
pub mod dns;
pub mod etcd;
pub mod haproxy;
pub mod http;
pub mod load;
pub mod master;
pub mod owner;
pub mod owners;
pub mod process;
pub mod puppet;
pub mod puppetdb;
pub mod random;
pub mod registry;
pub mod shipped;
pub mod tcp_proxy;
pub mod zookeeper;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often [`eventually`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks until there is something, and returns it.
///
/// # Panics
/// Says what was awaited when it has not come within `bound`, a generous one: a test's verdict
/// never hangs on speed.
pub fn eventually<T>(what: &str, bound: Duration, look: impl FnMut() -> Option<T>) -> T {
    poll(bound, look).unwrap_or_else(|| panic!("did not happen within {bound:?}: {what}"))
}

/// [`eventually`] for a caller that has more to say when nothing came.
pub fn poll<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() > bound {
            return found;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A port of the loopback address that nobody listens on.
///
/// It comes from below the range the kernel takes outgoing and "any" ports from, and is given once
/// only, so that no other test, master or connection of this process takes it between this call and
/// the server's start. Another process still may.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one(0) as u16));
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Prometheus' rule checker.
pub fn promtool() -> PathBuf {
    program("promtool")
}

/// Where a program is that `scripts/setup` installs.
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| panic!("{name} is not installed: run scripts/setup"))
}

/// Where a program is, if it is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    // Servers are in the system folders, which an ordinary user's PATH leaves out.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The folder of what `scripts/setup` unpacks and does not install.
pub fn unpacked() -> PathBuf {
    match std::env::var_os("MAPSMITH_DEPS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/deps"),
    }
}

/// What a file holds, which may not be there yet.
pub(crate) fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Runs a program to its end and returns what it printed.
///
/// # Panics
/// With its arguments and all its output when it fails.
pub fn run(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{printed}{complaints}",
        program.display(),
        output.status
    );
    printed
}
