//! HAProxy's log file: where 2.6 says why it refuses a configuration, and every version why it does
//! not start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use mapsmith_core::render::mask::Mask;

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

    /// What HAProxy has said since of itself, and not of requests, its end where it is much; nothing
    /// where it can't be read. It may have secrets: people get it [`without_secrets`], which does
    /// not know the end of one by itself. So a line is there as a whole, or not at all.
    pub fn since(&self) -> String {
        let text = self.read().unwrap_or_default();
        let is_said = |line: &&str| LEVELS.iter().any(|level| line.starts_with(level));
        let said = text.lines().filter(is_said).collect::<Vec<_>>().join("\n");
        // Of a crash it speaks in other words.
        let said = match said.is_empty() {
            true => text.lines().filter(|it| !is_of_a_request(it)).collect::<Vec<_>>().join("\n"),
            false => said,
        };
        let said = said.trim();
        end_in_lines(said, MOST_SHOWN).to_owned()
    }

    fn read(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        // One that is shorter than it was has been emptied meanwhile.
        let from = if length < self.from { 0 } else { self.from };
        let end = length.saturating_sub(MOST_READ);
        file.seek(SeekFrom::Start(from.max(end)))?;
        let mut bytes = Vec::new();
        file.take(MOST_READ).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(if end > from { behind_first_line(&text) } else { &text }.to_owned())
    }
}

/// The end of a text, at most so many bytes of it, from the beginning of a line on.
fn end_in_lines(text: &str, most: usize) -> &str {
    // With the byte before, which may end a line.
    match text.len().checked_sub(most + 1) {
        None => text,
        Some(from) => behind_first_line(&text[text.floor_char_boundary(from)..]),
    }
}

fn behind_first_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// What HAProxy has said, without the secrets of these configurations of it.
pub(super) fn without_secrets(said: &str, configurations: &[PathBuf]) -> String {
    if said.is_empty() {
        return String::new();
    }
    mask("", configurations).over(said, None)
}

/// The secrets of a text and of these files, as far as they can be read: HAProxy loads them
/// together, and may show a part of any of them.
pub(super) fn mask(text: &str, files: &[PathBuf]) -> Mask {
    let read = files.iter().filter_map(|path| fs::read(path).ok());
    let read: Vec<_> = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    Mask::of(read.iter().map(String::as_str).chain([text]))
}

/// Whether a line of HAProxy's log is about a request or a connection: one has the time that it
/// came in, like `[27/Nov/2026:20:40:41.884]`, or is an object of JSON.
fn is_of_a_request(line: &str) -> bool {
    let is_time = |word: &str| {
        let time = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
        time.is_some_and(|time| time.matches('/').count() == 2 && time.matches(':').count() == 3)
    };
    line.trim_start().starts_with('{') || line.split_ascii_whitespace().any(is_time)
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
        writeln!(file, "{}end", format!("{}\n", "x".repeat(999)).repeat(100)).unwrap();
        let shown = mark.since();
        assert!(shown.len() > 15 * 1024 && shown.len() <= 16 * 1024, "{}", shown.len());
        assert!(shown.ends_with("x\nend"));
    }

    #[test]
    fn a_line_that_has_no_room_is_not_cut_within_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.log");
        let [shown, request] = ["y", "{"].map(|it| format!("\n{it}{}", "y".repeat(98)));
        // What stands behind it leaves room for its last part only.
        for (most, behind) in [(MOST_SHOWN, shown), (MOST_READ as usize, request)] {
            let mark = Mark::now(&path);
            let behind = &behind.repeat(most / 100 + 1)[..most - 12];
            write!(open(&path).unwrap(), "begin-of-it-end-of-it{behind}").unwrap();
            let shown = mark.since();
            assert!(!shown.contains("end-of-it"), "{most}: {shown:.200}");
            assert_eq!(shown.starts_with("yyy"), most == MOST_SHOWN, "{most}: {shown:.200}");
        }
        for (text, most, end) in
            [("a\nbc", 4, "a\nbc"), ("a\nbc", 3, "bc"), ("a\nbc", 2, "bc"), ("a\nbc", 1, "")]
        {
            assert_eq!(end_in_lines(text, most), end, "{most} of {text:?}");
        }
    }

    #[test]
    fn what_haproxy_said_is_never_a_request_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.log");
        let request = "127.0.0.1:56532 [27/Nov/2026:20:40:41.884] web app/three 0/0/0/2/7 200 117 \
            - - ---- 1/1/0/0/0 0/0 \"GET /?token=geheim HTTP/1.1\"";
        for (written, expected) in [
            (request.to_owned(), ""),
            ("{\"method\":\"GET\"}\n\n".to_owned(), ""),
            (format!("free(): invalid pointer\n{request}\n"), "free(): invalid pointer"),
            (format!("[ALERT] (7) : out of memory\n{request}"), "[ALERT] (7) : out of memory"),
        ] {
            let mark = Mark::now(&path);
            write!(open(&path).unwrap(), "{written}").unwrap();
            assert_eq!(mark.since(), expected, "{written}");
        }
    }

    #[test]
    fn what_haproxy_said_has_no_secret_of_its_configurations() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, missing] = ["a.cfg", "b.cfg", "c.cfg"].map(|it| folder.path().join(it));
        fs::write(&one, "http-request set-header Authorization 'Bearer one-secret'\n").unwrap();
        fs::write(&other, b"# \xff\nuserlist u\n user a insecure-password other-one\n").unwrap();
        let said = "[ALERT] (7) : unexpected 'Bearer one-secret' and 'other-one'";
        let shown = without_secrets(said, &[one, missing, other]);
        assert_eq!(shown, "[ALERT] (7) : unexpected *** and '***'");
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
