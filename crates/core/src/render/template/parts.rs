//! The rendered text, part by part: what belongs to a frontend or backend of the settings, and the
//! rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use crate::config::Config;
use crate::render::text::Rendered;

/// Sections of a rendered text.
#[derive(Debug, Default)]
pub(super) struct Parts {
    sections: Vec<Section>,
    /// By `frontend NAME` and the like.
    by_header: BTreeMap<String, usize>,
    /// Those of frontends and backends of the settings.
    frontends: BTreeMap<String, usize>,
    backends: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Section {
    text: String,
    /// The numbers of its lines in the whole, from 1, by their text without indent.
    lines: BTreeMap<String, usize>,
}

impl Parts {
    pub fn of(config: &Config, rendered: &Rendered) -> Self {
        let mut parts = Self::default();
        let mut is_first = true;
        for (at, line) in rendered.text().lines().enumerate() {
            // The lines before the first section are a part of their own.
            if is_first || (!line.is_empty() && !line.starts_with([' ', '#'])) {
                is_first = false;
                parts.by_header.insert(line.to_owned(), parts.sections.len());
                parts.sections.push(Section::default());
            }
            if let Some(section) = parts.sections.last_mut() {
                section.text.push_str(line);
                section.text.push('\n');
                section.lines.entry(line.trim().to_owned()).or_insert(at + 1);
            }
        }
        let section = |kind: &str, name: &str| {
            let header = format!("{kind} {name}");
            parts.by_header.get(&header).map(|at| (name.to_owned(), *at))
        };
        let frontends = config.frontends.iter().map(|frontend| frontend.name.as_str());
        let backends = config.backends.iter().map(|backend| backend.name.as_str());
        let frontends = frontends.filter_map(|name| section("frontend", name)).collect();
        let backends = backends.filter_map(|name| section("backend", name)).collect();
        Self { frontends, backends, ..parts }
    }

    /// The part that begins with this line.
    pub fn part_of(&self, line: &str) -> Option<usize> {
        self.by_header.get(line).copied()
    }

    /// The number of this line of a part in the whole text, from 1.
    pub fn line_of(&self, part: usize, line: &str) -> Option<usize> {
        self.sections.get(part)?.lines.get(line.trim()).copied()
    }

    fn text(&self, at: usize) -> String {
        self.sections.get(at).map(|section| section.text.trim_end().to_owned()).unwrap_or_default()
    }

    /// What is of no frontend or backend of the settings.
    fn process(&self) -> String {
        let of_settings: Vec<_> = self.frontends.values().chain(self.backends.values()).collect();
        let others = (0..self.sections.len()).filter(|at| !of_settings.contains(&at));
        others.map(|at| self.text(at)).collect::<Vec<_>>().join("\n\n")
    }

    /// `render_process()`, `render_frontend(f)` and `render_backend(b)`.
    pub fn add_functions(&self, environment: &mut Environment<'_>) {
        let process = self.process();
        environment
            .add_function("render_process", move || Value::from_safe_string(process.clone()));
        for (function, kind, of) in [
            ("render_frontend", "frontend", &self.frontends),
            ("render_backend", "backend", &self.backends),
        ] {
            let texts: Arc<BTreeMap<String, String>> =
                Arc::new(of.iter().map(|(name, at)| (name.clone(), self.text(*at))).collect());
            environment.add_function(function, move |one: Value| {
                let name = match one.as_str() {
                    Some(name) => name.to_owned(),
                    None => one.get_attr("name")?.to_string(),
                };
                let text = texts.get(&name).ok_or_else(|| {
                    let detail = format!("there is no {kind} {name}");
                    Error::new(ErrorKind::InvalidOperation, detail)
                })?;
                Ok::<_, Error>(Value::from_safe_string(text.clone()))
            });
        }
    }
}
