//! What one HAProxy answers to a certificate authority: its map is compared with what should be in
//! it, and changed entry by entry.

use std::collections::BTreeMap;
use std::time::Duration;

use haproxy_runtime::{MapClient, MapName, RuntimeError};
use mapsmith_core::certificate::OpenChallenges;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::settings;

/// Between a failure and the next try.
const RETRY: Duration = Duration::from_secs(1);
/// The most commands on a line; there are as many as a certificate has names.
const MOST: usize = 20;

/// Which answers an instance was seen to have.
#[derive(Debug, Clone, Default)]
pub struct HeldChallenges {
    /// [`OpenChallenges::number`]; 0 is none.
    pub number: u64,
    /// Why it has not those that it should.
    pub error: Option<String>,
}

/// What an instance's task keeps of them.
pub struct ChallengePhase {
    client: MapClient,
    open: watch::Receiver<OpenChallenges>,
    /// Between two comparisons where nothing changes.
    every: Duration,
    due: Instant,
    /// The number that was tried last, whatever came of it.
    tried: u64,
    held: HeldChallenges,
}

impl ChallengePhase {
    /// Touches nothing yet. `file` is the map as HAProxy's configuration names it.
    pub fn new(
        instance: &settings::Instance,
        file: &str,
        open: watch::Receiver<OpenChallenges>,
        every: Duration,
    ) -> Self {
        let client = instance.map_client(&MapName::new(file));
        let (due, held) = (Instant::now(), HeldChallenges::default());
        Self { client, open, every, due, tried: 0, held }
    }

    /// Another process answers. It has read the file, which may have changed since.
    pub fn forget(&mut self) {
        self.held = HeldChallenges::default();
        self.due = Instant::now();
    }

    pub fn held(&self) -> &HeldChallenges {
        &self.held
    }

    /// Brings the answers into memory. A failure is in what is held.
    pub async fn bring(&mut self) {
        let OpenChallenges { number, answers } = self.open.borrow_and_update().clone();
        if self.tried == number && Instant::now() < self.due {
            return;
        }
        self.tried = number;
        match self.compare(&answers).await {
            Ok(()) => {
                self.held = HeldChallenges { number, error: None };
                self.due = Instant::now() + self.every;
            }
            Err(error) => {
                self.held.error = Some(error);
                self.due = Instant::now() + RETRY.min(self.every);
            }
        }
    }

    async fn compare(&self, answers: &BTreeMap<String, String>) -> Result<(), String> {
        let map = self.client.map();
        let unread =
            |error: RuntimeError| format!("the map {} can't be read: {error}", map.as_str());
        let held = self.list(answers.len()).await.map_err(unread)?;
        if held == *answers {
            return Ok(());
        }
        let wrong = held.iter().filter(|(token, answer)| answers.get(*token) != Some(answer));
        let missing = answers.iter().filter(|(token, answer)| held.get(*token) != Some(answer));
        let commands = wrong.map(|(token, _)| map.remove(token));
        let commands: Vec<_> =
            commands.chain(missing.map(|(token, answer)| map.add(token, answer))).collect();
        let mut rested = Duration::ZERO;
        let ran = self.client.run(commands.into_iter(), MOST, &mut rested).await;
        ran.map_err(|error| format!("the map {} can't be changed: {error}", map.as_str()))?;
        match self.list(answers.len()).await.map_err(unread)? == *answers {
            true => Ok(()),
            false => Err(format!("the map {} has other entries than it was given", map.as_str())),
        }
    }

    async fn list(&self, expected: usize) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut held = BTreeMap::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let take = |key: &[u8], value: &[u8]| _ = held.insert(text(key), text(value));
        self.client.list(None, expected, take).await?;
        Ok(held)
    }
}

/// Resolves when there are other answers than this phase has tried to bring.
pub(super) async fn changed(news: &mut Option<(watch::Receiver<OpenChallenges>, u64)>) {
    if let Some((open, tried)) = news
        && open.wait_for(|open| open.number != *tried).await.is_ok()
    {
        return;
    }
    // Nobody asks for any, or the shutdown follows.
    std::future::pending::<()>().await;
}

impl ChallengePhase {
    /// Knows from now on when there are others.
    pub(super) fn news(&self) -> (watch::Receiver<OpenChallenges>, u64) {
        let open = self.open.clone();
        let number = open.borrow().number;
        (open, number)
    }
}
