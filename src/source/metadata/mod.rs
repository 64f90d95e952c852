//! The metadata of a load balancer: a few keys that its owner sets, as Triton's `mdata-put` does.
//!
//! The keys belong together: they are read all at once, and never one without the others. What one
//! says is read elsewhere (`mapsmith_core::portmap`); here a key has a text, or it is not there. A
//! read that fails is no key that is not there.

mod command;
mod document;
mod environment;
pub(super) mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::{EntryMap, ServerList, ServiceTexts, Snapshot};
use tokio::time::{Instant, sleep_until};

use super::file::FileRegistry;
use super::format::Names;
use super::http_json::HttpJson;
use super::{Extent, Feed, Notes, Polled, Registry, SourceError, Unsupported};
use crate::settings::{self, Selector};
use command::CommandFeed;
use document::DocumentFormat;
use environment::EnvironmentFeed;

/// The metadata.
pub(super) struct Metadata {
    settings: Arc<settings::Source>,
    place: Place,
}

/// Where it is.
enum Place {
    Command(Vec<String>),
    Environment,
    File(FileRegistry),
    Url(Box<HttpJson>),
}

impl Metadata {
    pub(super) fn new(
        settings: Arc<settings::Source>,
        names: Arc<Names>,
    ) -> Result<Self, SourceError> {
        let keys = &settings.of_kind;
        let place = match &keys.metadata.command {
            Some(words) => Place::Command(words.clone()),
            None if keys.metadata.environment => Place::Environment,
            None if keys.http.url.is_some() => {
                Place::Url(Box::new(HttpJson::new(Arc::clone(&settings), names)?))
            }
            None => Place::File(FileRegistry::new(Arc::clone(&settings), names)),
        };
        Ok(Self { settings, place })
    }
}

impl Registry for Metadata {
    fn node_map(&self) -> Result<Box<dyn Feed<EntryMap>>, Unsupported> {
        Err(Unsupported::new(&self.settings.name, "metadata maps no nodes"))
    }

    fn servers(&self, _of: &Selector) -> Result<Box<dyn Feed<ServerList>>, Unsupported> {
        Err(Unsupported::new(&self.settings.name, "metadata lists no servers"))
    }

    fn services(&self, _of: &Selector) -> Result<Box<dyn Feed<ServiceTexts>>, Unsupported> {
        let format = DocumentFormat::new(&self.settings);
        let feed: Box<dyn Feed<ServiceTexts>> = match &self.place {
            Place::File(file) => return Ok(file.feed(format)),
            Place::Environment => return Ok(Box::new(EnvironmentFeed::new(&self.settings))),
            Place::Command(words) => {
                Box::new(CommandFeed::new(Arc::clone(&self.settings), words.clone()))
            }
            Place::Url(document) => document.feed(format),
        };
        Ok(Box::new(Steady::new(feed, self.settings.of_kind.metadata.poll())))
    }
}

/// A feed that asks to be polled again and again, whatever the schedule of the others.
struct Steady {
    feed: Box<dyn Feed<ServiceTexts>>,
    every: Duration,
    due: Instant,
}

impl Steady {
    fn new(feed: Box<dyn Feed<ServiceTexts>>, every: Duration) -> Self {
        Self { feed, every, due: Instant::now() + every }
    }
}

#[async_trait]
impl Feed<ServiceTexts> for Steady {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<ServiceTexts>>,
        now: Timestamp,
    ) -> Result<Polled<ServiceTexts>, SourceError> {
        let polled = self.feed.poll(extent, current, now).await;
        self.due = Instant::now() + self.every;
        polled
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.feed.changed() => {}
            () = sleep_until(self.due) => {}
        }
        self.due = Instant::now() + self.every;
    }

    fn beside(&self) -> Option<Box<dyn Feed<ServiceTexts>>> {
        Some(Box::new(Self::new(self.feed.beside()?, self.every)))
    }

    fn notes(&self) -> Notes {
        self.feed.notes()
    }
}
