//! The figures behind a stats socket.

use super::{Row, Scope, command, read};
use crate::client::RuntimeClient;
use crate::error::RuntimeError;
use crate::process::ProcessInfo;

/// The figures of backends and servers behind a stats socket.
#[derive(Debug, Clone)]
pub struct StatsClient {
    client: RuntimeClient,
}

impl StatsClient {
    /// Asks through this client.
    pub fn new(client: RuntimeClient) -> Self {
        Self { client }
    }

    /// Asks for the rows of `scope`, in one line; the answer is for [`Self::read`].
    ///
    /// # Errors
    /// When the socket can't be reached or stays silent.
    pub async fn ask(&self, scope: &Scope) -> Result<Vec<u8>, RuntimeError> {
        self.client.call(command(scope).0).await
    }

    /// Reads an answer; returns which process has given it. What `each` got before an error is no
    /// reading.
    ///
    /// # Errors
    /// An answer that is cut, a row that can't be read, or a backend's number that is none.
    pub fn read(
        &self,
        scope: &Scope,
        answer: &[u8],
        each: impl FnMut(Row<'_>),
    ) -> Result<ProcessInfo, RuntimeError> {
        let (line, replies) = command(scope);
        read(answer, replies, each).map_err(|error| self.client.failed(line, error))
    }
}
