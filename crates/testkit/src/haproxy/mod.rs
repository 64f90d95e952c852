//! Real HAProxies that a test owns: each with a folder, ports and sockets of its own, in every
//! version that is installed.

mod configuration;
mod gateway;
mod plan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use gateway::{Gateway, ask, entries_of};
pub use plan::Plan;

use crate::{find_program, unpacked};

/// An installed HAProxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    pub version: (u32, u32),
    pub path: PathBuf,
}

/// The machine's own HAProxy.
///
/// # Panics
/// When there is none of 2.6 or later.
pub fn own() -> &'static Binary {
    static OWN: OnceLock<Binary> = OnceLock::new();
    OWN.get_or_init(|| {
        find_program("haproxy")
            .and_then(|path| inspect(&path))
            .filter(|own| own.version >= (2, 6))
            .expect("HAProxy 2.6 or later is not installed: run scripts/setup")
    })
}

/// The machine's own HAProxy and those that `scripts/setup` unpacked, oldest first.
///
/// # Panics
/// When the machine's own (2.6 or later) or the 3.0 is missing.
pub fn installed() -> &'static [Binary] {
    static INSTALLED: OnceLock<Vec<Binary>> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let mut binaries: Vec<Binary> = fs::read_dir(unpacked())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| inspect(&entry.path().join("usr/sbin/haproxy")))
            .collect();
        binaries.push(own().clone());
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
