//! What HAProxy answers to a certificate authority: a small map, token -> answer.
//!
//! It is written to its file, which HAProxy reads at its start and at each reload, before any
//! instance is told of it; each instance brings it into memory, and only when all have it the
//! authority is asked to look. It travels beside [`Desired`](mapsmith_core::Desired), like the
//! contents of `tls_file`: no map, no server list and no reload waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::certificate::OpenChallenges;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::issued::{create, off_thread};
use crate::instance::InstanceReport;
use crate::store::replace::{remove_leftovers, replace};

/// HAProxy's user must be able to read it, and what is in it is public.
const MODE: u32 = 0o644;
/// The longest token; those of authorities have 43 characters.
const LONGEST_TOKEN: usize = 256;

/// The map of all instances.
#[derive(Debug, Clone)]
pub struct Challenges {
    file: PathBuf,
    open: watch::Sender<OpenChallenges>,
    instances: Vec<watch::Receiver<InstanceReport>>,
}

impl Challenges {
    /// Nothing is answered yet; whatever an earlier Mapsmith has left goes.
    ///
    /// # Errors
    /// The file can't be written.
    pub async fn start(file: &Path) -> Result<Self, String> {
        let open = watch::channel(OpenChallenges::default()).0;
        let challenges = Self { file: file.to_owned(), open, instances: Vec::new() };
        challenges.answer(BTreeMap::new()).await?;
        Ok(challenges)
    }

    /// What the instances bring into memory.
    pub fn subscribe(&self) -> watch::Receiver<OpenChallenges> {
        self.open.subscribe()
    }

    /// Waits for these instances from now on.
    pub fn with_instances(self, instances: Vec<watch::Receiver<InstanceReport>>) -> Self {
        Self { instances, ..self }
    }

    /// From now on these are the answers, and no others. Gives their number.
    ///
    /// # Errors
    /// A token is none, or the file can't be written.
    pub async fn answer(&self, answers: BTreeMap<String, String>) -> Result<u64, String> {
        for (token, answer) in &answers {
            if !is_plain(token) || !answer.split('.').all(is_plain) {
                return Err(format!("{token:?} is not a token of base64url characters"));
            }
        }
        let rows: String =
            answers.iter().map(|(token, answer)| format!("{token} {answer}\n")).collect();
        let file = self.file.clone();
        off_thread(move || {
            if let Some(folder) = file.parent() {
                create(folder)?;
            }
            remove_leftovers(&file);
            replace(&file, rows.as_bytes(), MODE).map_err(|error| error.to_string())
        })
        .await?;
        self.open.send_modify(|open| {
            *open = OpenChallenges { number: open.number + 1, answers: Arc::new(answers) };
        });
        Ok(self.open.borrow().number)
    }

    /// Waits until every instance answers so.
    ///
    /// # Errors
    /// Which does not in time, and why.
    pub async fn in_force(&self, number: u64, bound: Duration) -> Result<(), String> {
        let deadline = Instant::now() + bound;
        for instance in &self.instances {
            let mut instance = instance.clone();
            let has = |report: &InstanceReport| report.challenges.number >= number;
            let is_there = matches!(timeout_at(deadline, instance.wait_for(has)).await, Ok(Ok(_)));
            if !is_there {
                let report = instance.borrow();
                let why = report.challenges.error.clone();
                let why = why.unwrap_or_else(|| report.status.state.to_string());
                return Err(format!(
                    "the instance {} does not answer the authority yet: {why}",
                    report.status.name
                ));
            }
        }
        Ok(())
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_but_plain_tokens_reaches_haproxy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("challenges.map");
        std::fs::write(&file, "left over\n").unwrap();
        let challenges = Challenges::start(&file).await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
        let answers =
            |token: &str, answer: &str| BTreeMap::from([(token.to_owned(), answer.to_owned())]);
        let number = challenges.answer(answers("a-b_1", "a-b_1.xyz")).await.unwrap();
        assert_eq!((number, challenges.subscribe().borrow().number), (2, 2));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a-b_1 a-b_1.xyz\n");
        for (token, answer) in [("a b", "x"), ("", "x"), ("a;", "x"), ("a", "x\ny"), ("a", "%[x]")]
        {
            challenges.answer(answers(token, answer)).await.unwrap_err();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a-b_1 a-b_1.xyz\n");
    }
}
