//! How long an authority is left alone, whatever it would be asked for, because it has said that it
//! serves nobody: over a restart too.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mapsmith_core::render::stamp::hash;

use super::acme::LONGEST_REST;
use super::issued::{MODE, create, off_thread};
use super::record::after;
use crate::store::replace::replace;

/// Until when one directory is left alone.
pub(super) struct Rest {
    file: PathBuf,
    until: Option<Timestamp>,
}

impl Rest {
    /// As it was written down; what can't be read is none. Blocks.
    pub fn read(folder: &Path, directory: &str) -> Self {
        let file = folder.join(format!("rest-{:016x}", hash(directory.as_bytes())));
        let text = fs::read_to_string(&file).unwrap_or_default();
        Self { file, until: text.trim().parse().ok() }
    }

    /// Until when, if that is yet to come. What is further off than an authority can ask for was
    /// written while the clock was wrong.
    pub fn until(&self) -> Option<Timestamp> {
        let (now, latest) = (Timestamp::now(), after(LONGEST_REST));
        self.until.filter(|until| *until > now && *until <= latest)
    }

    /// It is left alone until then.
    ///
    /// # Errors
    /// It can't be written down, so that a restart does not know of it.
    pub async fn keep(&mut self, until: Timestamp) -> Result<(), String> {
        self.until = Some(until);
        let file = self.file.clone();
        off_thread(move || {
            file.parent().map_or(Ok(()), create)?;
            replace(&file, until.to_string().as_bytes(), MODE).map_err(|error| error.to_string())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_authority_is_left_alone_after_a_restart_and_another_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut rest = Rest::read(folder.path(), "https://ca/dir");
        assert_eq!(rest.until(), None);
        let later = after(Duration::from_secs(3600));
        rest.keep(later).await.unwrap();
        assert_eq!(rest.until(), Some(later));
        assert_eq!(Rest::read(folder.path(), "https://ca/dir").until(), Some(later));
        assert_eq!(Rest::read(folder.path(), "https://other/dir").until(), None);
        rest.keep(Timestamp::now()).await.unwrap();
        assert_eq!(rest.until(), None, "it is over");
        rest.keep(after(10 * LONGEST_REST)).await.unwrap();
        assert_eq!(rest.until(), None, "nobody can have asked for that");
    }
}
