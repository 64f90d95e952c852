//! Which process it is: a pid alone may be another one's by now, its start time tells.

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

/// The 22nd field of `/proc/PID/stat` (proc(5)), unless the third says that the process is over.
/// The second is a name in parentheses that may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
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
    fn a_name_with_parentheses_and_blanks_hides_no_field() {
        let stat = |state: &str| {
            format!("7 (a) b (c)) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9 9\n")
        };
        assert_eq!(started(&stat("S")), Some(4711));
        assert_eq!(started(&stat("Z")), None, "it is over");
        assert_eq!(started("7 (a"), None);
    }
}
