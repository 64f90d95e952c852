//! The map file on disk: what HAProxy loads at its next start.
//!
//! Written whole or not at all (temporary file, fsync, rename, fsync of the folder), and always before the memory of any
//! HAProxy, so that a crash or a restart at any moment loads the new map or the old one, never half, never an older one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::model::map_file::{self, MapFile};
use crate::model::{EntryMap, Revision};

/// Why the map file can't be read or written. The file in place is untouched, unless it was `replaced`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}: {cause}{}", path.display(), hint(what, cause))]
pub struct MapFileError {
    /// The file or the folder.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// What the system says.
    pub cause: io::Error,
    /// The new file is in place, though a crash of the machine may bring the old one back.
    pub replaced: bool,
}

/// What could not be done when the file could not be read.
const READING: &str = "can't be read";
/// What could not be done when the new file can't be given to the owner of the old one. It says what to do itself.
const OWNING: &str = "its owner and group can't be kept (give the file to Mapsmith's user)";

fn hint(what: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        _ if [READING, OWNING].contains(&what) => "",
        io::ErrorKind::PermissionDenied => " (Mapsmith replaces the file by a rename: its user must be able to write the folder)",
        io::ErrorKind::ResourceBusy => " (the file is a mount of its own: mount its folder instead)",
        io::ErrorKind::NotFound => " (the folder must exist)",
        _ => "",
    }
}

/// The mode of a map file that Mapsmith creates: HAProxy's user must be able to read it.
const NEW_FILE_MODE: u32 = 0o644;

/// What tells that a file is the one we wrote, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), modified: metadata.modified().ok() }
    }
}

/// How the file compares with what should be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is the file that was written or read last, or another one with the same entries.
    Same,
    /// It is gone, or holds other entries.
    Different,
}

/// Reads and writes one map file. Its calls block: run them off the async threads.
#[derive(Debug, Clone)]
pub struct MapFileKeeper {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Makes a rename in this folder last. Of its own, so that a test can have it fail as on a disk that breaks.
    pub(super) sync_folder: fn(&Path) -> io::Result<()>,
}

impl MapFileKeeper {
    /// For the file at `path`; touches nothing yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: None, sync_folder: |folder| File::open(folder)?.sync_all() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, what: &'static str, cause: io::Error) -> MapFileError {
        MapFileError { path: self.path.clone(), what, cause, replaced: false }
    }

    /// Reads the file; none where there is none. Also clears away what a killed Mapsmith left half-written.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn load(&mut self) -> Result<Option<MapFile>, MapFileError> {
        self.remove_leftovers();
        self.peek()
    }

    /// Reads the file and touches nothing; none where there is none.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn peek(&mut self) -> Result<Option<MapFile>, MapFileError> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| self.error(READING, error))?,
        };
        if !metadata.is_file() {
            return Err(self.error(READING, io::Error::other("it is no regular file")));
        }
        let text = fs::read(&self.path).map_err(|error| self.error(READING, error))?;
        let file = map_file::parse(&text);
        // A file of which HAProxy would load more than these entries is written anew at the next check.
        self.stamp = file.is_exact().then(|| Stamp::of(&metadata));
        Ok(Some(file))
    }

    /// Compares the file on disk with the entries that should be in it. Reads it only if it is not the file that we know.
    pub fn check(&mut self, wanted: &EntryMap) -> Check {
        let Ok(metadata) = fs::metadata(&self.path) else { return Check::Different };
        let stamp = Stamp::of(&metadata);
        if self.stamp == Some(stamp) {
            return Check::Same;
        }
        // Another Mapsmith on the same host may have written the same map: no reason to write it back and forth.
        let same = fs::read(&self.path).is_ok_and(|text| {
            let file = map_file::parse(&text);
            file.is_exact() && file.entries == *wanted
        });
        if same {
            self.stamp = Some(stamp);
        }
        if same { Check::Same } else { Check::Different }
    }

    /// Replaces the file by one with the revision's entries. Owner, group and mode stay those of the file in place.
    ///
    /// # Errors
    /// When any step fails; the file in place stays as it was, but for an error that says `replaced`.
    pub fn write(&mut self, revision: &Revision) -> Result<(), MapFileError> {
        // A symbolic link stays one: its target is replaced.
        let target = self.target();
        let temporary = temporary_path(&target);
        let written = self.write_temporary(&target, &temporary, revision).and_then(|(_lock, stamp)| {
            fs::rename(&temporary, &target).map_err(|error| self.error("can't be replaced", error))?;
            (self.sync_folder)(target.parent().unwrap_or(Path::new("/")))
                .map_err(|error| MapFileError { replaced: true, ..self.error("its folder can't be synced", error) })?;
            Ok(stamp)
        });
        match written {
            Ok(stamp) => {
                self.stamp = Some(stamp);
                Ok(())
            }
            Err(error) => {
                // Nothing to do about a failure here: the error that led to it is the one to tell.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// The file itself where the path is a symbolic link.
    fn target(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// Creates the file that shall replace `target`, with its owner, group and mode. It is locked, so that others can tell it
    /// from one whose writer is no more, and it is never one that was there before: whoever may write the folder could
    /// have put a link there.
    fn create_temporary(&self, target: &Path, temporary: &Path) -> Result<File, MapFileError> {
        let wrap = |what| move |error| self.error(what, error);
        let in_place = fs::metadata(target).ok();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(wrap("its replacement can't be created"))?;
        // Where the file system knows no locks, nobody clears leftovers away either.
        let _ = file.try_lock();
        let ours = file.metadata().map_err(wrap("its replacement can't be read"))?;
        let mode = in_place.as_ref().map_or(NEW_FILE_MODE, |metadata| metadata.permissions().mode() & 0o7777);
        if let Some(in_place) = in_place {
            let owner = (in_place.uid() != ours.uid()).then_some(in_place.uid());
            let group = (in_place.gid() != ours.gid()).then_some(in_place.gid());
            if owner.is_some() || group.is_some() {
                fchown(&file, owner, group).map_err(wrap(OWNING))?;
            }
        }
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(wrap("its mode can't be kept"))?;
        Ok(file)
    }

    fn write_temporary(&self, target: &Path, temporary: &Path, revision: &Revision) -> Result<(File, Stamp), MapFileError> {
        let wrap = |what| move |error| self.error(what, error);
        let mut out = BufWriter::with_capacity(1 << 16, self.create_temporary(target, temporary)?);
        map_file::print(&revision.entries, revision.number, &mut out).map_err(wrap("its replacement can't be written"))?;
        let file = out.into_inner().map_err(|error| self.error("its replacement can't be written", error.into_error()))?;
        file.sync_all().map_err(wrap("its replacement can't be synced"))?;
        let stamp = Stamp::of(&file.metadata().map_err(wrap("its replacement can't be read"))?);
        Ok((file, stamp))
    }

    /// Whether the file could be replaced now, without doing so.
    ///
    /// # Errors
    /// What stands against it.
    pub fn probe(&self) -> Result<(), MapFileError> {
        let target = self.target();
        let temporary = temporary_path(&target);
        let result = self.create_temporary(&target, &temporary).map(drop);
        let _ = fs::remove_file(&temporary);
        result
    }

    /// Clears away temporary files whose writers are no more: nobody holds their lock.
    fn remove_leftovers(&self) {
        let target = self.target();
        let (Some(folder), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) else { return };
        let Ok(files) = fs::read_dir(folder) else { return };
        for file in files.flatten() {
            let ours = file.file_name().to_str().is_some_and(|file| is_temporary(file, name));
            let is_file = file.file_type().is_ok_and(|kind| kind.is_file());
            if ours
                && is_file
                && let Ok(left) = File::open(file.path())
                && left.try_lock().is_ok()
            {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// A name beside the map file that nobody can foresee.
fn temporary_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.mapsmith-{:016x}.tmp", fastrand::u64(..)))
}

fn is_temporary(file: &str, name: &str) -> bool {
    let random = || file.strip_prefix('.')?.strip_prefix(name)?.strip_prefix(".mapsmith-")?.strip_suffix(".tmp");
    random().is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;

    fn revision(number: u64, entries: &[(&str, &str)]) -> Revision {
        Revision { number, at: Timestamp::UNIX_EPOCH, entries: Arc::new(entries.iter().copied().collect()) }
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_is_read_back_with_its_revision_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = MapFileKeeper::new(&folder.path().join("n.map"));
        assert!(keeper.load().unwrap().is_none());
        keeper.write(&revision(7, &[("a", "m1")])).unwrap();
        let file = keeper.load().unwrap().unwrap();
        assert_eq!((file.revision, file.entries.get("a")), (Some(7), Some("m1")));
        assert_eq!(files(folder.path()), ["n.map"]);
    }

    #[test]
    fn mode_and_owner_of_the_file_in_place_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.map");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let root = std::os::unix::fs::chown(&path, Some(1), Some(1)).is_ok();
        MapFileKeeper::new(&path).write(&revision(1, &[("a", "m1")])).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        if root {
            assert_eq!((metadata.uid(), metadata.gid()), (1, 1));
        }
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.map"), folder.path().join("link.map"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        MapFileKeeper::new(&link).write(&revision(1, &[("a", "m1")])).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().ends_with("a m1\n"));
    }

    #[test]
    fn a_lost_or_changed_file_is_noticed_and_the_same_map_by_another_hand_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.map");
        let mut keeper = MapFileKeeper::new(&path);
        let wanted = revision(1, &[("a", "m1")]);
        keeper.write(&wanted).unwrap();
        assert_eq!(keeper.check(&wanted.entries), Check::Same);
        fs::write(&path, "a  m1\n").unwrap();
        assert_eq!(keeper.check(&wanted.entries), Check::Same);
        fs::write(&path, "a m2\n").unwrap();
        assert_eq!(keeper.check(&wanted.entries), Check::Different);
        fs::remove_file(&path).unwrap();
        assert_eq!(keeper.check(&wanted.entries), Check::Different);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("n.map");
        let message = MapFileKeeper::new(&path).write(&revision(1, &[("a", "m1")])).unwrap_err().to_string();
        assert!(message.contains("absent/n.map") && message.contains("the folder must exist"), "{message}");
    }

    #[test]
    fn what_a_killed_writer_left_is_cleared_away_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.map");
        let (left, living) = (temporary_path(&path), temporary_path(&path));
        fs::write(&left, "half").unwrap();
        let writer = File::create(&living).unwrap();
        writer.lock().unwrap();
        fs::write(folder.path().join(".other.map.mapsmith-0123456789abcdef.tmp"), "not ours").unwrap();
        MapFileKeeper::new(&path).load().unwrap();
        assert!(!left.exists() && living.exists());
        assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn a_file_of_which_haproxy_would_load_more_is_not_the_map_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.map");
        let wanted = revision(1, &[("a", "m1")]);
        for text in ["a m1\na m2\n", "a m1\nevil two words\n", "a m1\nlonely\n"] {
            fs::write(&path, text).unwrap();
            let mut keeper = MapFileKeeper::new(&path);
            assert_eq!(keeper.load().unwrap().unwrap().entries, *wanted.entries, "{text:?}");
            assert_eq!(keeper.check(&wanted.entries), Check::Different, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let message = MapFileKeeper::new(Path::new("/dev/null")).load().unwrap_err().to_string();
        assert!(message.contains("no regular file"), "{message}");
    }
}
