//! What HAProxy says of a configuration (`haproxy -c`), with the settings that its lines were made
//! from. HAProxy 2.6 to 3.4 print `[ALERT]    (7) : config : parsing [FILE:12] : text`, from 3.2 on
//! also without `config : `, with the place at the beginning of the text.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Rendered;
use super::mask::Mask;

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
    /// Without secrets.
    pub text: String,
    /// The sections that are named in quotes where no line is: taken from HAProxy's own words, in
    /// which nothing is hidden.
    #[serde(skip)]
    pub sections: Vec<String>,
}

impl Remark {
    /// An alert without a line.
    pub fn alert(setting: Option<String>, text: String) -> Self {
        Self { level: Level::Alert, line: None, setting, text, sections: Vec::new() }
    }
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

/// The alerts and warnings of what HAProxy printed on a configuration in this file, without the
/// secrets of all that it read.
pub fn remarks(printed: &str, file: &str, rendered: &Rendered, mask: &Mask) -> Vec<Remark> {
    let lines: Vec<_> = printed.lines().filter_map(of_level).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let reader = Reader::of(file, rendered, mask);
    let mut remarks: Vec<_> =
        lines.into_iter().map(|(level, text)| reader.remark(level, text)).collect();
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

/// The text of an alert or warning.
fn of_level(printed: &str) -> Option<(Level, &str)> {
    let levels = [("[ALERT]", Level::Alert), ("[WARNING]", Level::Warning)];
    let of_level = |(mark, level)| Some((level, printed.strip_prefix(mark)?));
    let (level, rest) = levels.into_iter().find_map(of_level)?;
    // `    (4711) : config : parsing [FILE:12] : text`
    let text = rest.split_once(") : ").map_or(rest, |(_, text)| text);
    Some((level, text.strip_prefix("config : ").unwrap_or(text)))
}

/// What is looked up of a rendered text for each remark.
struct Reader<'a> {
    rendered: &'a Rendered,
    /// What stands before a line's number.
    place: String,
    lines: Vec<&'a str>,
    sections: HashSet<&'a str>,
    mask: &'a Mask,
}

impl<'a> Reader<'a> {
    fn of(file: &str, rendered: &'a Rendered, mask: &'a Mask) -> Self {
        let lines: Vec<_> = rendered.text().lines().collect();
        let sections = lines.iter().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_section = |word: &str| matches!(word, "frontend" | "backend" | "listen");
            words.next().filter(|word| is_section(word)).and(words.next())
        });
        let sections = sections.collect();
        Self { rendered, place: format!("[{file}:"), lines, sections, mask }
    }

    fn remark(&self, level: Level, said: &str) -> Remark {
        let line = self.line_of(said);
        let text = line.map_or(said, |line| without_place(said, &format!("{}{line}]", self.place)));
        let setting = line.and_then(|line| self.rendered.origin(line)).map(str::to_owned);
        let sections = if setting.is_none() { self.named(text) } else { Vec::new() };
        let about = line.and_then(|line| self.lines.get(line.checked_sub(1)?).copied());
        let text = self.mask.over(text.trim(), about);
        Remark { level, line, setting, text, sections }
    }

    /// The number after the file's name in `[FILE:12]`.
    fn line_of(&self, text: &str) -> Option<usize> {
        let (_, rest) = text.split_once(&self.place)?;
        rest.split_once(']')?.0.parse().ok()
    }

    /// The sections that stand between two quotes.
    fn named(&self, text: &str) -> Vec<String> {
        let quoted = text.split('\'').skip(1);
        let known = quoted.filter(|name| self.sections.contains(name));
        known.map(str::to_owned).collect()
    }
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

    fn of_lines(lines: &[&str]) -> Rendered {
        let mut rendered = Rendered::default();
        lines.iter().for_each(|line| rendered.push_line(line, ""));
        rendered
    }

    fn of_printed(printed: &str, rendered: &Rendered) -> Vec<Remark> {
        remarks(printed, "/t/haproxy.cfg", rendered, &Mask::of([rendered.text()]))
    }

    #[test]
    fn a_section_that_haproxy_names_is_told_whatever_is_hidden_in_its_words() {
        let rendered = of_lines(&[
            "frontend http-in-listen",
            "    http-request set-header X-Auth-Scheme http",
            "    http-request set-header X-Token-Present true",
            "backend http",
        ]);
        let printed = "[ALERT]    (7) : config : proxy 'http-in-listen': is it true?\n\
            [ALERT]    (7) : config : backend 'http' has no server 'true'.\n";
        let remarks = of_printed(printed, &rendered);
        let told: Vec<_> = remarks.iter().map(|it| (&*it.text, it.sections.join(" "))).collect();
        assert_eq!(
            told,
            [
                ("proxy 'http-in-listen': is it ***?", "http-in-listen".to_owned()),
                ("backend '***' has no server '***'.", "http".to_owned()),
            ]
        );
        let written = serde_json::to_value(&remarks[1]).unwrap();
        assert!(written.get("sections").is_none(), "nobody is told what is hidden: {written}");
    }

    #[test]
    fn a_line_that_haproxy_names_is_shown_as_the_setting_that_it_was_made_from() {
        let rendered = render(&Config::default());
        let printed = "[NOTICE]   (1) : haproxy version is 2.6.12\n\
            [ALERT]    (7) : config : parsing [/t/haproxy.cfg:3] : unknown keyword 'x'.\n\
            [WARNING]  (7) : [/t/haproxy.cfg:3]: 'y' is deprecated.\n\
            [ALERT]    (7) : config : Proxy 'f': unable to find required use_backend: 'nope'.\n\
            [ALERT]    (7) : config : Fatal errors found in configuration.\n";
        let remarks = of_printed(printed, &rendered);
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
        let remarks = of_printed(printed, &rendered);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert_eq!(remarks[0].setting.as_deref(), Some("haproxy"));
        let alone = "[ALERT]    (7) : config : Fatal errors found in configuration.\n";
        assert_eq!(of_printed(alone, &rendered).len(), 1);
    }
}
