//! The services that a registry declares: followed, put over the settings of the file, and kept.
//!
//! What comes of them are settings (`settings::services::overlay`), and changed settings are begun
//! with anew, as after a SIGHUP. So all that holds for a frontend or a backend of the file holds
//! for a service. "Unknown" is not "empty": without an answer the services before stay, and where
//! none were known HAProxy's file stays as it is.

mod known;
pub(crate) mod pace;
mod task;
#[cfg(test)]
mod tests;

pub use known::Known;
pub use task::ServicesTask;
