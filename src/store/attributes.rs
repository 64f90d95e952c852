//! Extended attributes of a file that is replaced: access control lists, SELinux labels, what else
//! a site has put there.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, getxattr, listxattr};
use rustix::io::Errno;

/// The kernel's own bound on a list of names and on one value, in bytes (`XATTR_LIST_MAX`,
/// `XATTR_SIZE_MAX`).
const MOST: usize = 64 << 10;

/// Gives `to` the extended attributes of the file at `from`; without such a file there is nothing
/// to do. Labels that belong to the kernel's policies (`security.`, `trusted.`) are kept where this
/// process may set them: the policy has given the new file one of its own otherwise.
pub(super) fn copy(from: &Path, to: &File) -> io::Result<()> {
    let mut names = vec![0; MOST];
    let length = match listxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOENT | Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        value.resize(MOST, 0);
        let copied = getxattr(from, name, &mut value[..]).and_then(|length| {
            value.truncate(length);
            match has(to, name, &value) {
                true => Ok(()),
                false => fsetxattr(to.as_fd(), name, &value, XattrFlags::empty()),
            }
        });
        let bytes = name.to_bytes();
        let of_a_policy = bytes.starts_with(b"security.") || bytes.starts_with(b"trusted.");
        match copied {
            Err(error) if !of_a_policy => {
                let text = format!("{}: {}", name.to_string_lossy(), io::Error::from(error));
                return Err(io::Error::new(io::Error::from(error).kind(), text));
            }
            _ => {}
        }
    }
    Ok(())
}

fn has(file: &File, name: &CStr, value: &[u8]) -> bool {
    let mut found = vec![0; value.len() + 1];
    fgetxattr(file.as_fd(), name, &mut found[..]).is_ok_and(|length| found[..length] == *value)
}
