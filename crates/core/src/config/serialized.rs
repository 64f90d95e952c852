//! The model's values as a template has them: as HAProxy writes them.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::values;
use crate::server::Server;

pub(super) fn time<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&values::time(*time))
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn optional_time<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(values::time).serialize(serializer)
}

pub(super) fn servers<S: Serializer>(servers: &[Server], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(servers.iter().map(Declared::from))
}

/// A server with its address and options as words.
#[derive(Serialize)]
struct Declared<'a> {
    name: &'a str,
    address: String,
    weight: Option<u16>,
    backup: bool,
    options: Vec<String>,
}

impl<'a> From<&'a Server> for Declared<'a> {
    fn from(server: &'a Server) -> Self {
        let words = server.options.words();
        Self {
            name: &server.name,
            address: server.address.to_string(),
            weight: server.weight,
            backup: server.backup,
            options: words
                .iter()
                .flat_map(|option| option.split_ascii_whitespace())
                .map(str::to_owned)
                .collect(),
        }
    }
}
