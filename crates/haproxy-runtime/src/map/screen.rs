//! Which rows a map refuses, asked of HAProxy itself: staged in a version that is never committed.
//!
//! A refused row leaves HAProxy's `entry_cnt` one too low for the life of the process (2.6 to 3.4),
//! below zero even.

use std::time::{Duration, Instant};

use super::MapKind;
use super::client::MapClient;
use crate::client::rest;
use crate::error::{ReplyError, RuntimeError};
use crate::wire::pace::Pacer;
use crate::wire::{self, Batches, Listing, Payloads};

/// A key and value that a map takes only if it takes any: neither an address nor a number.
const ANY_ROW: &str = "mapsmith-probe";
/// The most screened rows that are removed one by one where HAProxy does not drop their version.
/// More of them lead to a swap in any case, whose commit drops it.
const MOST_REMOVED: usize = 1000;

fn words((key, value): &(String, String)) -> (&str, &str) {
    (key, value)
}

impl MapClient {
    /// What the map takes, without changing anything; none where that is not known, as of an empty
    /// map.
    pub async fn kind(&self) -> Result<Option<MapKind>, RuntimeError> {
        let key = self.any_key().await?;
        let line = self.map.get(key.as_deref().unwrap_or(ANY_ROW)) + "\n";
        self.client.parse_reply(&line, super::map_kind).await
    }

    /// [`MapClient::kind`], and where that is not known by staging a row; `true` where it came to
    /// that.
    pub async fn probe_kind(&self) -> Result<(MapKind, bool), RuntimeError> {
        if let Some(kind) = self.kind().await? {
            return Ok((kind, false));
        }
        let refused = self.screen(&[(ANY_ROW.to_owned(), ANY_ROW.to_owned())]).await?;
        let kind =
            refused.into_iter().next().map_or(MapKind::Any, |(_, by)| MapKind::Restricted { by });
        Ok((kind, true))
    }

    /// The first key of the live map. The rest of the listing is not read.
    async fn any_key(&self) -> Result<Option<String>, RuntimeError> {
        let line = self.map.show(None);
        let mut connection = self.client.connect().await?;
        self.client.send(&mut connection, line.as_bytes()).await?;
        let (mut listing, mut buffer, mut first) = (Listing::new(), Vec::new(), None);
        while first.is_none()
            && self.client.read(&mut connection, line.as_bytes(), &mut buffer).await? > 0
        {
            let take = |key: &[u8], _: &[u8]| {
                if first.is_none() {
                    first = Some(key.to_vec());
                }
            };
            listing.feed(&buffer, take).map_err(|error| self.client.failed(&line, error))?;
            buffer.clear();
        }
        Ok(first.and_then(|key| String::from_utf8(key).ok()).filter(|key| wire::is_word(key)))
    }

    /// Which of these rows HAProxy refuses, by position, each with its words. Nothing of it becomes
    /// the live map.
    ///
    /// # Errors
    /// As every command: then nothing is known of any row.
    pub async fn screen(
        &self,
        rows: &[(String, String)],
    ) -> Result<Vec<(usize, String)>, RuntimeError> {
        let version = self.prepare().await?;
        let refused = self.screen_in(version, rows).await;
        self.drop_screened(version, rows.len()).await?;
        refused
    }

    /// A payload ends at its first refused row, so the rows of such a one are sent once more, a
    /// command each.
    async fn screen_in(
        &self,
        version: u64,
        rows: &[(String, String)],
    ) -> Result<Vec<(usize, String)>, RuntimeError> {
        let header = self.map.stage_header(version);
        let mut payloads = Payloads::new(&header, rows.iter().map(words), self.max_payload);
        let (mut payload, mut refused, mut pace) = (Vec::new(), Vec::new(), Pacer::default());
        let mut start = 0;
        while payloads.next_into(&mut payload) {
            let sent = Instant::now();
            let answer = self.client.call(&payload).await?;
            match wire::replies(&answer, 1).and_then(|replies| super::silent(replies[0])) {
                Ok(()) => {}
                Err(ReplyError::Refused { .. }) => {
                    self.screen_each(version, start, &rows[start..payloads.taken()], &mut refused)
                        .await?;
                }
                Err(error) => return Err(self.client.failed(&payload, error)),
            }
            start = payloads.taken();
            rest(&mut pace, sent.elapsed()).await;
        }
        Ok(refused)
    }

    async fn screen_each(
        &self,
        version: u64,
        start: usize,
        rows: &[(String, String)],
        refused: &mut Vec<(usize, String)>,
    ) -> Result<(), RuntimeError> {
        let commands = rows.iter().map(|(key, value)| self.map.stage(version, key, value));
        let mut position = start;
        for (line, count) in Batches::new(commands, self.max_payload, usize::MAX) {
            let parse = |replies: Vec<&[u8]>| {
                for reply in replies {
                    match super::silent(reply) {
                        Err(ReplyError::Refused(text)) => refused.push((position, text)),
                        judged => judged?,
                    }
                    position += 1;
                }
                Ok(())
            };
            self.client.parse_replies(&line, count, parse).await?;
        }
        Ok(())
    }

    /// Drops the version, unless another process gave its number to the live map meanwhile. 3.4
    /// clears none while a lower version, as the live map, has entries: there they are removed one
    /// by one.
    async fn drop_screened(&self, version: u64, rows: usize) -> Result<(), RuntimeError> {
        let uncommitted =
            |map: super::MapCounters| map.live_version < version && version <= map.last_prepared;
        if !self.probe().await?.map.is_some_and(uncommitted) {
            return Ok(());
        }
        self.clear(version).await?;
        if rows > MOST_REMOVED {
            return Ok(());
        }
        let left = self.client.call(&self.map.show(Some(version))).await?;
        let left = String::from_utf8_lossy(&left);
        let references = left
            .lines()
            .filter_map(|line| line.split(' ').next().filter(|word| word.starts_with("0x")));
        let commands: Vec<String> =
            references.map(|reference| self.map.remove_reference(reference)).collect();
        self.run(commands.into_iter(), usize::MAX, &mut Duration::default()).await
    }
}
