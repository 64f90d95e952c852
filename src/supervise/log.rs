//! HAProxy's log file: where 2.6 says why it refuses a configuration, and every version why it does
//! not start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How the lines begin that are about HAProxy itself.
const LEVELS: [&str; 3] = ["[ALERT]", "[WARNING]", "[NOTICE]"];
/// The most of it that is read, in bytes: requests may be logged there too.
const MOST_READ: u64 = 1024 * 1024;
/// The most of it that is shown, in bytes.
const MOST_SHOWN: usize = 16 * 1024;
/// It is emptied when it is larger, in bytes.
const MOST_KEPT: u64 = 64 * 1024 * 1024;

/// A place in the log, from which on something was written.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    from: u64,
}

impl Mark {
    /// What is written from now on.
    pub fn now(path: &Path) -> Self {
        Self { path: path.to_owned(), from: std::fs::metadata(path).map_or(0, |file| file.len()) }
    }

    /// What HAProxy has said since of itself, its end where it is much; nothing where it can't be
    /// read.
    pub fn since(&self) -> String {
        let text = self.read().unwrap_or_default();
        let is_said = |line: &&str| LEVELS.iter().any(|level| line.starts_with(level));
        let said = text.lines().filter(is_said).collect::<Vec<_>>().join("\n");
        // Of a crash it speaks in other words.
        let said = if said.is_empty() { text.trim() } else { &said };
        let from = said.ceil_char_boundary(said.len().saturating_sub(MOST_SHOWN));
        said.get(from..).unwrap_or_default().to_owned()
    }

    fn read(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        // One that is shorter than it was has been emptied meanwhile.
        let from = if length < self.from { 0 } else { self.from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST_READ))))?;
        let mut bytes = Vec::new();
        file.take(MOST_READ).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Opens it for a process that writes to its end, wherever that is.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Empties it where it is too large. The process that writes goes on at its new end.
pub(super) fn bound(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > MOST_KEPT {
        file.set_len(0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_written_since_is_shown_its_end_where_it_is_much() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.log");
        assert_eq!(Mark::now(&path).since(), "");
        let mut file = open(&path).unwrap();
        writeln!(file, "before").unwrap();
        let mark = Mark::now(&path);
        writeln!(file, "after").unwrap();
        assert_eq!(mark.since(), "after");
        writeln!(file, "[ALERT] (7) : why\n127.0.0.1:1 [26/Nov/2026] a request").unwrap();
        assert_eq!(mark.since(), "[ALERT] (7) : why");
        let mark = Mark::now(&path);
        writeln!(file, "{}end", "x".repeat(100_000)).unwrap();
        assert!(mark.since().len() <= 16 * 1024 && mark.since().ends_with("xend"));
    }

    #[test]
    fn a_log_that_is_too_large_is_emptied_under_the_one_who_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.log");
        let mut file = open(&path).unwrap();
        writeln!(file, "small").unwrap();
        let mark = Mark::now(&path);
        bound(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "small\n");
        file.set_len(MOST_KEPT + 1).unwrap();
        bound(&path).unwrap();
        write!(file, "on").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap(), mark.since()),
            ("on".into(), "on".into())
        );
    }
}
