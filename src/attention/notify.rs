//! The command of `[notify]`: run when the worst item is another one, with all of them as JSON on
//! its standard input.
//!
//! It is run again until it succeeds, and what it was told last is in the store: so nothing that
//! lasts is never told, and a restart tells nothing twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::attention::{Attention, Item, Key, NotifyStatus, Settling, Severity};
use metrics::{counter, gauge};
use serde::Serialize;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::command::{CommandError, Output, run_with_input};
use crate::heartbeat;
use crate::settings::Notify;
use crate::store::SqliteStore;
use crate::telemetry::{NOTIFY_FAILED, NOTIFY_RUNS};

/// How much of what it prints is kept.
const OUTPUT: usize = 2000;
/// Between two tries of a command that fails.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// What the command gets.
#[derive(Serialize)]
struct Message<'a> {
    at: Timestamp,
    site: Option<&'a str>,
    worst: Severity,
    /// The worst item; none where all is fine again.
    item: Option<&'a Item>,
    /// What was told before; none where all was fine.
    previous: Option<&'a Key>,
    act: usize,
    look: usize,
    items: &'a [Item],
}

/// What was told last: it goes on where all tasks begin anew.
pub type Told = Arc<Mutex<Settling>>;

/// Tells by the command.
pub struct Notifier {
    settings: Notify,
    site: Option<String>,
    told: Told,
    /// None without a store.
    store: Option<SqliteStore>,
    attention: watch::Receiver<Arc<Attention>>,
    status: watch::Sender<NotifyStatus>,
}

impl Notifier {
    pub fn new(
        settings: Notify,
        site: Option<String>,
        told: Told,
        store: Option<SqliteStore>,
        attention: watch::Receiver<Arc<Attention>>,
        status: watch::Sender<NotifyStatus>,
    ) -> Self {
        Self { settings, site, told, store, attention, status }
    }

    /// Runs the command whenever it is due, until shutdown.
    pub async fn run(self, stop: CancellationToken) {
        for outcome in ["ok", "failed"] {
            counter!(NOTIFY_RUNS, "outcome" => outcome).increment(0);
        }
        gauge!(NOTIFY_FAILED).set(0.0);
        stop.run_until_cancelled(self.tell_for_ever()).await;
    }

    async fn tell_for_ever(mut self) {
        let settle = SignedDuration::try_from(self.settings.settle).unwrap_or(SignedDuration::MAX);
        let (mut retries, mut not_before) = (RETRIES, Instant::now());
        loop {
            let attention = Arc::clone(&self.attention.borrow_and_update());
            let (key, now) = (attention.key(), Timestamp::now());
            let previous = self.with_told(|told| {
                told.is_due(key.as_ref(), settle, now).then(|| told.told().cloned())
            });
            if let Some(previous) = previous.filter(|_| Instant::now() >= not_before) {
                match heartbeat::waiting(self.tell(&attention, previous.as_ref(), now)).await {
                    Ok(()) => {
                        self.succeeded(key).await;
                        retries.reset();
                    }
                    Err(error) => {
                        self.failed(error);
                        not_before = Instant::now() + retries.pause();
                    }
                }
            }
            heartbeat::tick().await;
        }
    }

    fn with_told<T>(&self, work: impl FnOnce(&mut Settling) -> T) -> T {
        work(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn succeeded(&self, key: Option<Key>) {
        counter!(NOTIFY_RUNS, "outcome" => "ok").increment(1);
        gauge!(NOTIFY_FAILED).set(0.0);
        self.status.send_replace(NotifyStatus::default());
        if let Some(store) = &self.store
            && let Err(error) = store.keep_told(key.clone()).await
        {
            tracing::warn!("a restart may run notify.command once more: {error}");
        }
        self.with_told(|told| told.tell(key));
    }

    fn failed(&self, error: String) {
        counter!(NOTIFY_RUNS, "outcome" => "failed").increment(1);
        gauge!(NOTIFY_FAILED).set(1.0);
        tracing::warn!("notify.command failed and is run again: {error}");
        self.status.send_modify(|status| {
            status.failures = status.failures.saturating_add(1);
            status.failed_since.get_or_insert_with(Timestamp::now);
            status.error = Some(error);
        });
    }

    /// Runs it once.
    async fn tell(
        &self,
        attention: &Attention,
        previous: Option<&Key>,
        at: Timestamp,
    ) -> Result<(), String> {
        let message = Message {
            at,
            site: self.site.as_deref(),
            worst: attention.worst_item().map_or(Severity::Fine, |item| item.severity),
            item: attention.worst_item(),
            previous,
            act: attention.act,
            look: attention.look,
            items: &attention.items,
        };
        let input = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
        let Some((program, arguments)) = self.settings.command.split_first() else {
            return Err("it is missing".to_owned());
        };
        let mut command = Command::new(program.as_str());
        // What Mapsmith itself is let in with.
        command.env_remove("MAPSMITH_TOKEN");
        command.args(arguments.iter().map(|word| word.as_str()));
        let bound = self.settings.timeout;
        match run_with_input(command, input, bound, OUTPUT, Command::spawn).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(Output { status, stdout, stderr, .. }) => {
                let said = [stderr, stdout].map(|text| in_one_line(&text)).join(" ");
                Err(format!("{program}: {status}: {}", said.trim()))
            }
            Err(CommandError::Silent { .. }) => {
                Err(format!("{program}: has not ended within {bound:?}, and was killed"))
            }
            Err(CommandError::Start { cause, .. }) => {
                Err(format!("{program}: can't be run: {cause}"))
            }
        }
    }
}

/// What it prints, for a person.
fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split(char::is_control).map(str::trim).collect();
    words.join(" ").trim().to_owned()
}
