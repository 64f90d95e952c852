//! What `[haproxy]` names outside of the settings file, read with it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mapsmith_core::config::values::{FilePath, Secret, Text};

use super::Haproxy;

/// The most bytes of a file with passwords.
const MAX_AUTH_FILE: u64 = 64 * 1024;

impl Haproxy {
    /// Relative paths are relative to the settings file.
    pub(in crate::settings) fn resolve(&mut self, folder: &Path) {
        let file = self.stats.as_mut().and_then(|stats| stats.auth_file.as_mut());
        file.into_iter().for_each(|path| *path = folder.join(&*path));
    }

    /// Reads the files that are part of the settings.
    pub(in crate::settings) fn read_files(&mut self, problems: &mut Vec<String>) {
        self.includes.clear();
        for (index, pattern) in self.include.iter().enumerate() {
            match files_of(pattern.as_str()) {
                Ok(files) => self.includes.extend(files),
                Err(error) => problems.push(format!("haproxy.include[{index}]: {error}")),
            }
        }
        if let Some(path) = self.stats.as_ref().and_then(|stats| stats.auth_file.as_ref()) {
            match users_of(path) {
                Ok(users) => self.stats_auth = users,
                Err(error) => {
                    problems.push(format!("haproxy.stats.auth_file: {}: {error}", path.display()))
                }
            }
        }
    }
}

/// The files that a path with `*` in its last part stands for, sorted by name.
fn files_of(pattern: &str) -> Result<Vec<FilePath>, String> {
    let path = Path::new(pattern);
    let (folder, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(folder), Some(name), true) = (folder, name, path.is_absolute()) else {
        return Err(format!("{pattern:?} is not the absolute path of a file"));
    };
    if folder.to_string_lossy().contains('*') {
        return Err(format!("{pattern:?} has a * before its last part"));
    }
    let checked = |path: PathBuf| {
        let text = path
            .into_os_string()
            .into_string()
            .map_err(|path| format!("{} is not a name in UTF-8", Path::new(&path).display()))?;
        FilePath::try_from(text).map_err(|error| error.to_string())
    };
    if !name.contains('*') {
        fs::metadata(path).map_err(|error| format!("{pattern} can't be read: {error}"))?;
        return Ok(vec![checked(path.to_owned())?]);
    }
    let unreadable = |error| format!("{} can't be read: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_str().is_some_and(|found| matches(name, found))
            && entry.path().is_file()
        {
            files.push(checked(entry.path())?);
        }
    }
    files.sort();
    Ok(files)
}

/// As in a shell, files that begin with a dot are not meant by a `*`.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Lines of `user:password`, from a file that nobody else can read.
fn users_of(path: &Path) -> Result<Vec<Secret>, String> {
    let unreadable = |error| format!("can't be read: {error}");
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("its mode is {mode:o}, so others can read it; chmod 600 it"));
    }
    let mut text = String::new();
    file.take(MAX_AUTH_FILE).read_to_string(&mut text).map_err(unreadable)?;
    let mut users = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let is_user = line
            .split_once(':')
            .is_some_and(|(user, password)| !user.is_empty() && !password.is_empty());
        // The line itself is not shown: it is a secret.
        match Text::try_from(line.to_owned()) {
            Ok(user) if is_user => users.push(Secret::new(user)),
            Ok(_) => return Err(format!("line {} is not user:password", number + 1)),
            Err(error) => return Err(format!("line {} {error}", number + 1)),
        }
    }
    if users.is_empty() { Err("has no line of user:password".to_owned()) } else { Ok(users) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::settings::tests::{SMALL, load};

    #[test]
    fn a_pattern_stands_for_the_files_that_are_there_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.cfg", "a.cfg", ".c.cfg", "d.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let path = folder.path().to_str().unwrap();
        let names = |pattern: &str| {
            files_of(&format!("{path}/{pattern}")).map(|files| {
                files
                    .iter()
                    .map(|file| file.as_str()[path.len() + 1..].to_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names("*.cfg").unwrap(), ["a.cfg", "b.cfg"]);
        assert_eq!(names("a*g").unwrap(), ["a.cfg"]);
        assert_eq!(names("d.txt").unwrap(), ["d.txt"]);
        assert_eq!(names("*.none").unwrap(), [""; 0]);
        assert!(names("none").unwrap_err().contains("can't be read"));
        assert!(names("*/a.cfg").unwrap_err().contains("before its last part"));
        assert!(files_of("a.cfg").unwrap_err().contains("absolute"));
    }

    #[test]
    fn a_password_file_is_its_owners_alone_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth");
        let text = format!(
            "{SMALL}[haproxy]\nstats = {{ bind = \"127.0.0.1:8081\", auth_file = {file:?} }}\n"
        );
        fs::write(&file, "admin:s3cret word\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&text, &[]).unwrap_err().contains("its mode is 640"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let settings = load(&text, &[]).unwrap();
        assert_eq!(settings.haproxy.as_ref().unwrap().stats_auth[0].reveal(), "admin:s3cret word");
        assert!(!format!("{settings:?}").contains("s3cret"));
        fs::write(&file, "admin\n").unwrap();
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains("line 12: haproxy.stats.auth_file"), "{message}");
        assert!(message.contains("line 1 is not user:password"), "{message}");
    }
}
