//! What the end of a rendered file says: which configuration it is, and that it is whole.
//!
//! A last section sets a variable of HAProxy's environment, so that the Runtime API's `show env`
//! tells which configuration the process has loaded: seen on 2.6, 3.0, 3.2 and 3.4, also after
//! reloads that failed. The last line has a checksum of everything before it, so that a file which
//! was edited externally, or cut, shows.

use xxhash_rust::xxh3::xxh3_64;

/// The variable that names the configuration which a process has loaded.
pub const VARIABLE: &str = "MAPSMITH_MARK";
const CHECKSUM: &str = "# mapsmith checksum ";

/// Tells two texts apart.
pub fn hash(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// Names a configuration, by all of its text but what the Runtime API can change.
pub fn mark(text: &str) -> String {
    format!("{:016x}", hash(text.as_bytes()))
}

/// The text with its end. `mark` is what [`mark`] says of it without its servers.
pub fn stamped(text: &str, mark: &str) -> String {
    let mut stamped = format!("{text}\nglobal\n    setenv {VARIABLE} {mark}\n");
    let checksum = hash(stamped.as_bytes());
    stamped.push_str(&format!("{CHECKSUM}{checksum:016x}\n"));
    stamped
}

/// A text without its end, if it has one.
pub fn unstamped(text: &str) -> &str {
    text.rsplit_once(&format!("\nglobal\n    setenv {VARIABLE} ")).map_or(text, |(text, _)| text)
}

/// What a file in place is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// As it was rendered; the mark of its configuration.
    Whole { mark: String },
    /// It was rendered, and edited or cut since.
    Edited,
    /// It was never rendered.
    Foreign,
}

/// Reads the end of a file.
pub fn read(text: &[u8]) -> Stamp {
    let Ok(text) = std::str::from_utf8(text) else { return Stamp::Foreign };
    let Some((before, checksum)) = text.rsplit_once(CHECKSUM) else {
        let was_rendered = text.contains(&format!("setenv {VARIABLE} "));
        return if was_rendered { Stamp::Edited } else { Stamp::Foreign };
    };
    let is_whole =
        checksum.strip_suffix('\n') == Some(format!("{:016x}", hash(before.as_bytes())).as_str());
    let mark = before.trim_end().rsplit_once(&format!("setenv {VARIABLE} "));
    match mark {
        Some((_, mark)) if is_whole => Stamp::Whole { mark: mark.to_owned() },
        _ => Stamp::Edited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_which_configuration_it_is_until_somebody_edits_it() {
        let text = "defaults\n    mode http\n";
        let file = stamped(text, &mark(text));
        assert_eq!(read(file.as_bytes()), Stamp::Whole { mark: mark(text) });
        assert_eq!((unstamped(&file), unstamped(text)), (text, text));
        let edits = [
            file.replace("http", "tcp"),
            format!("{file}# more\n"),
            file[..file.len() - 1].to_owned(),
            file[..file.len() - 40].to_owned(),
        ];
        for edited in edits {
            assert_eq!(read(edited.as_bytes()), Stamp::Edited, "{edited}");
        }
        assert_eq!(read(text.as_bytes()), Stamp::Foreign);
        assert_eq!(read(b"\xff"), Stamp::Foreign);
    }
}
