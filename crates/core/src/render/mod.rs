//! The text of `haproxy.cfg`. Pure: the same configuration gives the same bytes.
//!
//! What is rendered is accepted by HAProxy 2.6 and later.

mod backend;
mod frontend;
mod log;
mod process;
mod route;
mod rules;
pub mod stamp;
mod text;
pub mod verdict;
pub mod words;

use crate::config::{Config, Native};
pub use rules::fits;
pub use text::Rendered;
use text::Writer;

/// The text, for HAProxy 2.6 and later.
pub fn render(config: &Config) -> Rendered {
    let mut writer = Writer::default();
    writer.origin("haproxy");
    writer.comment("Written by Mapsmith from its settings: external changes are overwritten.");
    for (index, include) in config.includes.iter().enumerate() {
        writer.origin(&format!("haproxy.include[{index}]"));
        writer.comment(&format!("Loaded with it: {include}"));
    }
    process::write(&mut writer, config);
    for (index, frontend) in config.frontends.iter().enumerate() {
        frontend::write(&mut writer, &format!("frontend[{index}]"), frontend, config);
    }
    for (index, backend) in config.backends.iter().enumerate() {
        let route = config.route_to(backend);
        backend::write(&mut writer, &format!("backend[{index}]"), backend, route);
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
mod tests;
