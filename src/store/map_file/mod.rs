//! The map file on disk: what HAProxy loads at its next start.
//!
//! Written whole or not at all (temporary file, fsync, rename, fsync of the folder), and always
//! before the memory of any HAProxy, so that a crash or a restart at any moment loads the new map
//! or the old one, never half, never an older one.
//!
//! Nothing but a regular file of a bounded size is read or replaced, and nothing is opened in a way
//! that waits: a FIFO or a device at the path is an error like any other.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::map_file::{self, Header, MapFile, Said, Writer};
use mapsmith_core::plan::Diff;
use mapsmith_core::{EntryMap, Revision};
use rustix::fs::OFlags;

use super::replace::{self, OWNING, temporary_path};

/// Why the map file can't be read or written. The file in place is untouched, unless it was
/// `replaced`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}: {cause}{}", path.display(), hint(what, cause))]
pub struct MapFileError {
    pub path: PathBuf,
    pub what: &'static str,
    pub cause: io::Error,
    /// The new file is in place, though a crash of the machine may bring the old one back.
    pub replaced: bool,
}

/// What could not be done when the file could not be read.
const READING: &str = "can't be read";
/// What could not be done when the file could not be replaced.
pub(super) const REPLACING: &str = "can't be replaced";

/// The largest map file that is read, in bytes: two million entries of the longest names.
const MAX_BYTES: u64 = 1 << 30;
/// More than the first two lines of a map file that Mapsmith wrote ever have, in bytes.
const HEADER_BYTES: u64 = 4096;

fn hint(what: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        _ if [READING, OWNING].contains(&what) => "",
        io::ErrorKind::PermissionDenied => {
            " (Mapsmith replaces the file by a rename: its user must be able to write the folder)"
        }
        io::ErrorKind::ResourceBusy => {
            " (the file is a mount of its own: mount its folder instead)"
        }
        io::ErrorKind::NotFound => " (the folder must exist)",
        _ => "",
    }
}

/// The mode of a map file that Mapsmith creates: HAProxy's user must be able to read it.
const NEW_FILE_MODE: u32 = 0o644;

/// What a map file says.
struct Content<'a> {
    header: &'a Header,
    entries: &'a EntryMap,
    said: &'a EntryMap,
    gone: &'a GoneNodes,
}

/// What identifies the file that we wrote, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), modified: metadata.modified().ok() }
    }
}

/// How the file compares with what should be in it.
#[derive(Debug)]
pub enum Check {
    /// It is the file that was written or read last, or another one with the same entries.
    Same,
    /// It is gone, or holds other entries.
    Different,
    /// Another Mapsmith has written it since it was read or written here.
    Foreign(Writer),
    /// What is there is no file that could be read or replaced.
    Unusable(MapFileError),
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another Mapsmith has written the file since it was read or written here.
    #[error("the map file is another Mapsmith's: {0}")]
    Foreign(Writer),
    #[error(transparent)]
    Failed(#[from] MapFileError),
}

/// Who writes map files in this process.
pub fn this_process(site: Option<&str>) -> Writer {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let started = Process::find("self").map(|process| process.started);
    let namespace = fs::read_link("/proc/self/ns/pid").ok();
    // As `pid:[4026531836]`.
    let namespace =
        namespace.as_ref().and_then(|link| link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']'));
    let key = started
        .zip(namespace)
        .map(|(started, namespace)| format!("{started} {namespace}"))
        .unwrap_or_default();
    Writer { site: site.map(str::to_owned), host, pid: std::process::id(), key }
}

/// What the kernel says of a process.
struct Process {
    /// Nobody has asked for its exit code yet.
    has_ended: bool,
    /// In clock ticks since the machine was started.
    started: u64,
}

impl Process {
    /// See proc_pid_stat(5).
    fn find(pid: &str) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, which may hold anything, stands in parentheses.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            has_ended: matches!(*fields.first()?, "Z" | "X"),
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterState {
    Running,
    /// It ran on this host, and does no more; or it is this very process, earlier.
    Gone,
    /// It is on another host, or in another container: nothing can be seen of it.
    Unknown,
}

/// Looks for the process of another Mapsmith.
pub fn state_of(writer: &Writer) -> WriterState {
    let here = this_process(None);
    let namespace = |key: &str| key.split_once(' ').map(|(_, namespace)| namespace.to_owned());
    if writer.host != here.host
        || namespace(&writer.key).is_none()
        || namespace(&writer.key) != namespace(&here.key)
    {
        return WriterState::Unknown;
    }
    let started = writer.key.split_once(' ').and_then(|(started, _)| started.parse().ok());
    match Process::find(&writer.pid.to_string()) {
        Some(process)
            if !process.has_ended && Some(process.started) == started && writer.pid != here.pid =>
        {
            WriterState::Running
        }
        _ => WriterState::Gone,
    }
}

/// Reads and writes one map file. Its calls block: run them off the async threads.
#[derive(Debug, Clone)]
pub struct MapFileWriter {
    path: PathBuf,
    /// The mark that this process leaves in the file.
    writer: Writer,
    stamp: Option<Stamp>,
    /// What the file said of itself when it was last read or written here: another mark, or another
    /// revision of the same, is the work of a Mapsmith that runs.
    header: Option<Header>,
    /// Makes a rename in this folder last. Of its own, so that a test can have it fail as on a disk
    /// that breaks.
    pub(crate) sync_folder: fn(&Path) -> io::Result<()>,
}

impl MapFileWriter {
    /// For the file at `path`; touches nothing yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            writer: this_process(None),
            stamp: None,
            header: None,
            sync_folder: replace::sync_folder,
        }
    }

    /// Writes this site's name into the file, for whoever finds it.
    pub fn with_site(mut self, site: Option<&str>) -> Self {
        self.writer = this_process(site);
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, what: &'static str, cause: io::Error) -> MapFileError {
        MapFileError { path: self.path.clone(), what, cause, replaced: false }
    }

    /// Reads the file; none where there is none. Also clears away what a killed Mapsmith left
    /// half-written.
    pub fn load(&mut self) -> Result<Option<MapFile>, MapFileError> {
        replace::remove_leftovers(&self.target());
        self.peek()
    }

    /// Reads the file and touches nothing; none where there is none.
    pub fn peek(&mut self) -> Result<Option<MapFile>, MapFileError> {
        let Some((text, metadata)) = self.read(MAX_BYTES)? else { return Ok(None) };
        let file = map_file::parse(&text);
        // A file of which HAProxy would load more than these entries is written again at the next
        // check.
        self.stamp = file.is_exact().then(|| Stamp::new(&metadata));
        self.header.clone_from(&file.header);
        Ok(Some(file))
    }

    /// The file's text, up to `most` bytes of it where that is less than [`MAX_BYTES`]; none where
    /// there is no file.
    fn read(&self, most: u64) -> Result<Option<(Vec<u8>, Metadata)>, MapFileError> {
        let wrap = |error| self.error(READING, error);
        let nonblocking = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(&self.path);
        let file = match nonblocking {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(wrap)?,
        };
        let metadata = file.metadata().map_err(wrap)?;
        self.must_be_regular(READING, &metadata)?;
        if most == MAX_BYTES && metadata.len() > most {
            let text = format!(
                "it has {} bytes, more than {most}; put the map file back, or an empty one",
                metadata.len()
            );
            return Err(self.error(READING, io::Error::other(text)));
        }
        let mut text = Vec::with_capacity(metadata.len().min(most) as usize);
        file.take(most).read_to_end(&mut text).map_err(wrap)?;
        Ok(Some((text, metadata)))
    }

    fn must_be_regular(&self, what: &'static str, metadata: &Metadata) -> Result<(), MapFileError> {
        match metadata.is_file() {
            true => Ok(()),
            false => Err(self.error(
                what,
                io::Error::other("it is not a regular file; move it away, or correct map.path"),
            )),
        }
    }

    /// Who has written the file since it was read or written here, if it was another Mapsmith. An
    /// old copy that was put back, and what one that has ended wrote, is no other's work: whoever
    /// works goes on from the latest revision.
    fn foreign(&self, header: Option<Header>) -> Option<Writer> {
        let header = header?;
        let writer = header.writer.clone()?;
        let known = self.header.as_ref();
        let later = known.is_none_or(|known| header.revision >= known.revision);
        let other = writer != self.writer && Some(&header) != known && later;
        (other && state_of(&writer) != WriterState::Gone).then_some(writer)
    }

    /// What the file says of itself; none where it says nothing, or can't be read.
    pub fn header(&self) -> Option<Header> {
        map_file::parse_header(&self.read(HEADER_BYTES).ok()??.0)
    }

    /// Compares the file on disk with the entries that should be in it. Reads it only if it is not
    /// the file that we know.
    pub fn check(&mut self, wanted: &EntryMap) -> Check {
        let Ok(metadata) = fs::metadata(&self.path) else { return Check::Different };
        let stamp = Stamp::new(&metadata);
        if self.stamp == Some(stamp) {
            return Check::Same;
        }
        if let Err(error) = self.must_be_regular(REPLACING, &metadata) {
            return Check::Unusable(error);
        }
        // One that can't be read may be replaced all the same.
        let Ok(Some((text, _))) = self.read(MAX_BYTES) else { return Check::Different };
        let file = map_file::parse(&text);
        if let Some(writer) = self.foreign(file.header.clone()) {
            return Check::Foreign(writer);
        }
        let same = file.is_exact() && file.entries == *wanted;
        if same {
            self.stamp = Some(stamp);
        }
        if same { Check::Same } else { Check::Different }
    }

    /// Whether another Mapsmith has written the file since it was read or written here.
    fn must_be_ours(&self) -> Result<(), WriteError> {
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::new(&metadata));
        if stamp.is_none() || stamp == self.stamp {
            return Ok(());
        }
        self.foreign(self.header()).map_or(Ok(()), |writer| Err(WriteError::Foreign(writer)))
    }

    /// Replaces the file by one with the revision's entries, with what the sources `said` where that
    /// differs, and with the nodes that are `gone` and stay. Owner, group, mode and extended attributes stay those of the file in place.
    /// Where another Mapsmith writes the file, or any step fails, it stays as it was, but for an
    /// error that says `replaced`.
    pub fn write(
        &mut self,
        revision: &Revision,
        said: &EntryMap,
        gone: &GoneNodes,
    ) -> Result<(), WriteError> {
        self.must_be_ours()?;
        // A symbolic link stays one: its target is replaced.
        let target = self.target();
        let temporary = temporary_path(&target);
        let header = Header { revision: revision.number, writer: Some(self.writer.clone()) };
        let content = Content { header: &header, entries: &revision.entries, said, gone };
        let written =
            self.write_temporary(&target, &temporary, &content).and_then(|(_lock, stamp)| {
                fs::rename(&temporary, &target).map_err(|error| self.error(REPLACING, error))?;
                (self.sync_folder)(target.parent().unwrap_or(Path::new("/"))).map_err(|error| {
                    MapFileError {
                        replaced: true,
                        ..self.error("its folder can't be synced", error)
                    }
                })?;
                Ok(stamp)
            });
        match written {
            Ok(stamp) => {
                (self.stamp, self.header) = (Some(stamp), Some(header));
                Ok(())
            }
            Err(error) => {
                // Nothing to do about a failure here: the error that led to it is the one to tell.
                let _ = fs::remove_file(&temporary);
                Err(error.into())
            }
        }
    }

    /// The file itself where the path is a symbolic link.
    fn target(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// Creates the file that shall replace `target`; see [`replace::create`].
    fn create_temporary(&self, target: &Path, temporary: &Path) -> Result<File, MapFileError> {
        let in_place = fs::metadata(target).ok();
        in_place.iter().try_for_each(|metadata| self.must_be_regular(REPLACING, metadata))?;
        replace::create(target, temporary, NEW_FILE_MODE)
            .map_err(|(what, cause)| self.error(what, cause))
    }

    fn write_temporary(
        &self,
        target: &Path,
        temporary: &Path,
        content: &Content<'_>,
    ) -> Result<(File, Stamp), MapFileError> {
        let wrap = |what| move |error| self.error(what, error);
        let mut out = BufWriter::with_capacity(1 << 16, self.create_temporary(target, temporary)?);
        let Content { header, entries, said, gone } = *content;
        // Without overrides both are one map.
        let differences = if std::ptr::eq(entries, said) {
            Diff::default()
        } else {
            Diff::between(entries, said)
        };
        let changed = differences
            .moved
            .iter()
            .map(|(_, at)| at)
            .chain(&differences.added)
            .map(|at| *at as usize);
        let changed = changed.map(|at| (said.key(at), Said::Master(said.value(at))));
        let unknown = differences.removed.iter().map(|at| entries.key(*at as usize));
        let unknown =
            unknown.filter(|node| gone.get(node).is_none()).map(|node| (node, Said::Nothing));
        map_file::print(entries, header, changed.chain(unknown).chain(gone.said()), &mut out)
            .map_err(wrap("its replacement can't be written"))?;
        let file = out
            .into_inner()
            .map_err(|error| self.error("its replacement can't be written", error.into_error()))?;
        file.sync_all().map_err(wrap("its replacement can't be synced"))?;
        let stamp = Stamp::new(&file.metadata().map_err(wrap("its replacement can't be read"))?);
        Ok((file, stamp))
    }

    /// Whether the file could be replaced now, without doing so.
    pub fn probe(&self) -> Result<(), MapFileError> {
        let target = self.target();
        let temporary = temporary_path(&target);
        let result = self.create_temporary(&target, &temporary).map(drop);
        let _ = fs::remove_file(&temporary);
        result
    }
}

#[cfg(test)]
mod tests;
