//! Talks to the master's socket: one connection a command, every wait bounded. Decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{PROCESSES, Processes, RELOAD, ReloadReply, Target, WorkerInfo};
use crate::address::RuntimeAddress;
use crate::client::RuntimeClient;
use crate::error::{Failure, ReplyError, RuntimeError};

/// The socket of HAProxy's option `-S`.
#[derive(Debug, Clone)]
pub struct MasterClient {
    client: RuntimeClient,
}

impl MasterClient {
    /// `bound` is how long a command may take as a whole.
    pub fn new(path: impl Into<PathBuf>, bound: Duration) -> Self {
        Self { client: RuntimeClient::new(RuntimeAddress::Unix(path.into()), bound) }
    }

    /// The same socket with another bound.
    pub fn within(&self, bound: Duration) -> Self {
        Self { client: RuntimeClient { bound, ..self.client.clone() } }
    }

    /// The master and its workers.
    ///
    /// # Errors
    /// When the socket can't be reached, gives no answer in time, or another one than a listing.
    pub async fn processes(&self) -> Result<Processes, RuntimeError> {
        self.parse(PROCESSES, super::processes).await
    }

    /// Has the configuration loaded again, and waits for what is said of it.
    ///
    /// # Errors
    /// When the socket can't be reached, or gives no answer in time. The reload may run all the
    /// same: [`Self::processes`] tells.
    pub async fn reload(&self) -> Result<ReloadReply, RuntimeError> {
        self.parse(RELOAD, super::reload_reply).await
    }

    /// Sends one command, its payload included, to a worker; returns the whole answer.
    ///
    /// # Errors
    /// When the socket can't be reached, gives no answer in time, or there is no such worker.
    pub async fn run(&self, target: Target, command: &str) -> Result<Vec<u8>, RuntimeError> {
        let line = format!("{target} {}\n", command.strip_suffix('\n').unwrap_or(command));
        let answer = self.call(&line).await?;
        if answer.starts_with(b"Can't ") {
            return Err(self.client.failed(&line, ReplyError::from_text(&answer)));
        }
        Ok(answer)
    }

    /// What a worker says of itself.
    ///
    /// # Errors
    /// When the master or the worker gives no answer in time, or there is no such worker.
    pub async fn worker(&self, target: Target) -> Result<WorkerInfo, RuntimeError> {
        self.parse(&format!("{target} show info\n"), super::worker_info).await
    }

    async fn parse<T>(
        &self,
        line: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, ReplyError>,
    ) -> Result<T, RuntimeError> {
        parse(&self.call(line).await?).map_err(|error| self.client.failed(line, error))
    }

    async fn call(&self, line: &str) -> Result<Vec<u8>, RuntimeError> {
        let mut connection = self.client.connect().await?;
        self.client.send(&mut connection, line.as_bytes()).await?;
        // The master keeps a connection open for the next command, unless there can't be one.
        let closed = connection.shutdown().await;
        closed.map_err(|error| self.client.failed(line, Failure::Broken(error)))?;
        self.client.receive(connection, line.as_bytes()).await
    }
}
