//! The text of `haproxy.cfg`. Pure: the same configuration gives the same bytes.

mod config;
mod rules;
pub mod stamp;
mod text;
pub mod verdict;
pub mod words;

pub use config::render;
pub use rules::fits;
pub use text::Rendered;

#[cfg(test)]
mod tests;
