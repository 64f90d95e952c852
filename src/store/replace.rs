//! Replaces a file whole or not at all: a temporary file beside it, fsync, rename, fsync of the
//! folder. Its calls block: run them off the async threads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::attributes;
use super::map_file::{MapFileError, REPLACING};

/// What could not be done when the new file can't be given to the owner of the old one. It says
/// what to do itself.
pub(super) const OWNING: &str =
    "its owner and group can't be kept (give the file to Mapsmith's user)";

/// Replaces the file by one with this text. Owner, group, mode and extended attributes stay those
/// of the file in place; where there is none, the mode is `new_mode`.
///
/// # Errors
/// What failed; the file in place is untouched, unless the error says `replaced`.
pub fn replace(path: &Path, text: &[u8], new_mode: u32) -> Result<(), MapFileError> {
    let error =
        |what, cause, replaced| MapFileError { path: path.to_owned(), what, cause, replaced };
    // A symbolic link stays one: its target is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        let cause = io::Error::other("it is not a regular file; move it away");
        return Err(error(REPLACING, cause, false));
    }
    let temporary = temporary_path(&target);
    let written = create(&target, &temporary, new_mode).and_then(|mut file| {
        let write = file.write_all(text).and_then(|()| file.sync_all());
        write.map_err(|cause| ("its replacement can't be written", cause))?;
        fs::rename(&temporary, &target).map_err(|cause| (REPLACING, cause))
    });
    if let Err((what, cause)) = written {
        // Nothing to do about a failure here: the error that led to it is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(error(what, cause, false));
    }
    sync_folder(folder_of(&target))
        .map_err(|cause| error("its folder can't be synced", cause, true))
}

/// Of a bare name it is the folder that the program is in.
fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Whether the file could be replaced now, without doing so.
///
/// # Errors
/// What would fail.
pub fn probe(path: &Path) -> Result<(), MapFileError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = temporary_path(&target);
    let created = create(&target, &temporary, 0o600).map(drop);
    let _ = fs::remove_file(&temporary);
    created.map_err(|(what, cause)| MapFileError {
        path: path.to_owned(),
        what,
        cause,
        replaced: false,
    })
}

/// Creates the file that shall replace `target`, with its owner, group, mode and extended
/// attributes. It is locked, so that others can tell it from one whose writer is no more, and it is
/// never one that was there before: whoever may write the folder could have put a link there.
///
/// # Errors
/// What could not be done, and why.
pub(super) fn create(
    target: &Path,
    temporary: &Path,
    new_mode: u32,
) -> Result<File, (&'static str, io::Error)> {
    let wrap = |what| move |error| (what, error);
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
    let mode =
        in_place.as_ref().map_or(new_mode, |metadata| metadata.permissions().mode() & 0o7777);
    if let Some(in_place) = in_place {
        let owner = (in_place.uid() != ours.uid()).then_some(in_place.uid());
        let group = (in_place.gid() != ours.gid()).then_some(in_place.gid());
        if owner.is_some() || group.is_some() {
            fchown(&file, owner, group).map_err(wrap(OWNING))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(wrap("its mode can't be kept"))?;
    // After the mode, which is a part of an access control list.
    attributes::copy(target, &file).map_err(wrap("its extended attributes can't be kept"))?;
    Ok(file)
}

/// Makes a rename in this folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A name beside the file that nobody can foresee.
pub(super) fn temporary_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.mapsmith-{:016x}.tmp", fastrand::u64(..)))
}

/// Clears away temporary files beside this one whose writers are no more: nobody holds their lock.
pub fn remove_leftovers(target: &Path) {
    let (Some(folder), Some(name)) =
        (target.parent(), target.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
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

fn is_temporary(file: &str, name: &str) -> bool {
    let random = || {
        file.strip_prefix('.')?.strip_prefix(name)?.strip_prefix(".mapsmith-")?.strip_suffix(".tmp")
    };
    random().is_some_and(|random| {
        random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_bare_name_is_one_of_the_folder_that_the_program_is_in() {
        for (file, folder) in [("b.json", "."), ("./b.json", "."), ("a/b", "a"), ("/b", "/")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder), "{file}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_through_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("cert.pem"), folder.path().join("link.pem"));
        symlink(&path, &link).unwrap();
        replace(&path, b"one", 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&link, b"two", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn what_can_not_be_replaced_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let message = replace(folder.path(), b"one", 0o600).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
        let missing = folder.path().join("missing/cert.pem");
        let message = replace(&missing, b"one", 0o600).unwrap_err().to_string();
        assert!(message.contains("(the folder must exist)"), "{message}");
    }
}
