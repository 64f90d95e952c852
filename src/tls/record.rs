//! What is remembered of a certificate over a restart: the order in progress, so that there is no
//! second one, and how long the authority is left alone after it refused.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::issued::{MODE, create, off_thread};
use crate::store::replace::replace;

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
    /// Whether another account was made, because the authority did not know the one of before.
    #[serde(default)]
    pub new_account: bool,
    pub error: Option<String>,
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
