//! Which process it is: a pid alone may be another one's by now, its start time tells.

use std::collections::BTreeSet;
use std::fs;

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// In clock ticks since the machine started.
    pub started: u64,
}

impl Identity {
    /// The process that has this pid now; none where none has it, or where it has ended and only
    /// its parent has not asked yet.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    /// The process that has an argument which begins so, and is no child of another that has it.
    pub(super) fn of_argument(beginning: &str) -> Option<Self> {
        let entries = fs::read_dir("/proc").ok()?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let having: BTreeSet<_> = pids
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut arguments = line.split(|byte| *byte == 0);
                arguments.any(|argument| argument.starts_with(beginning.as_bytes()))
            })
            .collect();
        let is_first = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !parent(&stat).is_some_and(|parent| having.contains(&parent))
        };
        having.iter().filter(|pid| is_first(pid)).find_map(|pid| Self::of(*pid))
    }

    /// Whether it is still there.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// As it is kept in a file.
    pub(super) fn line(self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    /// Reads [`Self::line`].
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (pid, started) = line.trim_end().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }
}

/// Whether a process is stopped (by `SIGSTOP`, `SIGTTIN` and the like), and is a child of this one.
pub(super) fn is_stopped_child(pid: u32, of: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').next());
    state == Some("T") && parent(&stat) == Some(of)
}

/// The 22nd field of `/proc/PID/stat` (proc(5)), unless the third says that the process is over.
/// The second is a name in parentheses that may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// The fourth field.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_pid_and_its_start() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive() && own.started > 0);
        assert!(!Identity { started: own.started + 1, ..own }.is_alive(), "another with its pid");
        assert_eq!(Identity::parse(&own.line()), Some(own));
        for wrong in ["", "12", "12 x", "-1 3", "1 2 3"] {
            assert_eq!(Identity::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_process_is_found_by_an_argument_and_its_children_are_not() {
        let own = format!("mapsmith-identity-{}", std::process::id());
        assert_eq!(Identity::of_argument(&own), None);
        let script = "sh -c 'sleep 60; :' \"$0\"; :";
        let mut parent = Command::new("sh");
        let mut parent = parent.args(["-c", script, &own]).process_group(0).spawn().unwrap();
        // It has its arguments a moment after its start.
        let found = testkit::eventually("it is found", Duration::from_secs(30), || {
            Identity::of_argument(&own)
        });
        assert_eq!(found.pid, parent.id());
        let group = format!("-{}", parent.id());
        assert!(Command::new("kill").args(["-9", "--", &group]).status().unwrap().success());
        parent.wait().unwrap();
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_hides_no_field() {
        let stat = |state: &str| {
            format!("7 (a) b (c)) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9 9\n")
        };
        assert_eq!(started(&stat("S")), Some(4711));
        assert_eq!(started(&stat("Z")), None, "it is over");
        assert_eq!(started("7 (a"), None);
    }
}
