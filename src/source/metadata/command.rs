//! Metadata that a program says, key by key, as Triton's `mdata-get` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use mapsmith_core::portmap::{MAX_TEXT, metadata::KEYS};
use mapsmith_core::status::PollKind;
use mapsmith_core::{Rejections, ServiceTexts, Snapshot};
use tokio::process::Command;

use crate::command::{Output, run_within};
use crate::settings;
use crate::source::error::Excerpt;
use crate::source::feed::share;
use crate::source::{Extent, Feed, Polled, SourceError, SourceErrorKind};

/// How often the keys are read within a poll until two reads in a row are equal.
const ATTEMPTS: usize = 4;
/// The exit code for a key that is not there.
const NO_SUCH_KEY: i32 = 1;

/// A program that says one key at a time.
pub(super) struct CommandFeed {
    settings: Arc<settings::Source>,
    words: Vec<String>,
}

type Texts = BTreeMap<String, Result<String, String>>;

impl CommandFeed {
    pub(super) fn new(settings: Arc<settings::Source>, words: Vec<String>) -> Self {
        Self { settings, words }
    }

    /// Reads until a read says what the one before said: no key has changed between two of them
    /// then.
    async fn read(&self, before: Option<&Texts>) -> Result<Texts, SourceErrorKind> {
        let mut before = before.cloned();
        for _ in 0..ATTEMPTS {
            let texts = self.read_once().await?;
            if before.as_ref() == Some(&texts) {
                return Ok(texts);
            }
            before = Some(texts);
        }
        let what = format!("the keys changed while they were read, {ATTEMPTS} times in a row");
        Err(SourceErrorKind::Command(what))
    }

    async fn read_once(&self) -> Result<Texts, SourceErrorKind> {
        let read = |key: &'static str| async move {
            Ok(self.value(key).await?.map(|text| (key.to_owned(), Ok(text))))
        };
        let values = try_join_all(KEYS.map(read)).await?;
        Ok(values.into_iter().flatten().collect())
    }

    /// A key's value; none where there is no such key.
    async fn value(&self, key: &str) -> Result<Option<String>, SourceErrorKind> {
        let Some((program, arguments)) = self.words.split_first() else { return Ok(None) };
        let key = format!("{}{key}", self.settings.of_kind.metadata.prefix());
        let mut command = Command::new(program);
        command.args(arguments).arg(&key);
        let output = run_within(command, self.settings.timeout, MAX_TEXT, Command::spawn).await;
        let fault = |what: String| SourceErrorKind::Command(format!("{key}: {what}"));
        let Output { status, mut stdout, stderr, cut } =
            output.map_err(|error| fault(error.to_string()))?;
        match status.code() {
            Some(0) if cut => Err(fault(format!("the value is larger than {MAX_TEXT} bytes"))),
            Some(0) => {
                // The program's own.
                if stdout.ends_with('\n') {
                    stdout.pop();
                }
                Ok(Some(stdout))
            }
            Some(NO_SUCH_KEY) => Ok(None),
            _ => {
                let mut said = Excerpt::new(None);
                said.push(stderr.as_bytes());
                Err(fault(format!("the command ended with {status}: {said}")))
            }
        }
    }

    /// The bound on a whole poll: a value has a bound of its own.
    fn bound(&self) -> Duration {
        self.settings.timeout.saturating_mul(2)
    }
}

#[async_trait]
impl Feed<ServiceTexts> for CommandFeed {
    async fn poll(
        &mut self,
        _extent: Extent,
        current: Option<&Snapshot<ServiceTexts>>,
        _now: Timestamp,
    ) -> Result<Polled<ServiceTexts>, SourceError> {
        let before = current.map(|current| &current.entries.texts);
        let read = tokio::time::timeout(self.bound(), self.read(before)).await;
        let texts = read.unwrap_or(Err(SourceErrorKind::NoAnswer(self.bound())));
        let texts = texts.map_err(|fault| SourceError { place: self.words.join(" "), fault })?;
        let bytes = texts.values().flatten().map(|text| text.len() as u64).sum();
        Ok(Polled {
            kind: PollKind::Full,
            entries: share(ServiceTexts { texts }, current.map(|current| &current.entries)),
            rejections: Arc::new(Rejections::default()),
            bytes,
        })
    }

    fn beside(&self) -> Option<Box<dyn Feed<ServiceTexts>>> {
        Some(Box::new(Self::new(Arc::clone(&self.settings), self.words.clone())))
    }
}
