//! What is kept of a configuration that HAProxy refused, for those who reload it without asking the
//! Mapsmith that runs: what they load is the last good one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// HAProxy's words may have lines of the configuration.
const MODE: u32 = 0o600;

/// Why the newest configuration is not in force, while HAProxy refuses it.
#[derive(Debug)]
pub struct Refusal {
    path: PathBuf,
    /// What is known to be kept.
    kept: Option<Option<String>>,
}

impl Refusal {
    pub fn new(path: PathBuf) -> Self {
        Self { path, kept: None }
    }

    /// Keeps why it is refused, or that it is not.
    ///
    /// # Errors
    /// The file can't be written or removed.
    pub fn keep(&mut self, why: Option<String>) -> Result<(), MapFileError> {
        if self.kept.as_ref() == Some(&why) {
            return Ok(());
        }
        match &why {
            Some(why) => replace(&self.path, why.as_bytes(), MODE)?,
            // What is not there need not go.
            None => drop(fs::remove_file(&self.path)),
        }
        self.kept = Some(why);
        Ok(())
    }
}

/// Why the newest configuration is refused, as the Mapsmith that writes it has found; none where it
/// is not.
///
/// # Errors
/// It can't be read.
pub fn kept(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(why) => Ok(Some(why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_configuration_is_refused_is_known_until_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused");
        let mut refusal = Refusal::new(path.clone());
        refusal.keep(None).unwrap();
        assert_eq!(kept(&path).unwrap(), None);
        refusal.keep(Some("port 80 is taken".to_owned())).unwrap();
        assert_eq!(kept(&path).unwrap().as_deref(), Some("port 80 is taken"));
        // Another Mapsmith, which finds that it is in force.
        Refusal::new(path.clone()).keep(None).unwrap();
        assert_eq!(kept(&path).unwrap(), None);
    }
}
