//! Whether the file that is used is still the one at its path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells one file from another at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|it| Self { device: it.dev(), inode: it.ino() })
    }

    /// Whether what is found at its path tells that the file is no longer there: nothing is, or
    /// another one. Where that can't be seen now, its connection may work all the same.
    pub fn is_gone(self, found: &io::Result<Self>) -> bool {
        match found {
            Ok(_) => self.is_replaced(found),
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        }
    }

    /// Whether another file is found at its path.
    pub fn is_replaced(self, found: &io::Result<Self>) -> bool {
        found.as_ref().is_ok_and(|found| *found != self)
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_file_is_gone_where_none_or_another_is_found_and_not_where_that_can_not_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["m.db", "other"].map(|it| folder.path().join(it));
        fs::write(&path, "").unwrap();
        fs::write(&other, "").unwrap();
        let file = Identity::of(&path).unwrap();
        assert!(!file.is_gone(&Identity::of(&path)) && !file.is_replaced(&Identity::of(&path)));
        assert!(file.is_gone(&Identity::of(&other)), "another file");
        assert!(file.is_replaced(&Identity::of(&other)), "another file");
        assert!(file.is_gone(&Identity::of(&path.join("below"))), "its folder is a file");
        fs::remove_file(&path).unwrap();
        assert!(file.is_gone(&Identity::of(&path)), "no file");
        assert!(!file.is_replaced(&Identity::of(&path)), "none is in its place");
        for error in [Errno::ACCESS, Errno::IO, Errno::STALE] {
            assert!(!file.is_gone(&Err(error.into())), "{error}");
            assert!(!file.is_replaced(&Err(error.into())), "{error}");
        }
    }
}
