//! What a template knows.

use minijinja::value::{Serde, Value};
use serde::Serialize;

use crate::config::{Backend, Config, Frontend, Process};
use crate::render::text::Rendered;

#[derive(Serialize)]
struct Context<'a> {
    haproxy: &'a Process,
    frontends: &'a [Frontend],
    backends: &'a [Backend],
    rendered: Value,
}

/// The model, and the whole rendered text as `rendered`.
pub(super) fn of(config: &Config, rendered: &Rendered) -> Value {
    Value::from(Serde(Context {
        haproxy: &config.process,
        frontends: &config.frontends,
        backends: &config.backends,
        rendered: Value::from_safe_string(rendered.text().trim_end().to_owned()),
    }))
}
