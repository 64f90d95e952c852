//! A stick table behind a stats socket.

use super::{Row, Rows, TableName, TableSize};
use crate::client::{READ_BUFFER, RowBound, RuntimeClient};
use crate::error::RuntimeError;
use crate::wire;

/// One stick table behind a stats socket.
#[derive(Debug, Clone)]
pub struct TableClient {
    pub(crate) client: RuntimeClient,
    table: TableName,
    pub(crate) max_payload: usize,
}

impl TableClient {
    /// `max_payload` bounds a command line, in bytes.
    pub fn new(client: RuntimeClient, table: TableName, max_payload: usize) -> Self {
        Self { client, table, max_payload }
    }

    /// Every stick table of the process.
    pub async fn tables(&self) -> Result<Vec<TableSize>, RuntimeError> {
        self.client.parse_reply(super::TABLES, super::tables).await
    }

    /// Lists the rows one by one as they come, about `most` of them: the rest is not read, so that
    /// a table of any size costs no more. Returns the table's size, and how many rows it has beyond
    /// those that were listed.
    ///
    /// # Errors
    /// As every command; a listing that ends early is an error whatever was taken until then.
    pub async fn list(
        &self,
        most: usize,
        mut each: impl FnMut(Row),
    ) -> Result<(TableSize, u64), RuntimeError> {
        let line = self.table.show();
        let line = line.as_bytes();
        let mut connection = self.client.connect().await?;
        self.client.send(&mut connection, line).await?;
        let (mut rows, mut buffer) = (Rows::new(), Vec::with_capacity(READ_BUFFER));
        let refused = |error| self.client.failed(line, error);
        let receive = async {
            while self.client.read(&mut connection, line, &mut buffer).await? > 0 {
                rows.feed(&buffer, &mut each).map_err(refused)?;
                buffer.clear();
                if rows.count() >= most as u64
                    && let Some(head) = rows.head()
                {
                    // The end of the listing may be here too; either way so many are left.
                    return Ok(Some((head.clone(), head.used.saturating_sub(rows.count()))));
                }
            }
            Ok(None)
        };
        match self.client.ending(line, RowBound::new(most), receive).await? {
            Some(left) => Ok(left),
            None => rows.finish().map(|size| (size, 0)).map_err(refused),
        }
    }

    /// Forgets keys, as many a line as fit; one that is not there is forgotten too. Returns how
    /// many stay, because a request holds them right now or because the key is empty.
    ///
    /// # Errors
    /// As every command; keys of the lines before are forgotten.
    pub async fn forget<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<usize, RuntimeError> {
        let mut staying = 0;
        let commands: Vec<Vec<u8>> = keys
            .filter_map(|key| {
                let command = self.table.forget(key);
                staying += usize::from(command.is_none());
                command
            })
            .collect();
        for (line, count) in wire::Batches::new(commands.iter(), self.max_payload, usize::MAX) {
            let parse = |replies: Vec<&[u8]>| {
                replies.into_iter().map(super::forgotten).collect::<Result<Vec<_>, _>>()
            };
            let forgotten = self.client.parse_replies(&line, count, parse).await?;
            staying += forgotten.into_iter().filter(|forgotten| !forgotten).count();
        }
        Ok(staying)
    }
}
