//! What is kept of a configuration that HAProxy refused, for those who reload it without asking the
//! Mapsmith that runs: what they load is the last good one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mapsmith_core::render::stamp;

use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// HAProxy's words may have lines of the configuration.
const MODE: u32 = 0o600;

/// Why the newest configuration is not in force, and in place of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub why: String,
    /// The hash of the file in place; none where there is none. Whoever repairs it by hand loads no
    /// longer what this is about.
    pub in_place: Option<u64>,
}

impl Kept {
    /// The hash in a line of its own, and then why.
    fn print(&self) -> String {
        format!("{}\n{}", line(self.in_place), self.why)
    }
}

fn line(in_place: Option<u64>) -> String {
    in_place.map_or_else(|| "none".to_owned(), |hash| format!("{hash:016x}"))
}

/// Why the newest configuration is not in force, while HAProxy refuses it.
#[derive(Debug)]
pub struct Refusal {
    path: PathBuf,
    /// What is known to be kept.
    kept: Option<Option<Kept>>,
}

impl Refusal {
    pub fn new(path: PathBuf) -> Self {
        Self { path, kept: None }
    }

    /// Keeps why it is refused, or that it is not.
    ///
    /// # Errors
    /// The file can't be written or removed.
    pub fn keep(&mut self, kept: Option<Kept>) -> Result<(), MapFileError> {
        if self.kept.as_ref() == Some(&kept) {
            return Ok(());
        }
        match &kept {
            Some(kept) => replace(&self.path, kept.print().as_bytes(), MODE)?,
            // What is not there need not go.
            None => drop(fs::remove_file(&self.path)),
        }
        self.kept = Some(kept);
        Ok(())
    }
}

/// Why the newest configuration is refused, as the Mapsmith that writes it has found; none where it
/// is not, or where this one in place is another than was there then.
///
/// # Errors
/// It can't be read.
pub fn kept(path: &Path, config: &Path) -> io::Result<Option<String>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let in_place = line(read(config)?.map(|text| stamp::hash(&text)));
    let text = String::from_utf8_lossy(&text);
    let kept = text.split_once('\n').filter(|(line, _)| *line == in_place);
    Ok(kept.map(|(_, why)| why.to_owned()))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
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
        let [path, config] = ["refused", "haproxy.cfg"].map(|it| folder.path().join(it));
        let refused = |in_place| Some(Kept { why: "port 80\nis taken".to_owned(), in_place });
        let mut refusal = Refusal::new(path.clone());
        refusal.keep(None).unwrap();
        assert_eq!(kept(&path, &config).unwrap(), None);
        refusal.keep(refused(None)).unwrap();
        assert_eq!(kept(&path, &config).unwrap().as_deref(), Some("port 80\nis taken"));
        fs::write(&config, "good").unwrap();
        refusal.keep(refused(Some(stamp::hash(b"good")))).unwrap();
        assert_eq!(kept(&path, &config).unwrap().as_deref(), Some("port 80\nis taken"));
        // Another Mapsmith, which finds that it is in force.
        Refusal::new(path.clone()).keep(None).unwrap();
        assert_eq!(kept(&path, &config).unwrap(), None);
    }

    #[test]
    fn what_was_refused_is_told_of_no_file_that_was_repaired_by_hand_since() {
        let folder = tempfile::tempdir().unwrap();
        let [path, config] = ["refused", "haproxy.cfg"].map(|it| folder.path().join(it));
        fs::write(&config, "good").unwrap();
        let in_place = Some(stamp::hash(b"good"));
        let refused = Kept { why: "port 80 is taken".to_owned(), in_place };
        Refusal::new(path.clone()).keep(Some(refused)).unwrap();
        fs::write(&config, "repaired").unwrap();
        assert_eq!(kept(&path, &config).unwrap(), None);
        fs::write(&config, "good").unwrap();
        assert_eq!(kept(&path, &config).unwrap().as_deref(), Some("port 80 is taken"));
    }
}
