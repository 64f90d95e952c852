//! What HAProxy says of a configuration (`haproxy -c`), with the settings that its lines were made
//! from. HAProxy 2.6 to 3.4 print `[ALERT]    (7) : config : parsing [FILE:12] : text`, from 3.2 on
//! also without `config : `, with the place at the beginning of the text.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Rendered;

/// A line that HAProxy printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Remark {
    pub level: Level,
    /// The line of the rendered text, from 1, where HAProxy names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The setting that the line was made from, like `frontend[0].rules[2]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Alert,
    Warning,
}

impl fmt::Display for Remark {
    /// `frontend[0].rules[2] (line 12): unknown keyword`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.setting, self.line) {
            (Some(setting), Some(line)) => write!(out, "{setting} (line {line}): ")?,
            (None, Some(line)) => write!(out, "line {line}: ")?,
            (_, None) => {}
        }
        out.write_str(&self.text)
    }
}

/// What says no more than that there was an error, of which there is a line of its own.
const SUMS_UP: [&str; 3] = [
    "Error(s) found in configuration file",
    "Fatal errors found in configuration",
    "Some protocols failed to start their listeners",
];

/// The alerts and warnings of what HAProxy printed on a configuration in this file.
pub fn remarks(printed: &str, file: &str, rendered: &Rendered) -> Vec<Remark> {
    let mut remarks: Vec<_> =
        printed.lines().filter_map(|line| remark(line, file, rendered)).collect();
    let sums_up = |text: &str| {
        // `[/usr/sbin/haproxy.main()] Some protocols ..`
        let text = text.split_once(".main()] ").map_or(text, |(_, text)| text);
        SUMS_UP.iter().any(|sum| text.starts_with(sum))
    };
    let says_why = |remark: &Remark| remark.level == Level::Alert && !sums_up(&remark.text);
    if remarks.iter().any(says_why) {
        remarks.retain(|remark| !sums_up(&remark.text));
    }
    remarks
}

fn remark(printed: &str, file: &str, rendered: &Rendered) -> Option<Remark> {
    let (level, rest) = [("[ALERT]", Level::Alert), ("[WARNING]", Level::Warning)]
        .into_iter()
        .find_map(|(mark, level)| Some((level, printed.strip_prefix(mark)?)))?;
    // `    (4711) : config : parsing [FILE:12] : text`
    let text = rest.split_once(") : ").map_or(rest, |(_, text)| text);
    let text = text.strip_prefix("config : ").unwrap_or(text);
    let line = line_of(text, file);
    let text = line.map_or(text, |line| without_place(text, &format!("[{file}:{line}]")));
    let setting = line.and_then(|line| rendered.origin(line)).map(str::to_owned);
    let text = rendered.without_secrets(text.trim(), line);
    Some(Remark { level, line, setting, text })
}

/// The number after the file's name in `[FILE:12]`.
fn line_of(text: &str, file: &str) -> Option<usize> {
    let (_, rest) = text.split_once(&format!("[{file}:"))?;
    rest.split_once(']')?.0.parse().ok()
}

/// The text after the place, without the colon between them.
fn without_place<'a>(text: &'a str, place: &str) -> &'a str {
    let rest = text.split_once(place).map_or(text, |(_, rest)| rest);
    rest.trim_start_matches([' ', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::render::render;

    #[test]
    fn a_line_that_haproxy_names_is_shown_as_the_setting_that_it_was_made_from() {
        let rendered = render(&Config::default());
        let printed = "[NOTICE]   (1) : haproxy version is 2.6.12\n\
            [ALERT]    (7) : config : parsing [/t/haproxy.cfg:3] : unknown keyword 'x'.\n\
            [WARNING]  (7) : [/t/haproxy.cfg:3]: 'y' is deprecated.\n\
            [ALERT]    (7) : config : Proxy 'f': unable to find required use_backend: 'nope'.\n\
            [ALERT]    (7) : config : Fatal errors found in configuration.\n";
        let remarks = remarks(printed, "/t/haproxy.cfg", &rendered);
        let told: Vec<_> = remarks
            .iter()
            .map(|remark| (remark.level, remark.setting.as_deref(), remark.text.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Level::Alert, Some("haproxy"), "unknown keyword 'x'."),
                (Level::Warning, Some("haproxy"), "'y' is deprecated."),
                (Level::Alert, None, "Proxy 'f': unable to find required use_backend: 'nope'."),
            ]
        );
        // As a worker says it that is about to take over.
        let printed = "[ALERT]    (7) : Binding [/t/haproxy.cfg:3] for frontend f: protocol tcpv4: \
            cannot bind socket (Address already in use) for [127.0.0.1:80].\n\
            [ALERT]    (7) : [haproxy.main()] Some protocols failed to start their listeners! \
            Exiting.\n";
        let remarks = super::remarks(printed, "/t/haproxy.cfg", &rendered);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert_eq!(remarks[0].setting.as_deref(), Some("haproxy"));
        let alone = "[ALERT]    (7) : config : Fatal errors found in configuration.\n";
        assert_eq!(super::remarks(alone, "/t/haproxy.cfg", &rendered).len(), 1);
    }
}
