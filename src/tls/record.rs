//! What is remembered of a certificate over a restart: the order in progress, so that there is no
//! second one, and how long the authority is left alone after it refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::issued::{MODE, create, off_thread};
use crate::backoff::Backoff;
use crate::store::replace::replace;

/// After a refusal: fewer tries than authorities bear (Let's Encrypt: five failures an hour).
pub const REFUSED: Backoff = Backoff::new(Duration::from_secs(10 * 60), LONGEST_PAUSE);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The file of one certificate. It holds a key, so it is never printed.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// The names that it is about: with others it begins again.
    pub names: Vec<String>,
    pub order: Option<OrderRecord>,
    /// Failures in a row of which the authority knows.
    #[serde(default)]
    pub refusals: u32,
    pub retry_at: Option<Timestamp>,
    /// Orders in a row that were sent and whose answer is not known: Mapsmith has ended, or the
    /// answer was lost. The authority may have counted them.
    #[serde(default)]
    pub unanswered: u32,
    /// Until when the authority has asked to be left alone with it.
    #[serde(default)]
    pub rest_until: Option<Timestamp>,
    /// Whether another account was made, because the authority did not know the one of before.
    #[serde(default)]
    pub new_account: bool,
    pub error: Option<String>,
}

impl Record {
    /// An order is about to be sent. This is written down before, so that neither a crash nor a
    /// network that loses answers makes a loop of orders: after a second one in a row the authority
    /// is left alone, as after a refusal.
    pub fn expect_answer(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
        let mut pauses = REFUSED;
        self.retry_at = (1..self.unanswered.min(16)).map(|_| after(pauses.pause())).last();
    }

    /// The order was answered, or has never been sent.
    pub fn is_answered(&mut self) {
        (self.unanswered, self.retry_at) = (0, None);
    }
}

/// The time when a pause that begins now is over.
pub fn after(pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX)
}

/// An order that was placed and has brought no certificate yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct OrderRecord {
    pub directory: String,
    pub account: String,
    pub url: String,
    /// The certificate's key (PEM), which nobody but Mapsmith has seen.
    pub key: String,
}

/// Where records are.
#[derive(Debug, Clone)]
pub struct Records(PathBuf);

impl Records {
    pub fn new(folder: &Path) -> Self {
        Self(folder.join("orders"))
    }

    /// What is remembered for these names. What can't be read is nothing. Blocks.
    pub fn read(&self, name: &str, names: &[String]) -> Record {
        let text = fs::read(self.of(name)).unwrap_or_default();
        let record: Option<Record> = serde_json::from_slice(&text).ok();
        let record = record.filter(|record| record.names == names);
        record.unwrap_or_else(|| Record { names: names.to_vec(), ..Record::default() })
    }

    /// # Errors
    /// It can't be written.
    pub async fn write(&self, name: &str, record: &Record) -> Result<(), String> {
        let text = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        let (folder, file) = (self.0.clone(), self.of(name));
        off_thread(move || {
            create(&folder)?;
            replace(&file, &text, MODE).map_err(|error| error.to_string())
        })
        .await
    }

    fn of(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_answer_costs_nothing_and_from_the_second_on_the_authority_is_left_alone() {
        let mut record = Record::default();
        record.expect_answer();
        assert_eq!((record.unanswered, record.retry_at), (1, None));
        let mut waits = Vec::new();
        for _ in 0..20 {
            record.expect_answer();
            let retry_at = record.retry_at.unwrap();
            waits.push(retry_at.duration_since(Timestamp::now()).as_mins());
        }
        assert!(waits[0] >= 4 && waits[0] <= 10 && waits[3] >= 39, "{waits:?}");
        assert!(waits[19] >= 359 && waits[19] <= 720, "{waits:?}");
        record.is_answered();
        assert_eq!((record.unanswered, record.retry_at), (0, None));
    }

    #[tokio::test]
    async fn an_order_is_known_after_a_restart_unless_other_names_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let names = |name: &str| vec![name.to_owned()];
        let mut record = records.read("site", &names("a.test"));
        assert!(record.order.is_none());
        record.order = Some(OrderRecord {
            directory: "https://ca/dir".to_owned(),
            account: "https://ca/account/1".to_owned(),
            url: "https://ca/order/1".to_owned(),
            key: "key".to_owned(),
        });
        records.write("site", &record).await.unwrap();
        let found = records.read("site", &names("a.test")).order.map(|order| order.url);
        assert_eq!(found.as_deref(), Some("https://ca/order/1"));
        assert!(records.read("site", &names("b.test")).order.is_none());
        assert!(records.read("other", &names("a.test")).order.is_none());
    }
}
