//! The text of `haproxy.cfg`. Pure: the same configuration gives the same bytes.
//!
//! What is rendered is accepted by HAProxy 2.6 and later.

mod backend;
mod commands;
mod frontend;
mod log;
pub mod mask;
mod process;
pub mod read;
mod route;
mod rules;
pub mod secrets;
pub mod stamp;
mod template;
mod text;
pub mod verdict;
pub mod words;

use crate::config::{Config, Native};
pub use rules::fits;
pub use template::{TemplateError, check_template};
pub use text::Rendered;
use text::Writer;

/// The text that the configuration's own template gives; without one it is that of [`render`].
///
/// # Errors
/// The template does not give a text.
pub fn rendered(config: &Config) -> Result<Rendered, TemplateError> {
    let rendered = render(config);
    match &config.template {
        None => Ok(rendered),
        Some(template) => template::render(template, config, &rendered),
    }
}

/// The text, for HAProxy 2.6 and later, whatever the template.
pub fn render(config: &Config) -> Rendered {
    let mut writer = Writer::default();
    writer.origin("haproxy");
    writer.comment("Written by Mapsmith from its settings: external changes are overwritten.");
    for (index, include) in config.includes.iter().enumerate() {
        writer.origin(&format!("haproxy.include[{index}]"));
        writer.comment(&format!("Loaded with it: {} ({:016x})", include.path, include.hash));
    }
    writer.origin("haproxy");
    for file in &config.files {
        writer.comment(&format!("Read with it: {} ({:016x})", file.path, file.hash));
    }
    process::write(&mut writer, config);
    for (index, frontend) in config.frontends.iter().enumerate() {
        frontend::write(&mut writer, &format!("frontend[{index}]"), frontend, config);
    }
    if let Some(gateway) = config.command_gateway() {
        commands::write_frontend(&mut writer, gateway);
    }
    for (index, backend) in config.backends.iter().enumerate() {
        backend::write(&mut writer, &format!("backend[{index}]"), backend, config);
    }
    route::write_missing_backend(&mut writer, &config.frontends);
    writer.finish()
}

fn write_natives(writer: &mut Writer, place: &str, natives: &[Native]) {
    for (index, native) in natives.iter().enumerate() {
        writer.origin(&format!("{place}[{index}]"));
        writer.words(native.as_str());
    }
}

#[cfg(test)]
pub(crate) mod tests;
