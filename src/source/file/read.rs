//! Reading a file, or each file of a folder: whole or not at all. Blocks.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use mapsmith_core::Snapshot;

use crate::settings;
use crate::source::Polled;
use crate::source::error::SourceErrorKind;
use crate::source::file::keys::Confined;
use crate::source::format::{Format, Reader, Rows};

/// A file changed this recently may change again without its time of change showing it.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);
/// The most files of a folder.
pub(super) const MOST_FRAGMENTS: usize = 1_000;
/// How often a folder is read again within a poll because it changed meanwhile.
const ATTEMPTS: usize = 3;

/// What distinguishes one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// What distinguishes one content of a path from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stamps {
    File(Stamp),
    /// The files of a folder, in the order of their names.
    Folder(Vec<(OsString, Stamp)>),
}

impl Stamps {
    /// Of what the path leads to now.
    pub(super) fn of(path: &Path) -> Result<Self, SourceErrorKind> {
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            let stamp = |name: OsString| {
                let of_file = std::fs::metadata(path.join(&name))
                    .map_err(unreadable)
                    .and_then(|metadata| regular(&metadata))
                    .map_err(|fault| of_fragment(&name, fault))?;
                Ok((name, of_file))
            };
            return Ok(Self::Folder(
                fragments(path)?.into_iter().map(stamp).collect::<Result<_, _>>()?,
            ));
        }
        regular(&metadata).map(Self::File)
    }

    /// Whether they are old enough to show every later change.
    fn are_settled(&self, now: SystemTime) -> bool {
        match self {
            Self::File(stamp) => is_settled(stamp.modified, now),
            Self::Folder(files) => files.iter().all(|(_, stamp)| is_settled(stamp.modified, now)),
        }
    }
}

/// What the last good poll read.
#[derive(Debug, Clone)]
pub(super) struct ReadState {
    pub stamps: Stamps,
    /// Whether the stamps were old enough to show every later change.
    pub settled: bool,
    /// When it was read.
    pub read: Timestamp,
}

impl ReadState {
    pub(super) fn still_holds(&self, stamps: &Stamps) -> bool {
        self.settled && self.stamps == *stamps
    }
}

/// One poll, with its stamps and whether these are settled.
pub(super) fn poll<F: Format>(
    settings: &settings::Source,
    format: &F,
    known: Option<&ReadState>,
    current: Option<&Snapshot<F::Content>>,
) -> Result<(Stamps, bool, Polled<F::Content>), SourceErrorKind> {
    let path = settings.of_kind.file.path();
    let stamps = Stamps::of(path)?;
    if let (Some(known), Some(current)) = (known, current)
        && known.still_holds(&stamps)
    {
        return Ok((stamps, known.settled, Polled::unchanged(current)));
    }
    let (stamps, rows, bytes) = match stamps {
        Stamps::File(_) if F::IS_FOLDER => {
            let what = "is a file; services are a folder with a file NAME.json for each";
            return Err(SourceErrorKind::File(what.to_owned()));
        }
        Stamps::File(_) => {
            let (stamp, rows, bytes) = read(path, settings, format, settings.max_bytes)?;
            (Stamps::File(stamp), rows, bytes)
        }
        Stamps::Folder(files) => read_folder(path, files, settings, format)?,
    };
    let settled = stamps.are_settled(SystemTime::now());
    Ok((stamps, settled, Polled::full(rows, bytes, current)))
}

/// All files of a folder as they stood at one moment: a writer that turns a link changes them all.
fn read_folder<F: Format>(
    path: &Path,
    mut files: Vec<(OsString, Stamp)>,
    settings: &settings::Source,
    format: &F,
) -> Result<(Stamps, F::Rows, u64), SourceErrorKind> {
    let max_bytes = settings.max_bytes;
    for _ in 0..ATTEMPTS {
        if files.is_empty() {
            // A volume that is not mounted looks like this.
            let what = "is a folder without a file; an empty list is a file with []";
            return Err(SourceErrorKind::File(what.to_owned()));
        }
        let (mut read_files, mut texts, mut sum) = (Vec::new(), Vec::new(), 0);
        for (name, _) in &files {
            let left = max_bytes - sum;
            let outcome = read(&path.join(name), settings, format, left);
            let (stamp, rows, bytes) = outcome.map_err(|fault| match fault {
                // Of all together; a format may have a bound of its own for one.
                SourceErrorKind::TooLarge(bound) if bound == left => {
                    SourceErrorKind::TooLarge(max_bytes)
                }
                fault => of_fragment(name, fault),
            })?;
            sum += bytes;
            read_files.push((name.clone(), stamp));
            texts.push((name.to_string_lossy().into_owned(), rows));
        }
        let (read, now) = (Stamps::Folder(read_files), Stamps::of(path)?);
        if read == now {
            let rows = F::Rows::joined(texts).ok_or_else(|| {
                SourceErrorKind::File("is a folder; only a list of servers may be one".to_owned())
            })?;
            return Ok((read, rows, sum));
        }
        let Stamps::Folder(again) = now else { break };
        files = again;
    }
    Err(changed_meanwhile())
}

/// A file's stamp, rows and bytes.
fn read<F: Format>(
    path: &Path,
    settings: &settings::Source,
    format: &F,
    max_bytes: u64,
) -> Result<(Stamp, F::Rows, u64), SourceErrorKind> {
    if let Some(confined) = &settings.of_kind.confined {
        stays_within(confined, path)?;
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let stamp = Stamp::new(&file.metadata().map_err(unreadable)?);
    let content = read_rows(&mut file, format, max_bytes);
    if Stamp::new(&file.metadata().map_err(unreadable)?) != stamp {
        return Err(changed_meanwhile());
    }
    let (rows, bytes) = content?;
    Ok((stamp, rows, bytes))
}

/// Who writes a service is trusted with the files of one folder, not with those that a link there
/// leads to. Links within it are fine: Kubernetes mounts volumes so.
fn stays_within(confined: &Confined, path: &Path) -> Result<(), SourceErrorKind> {
    let Confined { service, folder } = confined;
    let (file, within) =
        (path.canonicalize().map_err(unreadable)?, folder.canonicalize().map_err(unreadable)?);
    match file.starts_with(&within) {
        true => Ok(()),
        false => Err(SourceErrorKind::File(format!(
            "is a link to {}, which the service {service} may not read: it is not below \
                services.files, {}; put the file itself there",
            file.display(),
            folder.display()
        ))),
    }
}

fn read_rows<F: Format>(
    file: &mut File,
    format: &F,
    max_bytes: u64,
) -> Result<(F::Rows, u64), SourceErrorKind> {
    let mut reader = format.reader(None);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).map_err(unreadable)? {
            0 => break,
            length => reader.feed(&chunk[..length])?,
        }
        if reader.bytes() > max_bytes {
            return Err(SourceErrorKind::TooLarge(max_bytes));
        }
    }
    let bytes = reader.bytes();
    Ok((reader.close()?, bytes))
}

/// The names of a folder's files that are lists, in order. What they are shows when they are read;
/// folders are none.
pub(super) fn fragments(folder: &Path) -> Result<Vec<OsString>, SourceErrorKind> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if is_fragment(&name) && !is_folder(entry.path()) {
            names.push(name);
        }
        if names.len() > MOST_FRAGMENTS {
            let what = format!("is a folder with more than {MOST_FRAGMENTS} files");
            return Err(SourceErrorKind::File(what));
        }
    }
    names.sort();
    Ok(names)
}

/// Links followed; what leads nowhere is none.
fn is_folder(path: PathBuf) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Hidden files, and what editors and writers leave or begin, are none.
fn is_fragment(name: &OsString) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b".") && !name.ends_with(b"~") && !name.ends_with(b".tmp")
}

fn regular(metadata: &Metadata) -> Result<Stamp, SourceErrorKind> {
    match metadata.is_file() {
        true => Ok(Stamp::new(metadata)),
        false => Err(SourceErrorKind::File("is not a regular file".to_owned())),
    }
}

fn of_fragment(name: &OsString, fault: SourceErrorKind) -> SourceErrorKind {
    SourceErrorKind::Fragment {
        name: name.to_string_lossy().escape_debug().to_string(),
        fault: Box::new(fault),
    }
}

fn changed_meanwhile() -> SourceErrorKind {
    let what = "was changed while it was read; replace it by a rename";
    SourceErrorKind::File(what.to_owned())
}

fn unreadable(error: io::Error) -> SourceErrorKind {
    SourceErrorKind::File(match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("can't be read: {error}"),
    })
}

fn is_settled((seconds, nanoseconds): (i64, i64), now: SystemTime) -> bool {
    let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let grain = i128::try_from(CLOCK_GRAIN.as_nanos()).unwrap_or(i128::MAX);
    let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    i128::try_from(age.as_nanos()).is_ok_and(|now| now - modified > grain)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use mapsmith_core::ServiceForms;

    use super::*;
    use crate::settings::Settings;
    use crate::settings::services::{Refusals, overlay};
    use crate::source::{Extent, Registries};

    /// What comes of the list of a service `web` whose file has this name, below a folder.
    async fn listed(folder: &Path, file: &str) -> Result<usize, String> {
        let text = format!(
            "[haproxy]\nmanaged = true\n\
            [[source]]\nname = \"s\"\ntype = \"file\"\npath = \"/none\"\n\
            [services]\nfrom = \"s\"\nfiles = {folder:?}\n"
        );
        let settings = Settings::of_text(Path::new("/a.toml"), &text, []).unwrap();
        let service = format!(r#"{{"type": "file", "port": 1, "file": "{file}"}}"#);
        let forms = ServiceForms::from([("web".to_owned(), service)]);
        let made = overlay(&settings, &forms.into(), &ServiceForms::new(), &Refusals::new());
        assert_eq!(made.rejected, []);
        let lists = made.settings.server_lists();
        let [(_, list)] = &lists[..] else { panic!("{lists:?}") };
        let mut feed = Registries::new(&made.settings).servers(list).unwrap();
        let polled = feed.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await;
        polled.map(|polled| polled.entries.servers.len()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_list_of_a_service_leads_nowhere_out_of_the_folder_of_services() {
        let (outside, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        fs::write(&secret, "10.0.0.9:80\n").unwrap();
        // The folder may be a link itself.
        let folder = above.path().join("lists");
        fs::create_dir_all(above.path().join("real/..2026")).unwrap();
        symlink("real", &folder).unwrap();
        // As Kubernetes mounts it.
        fs::write(folder.join("..2026/web"), "10.0.0.1:80\n10.0.0.2:80\n").unwrap();
        symlink("..2026", folder.join("..data")).unwrap();
        symlink("..data/web", folder.join("web")).unwrap();
        assert_eq!(listed(&folder, "web").await, Ok(2));

        symlink(&secret, folder.join("out")).unwrap();
        symlink(outside.path(), folder.join("away")).unwrap();
        fs::create_dir(folder.join("several")).unwrap();
        symlink(&secret, folder.join("several/one")).unwrap();
        for (file, place) in
            [("out", "lists/out"), ("away/secret", "lists/away/secret"), ("several", "several")]
        {
            let error = listed(&folder, file).await.unwrap_err();
            for part in [place, "which the service web may not read", "services.files"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    #[test]
    fn a_file_changed_a_moment_ago_is_read_again_even_if_it_looks_the_same() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for (modified, settled) in [
            ((98, 999_999_999), true),
            ((99, 0), false),
            ((99, 500), false),
            ((200, 0), false),
            ((-5, 0), true),
        ] {
            assert_eq!(is_settled(modified, now), settled, "{modified:?}");
            let stamp = Stamp { device: 1, inode: 1, size: 1, modified };
            let stamps = Stamps::File(stamp);
            let known = ReadState { stamps: stamps.clone(), settled, read: Timestamp::UNIX_EPOCH };
            assert_eq!(known.still_holds(&stamps), settled);
            assert!(!known.still_holds(&Stamps::File(Stamp { inode: 2, ..stamp })));
        }
    }
}
