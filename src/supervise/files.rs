//! The files of a rendered configuration: the candidate that HAProxy checks, the file in force, and
//! the last one that a process is known to have loaded. Its calls block: run them off the async
//! threads.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mapsmith_core::render::stamp::{self, Stamp};

use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// The name of a configuration within a folder.
const NAME: &str = "haproxy.cfg";
/// Passwords and keys of cookies may stand in it, so it is its owner's alone.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Why the files can't be read or written. Nothing that HAProxy would load has changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{}: can't be created: {cause} (haproxy.folder; Mapsmith's user must be able to)", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("{}: can't be read: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{0}")]
    Write(#[from] MapFileError),
}

/// What is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    pub stamp: Stamp,
    /// Of all of its bytes.
    pub hash: u64,
}

impl InPlace {
    fn of(text: &[u8]) -> Self {
        Self { stamp: stamp::read(text), hash: stamp::hash(text) }
    }

    pub fn holds(&self, text: &str) -> bool {
        self.hash == stamp::hash(text.as_bytes())
    }
}

/// What tells a file from the one that was read, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// The files of one HAProxy.
#[derive(Debug)]
pub struct Files {
    /// The file that HAProxy starts from.
    config: PathBuf,
    folder: PathBuf,
    read: Option<(Fingerprint, InPlace)>,
}

impl Files {
    pub fn new(config: &Path, folder: &Path) -> Self {
        Self { config: config.to_owned(), folder: folder.to_owned(), read: None }
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The file in force; none where there is none. It is read only where it has changed.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn in_place(&mut self) -> Result<Option<InPlace>, FilesError> {
        let error = |cause| FilesError::Read { path: self.config.clone(), cause };
        let metadata = match fs::metadata(&self.config) {
            Ok(metadata) => metadata,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.read = None;
                return Ok(None);
            }
            Err(cause) => return Err(error(cause)),
        };
        let fingerprint = Fingerprint {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some((known, in_place)) = &self.read
            && *known == fingerprint
        {
            return Ok(Some(in_place.clone()));
        }
        let in_place = InPlace::of(&fs::read(&self.config).map_err(error)?);
        self.read = Some((fingerprint, in_place.clone()));
        Ok(Some(in_place))
    }

    /// Writes a candidate, for a check, and gives its path.
    ///
    /// # Errors
    /// The folder can't be created or written.
    pub fn write_candidate(&self, text: &str) -> Result<PathBuf, FilesError> {
        let path = self.of("candidate")?;
        replace(&path, text.as_bytes(), MODE)?;
        Ok(path)
    }

    /// Puts a text in force. With `keep` the one before is kept as the last good one.
    ///
    /// # Errors
    /// What failed; the file in force is the one before.
    pub fn switch(&self, text: &str, keep: bool) -> Result<(), FilesError> {
        if keep {
            self.keep_last_good()?;
        }
        if let Some(folder) = self.config.parent() {
            create(folder)?;
        }
        Ok(replace(&self.config, text.as_bytes(), MODE)?)
    }

    fn keep_last_good(&self) -> Result<(), FilesError> {
        match fs::read(&self.config) {
            Ok(text) => Ok(replace(&self.of("last-good")?, &text, MODE)?),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(FilesError::Read { path: self.config.clone(), cause }),
        }
    }

    /// Puts the last good one in force again; whether there is one.
    ///
    /// # Errors
    /// It can't be read, or put in place.
    pub fn restore(&self) -> Result<bool, FilesError> {
        let path = self.of("last-good")?;
        match fs::read(&path) {
            Ok(text) => {
                replace(&self.config, &text, MODE)?;
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(FilesError::Read { path, cause }),
        }
    }

    /// Keeps an external edit aside, and says where.
    ///
    /// # Errors
    /// It can't be read or kept.
    pub fn set_aside(&self) -> Result<PathBuf, FilesError> {
        let folder = self.folder.join("edited");
        create(&folder)?;
        let kept = folder.join(format!("{NAME}.{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
        let text = fs::read(&self.config)
            .map_err(|cause| FilesError::Read { path: self.config.clone(), cause })?;
        replace(&kept, &text, MODE)?;
        Ok(kept)
    }

    fn of(&self, kind: &str) -> Result<PathBuf, FilesError> {
        let folder = self.folder.join(kind);
        create(&folder)?;
        Ok(folder.join(NAME))
    }
}

/// Creates a folder, and those above it.
///
/// # Errors
/// What failed.
pub fn create(folder: &Path) -> Result<(), FilesError> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|cause| FilesError::Folder { path: folder.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Files {
        Files::new(&folder.join("etc/haproxy.cfg"), &folder.join("lib"))
    }

    #[test]
    fn a_refused_configuration_leaves_its_place_to_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        let (good, bad) = (stamp::stamped("a\n", "1"), stamp::stamped("b\n", "2"));
        assert_eq!(files.in_place().unwrap(), None);
        assert!(!files.restore().unwrap(), "there is none yet");
        files.switch(&good, true).unwrap();
        assert!(files.in_place().unwrap().unwrap().holds(&good));
        files.switch(&bad, true).unwrap();
        let mark = Stamp::Whole { mark: "2".to_owned() };
        assert_eq!(files.in_place().unwrap().unwrap().stamp, mark);
        assert!(files.restore().unwrap());
        assert!(files.in_place().unwrap().unwrap().holds(&good));
    }

    #[test]
    fn an_external_edit_is_seen_and_can_be_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        files.switch(&stamp::stamped("a\n", "1"), false).unwrap();
        files.in_place().unwrap();
        let edited = stamp::stamped("a\n", "1").replace("a\n", "# by hand\n");
        fs::write(files.config(), &edited).unwrap();
        assert_eq!(files.in_place().unwrap().unwrap().stamp, Stamp::Edited);
        let kept = files.set_aside().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), edited);
    }

    #[test]
    fn a_candidate_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let candidate = files(folder.path()).write_candidate("text").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&candidate), mode(candidate.parent().unwrap())), (0o600, 0o700));
    }
}
