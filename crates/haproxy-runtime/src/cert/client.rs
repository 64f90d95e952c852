//! The files of certificates and revocations behind a stats socket.

use super::reply::{CertRefusal, Stored, committed, opened, stored};
use super::{Facts, FileKind, StoredFile, buffer_size, largest_payload};
use crate::client::RuntimeClient;
use crate::error::RuntimeError;
use crate::version::HaproxyVersion;
use crate::wire;

/// What HAProxy has of a file in its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Exactly the content that was asked for, as far as HAProxy shows it.
    Same,
    /// Another one.
    Other {
        /// Of a certificate: whether HAProxy knows who uses it.
        used: bool,
    },
    /// It has not loaded the file.
    NotLoaded,
}

/// The certificates behind a stats socket.
#[derive(Debug, Clone)]
pub struct CertClient {
    client: RuntimeClient,
    max_payload: usize,
}

impl CertClient {
    /// `max_payload` bounds a command line and, where HAProxy does not tell the size of its
    /// buffers, a payload, in bytes.
    pub fn new(client: RuntimeClient, max_payload: usize) -> Self {
        Self { client, max_payload }
    }

    /// The largest payload command that the process takes, in bytes.
    ///
    /// # Errors
    /// When the socket can't be reached or stays silent.
    pub async fn largest_payload(&self, version: HaproxyVersion) -> Result<usize, RuntimeError> {
        let answer = self.client.call("show pools\n").await?;
        Ok(match buffer_size(&answer) {
            Some(buffer) => largest_payload(version, buffer),
            None => self.max_payload,
        })
    }

    /// Compares a file in HAProxy's memory with a content.
    ///
    /// # Errors
    /// As every command, and an answer that can't be read.
    pub async fn compare(&self, file: &StoredFile, facts: &Facts) -> Result<Held, RuntimeError> {
        let shown = match file.kind() {
            FileKind::Certificate => self.show(file, 1).await?,
            // One more than there should be shows that there is no more.
            FileKind::Crl | FileKind::Ca => self.show(file, facts.count() + 1).await?,
        };
        if shown.contains(&Stored::NotLoaded) {
            return Ok(Held::NotLoaded);
        }
        let unused = |stored: &Stored| matches!(stored, Stored::Certificate { used: false, .. });
        let used = !shown.iter().any(unused);
        Ok(if is_same(file.kind(), &shown, facts) { Held::Same } else { Held::Other { used } })
    }

    /// The first so many of a file.
    async fn show(&self, file: &StoredFile, count: usize) -> Result<Vec<Stored>, RuntimeError> {
        let commands = (1..=count).map(|number| file.show(number));
        let mut shown = Vec::with_capacity(count);
        for (line, part) in wire::Batches::new(commands, self.max_payload, usize::MAX) {
            let parse = |replies: Vec<&[u8]>| replies.into_iter().map(stored).collect();
            let part: Vec<_> = self.client.parse_replies(&line, part, parse).await?;
            shown.extend(part);
        }
        Ok(shown)
    }

    /// Gives a file another content, which every new connection meets from then on. `pem` is what
    /// [`payload`](super::payload) made. A refusal leaves the old one in force.
    ///
    /// # Errors
    /// When a command has no whole answer: compare again.
    pub async fn replace(
        &self,
        file: &StoredFile,
        pem: &[u8],
        largest: usize,
    ) -> Result<Result<(), CertRefusal>, RuntimeError> {
        let command = file.set(pem);
        if command.len() > largest {
            return Ok(Err(CertRefusal::TooBig { size: command.len(), largest }));
        }
        let set = self.client.parse_replies(&command, 1, |replies| opened(replies[0])).await?;
        if set.is_err() {
            return Ok(set);
        }
        let outcome = self.client.parse_reply(&file.commit(), committed).await;
        if !matches!(outcome, Ok(Ok(()))) {
            // What is left open would be in the way of the next one. Where nothing is, HAProxy says
            // so, and that is as good.
            let _ = self.client.call(file.abort()).await;
        }
        outcome
    }
}

/// Whether what was shown is the content, in whatever order: HAProxy sorts CAs and CRLs, and holds
/// equal ones once.
fn is_same(kind: FileKind, shown: &[Stored], facts: &Facts) -> bool {
    match facts {
        Facts::Lists(lists) => {
            let is_of = |stored: &Stored, list: &super::Revoked| match stored {
                Stored::List { list: shown, cut } => shown.is(list, *cut),
                _ => false,
            };
            lists.iter().all(|list| shown.iter().any(|stored| is_of(stored, list)))
                && shown.iter().all(|stored| {
                    *stored == Stored::Nothing || lists.iter().any(|list| is_of(stored, list))
                })
        }
        Facts::Certificates(certificates) => {
            let count = if kind == FileKind::Certificate { 1 } else { certificates.len() };
            let mut expected: Vec<_> = certificates.iter().take(count).collect();
            let mut found: Vec<_> = shown
                .iter()
                .filter_map(|stored| match stored {
                    Stored::Certificate { certificate, .. } => Some(certificate),
                    _ => None,
                })
                .collect();
            expected.sort_unstable();
            expected.dedup();
            found.sort_unstable();
            expected == found
        }
    }
}
