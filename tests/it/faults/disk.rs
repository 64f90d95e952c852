//! A small file system of its own for the map file or the store, which can be filled and made
//! read-only.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually;
use crate::support::process::{Ending, Process};

/// Longer than a mount takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts a small file system until it is told to end, so that it goes with a test that is killed,
/// too.
const MOUNT: &str = r#"
trap 'while umount -l "$1" 2>/dev/null; do :; done; exit' TERM
mount -t tmpfs -o size=16m,mode=755 mapsmith-faults "$1" || exit 1
echo mounted
while :; do sleep 1000 & wait $!; done
"#;

/// A folder, on a file system of its own where this machine lets us mount one.
pub struct Volume {
    // Before the folder, since fields are dropped in this order.
    mount: Option<Process>,
    folder: TempDir,
    _log: TempDir,
}

impl Volume {
    pub fn start() -> Self {
        let temporary = || {
            tempfile::Builder::new()
                .prefix("mapsmith-volume-")
                .tempdir()
                .expect("a temporary folder")
        };
        let (folder, log) = (temporary(), temporary());
        let path = folder.path().to_str().expect("a folder named in UTF-8");
        let ending = Ending { signal: "TERM", remove: None };
        let mut mount =
            Process::start(&["sh", "-c", MOUNT, "mount", path], &log.path().join("log"), ending);
        let mounted = eventually("the file system is mounted, or can't be", PATIENCE, || {
            if mount.exit_status().is_some() {
                Some(false)
            } else {
                mount.log().contains("mounted").then_some(true)
            }
        });
        if !mounted {
            static NOTE: Once = Once::new();
            NOTE.call_once(|| {
                println!(
                    "no file system can be mounted here: full and read-only disks are left out"
                )
            });
        }
        Self { mount: mounted.then_some(mount), folder, _log: log }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it can be filled and made read-only.
    pub fn is_own(&self) -> bool {
        self.mount.is_some()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("the ballast");
        while ballast.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    /// Ends [`Self::fill`].
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("the ballast goes");
    }

    /// Makes it read-only, or writable again.
    pub fn read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        // It can't be while somebody writes.
        eventually("the file system is mounted again", PATIENCE, || {
            let mut command = Command::new("mount");
            command.args(["-o", options]).arg(self.path()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success()).then_some(())
        });
    }
}
