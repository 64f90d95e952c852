//! One map behind a stats socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{MapName, looked_up, prepared, silent};
use crate::client::{RowBound, RuntimeClient, rest};
use crate::error::RuntimeError;
use crate::process::{self, Probe, Traffic};
use crate::wire::pace::Pacer;
use crate::wire::{self, Listing, Payloads};

/// One map behind a stats socket. A command fails when the socket can't be reached, stays silent or
/// refuses.
#[derive(Debug, Clone)]
pub struct MapClient {
    pub(crate) client: RuntimeClient,
    pub(crate) map: MapName,
    pub(crate) max_payload: usize,
}

impl MapClient {
    /// `max_payload` bounds a payload command and a command line, in bytes.
    pub fn new(client: RuntimeClient, map: MapName, max_payload: usize) -> Self {
        Self { client, map, max_payload }
    }

    /// The map.
    pub fn map(&self) -> &MapName {
        &self.map
    }

    /// Probes the process, the socket's level and the map's counters.
    pub async fn probe(&self) -> Result<Probe, RuntimeError> {
        let answer = self.client.call(process::PROBE).await?;
        process::probe(&answer, self.map.as_str())
            .map_err(|error| self.client.failed(process::PROBE, error))
    }

    /// The names of all backends and servers.
    pub async fn backends_and_servers(&self) -> Result<BTreeSet<String>, RuntimeError> {
        self.client.parse_reply(process::BACKENDS_AND_SERVERS, process::backends_and_servers).await
    }

    /// What comes to what a map's value may name, right now.
    pub async fn traffic(&self) -> Result<BTreeMap<String, Traffic>, RuntimeError> {
        self.client.parse_reply(process::BACKENDS_AND_SERVERS, process::traffic).await
    }

    /// Opens a new version.
    pub async fn prepare(&self) -> Result<u64, RuntimeError> {
        self.client.parse_reply(&self.map.prepare(), prepared).await
    }

    /// Adds every entry to a version, with rests between the payloads, which are added to `rested`.
    /// The next connection is opened while HAProxy works on the payload before it.
    ///
    /// # Errors
    /// As every command; payloads before the failing one stay in the version.
    pub async fn stage<'e>(
        &self,
        version: u64,
        entries: impl Iterator<Item = (&'e str, &'e str)>,
        rested: &mut Duration,
    ) -> Result<(), RuntimeError> {
        let header = self.map.stage_header(version);
        let mut payloads = Payloads::new(&header, entries, self.max_payload);
        let (mut payload, mut next) =
            (Vec::with_capacity(self.max_payload), Vec::with_capacity(self.max_payload));
        let mut more = payloads.next_into(&mut payload);
        let mut connection = if more { Some(self.client.connect().await?) } else { None };
        let mut pace = Pacer::default();
        while let Some(open) = connection.take() {
            more = more && payloads.next_into(&mut next);
            let sent = Instant::now();
            let following =
                async { if more { self.client.connect().await.map(Some) } else { Ok(None) } };
            let (answer, following) = tokio::join!(self.client.exchange(open, &payload), following);
            let took = sent.elapsed();
            wire::replies(&answer?, 1)
                .and_then(|replies| silent(replies[0]))
                .map_err(|error| self.client.failed(&payload, error))?;
            connection = following?;
            std::mem::swap(&mut payload, &mut next);
            if more {
                *rested += rest(&mut pace, took).await;
            }
        }
        Ok(())
    }

    /// Lists a version, or the live map, entry by entry. About `expected` entries are expected.
    ///
    /// # Errors
    /// As every command; a listing that ends early is an error whatever was taken until then, and
    /// so is one that does not end.
    pub async fn list(
        &self,
        version: Option<u64>,
        expected: usize,
        mut entry: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), RuntimeError> {
        let line = self.map.show(version);
        let (mut listing, mut rows) = (Listing::new(), RowBound::new(expected));
        let bound = rows;
        let take = |bytes: &[u8]| {
            listing.feed(bytes, &mut entry)?;
            rows.take(bytes)
        };
        self.client.receive_rows(line.as_bytes(), bound, take).await?;
        listing.finish().map_err(|error| self.client.failed(&line, error))
    }

    /// Makes a version the live map, at once for every request.
    ///
    /// # Errors
    /// As every command; [`VersionOvertaken`](crate::ReplyError::VersionOvertaken) where another
    /// writer was later.
    pub async fn commit(&self, version: u64) -> Result<(), RuntimeError> {
        self.client.parse_reply(&self.map.commit(version), silent).await
    }

    /// Drops a version that is not the live one.
    pub async fn clear(&self, version: u64) -> Result<(), RuntimeError> {
        self.client.parse_reply(&self.map.clear(version), silent).await
    }

    /// Runs single commands, at most `most` a line, with rests between the lines, which are added
    /// to `rested`. Stops at the first that fails.
    ///
    /// # Errors
    /// As every command; what stands before the failing line is done, and the rest of its line may
    /// be.
    pub async fn run(
        &self,
        commands: impl Iterator<Item = String>,
        most: usize,
        rested: &mut Duration,
    ) -> Result<(), RuntimeError> {
        let mut lines = wire::Batches::new(commands, self.max_payload, most);
        let mut pace = Pacer::default();
        let mut following = lines.next();
        while let Some((line, count)) = following {
            let sent = Instant::now();
            let parse = |replies: Vec<&[u8]>| replies.into_iter().try_for_each(silent);
            self.client.parse_replies(&line, count, parse).await?;
            let took = sent.elapsed();
            following = lines.next();
            if following.is_some() {
                *rested += rest(&mut pace, took).await;
            }
        }
        Ok(())
    }

    /// Looks keys up as traffic does; `found` gets each key's position and value.
    pub async fn look_up<'k>(
        &self,
        keys: impl Iterator<Item = &'k str>,
        mut found: impl FnMut(usize, Option<&str>),
    ) -> Result<(), RuntimeError> {
        let mut position = 0;
        for (line, count) in
            wire::Batches::new(keys.map(|key| self.map.get(key)), self.max_payload, usize::MAX)
        {
            let parse = |replies: Vec<&[u8]>| {
                for reply in replies {
                    found(position, looked_up(reply)?);
                    position += 1;
                }
                Ok(())
            };
            self.client.parse_replies(&line, count, parse).await?;
        }
        Ok(())
    }
}
