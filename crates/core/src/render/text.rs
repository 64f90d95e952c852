//! A text of lines, each with the setting that it was made from.

use std::fmt::Write;
use std::sync::Arc;

use super::secrets::masked;
use super::words::Line;
use crate::config::values::Secret;

/// `haproxy.cfg`, and which setting each of its lines was made from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Of each line.
    origins: Vec<Arc<str>>,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.shown())
    }
}

impl Rendered {
    /// For HAProxy. It may hold secrets: people get [`Rendered::shown`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text without its secrets, line by line the same.
    pub fn shown(&self) -> String {
        let mut shown = String::with_capacity(self.text.len());
        for line in self.text.lines() {
            match masked(line) {
                Some(hidden) => shown.push_str(&hidden),
                None => shown.push_str(line),
            }
            shown.push('\n');
        }
        shown
    }

    /// The setting that a line (from 1) was made from, like `frontend[0].rules[2]`.
    pub fn origin(&self, line: usize) -> Option<&str> {
        self.origins.get(line.checked_sub(1)?).map(AsRef::as_ref)
    }
}

/// What a template gives is written line by line.
impl Rendered {
    /// A line that is made of this.
    pub(super) fn push_line(&mut self, line: &str, origin: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.origins.push(Arc::from(origin));
    }

    /// A line that another text has too, by its number there (from 1).
    pub(super) fn push_line_of(&mut self, line: &str, other: &Self, number: usize) {
        self.push_line(line, other.origin(number).unwrap_or_default());
    }
}

/// Writes sections.
#[derive(Default)]
pub(super) struct Writer {
    rendered: Rendered,
    origin: Arc<str>,
}

impl Writer {
    /// What follows is made from this setting.
    pub fn origin(&mut self, origin: &str) {
        if *self.origin != *origin {
            self.origin = Arc::from(origin);
        }
    }

    /// The first line of a section.
    pub fn section(&mut self, line: &Line) {
        if !self.rendered.text.is_empty() {
            self.push("");
        }
        self.push(&line.to_string());
    }

    /// A line of the section.
    pub fn line(&mut self, line: &Line) {
        self.push(&format!("    {line}"));
    }

    /// A line that ends with a secret: one that people see without it (`secrets::masked`).
    pub fn secret_line(&mut self, keywords: &str, secret: &Secret) {
        self.line(&Line::new(keywords).value(secret.reveal()));
    }

    /// A line in HAProxy's own syntax.
    pub fn words(&mut self, words: &str) {
        self.line(&Line::new(words));
    }

    pub fn comment(&mut self, text: &str) {
        self.push(&format!("# {text}"));
    }

    pub fn finish(self) -> Rendered {
        self.rendered
    }

    fn push(&mut self, line: &str) {
        let _ = writeln!(self.rendered.text, "{line}");
        self.rendered.origins.push(Arc::clone(&self.origin));
    }
}
