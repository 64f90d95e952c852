//! The processes of one HAProxy, as the kernel lists them: nobody has to answer.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{eventually, run};

/// Longer than a write takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that was started with the folder on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub pid: u32,
    pub parent: u32,
    /// In clock ticks since the machine started.
    pub started: u64,
    /// It only checks a file.
    pub checks: bool,
}

/// A master and its workers, the youngest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    pub masters: Vec<u32>,
    pub workers: Vec<u32>,
    pub checks: Vec<u32>,
}

/// Those that run HAProxy with files of this folder; what has ended and was not waited for does not
/// count.
pub fn listed(folder: &Path) -> Vec<Listed> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| inspect(pid, folder)).collect()
}

fn inspect(pid: u32, folder: &Path) -> Option<Listed> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0');
    let of_folder = format!("{}/", folder.display());
    if !words.next()?.ends_with("haproxy") || !line.contains(&of_folder) {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    let parent = fields.get(1)?.parse().ok()?;
    let started = fields.get(19)?.parse().ok()?;
    let checks = words.next() == Some("-c");
    Some(Listed { pid, parent, started, checks })
}

pub fn family(folder: &Path) -> Family {
    let mut all = listed(folder);
    all.sort_by_key(|one| std::cmp::Reverse((one.started, one.pid)));
    let mut family = Family::default();
    for one in &all {
        let is_child = all.iter().any(|other| other.pid == one.parent);
        let kind = match (one.checks, is_child) {
            (true, _) => &mut family.checks,
            (false, true) => &mut family.workers,
            (false, false) => &mut family.masters,
        };
        kind.push(one.pid);
    }
    family
}

/// Whether there was such a process.
pub fn signal(name: &str, pid: u32) -> bool {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).output();
    sent.is_ok_and(|output| output.status.success())
}

/// Ends every one of them.
pub fn end_all(folder: &Path) {
    for one in listed(folder) {
        signal("KILL", one.pid);
    }
}

/// What HAProxy says of the file in force, with something in place of the sockets that it inherits.
pub fn accepts(program: &Path, config: &Path) -> Result<(), String> {
    let text = fs::read_to_string(config).map_err(|error| error.to_string())?;
    let numbers: Vec<_> = text
        .split("fd@")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>())
        .collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound address").port();
    let inherited: String = numbers
        .iter()
        .map(|number| format!("exec {number}<>/dev/tcp/127.0.0.1/{port}; "))
        .collect();
    let script = format!("{inherited}exec \"$0\" -c -f \"$1\"");
    let mut command = Command::new("bash");
    let output = command.args(["-c", &script]).arg(program).arg(config).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A mount over a folder that lets nobody write there by its path, until this is dropped.
pub fn mount_read_only(folder: &Path) {
    let path = folder.to_str().expect("a folder named in UTF-8");
    eventually("the folder is read-only", PATIENCE, || {
        run("mount", &["--bind", path, path]);
        let mut command = Command::new("mount");
        let output = command.args(["-o", "remount,ro,bind", path]).output();
        let is_read_only = output.is_ok_and(|output| output.status.success());
        if !is_read_only {
            // Somebody has opened a file by this mount already, and may keep it.
            unmount(folder);
        }
        is_read_only.then_some(())
    });
}

pub fn unmount(folder: &Path) {
    run("umount", &["-l", folder.to_str().expect("a folder named in UTF-8")]);
}
