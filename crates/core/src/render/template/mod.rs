//! The user's own template of `haproxy.cfg`, in Jinja's language (minijinja). Pure.
//!
//! It has the whole model at hand, and the rendered text of each of its parts, so that a template
//! can be ten lines around it. Whatever `{{ }}` prints is quoted as one word by itself, and must
//! stand outside of the template's own quotes: no value can leave its word.

mod context;
mod parts;
mod values;

use minijinja::syntax::SyntaxConfig;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, OutputSpan, OutputSpanKind, UndefinedBehavior,
};

use super::text::Rendered;
use crate::config::{Config, Template};
use parts::Parts;

/// Why a template gives no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}, line {line}: {text}")]
pub struct TemplateError {
    /// The template's.
    pub name: String,
    /// Of the template, from 1.
    pub line: usize,
    pub text: String,
}

/// Whether a template is one; what it names is looked at when it is rendered.
///
/// # Errors
/// It is none.
pub fn check_template(template: &Template) -> Result<(), TemplateError> {
    let source = source_of(template);
    let environment = environment(&Parts::default());
    let parsed = environment.template_from_named_str(&template.name, &source);
    parsed.map(drop).map_err(|error| failed(template, &source, &error))
}

/// The text that a template gives; `rendered` is the text of the configuration without it.
///
/// # Errors
/// The template is none, names what is not there, or puts a value where it would not stay in its
/// word.
pub(super) fn render(
    template: &Template,
    config: &Config,
    rendered: &Rendered,
) -> Result<Rendered, TemplateError> {
    let name = template.name.as_str();
    let source = source_of(template);
    let failed = |error: &Error| failed(template, &source, error);
    let parts = Parts::of(config, rendered);
    let environment = environment(&parts);
    let parsed =
        environment.template_from_named_str(name, &source).map_err(|error| failed(&error))?;
    let context = context::of(config, rendered);
    let (text, spans) = parsed.render_with_spans(context).map_err(|error| failed(&error))?;
    let mut result = Rendered::default();
    let mut part = None;
    let mut start = 0;
    for raw in text.lines() {
        let line = source_line(&spans, &text, start, raw);
        start += raw.len() + 1;
        let text = values::read(raw).map_err(|fault| TemplateError {
            name: name.to_owned(),
            line,
            text: fault.to_owned(),
        })?;
        part = parts.part_of(&text).or(part);
        match part.and_then(|part| parts.line_of(part, &text)) {
            Some(at) => result.push_line_of(&text, rendered, at),
            None => result.push_line(&text, &format!("template line {line}")),
        }
    }
    Ok(result)
}

fn source_of(template: &Template) -> String {
    template.source.replace("\r\n", "\n")
}

fn failed(template: &Template, source: &str, error: &Error) -> TemplateError {
    TemplateError {
        name: template.name.clone(),
        line: error.line().unwrap_or(1),
        text: describe(error, source),
    }
}

fn environment<'source>(parts: &Parts) -> Environment<'source> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_debug(true);
    // Lines of statements alone leave nothing behind. It fails for other delimiters than Jinja's.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("haproxy".into()));
    environment.set_formatter(|out, _, value| values::print(out, value));
    environment.add_filter("quote", values::quote);
    environment.add_filter("log_format", values::log_format);
    parts.add_functions(&mut environment);
    environment
}

/// What is wrong, and with which expression of the template.
fn describe(error: &Error, source: &str) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    // There is no expression yet.
    let is_syntax = error.kind() == ErrorKind::SyntaxError;
    match error.range().and_then(|range| source.get(range)) {
        Some(expression) if !text.contains(expression) && !is_syntax => {
            format!("{}: {text}", expression.trim())
        }
        _ => text,
    }
}

/// The line of the template that a line of its output comes from.
fn source_line(spans: &[OutputSpan], text: &str, start: usize, raw: &str) -> usize {
    let indent = raw.len() - raw.trim_start().len();
    let at = if indent < raw.len() { start + indent } else { start };
    let after = spans.partition_point(|span| span.output_range().end <= at);
    let Some(span) = spans.get(after).or(spans.last()) else { return 1 };
    let begin = span.output_range().start;
    match span.kind() {
        OutputSpanKind::Raw => {
            let before = text.get(begin..at.max(begin)).unwrap_or_default();
            span.line() + before.matches('\n').count()
        }
        _ => span.line(),
    }
}

#[cfg(test)]
mod tests;
