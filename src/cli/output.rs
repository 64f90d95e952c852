//! Words, tables and colours for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use mapsmith_core::status::StepTiming;

/// What a text means, by colour. Colours appear on a terminal only, and not where `NO_COLOR` is
/// set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
}

pub(super) fn paint(colour: Colour, text: &str) -> String {
    if !std::io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
    {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Prints a line to standard output.
/// A reader that has gone (`| head`) is no error: it has what it wanted.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// What became of printing to standard output.
pub(super) fn written(outcome: io::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output can't be written")
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error; where that is closed or full there is nobody to tell.
pub(super) fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `12s ago`, for people.
pub(super) fn ago(at: Timestamp) -> String {
    let age = Timestamp::now().duration_since(at).as_secs().max(0);
    format!("{} ago", humantime::format_duration(Duration::from_secs(age.unsigned_abs())))
}

/// `1 source`, `2 sources`, `3 entries`.
pub(super) fn pluralize(count: usize, thing: &str) -> String {
    match (count, thing.strip_suffix("ry")) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{count} {stem}ries"),
        (_, None) => format!("{count} {thing}s"),
    }
}

/// `prepare 0.1 ms, stage 2.0 ms`.
pub(super) fn steps(steps: &[StepTiming]) -> String {
    let steps: Vec<_> =
        steps.iter().map(|step| format!("{} {:.1} ms", step.step, step.milliseconds)).collect();
    steps.join(", ")
}

/// Rows with their columns aligned, two blanks between, `indent` before.
pub(super) fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_not_several() {
        assert_eq!(pluralize(1, "entry"), "1 entry");
        assert_eq!(
            (pluralize(0, "entry"), pluralize(2, "key")),
            ("0 entries".into(), "2 keys".into())
        );
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table("  ", &rows), "  a    bb\n  ccc  d\n");
    }
}
