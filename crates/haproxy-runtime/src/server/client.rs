//! The servers behind a stats socket.

use std::time::Duration;

use super::command::{self, Refusal, ServerCommand, ServerPath};
use super::{ObservedServers, reply};
use crate::client::RuntimeClient;
use crate::error::RuntimeError;

/// The backends and servers behind a stats socket.
#[derive(Debug, Clone)]
pub struct ServersClient {
    pub(crate) client: RuntimeClient,
    pub(crate) max_payload: usize,
}

impl ServersClient {
    /// `max_payload` bounds a command line, in bytes.
    pub fn new(client: RuntimeClient, max_payload: usize) -> Self {
        Self { client, max_payload }
    }

    /// Observes every backend and server, in one line. From 3.0 on a new address shows a moment
    /// after it was set.
    ///
    /// # Errors
    /// As every command; also a row that can't be read, never a list without it.
    pub async fn observe(&self) -> Result<ObservedServers, RuntimeError> {
        let line = command::OBSERVE;
        let answer = self.client.call(line).await?;
        reply::observed(&answer).map_err(|error| self.client.failed(line, error))
    }

    /// Runs commands in their order, as many a line as fit. The outcomes are in the same order; a
    /// refusal does not stop the rest.
    ///
    /// # Errors
    /// When a line is not answered whole. The lines before it are done, and of it anything may be:
    /// observe again.
    pub async fn run(
        &self,
        commands: &[ServerCommand],
    ) -> Result<Vec<Result<(), Refusal>>, RuntimeError> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for (line, part) in command::lines(commands, self.max_payload) {
            let answer = self.client.call(&line).await?;
            let judged = command::outcomes(&answer, part)
                .map_err(|error| self.client.failed(&line, error))?;
            outcomes.extend(judged);
        }
        Ok(outcomes)
    }

    /// Waits in HAProxy until a server in maintenance has no connection left, for at most `delay`
    /// (3.0 and later; before it is [`Refusal::UnknownCommand`]). False when the delay ended first.
    ///
    /// # Errors
    /// When HAProxy does not answer some time after `delay`.
    pub async fn wait_removable(
        &self,
        at: &ServerPath,
        delay: Duration,
    ) -> Result<Result<bool, Refusal>, RuntimeError> {
        let patient = RuntimeClient { bound: self.client.bound + delay, ..self.client.clone() };
        patient
            .parse_reply(&command::wait_removable(at, delay), |reply| Ok(command::removable(reply)))
            .await
    }
}
