//! The files of a rendered configuration: the candidate that HAProxy checks, the file in force, and
//! the last one that a process is known to have loaded. Its calls block: run them off the async
//! threads.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mapsmith_core::render::stamp::{self, Stamp};
use rustix::fs::{Access, access};

use super::health::{Answer, Health};
use super::refusal::{Kept, Refusal};
use super::server_states;
use crate::settings::Haproxy;
use crate::settings::supervision::Folder;
use crate::store::map_file::MapFileError;
use crate::store::replace::{probe, remove_leftovers, replace};

/// The name of a configuration within a folder.
const NAME: &str = "haproxy.cfg";
/// Passwords and keys of cookies may stand in it, so it is its owner's alone.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// The most that a file in place may allow: one that was given to a group stays so.
const MOST: u32 = 0o640;
/// How many external edits are kept.
const EDITS: usize = 20;

/// Why the files can't be read or written. Nothing that HAProxy would load has changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{}: can't be created: {cause} (haproxy.folder; Mapsmith's user must be able to)", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error(
        "{}: can't be written to: {cause} (haproxy.folder; Mapsmith's user must be able to)",
        path.display()
    )]
    InFolder { path: PathBuf, cause: io::Error },
    #[error("{}: can't be read: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "{}: can't be hidden from other users, and would hold passwords or keys: {cause}",
        path.display()
    )]
    Hide { path: PathBuf, cause: io::Error },
    #[error("the map file {}: can't be created: {cause}", path.display())]
    MapFile { path: PathBuf, cause: io::Error },
    #[error("{0} (haproxy.folder)")]
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

/// Creates the files that HAProxy reads beside its configuration and that are not there yet:
/// without its maps it does not start.
///
/// # Errors
/// One can't be created.
pub fn supply(haproxy: &Haproxy, node_map: Option<&Path>) -> Result<(), FilesError> {
    if haproxy.server_states().is_some() {
        server_states::supply(&haproxy.files().server_states())?;
    }
    let health = Health::of(haproxy);
    if let Some(health) = health.filter(|health| !health.is_there()) {
        health.write(Answer::Starting)?;
    }
    let Some(path) = node_map else { return Ok(()) };
    if let Some(folder) = path.parent() {
        create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            Err(FilesError::MapFile { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

/// The files of one HAProxy.
#[derive(Debug)]
pub struct Files {
    /// The file that HAProxy starts from.
    config: PathBuf,
    folder: PathBuf,
    read: Option<(Fingerprint, InPlace)>,
    /// The mark of the last good one, where that is known.
    good: Option<String>,
    refusal: Refusal,
}

impl Files {
    pub fn new(config: &Path, folder: &Path) -> Self {
        let refusal = Refusal::new(Folder::new(folder).refused());
        let (config, folder) = (config.to_owned(), folder.to_owned());
        Self { config, folder, read: None, good: None, refusal }
    }

    /// Keeps why the newest configuration is refused, or that it is not, for whoever reloads HAProxy
    /// by hand.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_refusal(&mut self, why: Option<String>) -> Result<(), FilesError> {
        create(&self.folder)?;
        let kept = match why {
            Some(why) => Some(Kept { why, in_place: self.in_place()?.map(|it| it.hash) }),
            None => None,
        };
        Ok(self.refusal.keep(kept)?)
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

    /// The text of the file in force; none where there is none.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn text(&self) -> Result<Option<String>, FilesError> {
        match fs::read(&self.config) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(FilesError::Read { path: self.config.clone(), cause }),
        }
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

    /// Puts a text in force. With `keep` the one before is kept as the last good one. Only the file's
    /// owner and group can read it from then on: anything in it may be a secret.
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
        self.hide_from_others()?;
        Ok(replace(&self.config, text.as_bytes(), MODE)?)
    }

    /// A file keeps the mode that it has when it is replaced.
    fn hide_from_others(&self) -> Result<(), FilesError> {
        let Ok(metadata) = fs::metadata(&self.config) else { return Ok(()) };
        let mode = metadata.permissions().mode();
        if mode & 0o777 & !MOST == 0 {
            return Ok(());
        }
        let hidden = fs::Permissions::from_mode(mode & MOST);
        fs::set_permissions(&self.config, hidden)
            .map_err(|cause| FilesError::Hide { path: self.config.clone(), cause })
    }

    /// Whether files can be created beside the one in force now.
    ///
    /// # Errors
    /// They can't.
    pub fn probe(&self) -> Result<(), FilesError> {
        Ok(probe(&self.config)?)
    }

    /// Keeps what is in place as the last good one, if that is this configuration: a process has
    /// loaded it.
    ///
    /// # Errors
    /// It can't be read or kept.
    pub fn keep_good(&mut self, mark: &str) -> Result<(), FilesError> {
        let stamp = self.in_place()?.map(|in_place| in_place.stamp);
        if self.good()? != Some(mark) && stamp == Some(Stamp::Whole { mark: mark.to_owned() }) {
            self.keep_last_good()?;
            self.good = Some(mark.to_owned());
        }
        Ok(())
    }

    /// Whether a process is known to have loaded what has this stamp.
    ///
    /// # Errors
    /// The last good one can't be read.
    pub fn is_good(&mut self, stamp: &Stamp) -> Result<bool, FilesError> {
        let good = self.good()?;
        Ok(matches!(stamp, Stamp::Whole { mark } if good == Some(mark)))
    }

    fn good(&mut self) -> Result<Option<&str>, FilesError> {
        if self.good.is_none() {
            let path = self.folder.join("last-good").join(NAME);
            self.good = match fs::read(&path) {
                Ok(text) => match stamp::read(&text) {
                    Stamp::Whole { mark } => Some(mark),
                    _ => None,
                },
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
                Err(cause) => return Err(FilesError::Read { path, cause }),
            };
        }
        Ok(self.good.as_deref())
    }

    /// Puts the last good one in force again where something else is in place that a process did
    /// not start from; whether that is so.
    ///
    /// # Errors
    /// A file can't be read, or put in place.
    pub fn fall_back(&mut self) -> Result<bool, FilesError> {
        let stamp = self.in_place()?.map(|in_place| in_place.stamp);
        match stamp {
            Some(stamp) if self.good()?.is_some() && !self.is_good(&stamp)? => self.restore(),
            _ => Ok(false),
        }
    }

    /// Clears away what a killed Mapsmith has left half-written.
    pub fn remove_leftovers(&self) {
        remove_leftovers(&self.config);
        kept(&self.folder).iter().for_each(|file| remove_leftovers(file));
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
                self.hide_from_others()?;
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
        let kept =
            folder.join(format!("{NAME}.{}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ")));
        let text = fs::read(&self.config)
            .map_err(|cause| FilesError::Read { path: self.config.clone(), cause })?;
        replace(&kept, &text, MODE)?;
        // By their times.
        let edits: BTreeSet<_> = fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        for old in edits.iter().rev().skip(EDITS) {
            // One that stays takes some room, and no more.
            let _ = fs::remove_file(old);
        }
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

/// Whether a folder is there and takes files, or could be created, without doing so.
///
/// # Errors
/// What would fail.
pub fn probe_folder(folder: &Path) -> Result<(), FilesError> {
    let is_there = |path: &&Path| path.symlink_metadata().is_ok();
    let nearest = folder.ancestors().find(is_there).unwrap_or(Path::new("."));
    let allowed = match fs::metadata(nearest) {
        Ok(metadata) if metadata.is_dir() => {
            let entries = Access::WRITE_OK | Access::EXEC_OK;
            access(nearest, entries).map_err(io::Error::from)
        }
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(cause) => Err(cause),
    };
    let path = folder.to_owned();
    allowed.map_err(|cause| match nearest == folder {
        true => FilesError::InFolder { path, cause },
        false => FilesError::Folder { path, cause },
    })
}

/// The configurations that are kept beside the one in place: what was tried last, and the last good
/// one.
pub(super) fn kept(folder: &Path) -> Vec<PathBuf> {
    ["candidate", "last-good"].map(|kind| folder.join(kind).join(NAME)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_could_be_created_is_told_from_one_that_could_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        probe_folder(folder.path()).unwrap();
        probe_folder(&folder.path().join("a/b")).unwrap();
        assert!(!folder.path().join("a").exists(), "nothing is created");
        for (path, said) in [(file.join("a"), "can't be created"), (file, "can't be written to")] {
            let message = probe_folder(&path).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("haproxy.folder"), "{message}");
        }
    }

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
    fn what_no_process_has_loaded_is_never_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        let text = |mark: &str| stamp::stamped("a\n", mark);
        let whole = |mark: &str| Stamp::Whole { mark: mark.to_owned() };
        files.switch(&text("1"), false).unwrap();
        assert!(!files.fall_back().unwrap(), "nothing is known to be good");
        files.keep_good("1").unwrap();
        assert!(files.is_good(&whole("1")).unwrap() && !files.fall_back().unwrap());
        files.switch(&text("2"), false).unwrap();
        files.keep_good("1").unwrap();
        assert!(!files.is_good(&whole("2")).unwrap());
        // So it is for a Mapsmith that begins only now.
        let mut later = Files::new(files.config(), &files.folder);
        assert!(later.fall_back().unwrap());
        assert!(later.in_place().unwrap().unwrap().holds(&text("1")));
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
    fn a_configuration_is_hidden_from_other_users_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        files.switch(&stamp::stamped("first", "1"), false).unwrap();
        files.keep_good("1").unwrap();
        let config = files.config().to_owned();
        let mode = || fs::metadata(&config).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        let open = |mode| {
            fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(0o664);
        files.switch("second", false).unwrap();
        assert_eq!(mode(), 0o640, "a group that was let in still reads it");
        open(0o644);
        assert!(files.restore().unwrap());
        assert_eq!(mode(), 0o640);
    }

    #[test]
    fn a_candidate_is_nobody_elses_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let candidate = files(folder.path()).write_candidate("text").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&candidate), mode(candidate.parent().unwrap())), (0o600, 0o700));
    }
}
