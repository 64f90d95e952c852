//! Options of servers as people see them: without the credentials that an option may have, as
//! `agent-send` has one.

use serde::{Serialize, Serializer};

use super::{Server, ServerOptions};
use crate::render::secrets::{masked, masked_text};

/// Options as people see them.
pub fn shown_options(options: &[String]) -> Vec<String> {
    let shown = |option: &String| masked(option).unwrap_or_else(|| option.clone());
    options.iter().map(shown).collect()
}

/// What somebody says of an option, HAProxy or whoever reads it here, who may quote it.
pub fn shown_words(words: String) -> String {
    masked_text(&words).unwrap_or(words)
}

/// Writes servers as people see them.
///
/// # Errors
/// Those of the serializer.
pub fn without_secrets<S: Serializer>(
    servers: &Option<Vec<Server>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown = |server: &Server| {
        let other = shown_options(&server.options.other);
        let options = ServerOptions { other, ..server.options.clone() };
        Server { options, ..server.clone() }
    };
    let servers: Option<Vec<Server>> =
        servers.as_ref().map(|servers| servers.iter().map(shown).collect());
    servers.serialize(serializer)
}
