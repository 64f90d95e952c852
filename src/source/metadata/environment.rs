//! Metadata in the environment of this process: a variable for each key.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::portmap::metadata::KEYS;
use mapsmith_core::status::PollKind;
use mapsmith_core::{Rejections, ServiceTexts, Snapshot};

use crate::settings;
use crate::source::feed::share;
use crate::source::{Extent, Feed, Polled, SourceError};

/// Nothing can change it but a start of Mapsmith.
pub(super) struct EnvironmentFeed {
    prefix: String,
}

impl EnvironmentFeed {
    pub(super) fn new(settings: &settings::Source) -> Self {
        Self { prefix: settings.of_kind.metadata.prefix().to_owned() }
    }
}

#[async_trait]
impl Feed<ServiceTexts> for EnvironmentFeed {
    async fn poll(
        &mut self,
        _extent: Extent,
        current: Option<&Snapshot<ServiceTexts>>,
        _now: Timestamp,
    ) -> Result<Polled<ServiceTexts>, SourceError> {
        let value = |key: &str| {
            let text = std::env::var_os(variable(&self.prefix, key))?;
            let text = text.into_string().map_err(|_| "it is not text in UTF-8".to_owned());
            Some((key.to_owned(), text))
        };
        let texts = KEYS.into_iter().filter_map(value).collect();
        Ok(Polled {
            kind: PollKind::Full,
            entries: share(ServiceTexts { texts }, current.map(|current| &current.entries)),
            rejections: Arc::new(Rejections::default()),
            bytes: 0,
        })
    }
}

/// The variable of a key: capital letters, digits and `_`.
pub(super) fn variable(prefix: &str, key: &str) -> String {
    let character = |character: char| match character.is_ascii_alphanumeric() {
        true => character.to_ascii_uppercase(),
        false => '_',
    };
    prefix.chars().chain(key.chars()).map(character).collect()
}
