//! A text of lines, each with the setting that it was made of.

use std::fmt::Write;
use std::sync::Arc;

use super::words::Line;

/// `haproxy.cfg`, and which setting each of its lines is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Of each line.
    origins: Vec<Arc<str>>,
}

impl Rendered {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The setting that a line (from 1) was made of, like `frontend[0].rules[2]`.
    pub fn origin(&self, line: usize) -> Option<&str> {
        self.origins.get(line.checked_sub(1)?).map(AsRef::as_ref)
    }
}

/// Writes sections.
#[derive(Debug, Default)]
pub(super) struct Writer {
    rendered: Rendered,
    origin: Arc<str>,
}

impl Writer {
    /// What follows is made of this setting.
    pub fn of(&mut self, origin: &str) {
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

    /// A line of HAProxy's own language.
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
