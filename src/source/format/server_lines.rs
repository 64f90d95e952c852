//! A list of servers as lines, `host:port` each, as ProxyMgr reads them. Blank lines and those that
//! begin with `#` say nothing.
//!
//! A text that is something else is refused whole; a few lines that are no servers are rejected.

use mapsmith_core::server::list::parse_address;
use serde_json::{Value, json};

/// Lines that may be no servers in any file; beyond them a tenth.
const FORGIVEN: usize = 2;

/// Each line with its number, as a row. Or why the text is no such list.
pub(super) fn rows(text: &[u8]) -> Result<Vec<(usize, Value)>, String> {
    if matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Err("it looks like JSON; set format = \"json\"".to_owned());
    }
    let lines = (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, String::from_utf8_lossy(line.trim_ascii()).into_owned()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<(usize, String)> = lines.collect();
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|(number, line)| Some((number, parse_address(line, None).err()?)))
        .collect();
    let forgiven = if wrong.len() == lines.len() { 0 } else { FORGIVEN.max(lines.len() / 10) };
    if let Some((number, why)) = wrong.first().filter(|_| wrong.len() > forgiven) {
        return Err(format!(
            "{} of its {} lines are not host:port, the first is line {number}: {why}",
            wrong.len(),
            lines.len()
        ));
    }
    Ok(lines.into_iter().map(|(number, line)| (number, json!({ "address": line }))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_server() {
        let addresses = |text: &str| -> Vec<_> {
            let rows = rows(text.as_bytes()).unwrap();
            rows.into_iter().map(|(line, row)| format!("{line} {}", row["address"])).collect()
        };
        assert_eq!(addresses(""), [""; 0]);
        assert_eq!(addresses("# nobody\n\n"), [""; 0]);
        assert_eq!(
            addresses("10.0.0.2:80\n# old\n\n  Web1.test:81\r\n[fe80::1]:82"),
            ["1 \"10.0.0.2:80\"", "4 \"Web1.test:81\"", "5 \"[fe80::1]:82\""]
        );
        assert_eq!(addresses("10.0.0.2:80\nnonsense\n").len(), 2, "a row that is rejected later");
    }

    #[test]
    fn a_text_that_is_something_else_is_refused_whole() {
        for (text, part) in [
            ("[\"10.0.0.1:80\"]", "set format = \"json\""),
            ("<html>\n<title>Gone</title>\n", "2 of its 2 lines are not host:port"),
            ("Not Found", "line 1: \"Not Found\""),
            ("a:1\nb\nc\nd\n", "3 of its 4 lines are not host:port, the first is line 2"),
            ("10.0.0.1\n", "has no port"),
        ] {
            let why = rows(text.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{text:?}: {why}");
        }
    }
}
